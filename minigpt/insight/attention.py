"""Where each token looks: the attention weights of every layer and head.

Shapes: N layers, B batch, H heads, T tokens, K keys: the tokens, and before them
the entries of a prefix, if there is one.

    weights_h[t, j] = softmax_j(q_t . k_j / sqrt(D) + M)       how much of v_j goes into what head h says at t

A row adds up to 1. What a head looks at is not yet what it does: a value may be small, and the residual goes past it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt import attention
from minigpt.generation.reader import evaluating
from minigpt.model import GPT, Attention


def attention_weights(model: GPT, tokens: Tensor, **openings) -> Tensor:
    """Of every layer and head, (B, T) int64 -> (N, B, H, T, K) float32. The openings are those of `GPT.hidden`.

    Dropout is off. Adapters at work take part; a prefix is the P columns in front.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> weights = attention_weights(model, torch.tensor([[1, 2, 3]]))
    >>> weights.shape, weights[0, 0, 0, 0].tolist()
    (torch.Size([2, 1, 2, 3, 3]), [1.0, 0.0, 0.0])
    """
    with evaluating(model), _watching(model) as seen:
        model.hidden(tokens, **openings)
    most = max(each.shape[-1] for each in seen)  # a banded layer that was given a cache may hold fewer keys
    return torch.stack([F.pad(each.float(), (most - each.shape[-1], 0)) for each in seen])


class _Watcher:
    """Attention by the formula, whose weights are kept."""

    def __init__(self, seen: list[Tensor]):
        self.seen = seen

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask=None, dropout: float = 0.0) -> Tensor:
        self.seen.append(attention.weights(q.float(), k.float(), mask))  # 16 bits would not add up to 1
        return attention.plain(q, k, v, mask)


@contextmanager
def _watching(model: GPT) -> Iterator[list[Tensor]]:
    seen = []
    layers = [(module, module.attend) for module in model.modules() if isinstance(module, Attention)]
    try:
        for module, _ in layers:
            module.attend = _Watcher(seen)
        yield seen
    finally:
        for module, attend in layers:
            module.attend = attend
