"""A text of the user's files, or why there is none. What cannot be used is told by file and line, never by content."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

SURROGATE = "not valid Unicode (a lone surrogate)"


@dataclass(frozen=True)
class Document:
    """What was read (a text; other readers: see records.py) and from where; `line` counts from 1, 0 is a whole file."""

    text: str
    file: Path
    line: int = 0

    @property
    def place(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


class Bad:
    """Lines that could not be used: `counts` by reason, and the `first` five as "file:line: reason".

    >>> bad = Bad(); bad.add("notes.jsonl:7", "empty"); bad.total, bad.first, dict(bad.counts)
    (1, ['notes.jsonl:7: empty'], {'empty': 1})
    """

    def __init__(self):
        self.counts, self.first = Counter(), []

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def add(self, place: str, reason: str) -> None:
        self.counts[reason] += 1
        if len(self.first) < 5:
            self.first.append(f"{place}: {reason}")


@dataclass(frozen=True)
class Unusable:
    """In place of a text: why there is none."""

    reason: str


def usable(text: object, what: str = "") -> "str | Unusable":
    """The text, or what is wrong with it; `what` it is, where a record has several."""
    if not isinstance(text, str):
        return Unusable(f"{what or 'the text'} is {type(text).__name__}, expected a string")
    if not text.strip():
        return Unusable(f"{what} is empty" if what else "empty")
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            return Unusable(SURROGATE)
    return text
