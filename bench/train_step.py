"""A training step (forward, backward, AdamW) beside its peers, in float32, on random tokens.

small: 6 layers, 6 heads, 384 wide, context 256, vocabulary 4096, batch 8. 124M: GPT-2, batch 1, context 512.
All have the fused AdamW. The floor is the matrix products alone (peers.py).
"""

from functools import partial

from bench import peers
from bench.peers import Shape as Work
from bench.peers import stepping

UNIT, REFERENCE = "tokens/s", "ours"
WORKS = [
    Work("small", layers=6, heads=6, width=384, context=256, vocabulary=4096, batch=8),
    Work("124M", context=512),
]


def floor(work: Work):
    return peers.products(work, *work.tokens())


PEERS = {
    "ours": partial(stepping, peers.ours),
    "ours, llama shape": partial(stepping, peers.ours, preset="llama"),
    "nanoGPT": partial(stepping, peers.nanogpt),
    "transformers": partial(stepping, peers.transformers),
    "litgpt": partial(stepping, peers.litgpt),
    "floor": floor,
}
