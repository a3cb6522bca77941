"""Why a merged weight is not what it should be: the usual mistakes, each with the trace it leaves.

D = M - W is what was added, D0 = s B A what should have been. Of each weight that is wrong, one more pass takes the
sums <D, D>, <D0, D0>, <D, D0>, <D, D0^T> and a sketch of D - D0:

    D = 0                           the adapter was not applied (or only cast)
    D = c D0                        applied k times (c = k), alpha without /r (c = r), another alpha
    D = D0^T                        the update went in transposed
    D - D0 of low rank              another adapter, or an older version of this one
    D = D0 + noise                  merged into another base
    D = D0 but for a few elements   damaged; they are named
"""

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from lora.exact import UNIT, Sum, Update, row_blocks


@dataclass(frozen=True)
class Reason:
    """`kind` to count by, `text` to read after the tensor's name."""

    kind: str
    text: str


@dataclass
class Sums:
    """Inner products over one weight, and a sketch (D - D0) @ noise (rows, k) whose rank is that of D - D0."""

    dd: float = 0.0
    oo: float = 0.0
    do: float = 0.0
    dt: float = 0.0
    mm: float = 0.0
    sketch: Tensor | None = None


def explain(total: Sum, merged, finding, rslora: bool) -> Reason:
    """The likeliest reason why `merged` is not `total`; of `finding` it looks at `wrong`, `scale` and `leans`."""
    if _same(total, merged):
        return Reason("not applied", "is the base's: the adapter was not applied")
    sums, update = _gather(total, merged), total.update
    if not math.isfinite(sums.dd):
        return Reason("not finite", f"holds NaN or infinity; {finding.wrong:,} elements are wrong")
    unit = max(UNIT[merged.dtype], UNIT[total.weight.dtype])
    noise = unit**2 * sums.mm / 3 + (4 * max(unit, UNIT[update.A.dtype])) ** 2 * sums.dd
    if sums.dd <= noise and sums.oo > 4 * sums.dd:
        return Reason("not applied", "is the base's, only cast: the adapter was not applied")
    scale = sums.do / sums.oo if sums.oo else math.nan
    left_over = sums.dd - scale * sums.do
    explained = left_over <= 4 * noise + 1e-6 * sums.dd
    if explained and (finding.leans or abs(scale - 1) > 0.1):
        return _scaled(finding.scale if abs(scale - 1) < 0.1 else scale, update, rslora)
    if finding.wrong <= max(16, finding.elements // 100) or explained:
        return Reason("elements", f"{finding.wrong:,} of {finding.elements:,} elements are off")
    if sums.dt > 0.9 * math.sqrt(sums.dd * sums.oo):
        return Reason("transposed", "has the update transposed")
    off = sums.dd - 2 * sums.do + sums.oo
    if rank := _rank(sums.sketch, min(0.05, 1e-3 + 4 * noise / off)):
        return Reason("stale", f"has another update, off from this one by a matrix of rank {rank}")
    if sums.do > 0 and 0.5 < scale < 1.5:
        return Reason("other base", "has the update, on another base")
    return Reason("other base", f"differs from the base by more than an update, in {finding.wrong:,} elements")


def _same(total: Sum, merged) -> bool:
    """Whether merged is W itself; the first block tells, mostly."""
    blocks = row_blocks(tuple(merged.shape))
    return all(torch.equal(merged[rows].double(), total.weight[rows].double()) for rows in blocks)


def _scaled(c: float, update: Update, rslora: bool) -> Reason:
    """The update is there, c times."""
    r = update.A.shape[0]
    alpha = update.scale * (math.sqrt(r) if rslora else r)
    looks = f"alpha looks like {c * alpha:.4g} instead of {alpha:.4g}"

    def near(value):
        return abs(c - value) <= 0.02 * abs(value)

    if near(-1):
        return Reason("subtracted", "has the update subtracted")
    if near(2):
        return Reason("twice", "has the update applied twice")
    if r > 1 and near(math.sqrt(r) if rslora else r):
        return Reason(
            "alpha", f"has the update {c:.4g} times too strong: alpha without {'/ sqrt(r)' if rslora else '/ r'}"
        )
    if r > 1 and not rslora and near(math.sqrt(r)):
        return Reason("alpha", f"has the update sqrt(r) too strong: alpha / sqrt(r) instead of alpha / r; {looks}")
    if r > 1 and rslora and near(1 / math.sqrt(r)):
        return Reason("alpha", f"has the update sqrt(r) too weak: alpha / r instead of alpha / sqrt(r); {looks}")
    if c > 2 and near(round(c)):
        return Reason("times", f"has the update applied {round(c)} times, or {looks}")
    return Reason("alpha", f"has the update {c:.4g} times as strong: {looks}")


def _gather(total: Sum, merged) -> Sums:
    sums, update = Sums(), total.update
    width, square = merged.shape[1], merged.shape[0] == merged.shape[1]
    columns = min(3 * update.A.shape[0] + 16, *merged.shape)
    noise = torch.randn(width, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sketch = []
    for rows in row_blocks(tuple(merged.shape)):
        weight, truth = total.truth(rows)
        found = merged[rows].double()
        added, delta = found - weight, truth.sub_(weight)
        sums.dd += added.square().sum().item()
        sums.oo += delta.square().sum().item()
        sums.do += (added * delta).sum().item()
        sums.mm += found.square().sum().item()
        if square:
            turned = (total.right.T[rows] @ total.left.T).mul_(update.scale)
            sums.dt += (added * turned).sum().item()
        sketch.append(added.sub_(delta) @ noise)
    sums.sketch = torch.cat(sketch)
    return sums


def _rank(sketch: Tensor, noise: float) -> int | None:
    """The rank of D - D0 but for a part `noise` of its energy; None if it needs most of the sketch: full rank."""
    energy = torch.linalg.svdvals(sketch).square()
    rank = int((energy.cumsum(0) < (1 - noise) * energy.sum()).sum()) + 1
    return rank if rank < 0.7 * sketch.shape[1] else None


def summarize(findings, other_base: list[str]) -> tuple[list[str], list[str]]:
    """Reasons why the answer is no, the broadest first; and notes, which do not change the answer."""
    wrong = [found for found in findings if not found.ok]
    adapted = [found for found in findings if found.kind == "adapted"]
    untouched = [found for found in findings if found.kind == "untouched"]
    reasons = []
    if wrong:
        changed = [found for found in wrong if found.kind == "untouched"]
        if other_base:
            reasons.append(f"wrong base: {_names(other_base)} is not what the adapter was trained on (fingerprint)")
        elif len(changed) > 2 and 4 * len(changed) > len(untouched):
            reasons.append(f"wrong base: {len(changed)} of {len(untouched)} tensors the adapter does not touch differ")
        reasons += _of_adapted(adapted)
        reasons += _of_others(wrong, len(untouched))
    return reasons, _notes(findings, wrong, other_base)


def _of_adapted(adapted) -> list[str]:
    wrong = [found for found in adapted if not found.ok]
    reasons = []
    for kind, count in Counter(found.reason.kind for found in wrong).most_common():
        group = [found for found in wrong if found.reason.kind == kind]
        if kind == "not applied":
            every = count == len(adapted)
            reasons.append("adapter not applied" if every else f"not applied to {_some(group, len(adapted))}")
        elif kind == "twice":
            reasons.append(f"applied twice: {_some(group, len(adapted))}")
        elif kind in ("alpha", "times"):
            reasons.append(f"wrong alpha: {_some(group, len(adapted))}: {group[0].reason.text}")
        elif kind == "stale":
            reasons.append(f"stale or other adapter: {_some(group, len(adapted))}: {group[0].reason.text}")
        elif kind == "other base":
            reasons.append(f"wrong base: {_some(group, len(adapted))}: {group[0].reason.text}")
        else:
            reasons.append(f"{kind}: {_some(group, len(adapted))}: {group[0].reason.text}")
    return reasons


def _of_others(wrong, untouched: int) -> list[str]:
    reasons = []
    texts = {
        "missing": "missing: {}",
        "extra": "not in the base: {}",
        "replaced": "learned whole, but not the adapter's: {}",
        "untouched": f"changed, though the adapter does not touch them: {{}} (of {untouched})",
    }
    for kind, text in texts.items():
        names = [found.name for found in wrong if found.kind == kind and found.reason.kind != "tied"]
        if names:
            reasons.append(text.format(_names(names)))
    return reasons + [found.reason.text for found in wrong if found.reason.kind == "tied"]


def _notes(findings, wrong, other_base: list[str]) -> list[str]:
    notes = []
    if other_base and not wrong:
        notes.append(f"THE ADAPTER WAS TRAINED ON ANOTHER BASE: {_names(other_base)} differ (fingerprint)")
    for note, count in Counter(found.note for found in findings if found.note).most_common():
        first = next(found.name for found in findings if found.note == note)
        notes.append(f"{note}: {first}" + (f" and {count - 1} more" if count > 1 else ""))
    return notes


def _names(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _some(group, total: int) -> str:
    return f"{len(group)} of {total} adapted tensors ({_names([found.name for found in group])})"
