"""Which documents there are, and which side each belongs to: decided by their text alone."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from minigpt.corpus.documents import Documents
from minigpt.corpus.usable import Document
from minigpt.errors import Error


@dataclass(frozen=True)
class Plan:
    """Which documents go where: those whose hash is below `limit` are validation; `cut` splits a single document."""

    limit: int
    cut: float | None
    train_bytes: int
    duplicates: int


def plan_split(documents: Documents, validation: float, progress: bool) -> Plan:
    """One pass that finds the limit which leaves neither side empty; Error when there is no usable document."""
    limit = int(validation * 2**64)
    total, train_bytes, size, lowest, highest, seen = 0, 0, 0, 2**64, -1, set()
    for document in shown(documents, "reading", progress):
        total += 1
        digest, key = hash_of(document.text)
        if digest in seen:
            continue
        seen.add(digest)
        lowest, highest = min(lowest, key), max(highest, key)
        size = len(document.text.encode())
        train_bytes += size if key >= limit else 0
    count = len(seen)
    if count == 0:
        if not documents.size:
            raise Error(f"{documents.source}: is empty: there is nothing to learn from")
        reports = f": {documents.bad.total} bad, first {documents.bad.first[0]}" if documents.bad.total else ""
        raise Error(f"{documents.source}: no usable document{reports}")
    if count == 1 and validation > 0:
        return Plan(0, validation, int(size * (1 - validation)), total - 1)
    if validation > 0:
        limit = settle(limit, lowest, highest)
    return Plan(limit, None, train_bytes, total - count)


def settle(limit: int, lowest: int, highest: int) -> int:
    """The limit nearest to this one that leaves neither side empty."""
    return min(max(limit, lowest + 1), highest)


def hash_of(text: str) -> tuple[bytes, int]:
    """What tells texts apart, and the number from 0 up to 2^64 that says where a text goes."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    return digest, int.from_bytes(digest[:8], "big")


def unique(documents: Documents, plan: Plan, title: str, progress: bool) -> Iterator[tuple[str, str]]:
    """(split, text) of every document once, a single document cut in two."""
    seen = set()
    for document in shown(documents, title, progress):
        digest, key = hash_of(document.text)
        if digest in seen:
            continue
        seen.add(digest)
        if plan.cut is None:
            yield ("val" if key < plan.limit else "train"), document.text
            continue
        text = document.text
        if len(text) < 2:
            raise Error(f"{document.file}: one character cannot be split in two: add text, or set validation to 0")
        middle = min(max(int(len(text) * (1 - plan.cut)), 1), len(text) - 1)
        middle = text.rfind("\n", 0, middle) + 1 or middle
        yield "train", text[:middle]
        yield "val", text[middle:]


def shown(documents: Documents, title: str, progress: bool) -> Iterator[Document]:
    """The documents, under a bar of progress on a terminal."""
    from tqdm import tqdm

    # None: a bar on a terminal only.
    disable = None if progress else True
    with tqdm(total=documents.size, desc=title, unit="B", unit_scale=True, disable=disable, leave=False) as bar:
        for document in documents:
            bar.update(documents.position - bar.n)
            yield document
