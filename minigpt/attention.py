"""Masked attention twice, one signature: `plain` is the formula, `fast` the kernel. Tested equal.

Shapes: B batch, H query heads, G key/value heads (G divides H), T queries, L keys, D head size.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(D) + M) V        (Vaswani et al. 2017, section 3.2.1)

M is 0 where the boolean mask is True and -inf where it is False. mask=None means causal: each of the T queries,
which are the last T of the L keys, sees everything up to itself.
"""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from torch import Tensor

from minigpt import masks

MOST_KEYS = 1024  # of a row that products suit; longer ones are the kernel's, which skips what is in the future


def plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """The formula above, one line a symbol: (B, H, T, D), (B, G, L, D), (B, G, L, D) -> (B, H, T, D).

    >>> x = torch.randn(1, 2, 5, 4)
    >>> torch.allclose(plain(x, x, x), fast(x, x, x), atol=1e-6)
    True
    """
    group = q.shape[1] // k.shape[1]
    k = repeat(k, "b g l d -> b (g n) l d", n=group)
    v = repeat(v, "b g l d -> b (g n) l d", n=group)
    if mask is None:
        past = k.shape[2] - q.shape[2]
        i = past + torch.arange(q.shape[2], device=q.device)[:, None]
        mask = masks.causal(i, torch.arange(k.shape[2], device=q.device))
    scores = einsum(q, k, "b h t d, b h l d -> b h t l") / math.sqrt(q.shape[-1])
    weights = scores.masked_fill(~mask, -math.inf).softmax(dim=-1)
    weights = F.dropout(weights, dropout)
    return einsum(weights, v, "b h t l, b h l d -> b h t d")


def fast(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """`plain` by PyTorch's fused kernel, which never holds the T x L weights; short causal rows by `products`.

    Its is_causal aligns the first query with the first key, not the last with the last; so it serves only where
    queries and keys are as many. One query at the end of a cache sees all, and needs no mask.
    """
    n_queries, n_keys = q.shape[2], k.shape[2]
    is_causal = mask is None and n_queries == n_keys
    if is_causal and not dropout and _suits(q, k):
        return products(q, k, v)
    if mask is None and 1 < n_queries < n_keys:
        i = torch.arange(n_keys - n_queries, n_keys, device=q.device)[:, None]
        mask = masks.causal(i, torch.arange(n_keys, device=q.device))
    grouped = k.shape[1] != q.shape[1]
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=dropout, is_causal=is_causal, enable_gqa=grouped
    )


def products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal `plain` in bfloat16 on a CPU, one row of the batch after the other: its H T T weights stay in the cache.

    The fused kernel multiplies small tiles there; whole products take half its time, forward and back. Differentiable
    once.
    """
    return _Products.apply(*(x.to(torch.bfloat16) for x in (q, k, v)))


def _suits(q: Tensor, k: Tensor) -> bool:
    if torch.compiler.is_compiling() or q.device.type != "cpu" or q.shape != k.shape or k.shape[2] > MOST_KEYS:
        return False
    narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
    return narrow == torch.bfloat16


class _Products(torch.autograd.Function):
    """P = softmax(s Q K^T + M), O = P V. With G the gradient of O and s = 1 / sqrt(D)

        dV = P^T G     dS = P * (G V^T - sum_d G * O)     dQ = s dS K     dK = s dS^T Q

    P is made again on the way back, so that, as in the kernel, only Q, K, V and O are kept (Dao et al. 2022, app. B).
    """

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = torch.empty_like(q)
        for row, weights in enumerate(_weights(q, k)):
            out[row] = weights @ v[row]
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        q, k, v, out = ctx.saved_tensors
        d_q, d_k, d_v = (torch.empty_like(x) for x in (q, k, v))
        shared = (g * out).sum(-1, keepdim=True)
        for row, weights in enumerate(_weights(q, k)):
            d_v[row] = weights.mT @ g[row]
            d_scores = (g[row] @ v[row].mT).sub_(shared[row]).mul_(weights)
            d_q[row], d_k[row] = d_scores @ k[row], d_scores.mT @ q[row]
        scale = 1 / math.sqrt(q.shape[-1])
        return d_q.mul_(scale), d_k.mul_(scale), d_v


def _weights(q: Tensor, k: Tensor):
    """softmax(s Q K^T + M) of each row of the batch, (H, T, T)."""
    time, d_head = q.shape[2:]
    future = q.new_full((time, time), -math.inf).triu(1)
    for row in range(len(q)):
        yield torch.baddbmm(future, q[row], k[row].mT, alpha=1 / math.sqrt(d_head)).softmax(dim=-1)


def split_heads(x: Tensor, d_head: int) -> Tensor:
    """(B, T, H D) -> (B, H, T, D), a view."""
    return rearrange(x, "b t (h d) -> b h t d", d=d_head)


def join_heads(x: Tensor) -> Tensor:
    """(B, H, T, D) -> (B, T, H D), the inverse of `split_heads`."""
    return rearrange(x, "b h t d -> b t (h d)")
