"""Causal attention in bfloat16 on a CPU, by whole products: half the time of the fused kernel, which multiplies tiles.

Shapes: B batch, H heads, T tokens (queries and keys alike), D head size.

    P = softmax(s Q K^T + M)     O = P V     s = 1 / sqrt(D)            `attention.plain`, one row of B at a time

Its H T T weights stay in the processor's cache, and are made again on the way back.
"""

import math

import torch
from torch import Tensor

MOST_KEYS = 1024  # of a row that products suit; longer ones are the kernel's, which skips what is in the future


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """(B, H, T, D) three times -> (B, H, T, D), bfloat16. Differentiable once."""
    return _Products.apply(*(x.to(torch.bfloat16) for x in (q, k, v)))


def suit(q: Tensor, k: Tensor) -> bool:
    """Whether this is the quicker way for these rows."""
    if torch.compiler.is_compiling() or q.device.type != "cpu" or q.shape != k.shape or k.shape[2] > MOST_KEYS:
        return False
    narrow = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else q.dtype
    return narrow == torch.bfloat16


class _Products(torch.autograd.Function):
    """The formula above, and with G the gradient of O

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
