"""Results as a table for a document, and as a picture: bars of one work each, or curves over what grows."""

from bench.harness import Result, quartiles
from minigpt import svg

COLOURS = ("#36c", "#c33", "#393", "#a6c", "#c80", "#088", "#888")


def table(results: list[Result], reference: str, unit: str) -> str:
    """In Markdown. `reference is`: how many times as fast it is as this peer; in brackets the quartiles of rounds."""
    digits = 0 if min(result.speed for result in results) >= 100 else 1 if unit.endswith("/s") else 2
    lines = [f"| | | {unit} | {reference} is | peak MiB |", "|---|---|---|---|---|"]
    last = None
    for result in results:
        name, last = "" if result.work is last else result.work.name, result.work
        ratio = ""
        base = of(results, result.work, reference)
        if base is not None and base is not result:
            lower, upper = result.spread(base)
            ratio = f"{result.times(base):.2f}x ({lower:.2f} to {upper:.2f})"
        lines.append(f"| {name} | {result.peer} | {result.speed:,.{digits}f} | {ratio} | {result.peak_mib:,.0f} |")
    return "\n".join(lines)


def of(results: list[Result], work, peer: str) -> Result | None:
    """The one result of this work and peer."""
    return next((result for result in results if result.work is work and result.peer == peer), None)


def disagreements(results: list[Result]) -> list[str]:
    """Works whose peers should have returned the same and did not: those with the field `same`."""
    works = {result.work.name: result.work for result in results if getattr(result.work, "same", False)}
    found = []
    for name, work in works.items():
        told = [result for result in results if result.work is work and result.answers[0] is not None]
        answers = {result.peer: result.answers for result in told}
        if any(answer != next(iter(answers.values())) for answer in answers.values()):
            found.append(f"{name}: {' and '.join(answers)} did not write the same")
    return found


def draw(results: list[Result], unit: str) -> str:
    """An SVG: curves where the works are points of an `axis`, bars otherwise."""
    from matplotlib.figure import Figure

    axes = {getattr(result.work, "axis", result.work.name): [] for result in results}
    for result in results:
        axes[getattr(result.work, "axis", result.work.name)].append(result)
    figure = Figure(figsize=(1 + 3.2 * len(axes), 3.4), layout="constrained")
    peers = list(dict.fromkeys(result.peer for result in results))
    colours = {peer: COLOURS[number % len(COLOURS)] for number, peer in enumerate(peers)}
    for place, (name, group) in zip(figure.subplots(1, len(axes), squeeze=False)[0], axes.items(), strict=True):
        (_curves if hasattr(group[0].work, "axis") else _bars)(place, group, name, unit, colours)
        place.spines[["top", "right"]].set_visible(False)
    return svg.text_of(figure, salt="bench")


def _bars(place, group: list[Result], name: str, unit: str, colours: dict):
    """Speed by the median, with a line from its lower to its upper quartile."""
    for number, result in enumerate(group):
        place.barh(number, result.speed, color=colours[result.peer], alpha=0.6)
        place.plot([result.work.units / seconds for seconds in quartiles(result.seconds)], [number] * 2, color="black")
        place.text(0, number, f" {result.peer}", va="center", color="black", fontsize=8)
    place.invert_yaxis()
    place.set_yticks([])
    place.set_title(name, fontsize=9)
    place.set_xlabel(unit, fontsize=8)


def _curves(place, group: list[Result], name: str, unit: str, colours: dict):
    """Milliseconds of a turn over the size, both in powers of two."""
    for peer in dict.fromkeys(result.peer for result in group):
        points = sorted((result.work.at, 1000 * result.median) for result in group if result.peer == peer)
        place.plot(*zip(*points, strict=True), color=colours[peer], label=peer, marker="o", markersize=3)
    sizes = sorted({result.work.at for result in group})
    place.set_xscale("symlog" if sizes[0] == 0 else "log", base=2)
    place.set_yscale("log", base=2)
    place.set_xticks(sizes, map(str, sizes), fontsize=7)
    place.yaxis.set_major_formatter("{x:g}")
    place.minorticks_off()
    place.set_xlabel(name)
    place.set_ylabel("ms a turn", fontsize=8)
    place.legend(frameon=False, fontsize=7)
