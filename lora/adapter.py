"""One A and one B; several of them as one; one for each row.

Shapes: I in, O out, r rank of one adapter, R ranks of several together.

A is Gaussian and B zero, so that B A is zero until it learns. An Embedding is the linear layer of one-hot vectors, and
Conv1D (transformers' GPT-2) one that stores its weight as (I, O): A (r, I) and B (O, r) are the same for all three.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lora.config import Config


class Adapter(nn.Module):
    """One A and B, with what belongs to them: scale, dropout, DoRA's magnitude, a bias in place of the base's.

    `parts` are ((size, adapted), ...) of a fused layer: each adapted part has its own r rows of A and its own B, which
    stand in B one below the other; `factors` puts them into a matrix of blocks.
    """

    def __init__(self, config: Config, r: int, scale: float, n_in: int, n_out: int, like: Tensor, parts=None):
        super().__init__()
        self.config, self.scale = config, scale
        self.parts = parts or ((n_out, True),)
        self.magnitude = self.bias = None
        adapted = [size for size, adapted in self.parts if adapted]
        dtype = torch.promote_types(like.dtype, torch.float32)  # 16 bits cannot hold what a small step adds
        self.A = nn.Parameter(torch.empty(r * len(adapted), n_in, dtype=dtype, device=like.device))
        self.B = nn.Parameter(torch.zeros(sum(adapted), r, dtype=dtype, device=like.device))
        if config.init == "gaussian":
            nn.init.normal_(self.A, std=1 / r)
        else:
            nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    @property
    def rank(self) -> int:
        return self.B.shape[1]

    def factors(self) -> tuple[Tensor, Tensor]:
        """A (R, I) and B (O, R); R = r for a whole layer, r for each adapted part of a fused one."""
        if len(self.parts) == 1:
            return self.A, self.B
        r, blocks = self.rank, []
        pieces = list(self.B.split([size for size, adapted in self.parts if adapted]))
        last = len(pieces) - 1
        for size, adapted in self.parts:
            place = last + 1 - len(pieces)
            rows = F.pad(pieces.pop(0), (r * place, r * (last - place))) if adapted else None
            blocks.append(self.B.new_zeros(size, len(self.A)) if rows is None else rows)
        return self.A, torch.cat(blocks)

    def extra_repr(self) -> str:
        return f"r={self.rank}, scale={self.scale:g}"


class TiedAdapter(nn.Module):
    """The adapter of an output head, seen from the embedding it is tied to: one update, one shared matrix.

    The head adds B A to W (V, C). As an embedding of one-hot tokens, stored (I, O), the same W gets (B' A')^T: so
    A' = B^T and B' = A^T.
    """

    magnitude = bias = None

    def __init__(self, head: Adapter):
        super().__init__()
        self.head = head
        self.config, self.rank = head.config, head.rank

    @property
    def scale(self) -> float:
        return self.head.scale

    def factors(self) -> tuple[Tensor, Tensor]:
        A, B = self.head.factors()
        return B.T, A.T


def joined(adapters: list[nn.Module]) -> tuple[Tensor, Tensor]:
    """Several adapters as one, of their scales too:  sum_i s_i B_i A_i = [s_1 B_1 ... s_n B_n] [A_1; ...; A_n].

    A (R, I) and B (O, R), R the sum of the ranks.
    """
    pairs = [adapter.factors() for adapter in adapters]
    B = [B * adapter.scale for adapter, (_, B) in zip(adapters, pairs, strict=True)]
    return torch.cat([A for A, _ in pairs]), torch.cat(B, dim=1)


def owners(names: tuple[str | None, ...], used: tuple[str, ...], ranks: list[int], like: Tensor) -> Tensor:
    """Which ranks are whose:  row b uses adapter n(b) alone as  B (mask_b * (A x_b)).  (batch, R), 1 or 0.

    names: the adapter of each row; used: the adapters joined, of these ranks.
    """
    place = [used.index(name) if name in used else len(used) for name in names]
    one = torch.eye(len(used) + 1, len(used), dtype=like.dtype, device=like.device)  # the last row owns nothing
    one = one.repeat_interleave(torch.tensor(ranks, device=like.device), dim=1)
    return one[torch.tensor(place, device=like.device)]  # the one gather
