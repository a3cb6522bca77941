"""Directions and strengths of an update: the mathematics of section 7 of the LoRA paper (Hu et al. 2021).

Shapes: O out, I in, r rank, k = min(r, O, I); A (r, I), B (O, r), dW = scale B A (O, I);
i and j count leading directions; directions are the columns of an (I, k) matrix, the strongest first.

dW is never made: with B = Q_B R_B and A^T = Q_A R_A its singular values are those of the small scale R_B R_A^T, and
its singular vectors are turned back by Q_B and Q_A. All of it in float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lora.errors import Error
from lora.exact import Update

# A direction this much weaker than the first is the rounding of float32, not something learned.
NOISE = 2.0**-23


def svd(update: Update) -> tuple[Tensor, Tensor, Tensor]:
    """dW = scale B A = U diag(S) V^T from the r x r core: float64 U (O, k), S (k,) descending, V (I, k).

    >>> U, S, V = svd(Update(A=torch.tensor([[0.0, 2.0]]), B=torch.tensor([[3.0], [4.0]]), scale=0.5))
    >>> S.item(), (U * S @ V.T).round(decimals=9).abs().tolist()
    (5.0, [[0.0, 3.0], [0.0, 4.0]])
    """
    Q_B, R_B = torch.linalg.qr(update.B.detach().double())
    Q_A, R_A = torch.linalg.qr(update.A.detach().double().T)
    U, S, Vh = torch.linalg.svd(update.scale * R_B @ R_A.T, full_matrices=False)
    return Q_B @ U, S, Q_A @ Vh.T


def directions(A: Tensor) -> Tensor:
    """Right singular vectors of A (r, I), as columns (I, k): what the update listens to. Only those above noise.

    >>> directions(torch.tensor([[0.0, 2.0], [0.0, 0.0]])).abs().tolist()
    [[0.0], [1.0]]
    """
    _, S, Vh = torch.linalg.svd(A.detach().double(), full_matrices=False)
    return Vh[: above_noise(S)].T


def above_noise(S: Tensor) -> int:
    """How many singular values, in descending order, are more than rounding errors of the first."""
    return int((S[:1] * NOISE < S).sum())


def effective_rank(S: Tensor) -> float:
    """exp(-sum p ln p) with p = S / sum S: the entropy of the plain, not squared, singular values.

    Roy & Vetterli, "The effective rank", EUSIPCO 2007, definition 1. From 1 (one direction) to k (all alike); 0 for
    an update of zero.

    >>> effective_rank(torch.tensor([2.0, 2.0, 0.0]))
    2.0
    """
    if not S.sum() > 0:
        return 0.0
    p = S.double() / S.double().sum()
    return math.exp(-torch.special.xlogy(p, p).sum().item())


def energy(S: Tensor) -> Tensor:
    """S^2 / sum S^2 (k,): the share of |dW|_F^2 in each direction; zeros for an update of zero.

    >>> energy(torch.tensor([3.0, 1.0], dtype=torch.float64)).tolist()
    [0.9, 0.1]
    """
    square = S.square()
    return square / square.sum().clamp_min(torch.finfo(S.dtype).tiny)


def phi(first: Tensor, second: Tensor) -> Tensor:
    """phi(i, j) = |U1_i^T U2_j|_F^2 / min(i, j) for all i and j at once: how much of the smaller subspace is shared.

    Section 7.2, equation 4. first (I, r1) and second (I, r2) hold directions as columns; the result (r1, r2) has
    phi(i, j) at [i - 1, j - 1]: 1 when the smaller span lies in the larger, 0 when they are orthogonal.

    >>> x = torch.eye(3, dtype=torch.float64)
    >>> phi(x[:, :2], x).tolist()
    [[1.0, 1.0, 1.0], [1.0, 1.0, 1.0]]
    """
    if len(first) != len(second):
        raise Error(f"phi: directions in {len(first)} and in {len(second)} dimensions: two layers of unlike input")
    shared = (first.T @ second).square().cumsum(0).cumsum(1)  # |U1_i^T U2_j|_F^2 sums over a corner of the square
    i, j = _counts(first.shape[1], second.shape[1])
    return shared / torch.minimum(i, j)


def baseline(r1: int, r2: int, d: int) -> Tensor:
    """E phi(i, j) = max(i, j) / d, (r1, r2), for subspaces of R^d that know nothing of each other.

    Each of the i j squared inner products has mean 1 / d; Gaussian A1 and A2 span such subspaces.

    >>> baseline(8, 64, 768)[-1, -1].item()
    0.0833...
    """
    i, j = _counts(r1, r2)
    return torch.maximum(i, j) / d


def spread(r1: int, r2: int, d: int) -> Tensor:
    """Standard deviation of phi(i, j), (r1, r2), for the same random subspaces.

    tr(P1 P2) of projections on random subspaces of i and j dimensions has the variance
    2 i j (d - i)(d - j) / (d^2 (d - 1)(d + 2)); for i = j = 1 that is the Beta(1/2, (d - 1)/2) of a squared cosine.
    """
    i, j = _counts(r1, r2)
    variance = 2 * i * j * (d - i) * (d - j) / (d**2 * max(d - 1, 1) * (d + 2))
    return variance.sqrt() / torch.minimum(i, j)


def _counts(r1: int, r2: int) -> tuple[Tensor, Tensor]:
    """i (r1, 1) and j (1, r2) from 1."""
    return torch.arange(1.0, r1 + 1, dtype=torch.float64)[:, None], torch.arange(1.0, r2 + 1, dtype=torch.float64)[None]


@dataclass(frozen=True)
class Amplification:
    """One column of table 7: what the update amplifies, and what W had there (section 7.3).

    r              how many directions, the rank of dW
    update         |dW|_F
    base           |W|_F
    along_update   |U^T W V|_F with the top r singular vectors of dW
    along_base     the same with the top r of W itself: the most there is
    along_random   with random orthonormal ones: root of the mean square
    """

    r: int
    update: float
    base: float
    along_update: float
    along_base: float
    along_random: float

    @property
    def factor(self) -> float:
        """|dW|_F / |U^T W V|_F: how many times stronger these directions are in dW than they were in W."""
        return self.update / self.along_update if self.along_update else math.inf


def amplification(weight: Tensor, U: Tensor, S: Tensor, V: Tensor) -> Amplification:
    """Table 7 for W (O, I) and dW = U diag(S) V^T, as `svd` gives it.

    Two rows need no singular vectors of W: along its own directions the norm is sqrt(s_1^2 + ... + s_r^2), and those
    squares are the largest eigenvalues of the smaller Gram matrix; along random ones E |U^T W V|_F^2 =
    r^2 |W|_F^2 / (O I), with no dice thrown. (The paper's: |W|_F = 61.95, O = I = 12288, r = 4 give its 0.02.)

    >>> one = torch.eye(2, dtype=torch.float64)
    >>> amplification(torch.diag(torch.tensor([3.0, 0.5])), one[:, 1:], torch.tensor([2.0]), one[:, 1:]).factor
    4.0
    """
    weight = weight.detach().double()
    if weight.shape != (len(U), len(V)):
        raise Error(f"base weight is {tuple(weight.shape)}, the update is ({len(U)}, {len(V)}): not its base")
    r = above_noise(S)
    gram = weight @ weight.T if len(U) <= len(V) else weight.T @ weight
    own = torch.linalg.eigvalsh(gram)[max(0, len(gram) - r) :].clamp_min(0)
    norm = torch.linalg.norm(weight).item()
    return Amplification(
        r=r,
        update=torch.linalg.norm(S).item(),
        base=norm,
        along_update=torch.linalg.norm(U[:, :r].T @ weight @ V[:, :r]).item(),
        along_base=own.sum().sqrt().item(),
        along_random=r * norm / math.sqrt(weight.numel()),
    )
