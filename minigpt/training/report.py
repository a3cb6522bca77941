"""report.html: one file that shows a run to a person. Curves, samples, configuration, parameters, memory."""

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from minigpt import svg
from minigpt.figures.curves import curves, learning, loss_label, rate
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


def _figures(trained: list[dict], evaluated: list[dict], lines: dict[str, float]) -> list[dict]:
    answers = bool(evaluated) and "accuracy" in evaluated[0]
    steps = [r["step"] for r in trained]
    loss_figure = svg.text_of(learning(trained, evaluated, lines), salt=loss_label(evaluated))
    rate_figure = svg.text_of(rate(trained), salt="learning rate")
    norm = draw("length of the gradient", [("", steps, [r.get("grad_norm") for r in trained], "#393")], {})
    return [
        *(_of_answers if answers else _of_text)(evaluated, loss_figure),
        {"svg": rate_figure, "caption": "The learning rate: warm-up, then the schedule."},
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


def draw(label: str, lines: list[tuple], floors: dict[str, float], across: str = "step") -> str:
    """`curves` as an SVG."""
    return svg.text_of(curves(label, lines, floors, across), salt=label)


def _table(title: str, rows: dict) -> dict:
    numbers = all(isinstance(value, int) for value in rows.values())
    shown = [(name, f"{value:,}" if isinstance(value, int) and numbers else value) for name, value in rows.items()]
    return {"title": title, "rows": shown, "numbers": numbers}


def loss_lines(vocab_size: int, entropy: float) -> dict[str, float]:
    """The two flat lines of the loss figure."""
    return {"ln V": math.log(vocab_size), "entropy of token frequencies": entropy}
