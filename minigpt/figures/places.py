"""What a position does: learned vectors and how alike they are, or rotary pairs and how often each turns.

Shapes: T positions, C channels, D head size, D/2 pairs.

    alike[s, t] = p_s . p_t / (|p_s| |p_t|)               learned: near positions grow alike in training
    turns_i     = f_i T / 2 pi                            rotary: how often pair i goes round within the context
"""

import math

import torch
from torch import Tensor

from minigpt import positions, rope
from minigpt.config import GPTConfig

FACTOR = 4.0  # how far the scalings are stretched where the run has none of its own


def alike(table: Tensor, most: int = 256) -> Tensor:
    """Cosine of every two of the learned positions (T, C), of at most `most` evenly chosen ones."""
    table = table.detach().float()
    rows = table[torch.linspace(0, len(table) - 1, min(most, len(table))).round().long()]
    rows = rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return rows @ rows.T


def frequencies(config: GPTConfig) -> dict[str, Tensor]:
    """Radians a token of each pair, (D/2,): unscaled, and as every scaling has it for a text of `factor` contexts."""
    own = config.rope_scaling
    factor = own.factor if own else FACTOR
    before = getattr(own, "original", None) or (round(config.context / factor) if own else config.context)
    asked = {
        "unscaled": None,
        "linear": rope.Linear(factor=factor),
        "dynamic": rope.Dynamic(factor=factor, original=before),
        "yarn": rope.Yarn(factor=factor, original=before),
        "llama3": rope.Llama3(factor=factor, original=before),
    }
    if own:
        asked[own.kind] = own
    length = torch.tensor([[round(before * factor)]])
    return {
        name: positions.frequencies(config.d_head, config.rope_theta, scaling, length).flatten()
        for name, scaling in asked.items()
    }


def draw_learned(table: Tensor):
    """The matrix of likeness."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.add_subplot()
    edge = len(table) - 0.5
    shown = axes.imshow(alike(table).numpy(), cmap="RdBu_r", vmin=-1, vmax=1, extent=(-0.5, edge, edge, -0.5))
    axes.set(xlabel="position", ylabel="position")
    figure.colorbar(shown, ax=axes, label="cosine of the learned vectors")
    return figure


def draw_rotary(config: GPTConfig):
    """Left, how often each pair turns within the context; right, what each scaling makes of its speed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    found, styles = frequencies(config), ("-", "--", "-.", ":", "-")
    colours = ("#888", "#36c", "#393", "#c33", "#b70")
    for (name, each), colour, style in zip(found.items(), colours, styles, strict=True):
        mine = " (of this run)" if config.rope_scaling and name == config.rope_scaling.kind else ""
        line = {"color": colour, "linestyle": style, "label": name + mine, "linewidth": 1.4}
        left.plot((each.double() * config.context / (2 * math.pi)).tolist(), **line)
        right.plot((each / found["unscaled"]).tolist(), **line)
    left.axhline(1, color="#ccc", linewidth=0.8)
    left.set_yscale("log")
    left.set(xlabel="pair", ylabel=f"turns within {config.context:,} tokens")
    right.set(xlabel="pair", ylabel="speed, in parts of the unscaled", ylim=(0, 1.08))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(frameon=False, fontsize=8)
    return figure
