"""Weights laid out once for the few rows of generating text: in float32, or in 8 bits.

Shapes: N rows (B T flattened, 1 to 8 when decoding), I in, O out.

    with serving(model): ...                    the same numbers, up to the order of their sums
    with serving(model, weights="int8"): ...    rounded weights and inputs: a quarter of the bytes to read

A product of few rows is as quick as its weights are read. Neither PyTorch's `F.linear` nor oneDNN on an ordinary
matrix gets near the speed of the memory; oneDNN on a matrix laid out in its own blocks does. One pass over the
weights of GPT-2 124M, tokens/s, the quickest of several runs on 2 shared cores of Zen 5 (`bench few_rows`):

    rows                  1     4     8    16
    F.linear             33    85   200   305
    linear.fast          43   162   351   593
    serving              91   322   510   869
    serving, int8       145   540   946  1533

A reader of 512 rows gains a tenth over `linear.fast`, so all rows take this way. In int8 a trained 4-layer model lost
0.0005 nats a token on 41,787 tokens of validation text, of 0.644.

The laid out weights are a second copy: 4 bytes a number, or 1. Nothing is laid out where it would not pay, or where
PyTorch lacks the operator: there the products stay what they were, int8 ones too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt import linear
from minigpt.errors import Error, nearest

WORTH = 1 << 19  # multiplications (for int8: weights) below which the 15 microseconds of preparing a call do not pay
TINY = torch.finfo(torch.float32).tiny


@contextmanager
def serving(model: nn.Module, weights: str = "float32") -> Iterator[None]:
    """Inside, the weights do not change, and products with them are quicker. At exit all is as before.

    Every `Linear` of the model that multiplies by `linear.fast` takes part: LoRA's bases and a tied head too, whose
    embedding stays as it is. Whoever writes into a weight inside gets products with the weight of before. Putting
    another tensor in its place is seen, as `lora.merge` does; so are gradients, autocast and other dtypes, and all
    of these go the usual way. A copy made inside is a usual model. `minigpt.loss` reads a head's weight by itself:
    to measure int8, take the logits.

    >>> from minigpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16)).eval()
    >>> with serving(model), torch.inference_mode():
    ...     logits = model(torch.tensor([[1, 2, 3]]))
    """
    if weights not in KINDS:
        raise Error(f"serving: weights={weights!r} is not a kind of weights; {nearest(str(weights), KINDS)}")
    ours = _lay_out(model, KINDS[weights])
    try:
        for module, product in ours:
            module.multiply = product
        yield
    finally:
        for module, product in ours:
            product.close(module)


class Product:
    """x W^T + b for the one W it was made of; `linear.fast` for any other, and wherever it cannot serve.

    before   what it stands in for
    laid     the weight as the operator wants it; None once closed
    """

    def __init__(self, weight: Tensor, before, laid):
        self.weight, self.before, self.laid = weight, before, laid

    def __call__(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if weight is not self.weight or self.laid is None or not self.suits(x) or _learns(x, weight, bias):
            return linear.fast(x, weight, bias)
        return self.product(x, bias)

    def suits(self, x: Tensor) -> bool:
        return (
            x.dtype == self.weight.dtype == torch.float32
            and x.is_cpu
            and self.weight.is_cpu
            and x.ndim > 1
            and self.worth(x)
            and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling()
        )

    def close(self, module: nn.Module):
        """Never serve again; the module gets back what was before, unless a `serving` that began later goes on."""
        self.laid, now = None, module.multiply
        if isinstance(now, Product) and now is not self and now.laid is not None:
            return
        while isinstance(self.before, Product) and self.before.laid is None:
            self.before = self.before.before
        module.multiply = self.before

    def __reduce__(self):
        return _usual, ()


class Float32(Product):
    """oneDNN's product with a weight in its blocked layout: `linear.plain`, up to the order of the sums."""

    def worth(self, x: Tensor) -> bool:
        return x.numel() * len(self.weight) >= WORTH

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return _blocked().multiply(x, self.laid, bias, "none", [], "")

    @staticmethod
    def lay_out(weight: Tensor):
        # For one row the operator would choose the ordinary layout, which is slower even at one row.
        return None if _blocked() is None else _blocked().reorder(weight, 8)


class Int8(Product):
    """`int8_plain` in whole numbers: rows of x are rounded to 8 bits as they come, each with a scale of its own.

    So a row does not depend on its neighbours, or on the padding. For every number of rows, so that reading a prompt
    and going on from it are one model.
    """

    def worth(self, x: Tensor) -> bool:
        return True

    def product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        q, scale, zeros = self.laid
        rounded, largest = quantize_rows(x)
        out = _int8().multiply(rounded, 1 / 127, 128, q, scale, zeros, None, 1.0, 0, torch.float32, "none", [], "")
        return out.mul_(largest) if bias is None else torch.addcmul(bias, out, largest)

    @staticmethod
    def lay_out(weight: Tensor):
        if weight.numel() < WORTH or _int8() is None or not weight.isfinite().all():
            return None
        q, scale = quantize(weight)
        return _int8().reorder(q, None), scale, torch.zeros(len(scale), dtype=torch.int64)


KINDS = {"float32": Float32, "int8": Int8}


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W (O, I) ~ scale q:  scale_o = max_i |W_oi| / 127,  q = round(W / scale) int8; off by at most scale_o / 2.

    >>> q, scale = quantize(torch.tensor([[1.27, -0.5], [0.0, 0.0]]))
    >>> q.tolist()
    [[127, -50], [0, 0]]
    """
    scale = (weight.abs().amax(1) / 127).clamp(min=TINY)
    return (weight / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., I) ~ largest (q - 128) / 127:  largest = max_i |x_i| (..., 1),  q uint8, halves rounded up."""
    largest = x.abs().amax(-1, keepdim=True).clamp(min=TINY)
    return torch.add(128.5, x / largest, alpha=127).to(torch.uint8), largest


def int8_plain(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x W^T + b with W and x in 8 bits, by the formula: what `Int8` computes.

    With W' = scale q, rounding x costs at most  max_i |x_i| / 254  sum_i |W'_oi|  in output o, rounding W at most
    scale_o / 2  sum_i |x_i|.

    >>> x, w = torch.randn(2, 64), torch.randn(8, 64)
    >>> (int8_plain(x, w) - linear.plain(x, w)).abs().max() < 1
    tensor(True)
    """
    q, scale = quantize(weight)
    rounded, largest = quantize_rows(x)
    return F.linear((rounded.to(x.dtype) - 128) * (largest / 127), q.to(x.dtype) * scale[:, None], bias)


def _lay_out(model: nn.Module, kind: type[Product]) -> list[tuple[nn.Module, Product]]:
    """A product for every layer that can have one; layers that share a weight share its copy."""
    done, ours = {}, []
    for module in model.modules():
        if not isinstance(module, linear.Linear) or not _usually(module.multiply):
            continue
        weight = module.weight
        if weight.dtype != torch.float32 or weight.device.type != "cpu" or weight.layout != torch.strided:
            continue
        if id(weight) not in done:
            outer = module.multiply
            again = type(outer) is kind and outer.weight is weight and outer.laid is not None
            done[id(weight)] = outer.laid if again else kind.lay_out(weight.detach())
        if done[id(weight)] is not None:
            ours.append((module, kind(weight, module.multiply, done[id(weight)])))
    return ours


def _usually(multiply) -> bool:
    return multiply is linear.fast or isinstance(multiply, Product)


def _usual():
    return linear.fast


def _learns(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in tensors)


class _Operators:
    """PyTorch's operator and the one that lays its weight out. Compiled models call them; they may change."""

    def __init__(self, family, reorder: str, multiply: str):
        self.reorder, self.multiply = getattr(family, reorder), getattr(family, multiply)


@cache
def _blocked() -> _Operators | None:
    """oneDNN's float32 linear, if it is there and gives what we think."""
    if not torch.backends.mkldnn.is_available():
        return None
    x, weight, bias = torch.ones(2, 32), torch.arange(48 * 32.0).view(48, 32), torch.ones(48)
    try:
        found = _Operators(torch.ops.mkldnn, "_reorder_linear_weight", "_linear_pointwise")
        out = found.multiply(x, found.reorder(weight, 8), bias, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return found if torch.equal(out, F.linear(x, weight, bias)) else None


@cache
def _int8() -> _Operators | None:
    """oneDNN's 8-bit linear, if it is there and its sums are whole: without VNNI they end at 32767, silently."""
    x, q = torch.full((2, 256), 255, dtype=torch.uint8), torch.full((64, 256), 127, dtype=torch.int8)
    q[::2] = -127
    scale, zeros = torch.ones(64), torch.zeros(64, dtype=torch.int64)
    try:
        found = _Operators(torch.ops.onednn, "qlinear_prepack", "qlinear_pointwise")
        laid = found.reorder(q, None)
        out = found.multiply(x, 1.0, 128, laid, scale, zeros, None, 1.0, 0, torch.float32, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    return found if torch.equal(out, (x.float() - 128) @ q.float().T) else None
