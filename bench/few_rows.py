"""One pass over GPT-2's weights with few rows, by kernel: what generating text costs at least.

12 layers of q, k, v, o (768 -> 768), up (768 -> 3072), down, and the head (768 -> 50257): 73 products, 124M weights,
float32. The weights, 500 MB, are read from memory each time. serving: laid out by `minigpt.serving`.
"""

from dataclasses import dataclass
from functools import partial

UNIT, REFERENCE, ROUNDS = "tokens/s", "serving, float32", 15
C, V, LAYERS = 768, 50257, 12


@dataclass(frozen=True)
class Work:
    """`units` rows."""

    name: str
    units: int


WORKS = [Work(f"{rows} rows", rows) for rows in (1, 2, 4, 8, 16, 512)]


def passing(work: Work, kernel: str):
    """turn(): the 73 products of this kernel."""
    import torch

    from minigpt import linear, serving

    torch.manual_seed(0)
    layers = [linear.Linear(i, o) for _ in range(LAYERS) for i, o in [(C, C)] * 4 + [(C, 4 * C), (4 * C, C)]]
    layers.append(linear.Linear(C, V, bias=False))
    inputs = {size: torch.randn(work.units, size) for size in (C, 4 * C)}
    pairs = [(layer, _product(kernel, layer.weight, linear, serving)) for layer in layers]

    def turn():
        with torch.inference_mode():
            for layer, multiply in pairs:
                multiply(inputs[layer.in_features], layer.weight, layer.bias)

    return turn


def _product(kernel: str, weight, linear, serving):
    if kernel == "F.linear":
        return linear.plain
    if kernel == "linear.fast":
        return linear.fast
    kind = serving.KINDS[kernel.removeprefix("serving, ")]
    return kind(weight, linear.fast, kind.lay_out(weight.detach()))


KERNELS = ("F.linear", "linear.fast", "serving, float32", "serving, int8")
PEERS = {kernel: partial(passing, kernel=kernel) for kernel in KERNELS}
