"""Is this checkpoint BASE + ADAPTER?  Every tensor is compared, a block of rows at a time, and the answer has reasons.

    exact   every merged weight is the correctly rounded W + s B A
    bound   every merged weight is within what an honest computation in that dtype can yield (lora/bound.py), and the
            errors do not lean with the update: what other tools merge passes, a wrong alpha does not

Tensors that the adapter does not touch must be the same bits. Nothing is ever held but blocks and the adapter.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lora import files
from lora.checkpoint import HEAD, Checkpoint, same_bits
from lora.compare import Comparison, Finding
from lora.diagnose import Reason, summarize
from lora.errors import Error
from lora.recipe import Recipe, recipes, unties
from lora.rounded import RoundedCheckpoint
from lora.storage import open_tensors

POLICIES = ("bound", "exact")


@dataclass(frozen=True)
class Verdict:
    """The answer, `equal`, with one finding a tensor; `reasons` in words; `notes` that do not change the answer."""

    equal: bool
    policy: str
    findings: list[Finding]
    reasons: list[str]
    notes: list[str]
    nbytes: int


def verify(
    base: str | Path,
    adapter: str | Path,
    merged: str | Path,
    policy: str = "bound",
    progress: Callable[[int, int], None] | None = None,
) -> Verdict:
    """Whether the checkpoint `merged` is `base` + `adapter`, by one of the policies above.

    base, merged: Hugging Face directories or .safetensors files; adapter: a PEFT directory. `progress` is told bytes
    done and to do. Raises `Error` when it cannot check: files missing, damaged, or not fitting each other.
    """
    if policy not in POLICIES:
        raise Error(f"policy is {policy!r}: choose from {', '.join(POLICIES)}")
    stored = files.read(adapter)
    with RoundedCheckpoint(base, stored.rounded) as ours, Checkpoint(merged) as theirs:
        made = recipes(ours, stored)
        comparison = Comparison(ours, theirs, policy, stored.config.rslora)
        nbytes = sum(entry.nbytes for entry in theirs.entries.values())
        findings, seen, done = [], set(), 0
        for name, recipe in made.items():
            found = _counterpart(ours, theirs, name)
            if found is None:
                if not (name in ours.entries and derived(ours, name)):
                    findings.append(Finding(name, "missing", ok=False, reason=Reason("missing", "is missing")))
                continue
            findings.append(comparison.compare(recipe, found))
            findings[-1].name = name
            done += theirs.entries[found].nbytes if found not in seen else 0
            seen.add(found)
            if progress:
                progress(done, nbytes)
        findings += _extra(ours, theirs, seen)
        findings += _two_matrices(ours, theirs, made)
        reasons, notes = summarize(findings, other_base(ours, stored))
        notes += [_note(ours)] if ours.rounded else []
    return Verdict(all(found.ok for found in findings), policy, findings, reasons, notes, nbytes)


def _note(base: RoundedCheckpoint) -> str:
    return f"the base is {base.path} rounded to four bits in {len(base.rounded)} tensors, as the adapter had it"


def derived(checkpoint: Checkpoint, name: str) -> bool:
    """Buffers that follow from the config and that some files carry: causal masks, rotary frequencies."""
    dimensions = len(checkpoint.entries[name].shape)
    return (
        name.endswith("rotary_emb.inv_freq")
        or (name.endswith("attn.bias") and dimensions == 4)
        or (name.endswith("attn.masked_bias") and dimensions == 0)
    )


def _counterpart(ours: Checkpoint, theirs: Checkpoint, name: str) -> str | None:
    found = theirs.find(name)
    if found is None and name == (ours.find(HEAD) or HEAD) and theirs.ties is not False:
        return theirs.embedding  # one matrix, stored once
    return found


def _extra(ours: Checkpoint, theirs: Checkpoint, seen: set[str]) -> Iterable[Finding]:
    for name, entry in theirs.entries.items():
        if name in seen or derived(theirs, name):
            continue
        finding = Finding(name, "extra", entry.code, entry.numel)
        tied = theirs.embedding if name == theirs.find(HEAD) and ours.tied else None
        if tied and same_bits(theirs, name, theirs, tied):
            finding.note = "the embedding again, as the base ties them"
        else:
            finding.ok, finding.reason = False, Reason("extra", "is not in the base")
        yield finding


def _two_matrices(ours: Checkpoint, theirs: Checkpoint, made: dict[str, Recipe]) -> Iterable[Finding]:
    """Where an adapter changes only one of a tied pair, MERGED must store both, and be loaded as two."""
    if not unties(ours, made):
        return
    if not theirs.find(HEAD):
        text = (
            "one matrix cannot be both: the adapter changes only one of head and embedding, MERGED stores them as one"
        )
        yield Finding(HEAD, "extra", ok=False, reason=Reason("tied", text))
    elif theirs.config and theirs.ties is not False:
        text = "the head now has a matrix of its own, but config.json still ties it to the embedding: loading loses it"
        yield Finding("config.json", "extra", ok=False, reason=Reason("tied", text))


def other_base(base: Checkpoint, stored: files.Stored) -> list[str]:
    """Tensors of BASE that are not those the adapter was trained on."""
    differ = []
    for name, digest in stored.fingerprint.items():
        found = base.find(name) or (base.embedding if name == HEAD else None)
        if found is None:
            differ.append(name)
            continue
        if found in getattr(base, "rounded", ()):
            differ += [name] if files.fingerprint(base.as_trained(found)) != digest else []
            continue
        with open_tensors(base.entries[found].file) as source:  # mapped: only the sample is read
            if files.fingerprint(source.get_tensor(found)) != digest:
                differ.append(name)
    return differ
