"""An adapter cut back to a smaller rank, with the error stated; and the config of an adapter whose scale is 1.

Shapes: O out, I in, r rank; A (r, I), B (O, r), dW = scale B A (O, I). A fused layer (q, k, v in one weight) may have
parts, ((size, rank), ...): then A holds their ranks one after the other, and B is a matrix of blocks.
"""

import math
import re
from collections import Counter
from dataclasses import replace

import torch
from torch import Tensor

from lora.config import Config
from lora.errors import Error
from lora.exact import Update
from lora.files import Stored
from lora.subspaces import svd

BIASES = ("none", "lora_only", "all")  # each includes the one before
Parts = tuple[tuple[int, int], ...]


def truncate(adapter: Stored, rank: int) -> tuple[Stored, dict[str, float]]:
    """The nearest adapter of at most this rank, and per layer |dW - dW'|_F / |dW|_F.

    dW = U S V^T from the r x r core (`subspaces.svd`); B' = U sqrt(S), A' = sqrt(S) V^T with the `rank` largest
    singular values, scale 1. No matrix of that rank is nearer (Eckart & Young 1936), and the error is
    sqrt(sum of the dropped S^2) / sqrt(sum of all). Layers of no higher rank keep their update, error 0. Each part of
    a fused layer is cut on its own.

    >>> two = Update(A=torch.diag(torch.tensor([4.0, 3.0])), B=torch.eye(2), scale=1.0)
    >>> truncate(Stored(Config(r=2, alpha=2, targets=["q"]), {"q": two}), 1)[1]
    {'q': 0.6...}
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise Error(f"rank is {rank!r}: give a whole number of at least 1")
    refuse_tied([adapter])
    updates, errors, parts = {}, {}, {}
    for path, update in adapter.updates.items():
        pieces = [_cut(piece, rank) for piece in _pieces(update, adapter.parts.get(path))]
        whole = math.hypot(*(norm for _, _, norm in pieces))
        errors[path] = math.hypot(*(dropped for _, dropped, _ in pieces)) / whole if whole else 0.0
        A = torch.cat([piece.A for piece, _, _ in pieces])
        B = torch.block_diag(*(piece.B for piece, _, _ in pieces))
        updates[path] = replace(update, A=A, B=B, scale=1.0)
        if path in adapter.parts:
            parts[path] = tuple((len(piece.B), len(piece.A)) for piece, _, _ in pieces)
    return replace(adapter, config=config_of([adapter.config], updates), updates=updates, parts=parts), errors


def _pieces(update: Update, parts: Parts | None) -> list[Update]:
    """The updates of the parts of a fused layer, some of rank 0; else the update itself."""
    if not parts:
        return [update]
    sizes, ranks = [size for size, _ in parts], [rank for _, rank in parts]
    rows = zip(update.A.split(ranks), update.B.split(sizes), strict=True)
    ends = torch.tensor([0, *ranks]).cumsum(0).tolist()
    return [replace(update, A=A, B=B[:, ends[n] : ends[n + 1]]) for n, (A, B) in enumerate(rows)]


def _cut(update: Update, rank: int) -> tuple[Update, float, float]:
    """An update of at most this rank and scale 1; the norm of what was dropped, and of all."""
    if len(update.A) <= rank:
        norm = torch.linalg.norm(svd(update)[1]).item() if len(update.A) else 0.0
        return replace(update, A=wide(update.A), B=scaled(update.B, update.scale), scale=1.0), 0.0, norm
    U, S, V = svd(update)
    root, dtype = S[:rank].sqrt(), wide(update.A).dtype
    A, B = (root[:, None] * V[:, :rank].T).to(dtype), (U[:, :rank] * root).to(dtype)
    dropped, norm = torch.linalg.norm(S[rank:]).item(), torch.linalg.norm(S).item()
    return replace(update, A=A.contiguous(), B=B.contiguous(), scale=1.0), dropped, norm


def wide(x: Tensor) -> Tensor:
    """float32, or float64 where it was: 16-bit factors would round the weights away."""
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


def scaled(B: Tensor, *by: float) -> Tensor:
    """The product, in float64, rounded once: half a unit in the last place; exact if `by` is a power of two.

    >>> scaled(torch.tensor([0.1]), 0.5, 4.0) == 2 * torch.tensor([0.1])
    tensor([True])
    """
    return (B.detach().double() * math.prod(by)).to(wide(B).dtype)


def refuse_tied(adapters: list[Stored]):
    """One update that stands twice in the file, mirrored: another A and B would no longer be mirror images."""
    if any(adapter.config.tied == "tie" for adapter in adapters):
        raise Error("ensure_weight_tying: one update is head and embedding at once; merge it into the base instead")


def config_of(configs: list[Config], updates: dict[str, Update]) -> Config:
    """The configuration that reads `updates`: scale 1 everywhere; layers of another rank are named one by one."""
    ranks = {path: len(update.A) for path, update in updates.items()}
    r = max(Counter(ranks.values()).items(), key=lambda item: (item[1], -item[0]))[0] if ranks else configs[0].r
    # "^" makes a key the whole path: "h.0.q" must not fit "encoder.h.0.q", in whatever order a file lists the keys.
    others = {f"^{re.escape(path)}": rank for path, rank in ranks.items() if rank != r}
    which = [(config.targets, config.exclude, config.layers) for config in configs]
    # Where the adapters name different layers, the union is written out: no pattern would say just that.
    targets, exclude, layers = which[0] if len(set(which)) == 1 else (tuple(ranks), (), None)
    return Config(
        r=r,
        alpha=r,
        rank_pattern=others,
        alpha_pattern=dict(others),
        targets=targets,
        exclude=exclude,
        layers=layers,
        dropout=configs[0].dropout if len({config.dropout for config in configs}) == 1 else 0.0,
        dora=configs[0].dora,
        bias=BIASES[max(BIASES.index(config.bias) for config in configs)],
        modules_to_save=tuple(sorted({name for config in configs for name in config.modules_to_save})),
        tied=configs[0].tied,
    )
