"""How far an honest merge may be from the truth: a bound proved element by element.

Truth t = W + s B A. Whoever merges in floating point casts A and B, multiplies, scales, casts the product, adds it to W
and rounds. Let u_p be the larger unit roundoff of the adapter's and the result's dtype, since tools compute the product
in either; u_f = min(u_p, 2^-24) that of the accumulator (torch, MKL and cuBLAS add 16-bit products in float32); and
gamma_n(u) = n u / (1 - n u), which bounds n roundings in a row (Higham 2002, lemma 3.1). Then

    6 roundings in u_p   A cast, B cast, product rounded, s rounded, product scaled, product cast to the result's dtype
    r roundings in u_f   r products summed, in any order

give a product d with |d - s B A| <= eps |s| |B| |A|,  eps = gamma_6(u_p) + gamma_r(u_f) + gamma_6 gamma_r.
Numbers too small to be normal lose an absolute part, not a relative one: at most u N, N the smallest normal number. So
every |x| above is read as |x| + N. What is added and rounded is therefore y with |y - t| <= E,

    E = eps |s| (|B| + N) (|A| + N) + eps (|s| + 2) N      the product
      + |W - cast(W)|                                      if the result's dtype cannot hold W
      + u_f |t|                                            if the sum is rounded to float32 first, then to 16 bits
      + doubt                                              our own float64 (`Sum.doubt`)

and the result m is y rounded to nearest: |m - y| <= half(m), half the distance from |m| to the number above it. So

    |m - t| <= E + half(m)

for every honest m. Honest means that W is added once, to the finished product: an addmm that passes W through its
accumulator with every product can be outside, at ranks of hundreds and updates 100,000 times smaller than W.

This is much sharper than u |t|. A 16-bit weight that did not move, though its update is clearly past the middle between
two numbers, is outside: an adapter that was not applied is found as soon as one element of the update shows in that
dtype at all.

DoRA multiplies row i by q_i = m_i / |t_i|. The length's relative error is rho_i = |E_i| / |t_i| (2-norms over the row)
+ gamma_(I+2)(u_f), and 4 more roundings in u_p happen to q: bound |q_i| (E + (rho_i + gamma_4(u_p)) |t|).

Elementwise bounds leave room for an error that leans the same way everywhere, as a wrong alpha does. `Lean` looks at
the sum: over the elements where m is not the correctly rounded R, honest errors have no reason to side with the update.
"""

import math

import torch
from torch import Tensor

from lora.exact import TINY, UNIT, Sum, round_once, row_blocks

SIGMAS = 6.0  # of chance: 2 exp(-18), 3 in 100 million


def gamma(steps: int, unit: float) -> float:
    return steps * unit / (1 - steps * unit)


def half_spacing(m: Tensor, dtype: torch.dtype) -> Tensor:
    """Half the distance from |m|, float64, to the next number of `dtype` above.

    The exponent bits of a float64 alone are the power of two below it.
    """
    power = (m.view(torch.int64) & (0x7FF << 52)).view(torch.float64)
    return power.mul_(UNIT[dtype]).clamp_(min=TINY[dtype])


class Bound:
    """E of the module's docstring for one weight: `error(rows, truth, at)` at some elements of a block."""

    def __init__(self, total: Sum, dtype: torch.dtype):
        self.total, self.dtype, update = total, dtype, total.update
        self.unit = max(UNIT[update.A.dtype], UNIT[update.B.dtype], UNIT[dtype])
        self.fine = min(self.unit, UNIT[torch.float32])
        six, many = gamma(6, self.unit), gamma(update.A.shape[0], self.fine)
        self.eps = six + many + six * many
        kinds = (update.A.dtype, update.B.dtype, dtype)
        normal = max(TINY[kind] / UNIT[kind] for kind in kinds)
        self.tiny = max(TINY[kind] for kind in kinds)
        self.left = total.left.abs().add_(normal).mul_(abs(update.scale))
        self.right = total.right.abs().add_(normal)
        self.floor = self.eps * (abs(update.scale) + 2) * normal
        self.casts = total.weight.dtype not in (dtype, *_narrower(dtype))
        self.lengths = None if total.stretch is None else self._lengths()

    def error(self, rows: slice, truth: Tensor, at: Tensor) -> Tensor:
        """E at these elements; `at` are places in the block as one row, `truth` the block in float64."""
        doubt = self.total.doubt(rows).view(-1)[at]
        if self.lengths is None:
            return self._sum_error(rows, truth).view(-1)[at] + doubt
        stretch, rho = self._rowwise(self.total.stretch, rows), self._rowwise(self.lengths, rows)
        raw = truth / stretch
        error = self._sum_error(rows, raw).add_(raw.abs_().mul_(rho + gamma(4, self.unit))).mul_(stretch.abs())
        return error.view(-1)[at] + doubt

    def _sum_error(self, rows: slice, raw: Tensor) -> Tensor:
        error = (self.left[rows] @ self.right).mul_(self.eps).add_(self.floor)
        if self.casts:
            weight = self.total.weight[rows].double()
            error += (weight - round_once(weight, self.dtype).double()).abs()
        if self.fine < UNIT[self.dtype]:
            error += raw.abs() * self.fine
        return error

    def _rowwise(self, values: Tensor, rows: slice) -> Tensor:
        return values if self.total.update.transposed else values[rows, None]

    def _lengths(self) -> Tensor:
        """rho of the docstring, (O,)."""
        update, stretch = self.total.update, self.total.stretch
        square = torch.zeros_like(stretch)
        for rows in row_blocks(update.shape):
            weight = self.total.weight[rows].double()
            raw = (self.total.left[rows] @ self.total.right).mul_(update.scale).add_(weight)
            error = self._sum_error(rows, raw).square_()
            if update.transposed:
                square += error.sum(0)
            else:
                square[rows] = error.sum(1)
        length = update.magnitude.double() / stretch
        return square.sqrt() / length.abs() + gamma(update.A.shape[1] + 2, self.fine)


class Lean:
    """Do the errors m - R of one weight side with its update D = s B A? They do if alpha is off by a little.

    With x = (m - R) D summed over the elements that differ, honest x have signs that do not depend on their sizes, so
    |sum x| <= 6 sqrt(sum x^2) but for 3 cases in 100 million (Efron 1969: self-normalised sums of symmetric terms).
    Allowed on top, as parts of <D, D>: casting A and B once each makes errors common to a column or a row,
    6 u_p sqrt(sum (A * s B^T D)^2 + sum (B * s D A^T)^2) / <D, D>; s rounded to the dtype of the product; u_p / 8 for
    rounding that is symmetric only to first order; and what falls below the smallest number, at most (|s| + 2) u N an
    element. Not for DoRA, whose errors are common to whole rows.
    """

    def __init__(self, bound: Bound):
        update, s = bound.total.update, bound.total.update.scale
        A, B = update.A.double(), update.B.double()
        aa, bb = A @ A.T, B.T @ B
        self.energy = s * s * (aa * bb).sum().item()  # <D, D> from r x r matrices
        common = (A * (s * s * (bb @ A))).square().sum() + (B * (s * s * (B @ aa))).square().sum()
        coarse = max((update.A.dtype, update.B.dtype, bound.dtype), key=UNIT.get)
        rounded = round_once(torch.tensor(s, dtype=torch.float64), coarse).item()
        self.allowed = SIGMAS * bound.unit * math.sqrt(common.item())
        self.allowed += (abs(rounded - s) / abs(s) + bound.unit / 8) * self.energy
        elements = len(update.B) * update.A.shape[1]
        self.allowed += (abs(s) + 2) * bound.tiny * math.sqrt(elements * self.energy)
        self.skip = bound.lengths is not None
        self.pull = self.spread = 0.0

    def add(self, differs: Tensor, delta: Tensor):
        """m - R and D, float64, at elements where m is not R."""
        x = differs * delta
        self.pull += x.sum().item()
        self.spread += x.square().sum().item()

    @property
    def scale(self) -> float:
        """The fitted strength: 1 for an honest merge, 1.01 for an alpha that is one percent too large."""
        return 1 + self.pull / self.energy if self.energy else 1.0

    @property
    def honest(self) -> bool:
        return self.skip or abs(self.pull) <= SIGMAS * math.sqrt(self.spread) + self.allowed


def _narrower(dtype: torch.dtype) -> tuple[torch.dtype, ...]:
    """The dtypes whose every number `dtype` can hold."""
    halves = (torch.float16, torch.bfloat16)
    return {torch.float64: (torch.float32, *halves), torch.float32: halves}.get(dtype, ())
