"""h + scale B A x twice: `plain` is the formula, `fast` adds it into h. Tested equal.

Shapes: N rows, I in, O out, r rank.

    A (r, I)        x (N, I) --- W0, frozen ---+--- h (N, O)
    B (O, r)        x -------- A --- B --------+               (Hu et al. 2021, section 4.1)
"""

import torch
from torch import Tensor


def plain(h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float | Tensor) -> Tensor:
    """h + scale B A x by the formula: h (N, O), x (N, I), A (r, I), B (O, r) -> (N, O).

    `scale` is a number, or (N, r): one a rank for every row. Added in the dtype of A, returned in that of h.

    >>> h, x, A, B = torch.randn(3, 5), torch.randn(3, 4), torch.randn(2, 4), torch.randn(5, 2)
    >>> torch.allclose(plain(h, x, A, B, 2.0), fast(h.clone(), x, A, B, 2.0), atol=1e-5)
    True
    """
    return (h + (x.to(A.dtype) @ A.T * scale) @ B.T).to(h.dtype)


def fast(h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float | Tensor) -> Tensor:
    """`plain`, added into `h` itself: no second (N, O) tensor, and for backward only x and the N x r products.

    `h` must be fresh, of nobody else's use. Where a cast is needed, or a tracer looks on, it is `plain`.
    """
    if h.is_meta or torch.compiler.is_compiling() or h._is_view():
        return plain(h, x, A, B, scale)
    if not h.dtype == x.dtype == A.dtype or torch.is_autocast_enabled(h.device.type):
        return plain(h, x, A, B, scale)
    if not torch.is_grad_enabled():
        if isinstance(scale, Tensor):
            return h.addmm_((x @ A.T).mul_(scale), B.T)
        return h.addmm_(x @ A.T, B.T, alpha=scale)
    return _AddLowRank.apply(h, x, A, B, scale)


class _AddLowRank(torch.autograd.Function):
    """With u = scale A x and g = dL/dh:  dB = g^T u,  du = scale (g B),  dA = du^T x,  dx = du A."""

    @staticmethod
    def forward(ctx, h: Tensor, x: Tensor, A: Tensor, B: Tensor, scale: float | Tensor) -> Tensor:
        u = (x @ A.T).mul_(scale)
        ctx.scale = scale
        ctx.save_for_backward(x if A.requires_grad else None, u if B.requires_grad else None, A, B)
        ctx.mark_dirty(h)
        return h.addmm_(u, B.T)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        x, u, A, B = ctx.saved_tensors
        du = (g @ B).mul_(ctx.scale)
        d_x = du @ A if ctx.needs_input_grad[1] else None
        d_A = du.T @ x if ctx.needs_input_grad[2] else None
        d_B = g.T @ u if ctx.needs_input_grad[3] else None
        return g, d_x, d_A, d_B, None
