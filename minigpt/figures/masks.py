"""What each token may see, as the model of a configuration has it: a square for each kind of mask.

Shapes: T queries downwards, L keys to the right; filled: sees. A window wider than the picture is drawn narrower.
"""

import torch
from torch import Tensor

from minigpt import masks
from minigpt.config import GPTConfig

TOKENS, PREFIX, PADDING = 16, 4, 4


def grids(config: GPTConfig, n: int = TOKENS) -> dict[str, Tensor]:
    """Name -> what is seen, (T, L) bool; a cache of PREFIX entries stands before the keys of the last.

    >>> from minigpt import GPTConfig
    >>> [(name, tuple(grid.shape)) for name, grid in grids(GPTConfig(), 6).items()][-1]
    ('after a prefix', (6, 10))
    """
    plain = torch.ones(1, n, dtype=torch.bool)
    keep = plain.clone()
    keep[:, : min(PADDING, n // 2)] = False
    documents = torch.arange(n)[None] * 2 // n
    found = {"causal": _written(n, keep=plain)}
    if config.banded_layers:
        window = min(config.window, max(2, n // 4))
        sinks = min(config.sinks, 2)
        name = f"{config.pattern}, window {config.window}" + (f", {config.sinks} sinks" if config.sinks else "")
        name += "" if (window, sinks) == (config.window, config.sinks) else f"\n(drawn as {window} and {sinks})"
        found[name] = _written(n, keep=plain, window=window, pattern=config.pattern, sinks=sinks)
    found["two documents"] = _written(n, documents=documents)
    found["padding on the left"] = _written(n, keep=keep)
    found["after a prefix"] = _written(n, past=PREFIX, keep=torch.ones(1, PREFIX + n, dtype=torch.bool))
    return found


def _written(n: int, past: int = 0, **rules) -> Tensor:
    return masks.build(n, past, **rules)[0, 0]


def draw(config: GPTConfig):
    """The squares side by side."""
    from matplotlib.figure import Figure

    found = grids(config)
    figure = Figure(figsize=(2.5 * len(found), 3), layout="constrained")
    widths = {"width_ratios": [grid.shape[1] for grid in found.values()]}
    panels = figure.subplots(1, len(found), squeeze=False, gridspec_kw=widths)[0]
    for axes, (name, grid) in zip(panels, found.items(), strict=True):
        axes.pcolormesh(grid.numpy(), cmap="Blues", vmin=0, vmax=1.3, edgecolors="#ddd", linewidth=0.4)
        axes.invert_yaxis()
        axes.set_aspect("equal")
        axes.set_xticks([x + 0.5 for x in range(0, grid.shape[1], 4)], range(0, grid.shape[1], 4))
        axes.set_yticks([y + 0.5 for y in range(0, len(grid), 4)], range(0, len(grid), 4))
        axes.set_title(name, fontsize=9, parse_math=False)
        axes.set_xlabel("key", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.axes[0].set_ylabel("query", fontsize=8)
    return figure
