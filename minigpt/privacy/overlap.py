"""How long are the passages two texts share, letter for letter?

    overlap(q) = max { l : q[i : i + l] stands in the text, for some i }

A suffix array of the text (Manber & Myers 1993): its suffixes in order, so what begins like q[i:] stands together, and
the longest beginning that q[i:] shares with any suffix it shares with one of the two between which it would be sorted.

n letters of text, m of the query, d the longest passage that is told apart
    sorting       O(n log n log d): suffixes are ordered by 1, 2, 4, ... d letters, each time by two ranks of before
    a query       O(m (log n + d)), and exact: no hash
    memory        some 40 n bytes while it is sorted, 12 n after

A letter is a character or a token: the ids of tokens are written as characters, of which there are enough.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from os.path import commonprefix
from typing import NamedTuple

import numpy as np

LONGEST = 1024  # letters; a longer passage is reported as this long
_BORDER = "\U0010ffff"  # between texts: no character, so that no passage goes over it


class Passage(NamedTuple):
    """`length` letters from `start` of the query."""

    length: int
    start: int


def letters(ids: Iterable[int]) -> str:
    """Token ids as a string, a character each."""
    return "".join(map(chr, ids))


class Index:
    """The texts, searchable for the longest passage a query shares with any one of them.

    >>> Index(["denies chest pain", "胸痛三天"]).longest("no chest pain; 胸痛")
    Passage(length=11, start=2)
    """

    def __init__(self, texts: Sequence[str]):
        self.text = _BORDER.join(texts) + _BORDER
        self.order = suffixes(self.text)

    def longest(self, query: str) -> Passage:
        """The first of the longest."""
        best = Passage(0, 0)
        for start in range(len(query)):
            if best.length >= min(LONGEST, len(query) - start):
                break
            if (length := self.beginning(query[start : start + LONGEST])) > best.length:
                best = Passage(length, start)
        return best

    def beginning(self, query: str) -> int:
        """How many of the first letters of `query` stand in a text together."""

        def suffix(place: int) -> str:
            return self.text[place : place + len(query)]

        at = bisect_left(self.order, query, key=suffix)
        beside = self.order[max(0, at - 1) : at + 1]
        return max((len(commonprefix([query, suffix(place).partition(_BORDER)[0]])) for place in beside), default=0)


def suffixes(text: str) -> np.ndarray:
    """Where the suffixes of `text` begin, in their order as far as their first `LONGEST` letters tell them apart.

    >>> suffixes("banana").tolist()
    [5, 3, 1, 0, 4, 2]
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    rank, known = np.unique(codes, return_inverse=True)[1].astype(np.int64) + 1, 1
    while True:
        following = np.zeros_like(rank)  # past the end: before every letter
        following[: max(0, len(rank) - known)] = rank[known:]
        key = rank * (len(rank) + len(codes) + 2) + following
        order = np.argsort(key)
        changes = np.diff(key[order], prepend=-1) != 0
        rank[order] = np.cumsum(changes)
        known *= 2
        if known >= LONGEST or changes.all():
            return order


def longest_plain(texts: Sequence[str], query: str) -> Passage:
    """The same by trying every passage."""
    for length in range(min(len(query), LONGEST), 0, -1):
        for start in range(len(query) - length + 1):
            if any(query[start : start + length] in text for text in texts):
                return Passage(length, start)
    return Passage(0, 0)
