"""What temperature, top-k and top-p leave of a distribution: the same eight tokens, before and after."""

import torch

from minigpt.generation.sampling import Sampler

WORDS = ("cough", "fever", "pain", "rash", "fatigue", "nausea", "chills", "gout")
CHANCES = (0.34, 0.22, 0.15, 0.11, 0.08, 0.05, 0.03, 0.02)
SAMPLERS = {
    "as the model has it": {},
    "temperature 0.5": {"temperature": 0.5},
    "temperature 2": {"temperature": 2.0},
    "top-k 3": {"top_k": 3},
    "top-p 0.8": {"top_p": 0.8},
    "min-p 0.5": {"min_p": 0.5},
}


def table() -> dict[str, list[float]]:
    """Name of a sampler -> the probability of each word.

    >>> [round(p, 2) for p in table()["top-k 3"]]
    [0.48, 0.31, 0.21, 0.0, 0.0, 0.0, 0.0, 0.0]
    """
    logits = torch.tensor([CHANCES]).log()
    return {name: Sampler(**options).probabilities(logits)[0].tolist() for name, options in SAMPLERS.items()}


def draw():
    from matplotlib.figure import Figure

    found = table()
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for place, (name, chances) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(2, 3, place)
        axes.bar(WORDS, chances, color=["#36c" if p else "#ccc" for p in chances], alpha=0.8)
        for word, p in enumerate(chances):
            axes.text(word, p, f"{p:.2f}" if p else "-", ha="center", va="bottom", fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.set_ylim(0, 0.72)
        axes.tick_params(axis="x", rotation=45, labelsize=7)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
    return figure
