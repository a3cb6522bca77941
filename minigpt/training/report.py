"""report.html: one file that shows a run to a person. Curves, samples, configuration, parameters, memory."""

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from minigpt import svg
from minigpt.files import write_atomic
from minigpt.training.log import read_metrics


def write_report(
    run: Path, title: str, lines: dict[str, float], tables: dict[str, dict], pictures: Sequence[dict] = ()
):
    """Write run/report.html from run/metrics.jsonl: self-contained, no script, opens anywhere.

    `lines` are flat lines of the loss figure (ln V, unigram entropy), `tables` name -> {row: value}, `pictures` more
    figures, {"svg", "caption"}. Text is escaped: a sample that looks like HTML is shown, not obeyed.
    """
    import jinja2

    template = resources.files(__package__).joinpath("report.html").read_text(encoding="utf-8")
    records = read_metrics(run)
    trained = [record for record in records if record["kind"] == "train"]
    evaluated = [record for record in records if record["kind"] == "eval"]
    finals = [record for record in records if record["kind"] == "final"] or evaluated
    samples = [record for record in records if record["kind"] == "sample"]
    page = (
        jinja2.Environment(autoescape=True)
        .from_string(template)
        .render(
            title=title,
            final=finals[-1] if finals else None,
            step=finals[-1]["step"] if finals else 0,
            figures=[*pictures, *(_figures(trained, evaluated, lines) if trained else [])],
            samples=samples[::-1],
            tables=[_table(name, rows) for name, rows in tables.items()],
        )
    )
    write_atomic(Path(run) / "report.html", page)


def smooth(values: list[float], window: int) -> list[float]:
    """Mean of the last `window` values at each place, fewer at the start.

    >>> smooth([1.0, 3.0, 5.0], 2)
    [1.0, 2.0, 4.0]
    """
    return [sum(values[max(0, i + 1 - window) : i + 1]) / min(i + 1, window) for i in range(len(values))]


def _figures(trained: list[dict], evaluated: list[dict], lines: dict[str, float]) -> list[dict]:
    steps, losses = [r["step"] for r in trained], [r["loss"] for r in trained]
    answers = bool(evaluated) and "accuracy" in evaluated[0]
    loss_figure = draw(
        "loss, nats" if answers else "loss, nats a token",
        [("training", steps, losses, "#bbb"), ("training, smoothed", steps, smooth(losses, 25), "#444")]
        + [("validation", [r["step"] for r in evaluated], [r["loss"] for r in evaluated], "#c33")],
        lines,
    )
    rate = draw("learning rate", [("", steps, [r["lr"] for r in trained], "#36c")], {})
    norm = draw("length of the gradient", [("", steps, [r.get("grad_norm") for r in trained], "#393")], {})
    return [
        *(_of_answers if answers else _of_text)(evaluated, loss_figure),
        {"svg": rate, "caption": "The learning rate: warm-up, then the schedule."},
        {"svg": norm, "caption": "The gradient before clipping: spikes that grow are the first sign of trouble."},
    ]  # fmt: skip


def _of_text(evaluated: list[dict], loss_figure: str) -> list[dict]:
    steps = [r["step"] for r in evaluated]
    bits = draw("bits per byte", [("validation", steps, [r["bits_per_byte"] for r in evaluated], "#c33")], {})
    return [
        {"svg": loss_figure, "caption": "The loss starts near ln V (knows nothing), passes the entropy of the token "
         "frequencies (knows which tokens are common), and what it gains below that it has learned from context."},
        {"svg": bits, "caption": "The same in bits per byte of text, which compares models with different tokenizers."},
    ]  # fmt: skip


def _of_answers(evaluated: list[dict], loss_figure: str) -> list[dict]:
    steps, curves = [r["step"] for r in evaluated], (("accuracy", "#c33"), ("macro_f1", "#36c"))
    right = draw(
        "of the validation records", [(n, steps, [r[n] for r in evaluated], colour) for n, colour in curves], {}
    )
    return [
        {"svg": loss_figure, "caption": "The loss of the answer, and lambda times that of the next token."},
        {"svg": right, "caption": "The share of right answers, and macro-F1, for which a rare class counts as much as "
         "a common one."},
    ]  # fmt: skip


def draw(label: str, curves: list[tuple], lines: dict[str, float], across: str = "step") -> str:
    """An SVG of curves (name, x, y, colour) and named flat lines."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, x, y, colour in curves:
        marker = "o" if len(x) < 20 else None
        axes.plot(x, y, color=colour, label=name or None, linewidth=1.3, marker=marker, markersize=3)
    for (name, value), style in zip(lines.items(), ("--", ":", "-."), strict=False):
        axes.axhline(value, color="#888", linestyle=style, linewidth=1, label=f"{name} = {value:.2f}")
    axes.set(xlabel=across, ylabel=label)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, fontsize=8)
    return svg.text_of(figure, salt=label)


def _table(title: str, rows: dict) -> dict:
    numbers = all(isinstance(value, int) for value in rows.values())
    shown = [(name, f"{value:,}" if isinstance(value, int) and numbers else value) for name, value in rows.items()]
    return {"title": title, "rows": shown, "numbers": numbers}


def loss_lines(vocab_size: int, entropy: float) -> dict[str, float]:
    """The two flat lines of the loss figure."""
    return {"ln V": math.log(vocab_size), "entropy of token frequencies": entropy}
