"""A training step as the work grows: context, width, batch; ours beside transformers, float32, fused AdamW.

Around 4 layers, 4 heads, 256 wide, context 256, vocabulary 4096, batch 4, one of them grows and the others stay.
`--nanogpt DIR --peers 'ours;nanoGPT'` puts another beside.
"""

from dataclasses import dataclass

from bench.peers import Shape
from bench.train_step import PEERS as ALL

UNIT, REFERENCE = "tokens/s", "ours"
BASE = {"layers": 4, "heads": 4, "width": 256, "context": 256, "vocabulary": 4096, "batch": 4}
SIZES = {"context": (64, 128, 256, 512, 1024), "width": (64, 128, 256, 512, 768), "batch": (1, 2, 4, 8, 16)}


@dataclass(frozen=True)
class Work(Shape):
    """`axis` is what grows, `at` how large it is."""

    axis: str = ""
    at: int = 0


WORKS = [
    Work(f"{axis} {size}", **BASE | {axis: size}, axis=axis, at=size) for axis, sizes in SIZES.items() for size in sizes
]
PEERS = {name: ALL[name] for name in ("ours", "transformers", "nanoGPT")}
