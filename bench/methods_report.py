"""The tables and the picture of bench/methods.py, from the result.json of its runs."""

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

from minigpt import svg
from minigpt.files import write_atomic

FAMILIES = {
    "weights": ("full", "top", "gradual", "head"),
    "beside the weights": ("lora", "qlora", "adapter"),
    "before the text": ("prompt", "ptuning", "prefix", "ptuning2"),
}
GUESSES = {
    "commonest": "the commonest class",
    "bayes": "TF-IDF, naive Bayes, whole texts",
    "bayes_cut": "the same, of the tokens the models see",
}
LINES = {"commonest": ":", "bayes": "-", "bayes_cut": "--"}
COLOURS = dict(zip(FAMILIES, ("#888", "#c33", "#36c"), strict=True))


@dataclass(frozen=True)
class Cell:
    """A method on a set, over the seeds that were run."""

    runs: list[dict]

    def mean(self, key: str) -> float:
        return statistics.mean(run[key] for run in self.runs)

    def spread(self, key: str) -> float:
        """Standard deviation over the seeds."""
        return statistics.stdev(run[key] for run in self.runs) if len(self.runs) > 1 else 0.0

    def __str__(self) -> str:
        few = f" ({len(self.runs)} seed{'s' * (len(self.runs) > 1)})" if len(self.runs) < 3 else ""
        spread = f" ± {100 * self.spread('accuracy'):.1f}" if len(self.runs) > 1 else ""
        return f"{100 * self.mean('accuracy'):.1f}{spread}; {self.f1()}{few}"

    def f1(self) -> str:
        return f"{100 * self.mean('macro_f1'):.1f}"


def read(out: Path) -> dict[tuple[str, str], Cell]:
    """(set, method) -> its runs."""
    found: dict[tuple[str, str], list[dict]] = {}
    for path in sorted((out / "runs").glob("*/*/result.json")):
        method = path.parent.name.rpartition("-")[0]
        found.setdefault((path.parents[1].name, method), []).append(json.loads(path.read_text(encoding="utf-8")))
    return {key: Cell(runs) for key, runs in found.items()}


def write(out: Path, baselines: dict[str, dict], methods: list[str]):
    """Print the tables, draw the picture."""
    cells, sets = read(out), list(baselines)
    print(quality(cells, baselines, methods), "\n")
    for name in sets:
        print(costs(name, cells, methods, out), "\n")
    if any(name in sets for name, _ in cells):
        write_atomic(out / "methods.svg", picture(cells, baselines, methods))
        print(f"{out / 'methods.svg'} shows it")


def quality(cells: dict, baselines: dict[str, dict], methods: list[str]) -> str:
    """Accuracy in percent, mean and standard deviation over the seeds; macro-F1 behind it."""
    lines = [f"| accuracy ± over seeds; macro-F1, % | {' | '.join(baselines)} |", "|---" * (len(baselines) + 1) + "|"]
    for who, title in GUESSES.items():
        given = [found[who] for found in baselines.values()]
        row = [f"{100 * each['accuracy']:.1f}; {100 * each['macro_f1']:.1f}" for each in given]
        lines.append(f"| {title} | {' | '.join(row)} |")
    for method in methods:
        row = [str(cells.get((name, method), "")) for name in baselines]
        if any(row):
            lines.append(f"| {method} | {' | '.join(row)} |")
    sizes = [f"{b['train']:,} / {b['validation']:,} / {b['classes']}" for b in baselines.values()]
    return "\n".join([*lines, f"| texts to learn from / to judge by / classes | {' | '.join(sizes)} |"])


def costs(name: str, cells: dict, methods: list[str], out: Path) -> str:
    """What each method learns, keeps and takes on one set; milliseconds a step where a run of one step was made."""
    lines = [f"| {name} | learned | stored bytes | peak MiB | processor seconds | ms a step |", "|---" * 6 + "|"]
    for method in methods:
        if cell := cells.get((name, method)):
            run = cell.runs[0]
            start = out / "start" / name / f"{method}-0" / "result.json"
            step = ""
            if start.is_file():
                spent = statistics.median(each["seconds"] for each in cell.runs)
                first = json.loads(start.read_text(encoding="utf-8"))["seconds"]
                step = f"{1000 * (spent - first) / (run['asked']['steps'] - 1):.0f}"
            numbers = f"{run['trains']:,} | {run['stored']:,} | {max(each['mib'] for each in cell.runs):,.0f}"
            lines.append(f"| {method} | {numbers} | {cell.mean('seconds'):.0f} | {step} |")
    return "\n".join(lines)


def picture(cells: dict, baselines: dict[str, dict], methods: list[str]) -> str:
    """Accuracy against the numbers that learn, a panel a set; bars span the seeds.

    The lines are naive Bayes (of whole texts; dashed: of what the models see) and the commonest class (dotted).
    """
    from matplotlib.figure import Figure

    names = [name for name in baselines if any(key[0] == name for key in cells)]
    figure = Figure(figsize=(4.2 * min(3, len(names)), 3.4 * -(-len(names) // 3)), layout="constrained")
    panels = figure.subplots(-(-len(names) // 3), min(3, len(names)), squeeze=False).flat
    for axes, name in zip(panels, names, strict=False):
        for who, style in LINES.items():
            axes.axhline(100 * baselines[name][who]["accuracy"], color="black", lw=0.8, ls=style)
        for family, members in FAMILIES.items():
            below = -10 if family == "before the text" else 5  # names that would lie on each other
            for method in (m for m in members if m in methods and (name, m) in cells):
                _point(axes, cells[name, method], method, COLOURS[family], below)
        axes.set_xscale("log")
        axes.margins(x=0.15)
        axes.set(title=name, xlabel="numbers that learn", ylabel="accuracy, %")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(panels):
        axes.set_axis_off()
    return svg.text_of(figure, salt="methods")


def _point(axes, cell: Cell, method: str, colour: str, below: int):
    values = [100 * run["accuracy"] for run in cell.runs]
    middle = statistics.mean(values)
    span = [[middle - min(values)], [max(values) - middle]]
    axes.errorbar([cell.runs[0]["trains"]], [middle], yerr=span, fmt="o", ms=5, color=colour, capsize=2)
    axes.annotate(method, (cell.runs[0]["trains"], middle), xytext=(5, below), textcoords="offset points", fontsize=8)
