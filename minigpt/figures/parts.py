"""Where the parameters of a model are: shares of embeddings, attention, feed-forward and norms."""

import torch

from minigpt import presets
from minigpt.config import GPTConfig
from minigpt.model import GPT

PARTS = ("token embedding", "positions", "attention", "feed-forward", "norms")
COLORS = ("#7a9e3a", "#c9b037", "#36c", "#c4622d", "#888")


def shares(config: GPTConfig) -> dict[str, float]:
    """Part -> its share of the parameters; a tied head is the embedding.

    >>> {part: round(share, 2) for part, share in shares(presets.gpt2("small")).items()}
    {'token embedding': 0.31, 'positions': 0.01, 'attention': 0.23, 'feed-forward': 0.46, 'norms': 0.0}
    """
    counts = dict.fromkeys(PARTS, 0)
    with torch.device("meta"):
        for name, weight in GPT(config).named_parameters():
            counts[_part(name)] += weight.numel()
    total = sum(counts.values())
    return {part: count / total for part, count in counts.items()}


def _part(name: str) -> str:
    if "norm" in name:
        return "norms"
    if ".attn." in name:
        return "attention"
    if ".mlp." in name:
        return "feed-forward"
    return "positions" if name.startswith("position") else "token embedding"


def draw():
    from matplotlib.figure import Figure

    models = {"GPT-1": presets.gpt1()}
    models |= {f"GPT-2 {size}": presets.gpt2(size) for size in ("small", "medium", "xl")}
    models |= {"GPT-3 175B": presets.gpt3("175B")}
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    axes, left = figure.add_subplot(), [0.0] * len(models)
    found = {name: shares(config) for name, config in models.items()}
    for part, color in zip(PARTS, COLORS, strict=True):
        widths = [100 * each[part] for each in found.values()]
        axes.barh(list(models), widths, left=left, color=color, label=part, alpha=0.85)
        for place, (start, width) in enumerate(zip(left, widths, strict=True)):
            if width > 4:
                axes.text(start + width / 2, place, f"{width:.0f}", ha="center", va="center", fontsize=8, color="#111")
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("% of the parameters")
    axes.legend(ncols=5, loc="lower center", bbox_to_anchor=(0.5, 1), frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
