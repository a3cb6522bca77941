"""Curves over the steps of a run: loss with its floors, and the learning rate. report.html shows the same.

ln V                              knows nothing: every token as likely as any other
entropy of token frequencies      knows which tokens are common, and nothing of context
"""

from collections.abc import Sequence

from minigpt.training.schedule import SCHEDULES, ScheduleConfig, learning_rate

COLOURS = ("#c33", "#36c", "#393", "#888")


def smooth(values: list[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place, fewer at the start.

    >>> smooth([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def curves(label: str, lines: Sequence[tuple], floors: dict[str, float], across: str = "step"):
    """A figure of lines (name, x, y, colour) and named flat ones."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, x, y, colour in lines:
        marker = "o" if len(x) < 20 else None
        axes.plot(x, y, color=colour, label=name or None, linewidth=1.3, marker=marker, markersize=3)
    for (name, value), style in zip(floors.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color="#888", linestyle=style, linewidth=1, label=f"{name} = {value:.2f}")
    axes.set(xlabel=across, ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        # Above the axes: ln V is a flat line at their upper edge.
        axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=8)
    return figure


def learning(trained: list[dict], evaluated: list[dict], floors: dict[str, float]):
    """The loss of training and validation, from the records of metrics.jsonl."""
    steps, losses = [r["step"] for r in trained], [r["loss"] for r in trained]
    lines = [("training", steps, losses, "#bbb"), ("training, smoothed", steps, smooth(losses, 25), "#444")]
    lines += [("validation", [r["step"] for r in evaluated], [r["loss"] for r in evaluated], "#c33")]
    return curves(loss_label(evaluated), lines, floors)


def loss_label(evaluated: list[dict]) -> str:
    return "loss, nats" if evaluated and "accuracy" in evaluated[0] else "loss, nats a token"


def rate(trained: list[dict]):
    """The learning rate as it was recorded."""
    return curves("learning rate", [("", [r["step"] for r in trained], [r["lr"] for r in trained], "#36c")], {})


def schedules(steps: int = 1000):
    """All schedules side by side, with their default settings."""
    x = list(range(steps))
    made = [(name, ScheduleConfig(schedule=name, lr=1.0)) for name in SCHEDULES]
    lines = [
        (name, x, [learning_rate(step, steps, config) for step in x], colour)
        for (name, config), colour in zip(made, COLOURS, strict=True)
    ]
    return curves("learning rate, in parts of --lr", lines, {})
