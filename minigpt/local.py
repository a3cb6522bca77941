"""Banded attention whose cost grows with the window, not with the text: a chunk of queries at a time.

Shapes: B batch, H heads, G key/value heads, T queries, L keys (the last T are the queries' own), D head size, W window.

    keys       . . . .|. . . .|# # # #|# # # #|. . . .      chunk n looks at itself and ceil((W - 1) / c) chunks before
    queries                           |# # # #|              c = 4, W = 4

T (W + c) scores in place of T L. Each chunk is made again in the backward pass: between the two, nothing is kept
but q, k and v, not even a mask. `attention.plain` is the twin.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from minigpt.masks import Band

LEAST, MOST = 64, 128  # queries of a chunk: shorter ones are too many calls, longer ones look at too much


def attend(q: Tensor, k: Tensor, v: Tensor, band: Band, dropout: float = 0.0) -> Tensor:
    """`attention.plain` under a band: by chunks; on a GPU, where it can, by flex attention in one kernel."""
    whole = q.shape[-1] == v.shape[-1] and q.shape[-1] in (16, 32, 64, 128, 256)
    if q.is_cuda and not dropout and whole and _flex() is not None:
        return flex(q, k, v, band, _flex())
    return chunked(q, k, v, band, dropout)


def chunked(q: Tensor, k: Tensor, v: Tensor, band: Band, dropout: float = 0.0) -> Tensor:
    """(B, H, T, D), (B, G, L, D), (B, G, L, D) -> (B, H, T, D).

    >>> from minigpt import attention
    >>> x, band = torch.randn(1, 2, 300, 4), Band(window=20, n_queries=300)
    >>> torch.allclose(chunked(x, x, x, band), attention.plain(x, x, x, band), atol=1e-6)
    True
    """
    size, past = max(LEAST, min(MOST, band.window)), k.shape[2] - q.shape[2]
    queries = q.split(size, 2)
    before = [past % size] * (past % size > 0) + [size] * (past // size)
    sizes = [*before, *(part.shape[2] for part in queries)]
    # Split, not slices of slices: the backward pass of a slice is as long as the whole.
    keys, values = k.split(sizes, 2), v.split(sizes, 2)
    first = [each[:, :, : band.sinks] for each in (k, v)]
    reach, parts = -(-(band.window - 1) // size), []
    for n, part in enumerate(queries):
        own = len(before) + n
        seen = slice(max(0, own - reach), own + 1)
        apart = min(band.sinks, sum(sizes[: seen.start]))  # first keys that are not among the chunk's anyway
        sinks = [each[:, :, :apart] for each in first]
        inputs = part, (sinks[0], *keys[seen]), (sinks[1], *values[seen]), band, n * size, dropout
        again = torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v))
        parts.append(checkpoint(_chunk, *inputs, use_reentrant=False) if again else _chunk(*inputs))
    return torch.cat(parts, 2)


def _chunk(q: Tensor, keys: tuple[Tensor, ...], values: tuple[Tensor, ...], band: Band, first: int, dropout: float):
    k, v = torch.cat(keys, 2), torch.cat(values, 2)
    apart = keys[0].shape[2]
    mask = F.pad(band.block(first, first + q.shape[2], k.shape[2] - apart), (apart, 0), value=True)
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout, enable_gqa=grouped)


def flex(q: Tensor, k: Tensor, v: Tensor, band: Band, kernel) -> Tensor:
    """The same by PyTorch's flex attention: blocks that nobody sees are skipped. `kernel` may be compiled."""
    return kernel(q, k, v, block_mask=band.blocks, enable_gqa=k.shape[1] != q.shape[1])


@cache
def _flex():
    """The compiled kernel; None where this PyTorch has none."""
    try:
        from torch.nn.attention.flex_attention import flex_attention
    except ImportError:
        return None
    return torch.compile(flex_attention, dynamic=False)
