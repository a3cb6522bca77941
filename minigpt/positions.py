"""Where a token stands: rotary positions (learned ones are a plain embedding, see model.py), and how to stretch them.

Shapes: B batch, T time, H heads, D head size.

Past the length a model was trained at, its slow pairs reach angles that it has never seen; its fast pairs have seen
all of theirs many times. So the slow ones are slowed down further (see rope.py for who does it how).
"""

import math

import torch
from torch import Tensor

from minigpt import rope


def inverse_frequencies(d_head: int, theta: float = 10000.0, device: torch.device | None = None) -> Tensor:
    """How fast each pair of dimensions turns, in radians a token: theta^(-2i/D), i = 0 .. D/2 - 1.

    Su et al. 2021 (RoFormer), section 3.4.2. Always float32: the angles of the published models were computed
    in it, and a model that computes them better is a different model.

    >>> inverse_frequencies(4, theta=100.0).tolist()
    [1.0, 0.10000000149011612]
    """
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32, device=device) / d_head
    return 1.0 / theta**exponents


def frequencies(d_head: int, theta: float, scaling: rope.Scaling | None, length: Tensor, device=None) -> Tensor:
    """The pairs' frequencies, stretched as `scaling` says: (D/2,), or (B, 1, 1, D/2) if they depend on the `length`
    (B or 1, 1) of the text.

    >>> frequencies(4, 100.0, rope.Linear(factor=2.0), torch.tensor([[9]])).tolist()
    [0.5, 0.05000000074505806]
    """
    plain = inverse_frequencies(d_head, theta, device)
    match scaling:
        case rope.Linear():
            return plain / scaling.factor
        case rope.Dynamic():
            return dynamic(d_head, theta, scaling, length)
        case rope.Yarn():
            return yarn(plain, theta, scaling)
        case rope.Llama3():
            return llama3(plain, scaling)
    return plain


def dynamic(d_head: int, theta: float, scaling: rope.Dynamic, length: Tensor) -> Tensor:
    """theta ((s n / T) - (s - 1))^(D/(D-2)) in place of theta, n the length (B, 1), at least T.

    At n = T nothing changes. At n = 2 T and s = 2 the bracket is 3, not 2: the method stretches ahead of the text.
    """
    length = length.clamp(min=scaling.original)
    growth = scaling.factor * length / scaling.original - (scaling.factor - 1)
    base = theta * growth ** (d_head / (d_head - 2))
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32, device=length.device) / d_head
    return 1.0 / base[:, None, None] ** exponents


def yarn(plain: Tensor, theta: float, scaling: rope.Yarn) -> Tensor:
    """Between f_i and f_i / s, by how often pair i turns within the T tokens of the training (Peng et al. 2023, 3.2).

    Pair i turns r times where i = D ln(T / (2 pi r)) / (2 ln theta). A ramp goes from 0 at r = beta_fast (a fast pair,
    small i, which stays) to 1 at r = beta_slow (a slow one, divided by s). The other way round is a known mistake.
    """
    d_head = 2 * len(plain)

    def pair(turns: float) -> float:
        return d_head * math.log(scaling.original / (2 * math.pi * turns)) / (2 * math.log(theta))

    low, high = pair(scaling.beta_fast), pair(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, d_head - 1)
    width = high - low if high != low else 0.001
    ramp = ((torch.arange(len(plain), dtype=torch.float32, device=plain.device) - low) / width).clamp(0, 1)
    return plain / scaling.factor * ramp + plain * (1 - ramp)


def llama3(plain: Tensor, scaling: rope.Llama3) -> Tensor:
    """f_i where the wavelength 2 pi / f_i is below T / high, f_i / s where above T / low, a blend of both between."""
    turns = scaling.original * plain / (2 * math.pi)  # within the T tokens of the training
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return (1 - kept) * plain / scaling.factor + kept * plain


def rotary(
    positions: Tensor,
    d_head: int,
    theta: float,
    dtype: torch.dtype,
    scaling: rope.Scaling | None = None,
    length: Tensor | None = None,
    exact: bool = False,
) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles position x frequency: positions (B or 1, T) -> two tables (B or 1, 1, T, D).

    The table repeats its D/2 angles twice, because dimension i is paired with i + D/2 (the layout of GPT-NeoX
    and of transformers), not with i + 1 (the layout of the paper): the same rotation, other coordinates.
    `length` (B or 1, 1) is for `rope.Dynamic`: how long a text the row is turned for; by default to its last position.
    `exact` makes the angles in float64: of a text without end, float32 would lose the fast pairs after 10^5 tokens.
    """
    if length is None:
        length = positions.amax(-1, keepdim=True) + 1
    turned = frequencies(d_head, theta, scaling, length, positions.device)
    angles = positions[:, None, :, None].to(torch.float64 if exact else torch.float32) * turned
    angles = torch.cat((angles, angles), dim=-1)
    scale = scaling.scale if isinstance(scaling, rope.Yarn) else 1.0
    return (angles.cos() * scale).to(dtype), (angles.sin() * scale).to(dtype)


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its angle: x cos + (-x_2, x_1) sin; x is (B, H, T, D).

    The score of a rotated query and key depends on the distance of their positions only:

    >>> q, k = torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4)
    >>> turn = lambda x, p: rotate(x, rotary(torch.tensor([[p]]), 4, 10000.0, torch.float32))
    >>> torch.allclose((turn(q, 5) * turn(k, 3)).sum(), (turn(q, 105) * turn(k, 103)).sum(), atol=1e-4)
    True
    """
    cos, sin = table
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin
