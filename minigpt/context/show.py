"""What `python -m minigpt.context` prints and draws."""

from collections.abc import Sequence

from minigpt import svg
from minigpt.context.lengths import Bucket
from minigpt.context.needle import Cell

COLOURS = ("#36c", "#c33", "#393", "#b70", "#83b", "#088", "#888")


def position_table(curves: dict[str, list[Bucket]]) -> str:
    """Perplexity by position, a row for each model."""
    buckets = next(iter(curves.values()))
    heads = [f"{bucket.start}-{bucket.end - 1}" for bucket in buckets]
    lines = [f"| tokens before | {' | '.join(heads)} |", "|---|" + "---|" * len(heads)]
    for name, found in curves.items():
        lines.append(f"| {name} | " + " | ".join(f"{bucket.perplexity:.2f}" for bucket in found) + " |")
    return "\n".join(lines)


def stride_table(found: dict[int, Bucket]) -> str:
    """Perplexity of whole texts by stride."""
    lines = ["| stride | perplexity | tokens |", "|---|---|---|"]
    lines += [f"| {stride} | {each.perplexity:.2f} | {each.tokens:,} |" for stride, each in found.items()]
    return "\n".join(lines)


def needle_table(cells: Sequence[Cell]) -> str:
    """Hits of trials, lengths down and depths across."""
    depths = sorted({each.depth for each in cells})
    lines = [
        "| tokens | " + " | ".join(f"depth {depth:.0%}" for depth in depths) + " |",
        "|---|" + "---|" * len(depths),
    ]
    for length in sorted({each.length for each in cells}):
        row = sorted((each for each in cells if each.length == length), key=lambda each: each.depth)
        lines.append(f"| {length} | " + " | ".join(f"{each.hits}/{each.trials}" for each in row) + " |")
    return "\n".join(lines)


def draw_positions(curves: dict[str, list[Bucket]], trained: int | None = None) -> str:
    """Perplexity over tokens before, both on a logarithmic scale; `trained` is where training ended."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.add_subplot()
    for place, (name, found) in enumerate(curves.items()):
        middle = [(bucket.start * bucket.end) ** 0.5 for bucket in found]
        perplexity = [bucket.perplexity for bucket in found]
        axes.plot(middle, perplexity, "o-", color=COLOURS[place % 7], label=name, linewidth=1.3, markersize=3)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.0f}")
        axis.set_minor_formatter("{x:.0f}" if axis is axes.yaxis else "")
    if trained:
        axes.axvline(trained, color="#888", linestyle=":", linewidth=1)
        axes.text(trained, axes.get_ylim()[1], " trained so far", va="top", color="#888", fontsize=8)
    axes.set(xlabel="tokens before", ylabel="perplexity")
    axes.spines[["top", "right"]].set_visible(False)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8)
    return svg.text_of(figure, salt="positions")


def draw_needle(grids: dict[str, Sequence[Cell]]) -> str:
    """How much of the candidates' probability the right value has: a panel for each model, from chance to all."""
    from matplotlib.figure import Figure

    cells = next(iter(grids.values()))
    lengths, depths = sorted({each.length for each in cells}), sorted({each.depth for each in cells})
    figure = Figure(figsize=(1.4 + 2.6 * len(grids), 1.2 + 0.45 * len(lengths)), layout="constrained")
    panels = figure.subplots(1, len(grids), squeeze=False)[0]
    for axes, (name, found) in zip(panels, grids.items(), strict=True):
        share = {(each.length, each.depth): each.share for each in found}
        shown = axes.imshow(
            [[share[length, depth] for depth in depths] for length in lengths], cmap="RdYlGn", vmin=0, vmax=1
        )
        for y, length in enumerate(lengths):
            for x, depth in enumerate(depths):
                axes.text(x, y, f"{share[length, depth]:.2f}", ha="center", va="center", fontsize=8)
        axes.set_xticks(range(len(depths)), [f"{depth:.0%}" for depth in depths], parse_math=False)
        axes.set_yticks(range(len(lengths)), lengths)
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_xlabel("depth of the fact")
    panels[0].set_ylabel("tokens of the note")
    figure.colorbar(shown, ax=list(panels), label="share of the right value", shrink=0.9)
    return svg.text_of(figure, salt="needle")
