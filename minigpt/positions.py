"""Where a token stands: rotary positions (learned ones are a plain embedding, see model.py).

Shapes: B batch, T time, H heads, D head size.
"""

import torch
from torch import Tensor


def inverse_frequencies(d_head: int, theta: float = 10000.0, device: torch.device | None = None) -> Tensor:
    """How fast each pair of dimensions turns, in radians a token: theta^(-2i/D), i = 0 .. D/2 - 1.

    Su et al. 2021 (RoFormer), section 3.4.2. Always float32: the angles of the published models were computed
    in it, and a model that computes them better is a different model.

    >>> inverse_frequencies(4, theta=100.0).tolist()
    [1.0, 0.10000000149011612]
    """
    exponents = torch.arange(0, d_head, 2, dtype=torch.float32, device=device) / d_head
    return 1.0 / theta**exponents


def rotary(positions: Tensor, d_head: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of the angles position x frequency: positions (B or 1, T) -> two tables (B or 1, 1, T, D).

    The table repeats its D/2 angles twice, because dimension i is paired with i + D/2 (the layout of GPT-NeoX
    and of transformers), not with i + 1 (the layout of the paper): the same rotation, other coordinates.
    """
    frequencies = inverse_frequencies(d_head, theta, positions.device)
    angles = positions[:, None, :, None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


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
