"""One tensor of a merged checkpoint against what it should be: bits, or the recomputed sum."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from lora.bound import Bound, Lean, half_spacing
from lora.checkpoint import Checkpoint, Rows, same_bits, spans
from lora.diagnose import Reason, explain
from lora.errors import Error
from lora.exact import UNIT, Sum, round_once, row_blocks
from lora.recipe import Recipe

SHOWN = 4  # elements named of a tensor that is wrong
WHOLE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # the bits of a number of so many bytes


@dataclass
class Finding:
    """What was found about one tensor.

    kind     "adapted", "replaced" (learned whole), "untouched", "missing" or "extra"
    wrong    elements that are not what they may be; `off` names the first: (index, found, expected)
    ulp      the largest error in units in the last place; at most 0.5 where every element is the nearest there is
    share    the largest error as a part of the bound; 0 where every element is the nearest there is
    scale    strength of the update as the errors show it: 1 is right; `leans` if it is not 1 beyond chance
    reason   why not, when `ok` is false; `note` is worth knowing even when it is true
    """

    name: str
    kind: str
    dtype: str = ""
    elements: int = 0
    ok: bool = True
    wrong: int = 0
    ulp: float = 0.0
    share: float = 0.0
    scale: float = 1.0
    leans: bool = False
    off: list[tuple[tuple[int, ...], float, float]] = field(default_factory=list)
    reason: Reason | None = None
    note: str = ""

    def record(self, flat: Tensor, found: Tensor, expected: Tensor, shape: tuple[int, ...]):
        """Count wrong elements, and keep the first: `flat` are their places in the tensor as one row."""
        self.wrong += len(flat)
        for place, is_, should in zip(flat[:SHOWN].tolist(), found[:SHOWN], expected[:SHOWN], strict=True):
            if len(self.off) < SHOWN:
                index = torch.unravel_index(torch.tensor(place), shape or (1,))
                self.off.append((tuple(int(part) for part in index), is_.item(), should.item()))


class Comparison:
    """BASE beside MERGED: `compare(recipe, name)` judges one tensor."""

    def __init__(self, ours: Checkpoint, theirs: Checkpoint, policy: str, rslora: bool):
        self.ours, self.theirs, self.policy, self.rslora = ours, theirs, policy, rslora

    def compare(self, recipe: Recipe, name: str) -> Finding:
        entry = self.theirs.entries[name]
        expected = recipe.value.shape if recipe.value is not None else self.ours.entries[recipe.source].shape
        kind = "adapted" if recipe.update else "replaced" if recipe.value is not None else "untouched"
        finding = Finding(name, kind, entry.code, entry.numel)
        if tuple(expected) != entry.shape:
            finding.wrong, finding.reason = (
                entry.numel,
                Reason("shape", f"is {entry.shape}, expected {tuple(expected)}"),
            )
        elif recipe.update is None:
            self._plain(finding, recipe, name)
        elif entry.dtype not in UNIT:
            found = f"{name} holds {entry.code}"
            raise Error(f"{self.theirs.path}: {found}: only float64, float32, bfloat16 and float16 can be judged")
        else:
            self._sum(finding, Sum(Rows(self.ours, recipe.source), recipe.update), Rows(self.theirs, name))
        finding.ok = finding.reason is None
        return finding

    def _plain(self, finding: Finding, recipe: Recipe, name: str):
        """The same bits; or in another dtype, the value rounded to it."""
        entry = self.theirs.entries[name]
        if recipe.value is None:
            if same_bits(self.ours, recipe.source, self.theirs, name):
                return
            source = self.ours.entries[recipe.source]
            given, code, width = source.dtype, source.code, source.nbytes // max(1, entry.numel)
        else:
            given, code, width = recipe.value.dtype, str(recipe.value.dtype), 0
        if code != entry.code and given != entry.dtype and not (given in UNIT and entry.dtype in UNIT):
            finding.wrong, finding.reason = entry.numel, Reason("changed", f"holds {entry.code}, expected {code}")
            return
        step = entry.nbytes // max(1, entry.numel)
        for start, stop in ((start // step, stop // step) for start, stop in spans(entry.nbytes)):
            found = self.theirs.bytes(name, start * step, stop * step).view(entry.dtype or WHOLE[step])
            if recipe.value is None:
                raw = self.ours.bytes(recipe.source, start * width, stop * width)
                want = raw.view(given or WHOLE[width])
            else:
                want = recipe.value.reshape(-1)[start:stop]
            want, bad = _unequal(found, want)
            finding.record(bad.nonzero()[:, 0] + start, found[bad], want[bad], entry.shape)
        if given != entry.dtype:
            finding.note = f"cast to {entry.code}"
        if finding.wrong:
            text = f"was changed in {finding.wrong:,} of {entry.numel:,} elements"
            finding.reason = Reason("changed", text)

    def _sum(self, finding: Finding, total: Sum, merged: Rows):
        """Fill in the finding of an adapted tensor, and the reason if it is wrong."""
        if _check(finding, total, merged, self.policy, merged.dtype):
            if merged.dtype != total.weight.dtype and not finding.note:
                finding.note = f"cast to {finding.dtype}"
            return
        again = Finding(finding.name, finding.kind, finding.dtype, finding.elements)
        wider = UNIT[merged.dtype] < UNIT[total.weight.dtype]
        if wider and _check(again, total, merged, self.policy, total.weight.dtype):
            again.note = f"computed in {total.weight.dtype}, stored in {finding.dtype}".replace("torch.", "")
            vars(finding).update(vars(again))
        elif self.policy == "exact" and _check(again, total, merged, "bound", merged.dtype):
            text = f"is within rounding errors, but {finding.wrong:,} elements are not the nearest to the sum"
            finding.reason = Reason("rounding", text)
        else:
            finding.reason = explain(total, merged, finding, self.rslora)


def _unequal(found: Tensor, want: Tensor) -> tuple[Tensor, Tensor]:
    """What is expected, and where it is not found: by bits in the same dtype, else by value."""
    if want.dtype == found.dtype:
        bits = WHOLE[found.element_size()]
        return want, found.view(bits) != want.contiguous().view(bits)
    want = round_once(want.double(), found.dtype)
    return want, (found != want) & ~(found.isnan() & want.isnan())


def _check(finding: Finding, total: Sum, merged: Rows, policy: str, dtype: torch.dtype) -> bool:
    """Compare with the truth, block by block, as a merge computed in `dtype`; numbers go into the finding."""
    bound, lean, visible = None, None, False
    for rows in row_blocks(total.update.shape):
        weight, truth = total.truth(rows)
        found = merged[rows]
        best = round_once(truth, dtype).to(found.dtype)
        visible = visible or not torch.equal(best, round_once(weight, dtype).to(found.dtype))
        bad = (found != best).view(-1).nonzero()[:, 0]  # places in the block as one row
        bad = bad[~(found.view(-1)[bad].isnan() & best.view(-1)[bad].isnan())]
        if len(bad):
            bound = bound or Bound(total, dtype)
            lean = lean or Lean(bound)
            wrong = bad[_judge(finding, bound, lean, rows, (weight, truth, found, best, bad), policy)]
        else:  # but the sum may be too large for the dtype
            wrong = (~best.isfinite() & weight.isfinite()).view(-1).nonzero()[:, 0]
        if len(wrong):
            first = rows.start * found.shape[1]
            finding.record(wrong + first, found.view(-1)[wrong], best.view(-1)[wrong], merged.shape)
    finding.ulp = max(finding.ulp, 0.5)
    if not visible:
        finding.note = f"indistinguishable from the base: the update is below what {finding.dtype} can show"
    if lean:
        finding.scale = lean.scale
    finding.leans = lean is not None and not lean.honest
    return not finding.wrong and (policy == "exact" or not finding.leans)


def _judge(finding: Finding, bound: Bound, lean: Lean, rows: slice, block: tuple, policy: str) -> Tensor:
    """Of the elements `bad`, which are not the nearest: a mask of those that are wrong."""
    weight, truth, *rest, bad = block
    t, before, is_, should = (values.view(-1)[bad] for values in (truth, weight, *rest))
    m = is_.double()
    away = (m - t).abs()
    finding.ulp = max(finding.ulp, _largest(away / (2 * half_spacing(t, bound.dtype))))
    lean.add(m - should.double(), t - before)
    if policy == "exact":
        doubt = bound.total.doubt(rows).view(-1)[bad]
        low, high = (round_once(end, bound.dtype).to(m) for end in (t - doubt, t + doubt))
        fine = (low <= m) & (m <= high)
    else:
        share = away / (bound.error(rows, truth, bad) + half_spacing(m, bound.dtype))
        finding.share = max(finding.share, _largest(share))
        fine = share <= 1
    if bound.dtype != is_.dtype:  # computed in a narrower dtype, it can hold numbers of that dtype only
        fine &= is_.to(bound.dtype).to(is_.dtype) == is_
    return ~fine


def _largest(values: Tensor) -> float:
    return values.nan_to_num(torch.inf, torch.inf).max().item()
