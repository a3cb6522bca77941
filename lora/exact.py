"""W + scale B A, correctly rounded: the arithmetic that merging and verifying share.

Shapes: O out, I in, r rank; a weight is (O, I), or (I, O) where `transposed` (Conv1D, embeddings).

The sum is made in float64 and rounded once to the dtype of W, so that every element is the nearest number there is:
at most half a unit in the last place from the truth. Adding in the dtype of W instead gets every seventh element of a
float32 matrix wrong, and every tenth of a 16-bit one.

Two traps. `tensor64.to(torch.bfloat16)` rounds twice, first to float32: see `round_once`. And W + 0 is not W when W is
-0: where the update is zero, W is kept as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lora.errors import Error

CHUNK = 1 << 18  # elements in float64 at a time: 2 MiB, which stays in the processor's cache
U64 = 2.0**-53  # half a unit in the last place of float64
# Half a unit in the last place, and half of the smallest number there is (for results too small to be normal).
UNIT = {torch.float64: U64, torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
TINY = {torch.float64: 2.0**-1075, torch.float32: 2.0**-150, torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}


@dataclass(frozen=True)
class Update:
    """What an adapter does to one weight: W' = W + scale B A, of which DoRA changes the length of every row.

    A (r, I), B (O, r), any float dtype; magnitude (O,) with DoRA: W' = magnitude (W + scale B A) / |W + scale B A|,
    row by row. A weight of an Embedding or Conv1D is stored (I, O): then it gets (B A)^T.
    """

    A: Tensor
    B: Tensor
    scale: float
    transposed: bool = False
    magnitude: Tensor | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight this belongs to, as stored."""
        out, into = self.B.shape[0], self.A.shape[1]
        return (into, out) if self.transposed else (out, into)

    def factors(self) -> tuple[Tensor, Tensor]:
        """float64 (left, right) of which the update is scale * left @ right, oriented as the weight."""
        A, B = self.A.detach().double(), self.B.detach().double()
        return (A.T, B.T) if self.transposed else (B, A)


def round_once(x: Tensor, dtype: torch.dtype) -> Tensor:
    """float64 -> `dtype`, to the nearest, ties to even.

    torch goes to 16 bits through float32, and two roundings are not one: 0.005846023747374811 becomes the float16
    below the nearest. Rounding to odd on the way (Boldo & Melquiond 2008) keeps in the last bit of the float32 that
    something was cut off, and the second rounding then goes the right way.

    >>> x = torch.tensor([0.005846023747374811], dtype=torch.float64)
    >>> x.to(torch.float16).item(), round_once(x, torch.float16).item()
    (0.005844116210937..., 0.00584793090820...)
    """
    if dtype in (torch.float64, torch.float32):
        return x.to(dtype)
    near = x.float()
    back = near.double()
    bits = near.view(torch.int32)
    bits -= (back.abs() > x.abs()).int()  # toward zero: one float32 down in magnitude
    bits |= (back != x).int()
    return near.to(dtype)


def row_blocks(shape: tuple[int, int]) -> Iterator[slice]:
    """Slices of rows that hold about CHUNK elements each."""
    rows = max(1, CHUNK // max(1, shape[1]))
    for start in range(0, shape[0], rows):
        yield slice(start, min(start + rows, shape[0]))


class Sum:
    """W + scale B A in float64, a block of rows at a time: `truth(rows)`; and how far float64 may be off: `doubt`."""

    def __init__(self, weight: Tensor, update: Update):
        self.weight, self.update = weight, update
        self.left, self.right = update.factors()
        self.stretch = self.wobble = None
        if update.magnitude is not None:
            self.stretch, self.wobble = self._stretch()

    def truth(self, rows: slice) -> tuple[Tensor, Tensor]:
        """float64 (W, W') of these rows; W' is W itself, zeros and their signs, where nothing is added."""
        weight = self.weight[rows].detach().double()
        delta = self.left[rows] @ self.right
        merged = delta.mul_(self.update.scale).add_(weight)
        if self.stretch is not None:
            merged *= self.stretch if self.update.transposed else self.stretch[rows, None]
        return weight, merged

    def size(self, rows: slice) -> Tensor:
        """|W| + |scale| |B| |A|: what rounding errors are measured against, however much cancels in the sum."""
        size = self.left[rows].abs() @ self.right.abs()
        size.mul_(abs(self.update.scale)).add_(self.weight[rows].detach().double().abs())
        if self.stretch is not None:
            size *= self.stretch.abs() if self.update.transposed else self.stretch[rows, None].abs()
        return size

    def doubt(self, rows: slice) -> Tensor:
        """How far `truth` may be from the sum of infinitely many digits: r products and r + 2 sums in float64."""
        relative = (self.update.A.shape[0] + 4) * U64
        if self.stretch is None:
            return self.size(rows).mul_(relative)
        wobble = self.wobble if self.update.transposed else self.wobble[rows, None]
        return self.size(rows).mul_(relative * (1 + wobble)).add_(self.truth(rows)[1].abs_().mul_(wobble))

    def _stretch(self) -> tuple[Tensor, Tensor]:
        """magnitude / |W + scale B A|, (O,), and how far off it may be, relatively: much, where a row cancels."""
        square, size = torch.zeros(2, *self.update.magnitude.shape, dtype=torch.float64, device=self.weight.device)
        for rows in row_blocks(self.update.shape):
            whole = (self.left[rows] @ self.right).mul_(self.update.scale).add_(self.weight[rows].detach().double())
            for total, part in ((square, whole), (size, self.size(rows))):
                if self.update.transposed:
                    total += part.square().sum(0)
                else:
                    total[rows] = part.square().sum(1)
        r, n_in = self.update.A.shape
        error = ((r + 4) * U64 * (size / square).sqrt() + (n_in + 2) * U64).clamp(max=1)  # of the length
        return self.update.magnitude.detach().double() / square.sqrt(), error / (1 - error)


@dataclass(frozen=True)
class Merged:
    """What rounding left of the update of one weight: `changed`, the share of its `elements` that differ from before,
    and `loss` = |round(W + d) - (W + d)| / |d|, Frobenius norms: 0 all of it, 1 nothing. The dtype decides it: 16 bits
    lose most of an update a thousand times smaller than W. `onto` says what W was.
    """

    name: str
    dtype: torch.dtype
    elements: int
    changed: float
    loss: float
    onto: str = "the weight"


class Rounding:
    """Each block of W + update as the nearest numbers of W's dtype; when all are made, the `report` of them.

    Raises `Error`, with the name, where a number is not finite or would not be.
    """

    def __init__(self, name: str, weight: Tensor, update: Update):
        self.name, self.weight, self.sum = name, weight, Sum(weight, update)
        self.elements = self.changed = 0
        self.lost = self.added = 0.0

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        dtype = self.weight.dtype
        for rows in row_blocks(self.weight.shape):
            before, truth = self.sum.truth(rows)
            rounded = round_once(truth, dtype)
            wide = rounded.double()
            if not wide.isfinite().all():
                raise Error(f"{self.name}: not merged: {_why_not_finite(before, truth, dtype)}")
            # Where nothing is added W stays: -0 + 0 would be +0.
            yield rows, torch.where(truth == before, self.weight[rows].detach(), rounded)
            self.elements += wide.numel()
            self.changed += int((wide != before).sum())
            self.lost += float(wide.sub_(truth).square_().sum())
            self.added += float(truth.sub_(before).square_().sum())

    @property
    def report(self) -> Merged:
        loss = (self.lost / self.added) ** 0.5 if self.added else 0.0
        return Merged(self.name, self.weight.dtype, self.elements, self.changed / max(1, self.elements), loss)


def _why_not_finite(before: Tensor, truth: Tensor, dtype: torch.dtype) -> str:
    if truth.isfinite().all():
        return f"the sum is too large for {dtype}"
    return f"the {'adapter' if before.isfinite().all() else 'base'} holds NaN or infinity"
