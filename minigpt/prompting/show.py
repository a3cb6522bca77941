"""Trials as a table, as a record for scripts, and as a picture."""

from collections.abc import Sequence

from minigpt import svg
from minigpt.prompting.trial import Trial, spread


def table(trials: Sequence[Trial], baseline: float) -> str:
    """A table of Markdown, and the spread over templates below it where there are several."""
    lines = ["| template | shots | fitted | tokens | accuracy | macro-F1 |", "|---|---|---|---|---|---|"]
    for trial in trials:
        numbers = f"{trial.fitted:.1f} | {trial.tokens:.0f} | {trial.scores.accuracy:.3f} | {trial.scores.macro_f1:.3f}"
        lines.append(f"| {trial.template} | {trial.shots} | {numbers} |")
    lines.append(f"| (always the commonest label) | | | | {baseline:.3f} | |")
    if len({trial.template for trial in trials}) > 1:
        lines += ["", "| shots | accuracy over templates: lowest / median / highest |", "|---|---|"]
        lines += [f"| {each.shots} | {each} |" for each in spread(trials)]
    return "\n".join(lines)


def record(trials: Sequence[Trial], names: Sequence[str], baseline: float, settings: dict) -> dict:
    """All of it; confusion matrices have the truth in their rows."""
    return {
        "settings": settings,
        "labels": list(names),
        "commonest_label_accuracy": baseline,
        "trials": [
            {
                "template": trial.template,
                "shots": trial.shots,
                "fitted": trial.fitted,
                "tokens": trial.tokens,
                "accuracy": trial.scores.accuracy,
                "macro_f1": trial.scores.macro_f1,
                "confusion": trial.scores.matrix.tolist(),
            }
            for trial in trials
        ],
        "over_templates": [
            {"shots": each.shots, "lowest": each.lowest, "median": each.median, "highest": each.highest}
            for each in spread(trials)
        ],
    }


def picture(trials: Sequence[Trial], baseline: float) -> str:
    """Accuracy by shots: a line for each template, the span between best and worst shaded, the median in black."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    spans = spread(trials)
    shots = [each.shots for each in spans]
    place = {count: x for x, count in enumerate(shots)}
    axes.fill_between(range(len(shots)), [e.lowest for e in spans], [e.highest for e in spans], color="#ddd")
    for name in dict.fromkeys(trial.template for trial in trials):
        own = [trial for trial in trials if trial.template == name]
        axes.plot([place[t.shots] for t in own], [t.scores.accuracy for t in own], marker="o", ms=4, lw=1, label=name)
    axes.plot(range(len(shots)), [each.median for each in spans], color="black", lw=2, label="median")
    axes.axhline(baseline, color="#999", lw=1, ls="--", label="commonest label")
    axes.set_xticks(range(len(shots)), list(map(str, shots)))
    axes.set(xlabel="examples in the prompt", ylabel="accuracy", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8)
    for text in axes.get_legend().get_texts():
        text.set_parse_math(False)
    return svg.text_of(figure, salt="prompting")
