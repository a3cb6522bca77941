"""The matrix product x W^T + b twice: `plain` is PyTorch's own, `fast` the same by oneDNN. Tested equal.

Shapes: N rows (B T flattened), I in, O out.

Nine tenths of a training step are this product. PyTorch's CPU build gives float32 products to MKL, which leaves the
wide registers (AVX-512) of processors that are not Intel's unused. oneDNN, which the same build carries for other
work, uses them: on an AMD Zen 5 it is 2.0 to 2.2 times as fast at any size worth the call. Where there is no AVX-512
(or no CPU), and for every other dtype, `fast` is `plain`.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WORTH = 1 << 20  # multiplications below which oneDNN's 15 microseconds of preparation do not pay


def plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b: (..., I), (O, I), (O,) -> (..., O).

    >>> x, w = torch.randn(256, 128), torch.randn(128, 128)
    >>> torch.allclose(plain(x, w), fast(x, w), atol=1e-4)
    True
    """
    return F.linear(x, weight, bias)


def fast(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`plain`, by the quicker of the two libraries, and so its gradients. Differentiable once."""
    if not _suits(x, weight):
        return F.linear(x, weight, bias)
    learns = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if learns and torch.is_grad_enabled():
        return _Product.apply(x, weight, bias)
    return _onednn()(x, weight, bias, "none", [], "")


class Linear(nn.Linear):
    """`nn.Linear` whose product is `fast`; set `multiply = linear.plain` to read or check it."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__(in_features, out_features, bias)
        self.multiply = fast

    def forward(self, x: Tensor) -> Tensor:
        return self.multiply(x, self.weight, self.bias)


class _Product(torch.autograd.Function):
    """dx = g W,  dW = g^T x,  db = sum of g's rows: three products of the same kind, with one side transposed."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight if x.requires_grad else None)
        return _onednn()(x, weight, bias, "none", [], "")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, g: Tensor):
        x, weight = ctx.saved_tensors
        d_x = fast(g, weight.T) if ctx.needs_input_grad[0] else None
        g = g.flatten(0, -2)
        d_weight = None
        if ctx.needs_input_grad[1]:
            x = x.flatten(0, -2)
            # The left side of a product is copied to be contiguous: let it be the narrower one.
            d_weight = fast(g.T, x.T) if g.shape[1] < x.shape[1] else fast(x.T, g.T).T
        return d_x, d_weight, g.sum(0) if ctx.needs_input_grad[2] else None


def _suits(x: Tensor, weight: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()  # first: what follows cannot be traced
        and x.dtype == weight.dtype == torch.float32
        and x.device.type == "cpu"
        and x.ndim > 1
        and x.numel() * len(weight) >= WORTH
        and _onednn() is not None
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def _onednn():
    """PyTorch's oneDNN linear, if this processor gains by it and it works as we think; else None.

    It is the operator that compiled models call; its underscore says that it may change, so it is tried first.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return None
    x, weight, bias = torch.ones(2, 3), torch.arange(12.0).view(4, 3), torch.ones(4)
    try:
        operator = torch.ops.mkldnn._linear_pointwise
        found = operator(x, weight, bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return operator if torch.equal(found, F.linear(x, weight, bias)) else None
