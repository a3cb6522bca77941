"""Where each token looks: the attention weights of a text, a square for each layer and head.

Shapes: N layers, H heads, T tokens; a row of a square is a query, and adds up to 1.
"""

from collections.abc import Sequence

from torch import Tensor

MOST = 6  # layers and heads that are shown; of more, evenly chosen ones
LONGEST = 40  # tokens whose labels can still be read


def chosen(count: int, most: int = MOST) -> list[int]:
    """Which of `count` are shown: all, or `most` of them from the first to the last.

    >>> chosen(3), chosen(12, 4)
    ([0, 1, 2], [0, 4, 7, 11])
    """
    return list(range(count)) if count <= most else [round(k * (count - 1) / (most - 1)) for k in range(most)]


def draw(weights: Tensor, labels: Sequence[str]):
    """(N, H, T, T): layers downwards, heads to the right, darker is more."""
    from matplotlib.figure import Figure

    layers, heads, n = chosen(len(weights)), chosen(weights.shape[1]), len(labels)
    side = max(1.5, 0.13 * n)
    edge = 0.08 * max(map(len, labels)) + 0.6
    size = (side * len(heads) + edge, (side + 0.3) * len(layers) + edge)
    figure = Figure(figsize=size, layout="constrained")
    for y, (row, layer) in enumerate(zip(figure.subplots(len(layers), len(heads), squeeze=False), layers, strict=True)):
        for x, (axes, head) in enumerate(zip(row, heads, strict=True)):
            axes.imshow(weights[layer, head].numpy(), cmap="Blues", vmin=0, vmax=1)
            axes.set_title(f"layer {layer}, head {head}", fontsize=7)
            axes.set_xticks(range(n) if y == len(layers) - 1 else [])
            axes.set_yticks(range(n) if x == 0 else [])
            if y == len(layers) - 1:
                axes.set_xticklabels(labels, fontsize=6, rotation=90, parse_math=False)
            if x == 0:
                axes.set_yticklabels(labels, fontsize=6, parse_math=False)
    return figure
