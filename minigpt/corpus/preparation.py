"""Documents -> a directory of tokens: train.bin, val.bin, manifest.json, tokenizer.json, tokenizer_config.json.

Three passes over the source, each with one batch of documents in memory: which documents there are, what the tokenizer
learns from (the training split alone), and their tokens.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from minigpt.corpus.documents import Documents
from minigpt.corpus.split import Plan, plan_split, unique
from minigpt.corpus.tokens import FORMAT, read_manifest
from minigpt.errors import Error
from minigpt.files import atomic_directory, write_atomic
from minigpt.privacy.identifiers import Tally
from minigpt.tokenizer import Tokenizer

_TRAINING_BYTES = 64 * 2**20  # a larger sample hardly changes the merges, but the trainer's memory grows with it
_BATCH_CHARACTERS = 2**22
_PART_CHARACTERS = 2**20
_PIECE_CHARACTERS = 2**13
_NAMES = {"train.bin", "val.bin", "manifest.json", "tokenizer.json", "tokenizer_config.json"}
# After a newline between a sign or letter and a letter or digit, every cut pattern here begins a new piece.
_SAFE_CUT = re.compile(r"(?<=\S\n)(?=\w)")


def prepare(
    source: str | Path,
    out: str | Path,
    field: str | None = None,
    tokenizer: "None | str | Path | Tokenizer" = None,
    vocab_size: int = 4096,
    validation: float = 0.1,
    on_bad: str = "skip",
    where: tuple[str, ...] = (),
    progress: bool = True,
    identifiers_check: bool = True,
) -> dict:
    """Write the tokens of `source` (see Documents) into the directory `out` and return its manifest.

    Format: EOT doc EOT doc EOT ..., little-endian uint16, or uint32 for more than 65536 ids; EOT stands once between
    two documents, as the last target of one and the first input of the next. Exact duplicates are left out. A document
    goes to val.bin when a hash of its text falls below `validation`, so it stays on its side when others come or go;
    when that would leave a side empty, the document with the lowest (highest) hash goes there. A single document is
    cut: its last part, from the start of a line, is val.bin. With validation=0, val.bin holds no document.

    tokenizer: None learns one of at most `vocab_size` ids from the training split; or a published name ("gpt2"), a
    directory, or a Tokenizer. `identifiers_check` counts what looks like a name or a number of somebody, by kind
    (privacy/identifiers.py). The same request on unchanged files (path, size, time) returns what is there.
    Errors: those of Documents and Tokenizer, no usable document, files changing meanwhile, `out` holding other things.
    """
    out, documents = Path(out), Documents(source, field, on_bad, where)
    if not 0 <= validation < 1:
        raise Error(f"validation is {validation}, expected a fraction from 0 to below 1, such as 0.1")
    given = _given(tokenizer)
    request = {"source": str(source), "field": field, "where": list(where)} | _vocabulary(given, vocab_size)
    request |= {"validation": validation, "on_bad": on_bad, "identifiers_check": identifiers_check}
    stamp = _stamp(documents.files)
    found = _what_is_there(out)
    if found and found.get("request") == request and found["sources"]["stamp"] == stamp:
        return found
    plan, tally = plan_split(documents, validation, progress), Tally() if identifiers_check else None
    chosen = given or Tokenizer.train(_sample(documents, plan, progress), vocab_size, progress=progress)
    with atomic_directory(out, replace=True) as folder:
        chosen.save(folder)
        splits = _encode(documents, plan, chosen, folder, tally, progress)
        if _stamp(documents.files) != stamp:
            raise Error(f"{source}: changed while it was read: run again when it is complete")
        manifest = _manifest(documents, plan, chosen) | splits | {"identifiers": tally and tally.record()}
        manifest["sources"] = {"files": len(documents.files), "bytes": documents.size, "stamp": stamp}
        manifest["request"] = request
        write_atomic(folder / "manifest.json", json.dumps(manifest, ensure_ascii=False, indent=1) + "\n")
    return manifest


def _vocabulary(given: Tokenizer | None, vocab_size: int) -> dict:
    if given is None:
        return {"tokenizer": "trained", "vocab_size": vocab_size}
    return {"tokenizer": _fingerprint(given), "vocab_size": given.vocab_size}


def _manifest(documents: Documents, plan: Plan, tokenizer: Tokenizer) -> dict:
    bad = documents.bad
    return {
        "format": FORMAT,
        "dtype": _dtype(tokenizer).name,
        "vocab_size": tokenizer.vocab_size,
        "eot": tokenizer.eot,
        "duplicates": plan.duplicates,
        "bad": {"total": bad.total, "counts": dict(sorted(bad.counts.items())), "first": bad.first},
        "unread": documents.unread,
    }


def _sample(documents: Documents, plan: Plan, progress: bool) -> Iterator[str]:
    """Training texts for the tokenizer: all of the split, or pieces spread evenly over it, `_TRAINING_BYTES` in sum."""
    # Spread, not the first ones: English files first and Chinese ones last would else give an English tokenizer.
    share = min(1.0, _TRAINING_BYTES / max(plan.train_bytes, 1))
    due = 0.0
    for split, text in unique(documents, plan, "learning the vocabulary", progress):
        for i in range(0, len(text) if split == "train" else 0, _PIECE_CHARACTERS):
            piece = text[i : i + _PIECE_CHARACTERS]
            due += share * len(piece.encode())
            if due > 0:
                yield piece
                due -= len(piece.encode())


class _Bin:
    """One .bin file while it is written, with its counts and hash."""

    def __init__(self, path: Path, dtype: np.dtype, eot: int):
        self.handle, self.dtype, self.eot = path.open("wb"), dtype, eot
        self.documents = self.tokens = self.bytes = 0
        self.hash = hashlib.sha256()
        self.append([eot])

    def append(self, ids: list[int]) -> None:
        data = np.asarray(ids, dtype=self.dtype).tobytes()
        self.handle.write(data)
        self.hash.update(data)
        self.tokens += len(ids)

    def close(self) -> dict:
        self.handle.close()  # flushes, so a full disk may show only here
        counts = {"documents": self.documents, "tokens": self.tokens, "bytes": self.bytes}
        return {**counts, "sha256": self.hash.hexdigest()}


def _encode(
    documents: Documents, plan: Plan, tokenizer: Tokenizer, folder: Path, tally: Tally | None, progress: bool
) -> dict[str, dict]:
    dtype = _dtype(tokenizer).newbyteorder("<")
    bins = {split: _Bin(folder / f"{split}.bin", dtype, tokenizer.eot) for split in ("train", "val")}
    try:
        for batch in _batches(_counted(unique(documents, plan, "encoding", progress), tally)):
            texts = [text for _, text, _ in batch]
            for (split, text, ends), ids in zip(batch, tokenizer.encode_batch(texts), strict=True):
                target = bins[split]
                target.append(ids + [tokenizer.eot] if ends else ids)
                target.bytes += len(text.encode())
                target.documents += ends
        return {split: target.close() for split, target in bins.items()}
    except OSError as problem:
        raise Error(f"{folder.parent}: cannot write the tokens: {problem.strerror}") from problem
    finally:
        for target in bins.values():
            with suppress(OSError):
                target.handle.close()


def _counted(documents: Iterator[tuple[str, str]], tally: Tally | None) -> Iterator[tuple[str, str]]:
    """The same, each looked at for what could name somebody."""
    for split, text in documents:
        if tally is not None:
            tally.add(text)
        yield split, text


def _batches(documents: Iterator[tuple[str, str]]) -> Iterator[list[tuple[str, str, bool]]]:
    """Lists of (split, text, ends a document) of some millions of characters; a long document comes in parts."""
    batch, size = [], 0
    for split, text in documents:
        for part, ends in _parts(text):
            batch.append((split, part, ends))
            size += len(part)
            if size >= _BATCH_CHARACTERS:
                yield batch
                batch, size = [], 0
    yield batch


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Pieces of `text` whose ids joined are the ids of the whole, and whether it is the last."""
    start = 0
    while match := _SAFE_CUT.search(text, start + _PART_CHARACTERS):
        yield text[start : match.start()], False
        start = match.start()
    yield text[start:], True


def _given(tokenizer: "None | str | Path | Tokenizer") -> Tokenizer | None:
    if tokenizer is None or isinstance(tokenizer, Tokenizer):
        return tokenizer
    return Tokenizer.load(tokenizer) if Path(tokenizer).is_dir() else Tokenizer.named(str(tokenizer))


def _fingerprint(tokenizer: Tokenizer) -> str:
    ranks, pattern, specials = tokenizer.vocabulary
    content = repr((sorted(ranks.items()), pattern, sorted(specials.items()), tokenizer.eot))
    return hashlib.sha256(content.encode()).hexdigest()


def _stamp(files: list[Path]) -> str:
    states = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(states).encode("utf-8", "surrogateescape")).hexdigest()


def _what_is_there(out: Path) -> dict | None:
    """The manifest of complete tokens at `out`; None when they are to be made (again); Error for other contents."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    # It will be replaced, so it must be ours to the last file.
    if not out.is_dir() or not {path.name for path in out.iterdir()} <= _NAMES:
        raise Error(f"{out}: holds something that is not tokens: choose another name for them")
    try:
        return read_manifest(out)
    except Error:
        return None


def _dtype(tokenizer: Tokenizer) -> np.dtype:
    return np.dtype(np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
