"""Masked attention twice, one signature: `plain` is the formula, `fast` the kernel. Tested equal.

Shapes: B batch, H query heads, G key/value heads (G divides H), T queries, L keys, D head size.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(D) + M) V        (Vaswani et al. 2017, section 3.2.1)

M is 0 where the boolean mask is True and -inf where it is False. mask=None means causal: each of the T queries,
which are the last T of the L keys, sees everything up to itself. A `masks.Band` is a mask that is not written out.
"""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor

from minigpt import local, masks, products
from minigpt.masks import Band, Sinks
from minigpt.positions import rotate


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Band | Sinks | None = None, dropout: float = 0.0) -> Tensor:
    """The formula above, one line a symbol: (B, H, T, D), (B, G, L, D), (B, G, L, D) -> (B, H, T, D).

    >>> x = torch.randn(1, 2, 5, 4)
    >>> torch.allclose(plain(x, x, x), fast(x, x, x), atol=1e-6)
    True
    """
    v = repeat(v, "b g l d -> b (g n) l d", n=q.shape[1] // k.shape[1])
    return einsum(F.dropout(weights(q, k, mask), dropout), v, "b h t l, b h l d -> b h t d")


def weights(q: Tensor, k: Tensor, mask: Tensor | Band | Sinks | None = None) -> Tensor:
    """softmax(Q K^T / sqrt(D) + M): how much each query takes of each key, (B, H, T, L); a row adds up to 1.

    >>> x = torch.randn(1, 2, 5, 4)
    >>> torch.allclose(weights(x, x).sum(-1), torch.ones(1, 2, 5))
    True
    """
    if isinstance(mask, Sinks):
        return weights(*widen(q, k, mask), mask.mask)
    k = repeat(k, "b g l d -> b (g n) l d", n=q.shape[1] // k.shape[1])
    if mask is None:
        past = k.shape[2] - q.shape[2]
        i = past + torch.arange(q.shape[2], device=q.device)[:, None]
        mask = masks.causal(i, torch.arange(k.shape[2], device=q.device))
    elif isinstance(mask, Band):
        mask = mask.dense()
    scores = einsum(q, k, "b h t d, b h l d -> b h t l") / math.sqrt(q.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(dim=-1)


def fast(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | Band | Sinks | None = None, dropout: float = 0.0) -> Tensor:
    """`plain` by PyTorch's fused kernel, which never holds the T x L weights; short causal rows by products.py.

    Its is_causal aligns the first query with the first key, not the last with the last; so it serves only where
    queries and keys are as many. One query at the end of a cache sees all, and needs no mask. Under a band it is
    computed a chunk at a time (local.py).
    """
    if isinstance(mask, Sinks):
        return fast(*widen(q, k, mask), v, mask.mask, dropout)
    if isinstance(mask, Band):
        if mask.pays:
            return local.attend(q, k, v, mask, dropout)
        mask = mask.dense()
    n_queries, n_keys = q.shape[2], k.shape[2]
    is_causal = mask is None and n_queries == n_keys
    if is_causal and not dropout and products.suit(q, k):
        return products.attend(q, k, v)
    if mask is None and 1 < n_queries < n_keys:
        i = torch.arange(n_keys - n_queries, n_keys, device=q.device)[:, None]
        mask = masks.causal(i, torch.arange(n_keys, device=q.device))
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, enable_gqa=grouped
    )


def widen(q: Tensor, k: Tensor, mask: Sinks) -> tuple[Tensor, Tensor]:
    """Heads of 2 D: one half of a query speaks to the first tokens, turned back; the other to the rest. In one product

        [q ; turned back q] . [k ; 0]  for the rest        [q ; turned back q] . [0 ; k]  for the first tokens

    The kernel divides by sqrt(2 D), so q is multiplied by sqrt(2).
    """
    first = mask.first[:, None, :, None]
    both = torch.cat((q, rotate(q, mask.back)), -1) * math.sqrt(2)
    return both, torch.cat((k.masked_fill(first, 0), k.masked_fill(~first, 0)), -1)


def split_heads(x: Tensor, d_head: int) -> Tensor:
    """(B, T, H D) -> (B, H, T, D), a view."""
    return rearrange(x, "b t (h d) -> b h t d", d=d_head)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H D), the inverse of `split_heads`."""
    return rearrange(x, "b h t d -> b t (h d)")
