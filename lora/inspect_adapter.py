"""What is in an adapter, in numbers: ranks, scales, norms of the updates, size, and whose child it is."""

import math
from pathlib import Path

from lora import files
from lora.config import Config
from lora.exact import Update
from lora.rounded import RoundedCheckpoint
from lora.verify import other_base


def norm(update: Update) -> float:
    """|s B A|, Frobenius, from r x r matrices: |B A|^2 = sum of (B^T B) * (A A^T).

    >>> import torch
    >>> update = Update(torch.randn(3, 40), torch.randn(50, 3), 0.5)
    >>> abs(norm(update) - (0.5 * update.B @ update.A).norm().item()) < 1e-3
    True
    """
    A, B = update.A.double(), update.B.double()
    square = ((B.T @ B) * (A @ A.T)).sum().item()
    return abs(update.scale) * math.sqrt(max(0.0, square))


def describe(adapter: str | Path, base: str | Path | None = None) -> str:
    """The text of `python -m lora inspect`."""
    stored = files.read(adapter)
    config = stored.config
    tensors = [t for u in stored.updates.values() for t in (u.A, u.B, u.magnitude) if t is not None]
    count = sum(tensor.numel() for tensor in [*tensors, *stored.replaced.values()])
    lines = [
        f"{adapter}: {'DoRA' if config.dora else 'LoRA'}, {len(stored.updates)} layers",
        f"r {config.r}, alpha {config.alpha:g}, scale {_scale(config)}",
        f"targets: {config.targets if isinstance(config.targets, str) else ', '.join(config.targets)}",
        f"{count:,} parameters, {stored.nbytes:,} bytes",
        f"base: {_base(stored, base)}",
    ]
    if stored.replaced:
        lines.append(f"learned whole: {', '.join(sorted(stored.replaced))}")
    width = max(map(len, stored.updates), default=0)
    lines += ["", f"{'layer':<{width}}  {'in':>6} {'out':>6} {'r':>4} {'scale':>8}  {'dtype':<9} |s B A|"]
    for path, update in stored.updates.items():
        (r, into), out = update.A.shape, update.B.shape[0]
        dtype = str(update.A.dtype).removeprefix("torch.")
        size = f"{norm(update):.4g}" + ("  (zero: adds nothing)" if not update.B.any() or not update.A.any() else "")
        lines.append(f"{path:<{width}}  {into:>6} {out:>6} {r:>4} {update.scale:>8.4g}  {dtype:<9} {size}")
    return "\n".join(lines)


def _scale(config: Config) -> str:
    by = "alpha / sqrt(r) = " if config.rslora else "alpha / r = "
    plain = config.alpha / (math.sqrt(config.r) if config.rslora else config.r)
    return by + f"{plain:g}" + (" (others by pattern)" if config.rank_pattern or config.alpha_pattern else "")


def _base(stored: files.Stored, base: str | Path | None) -> str:
    if not stored.fingerprint:
        return "no fingerprint in the file: nothing tells which base it belongs to"
    if base is None:
        where = f"; {len(stored.rounded)} tensors of the base were in four bits" if stored.rounded else ""
        return f"fingerprint of {len(stored.fingerprint)} tensors{where} (--base BASE checks it)"
    with RoundedCheckpoint(base, stored.rounded) as checkpoint:
        differ = other_base(checkpoint, stored)
    is_it = f"{base} is it" + (", rounded to four bits" if stored.rounded else "")
    return is_it if not differ else f"NOT {base}: {len(differ)} of {len(stored.fingerprint)} tensors differ"
