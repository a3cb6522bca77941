"""Records with an answer -> examples of a task, for training and for validation; and the batches of a run.

    classify   --field the text                  --label its class
    entail     --field the premise               --label the class of the two        --pair the hypothesis
    similar    --field one text                  --label the class of the two        --pair the other
    choice     --field the context               --label the right answer, or its number from 0
                                                                                     --choices all answers

A record stays on its side of the split as a note does (split.py), by its first text alone: a premise that stands in
ten records is not in training and validation both. What is too long is cut at its end, the longer text first, until
its sequence with its start, delimiter and extract tokens fits.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from minigpt.corpus.batches import shuffled
from minigpt.corpus.documents import Document, Documents
from minigpt.corpus.split import hash_of, settle, shown
from minigpt.errors import Error
from minigpt.examples import Example, TaskBatch, collate

MOST_CLASSES = 1000


@dataclass(frozen=True)
class Record:
    """Texts as `examples.sequences` wants them, the name (or, of a choice, the number) of the answer, and the key."""

    texts: tuple[str, ...]
    answer: str
    key: int


@dataclass(frozen=True)
class Labelled:
    """The records of both sides; `names` are the classes in the order of their numbers, none for a choice."""

    task: str
    training: list[Record]
    validation: list[Record]
    names: tuple[str, ...]
    duplicates: int = 0
    bad: list[str] = field(default_factory=list)

    @property
    def n_classes(self) -> int:
        """Of a choice, the most answers that any record has."""
        return len(self.names) or max(len(record.texts) - 1 for record in (*self.training, *self.validation))

    def number(self, record: Record) -> int:
        return self.names.index(record.answer) if self.names else int(record.answer)

    def commonest(self) -> float:
        """The share of the commonest class of the training records in the validation records: the least to beat."""
        ours, theirs = (Counter(map(self.number, side)) for side in (self.training, self.validation))
        return theirs[ours.most_common(1)[0][0]] / len(self.validation)


def read(documents: Documents, task: str, label: str, others: tuple[str, ...], validation: float) -> Labelled:
    """All records of a source that names `label` and `others` in its `also`.

    Exact duplicates are left out. Bad ones (no class, no list of answers, an answer that is none of them) are counted
    in `bad`, or refused, as `documents.on_bad` says.
    """
    if not 0 < validation < 1:
        raise Error(f"--validation is {validation}: a task is judged on records kept apart: give a share such as 0.1")
    records, total = {}, 0
    for document in shown(documents, "reading", progress=True):
        total += 1
        try:
            record = _record(document, task, label, others)
        except ValueError as problem:
            documents.leave_out(document.file, document.line, str(problem))
            continue
        records[record.texts, record.answer] = record
    bad = [f"{documents.bad.total} bad, first {documents.bad.first[0]}"] if documents.bad.total else []
    if len({record.key for record in records.values()}) < 2:
        raise Error(
            f"{documents.source}: {len(records)} usable records, expected at least 2 different texts{': '.join(['', *bad])}"
        )
    keys = [record.key for record in records.values()]
    limit = settle(int(validation * 2**64), min(keys), max(keys))
    sides = [[record for record in records.values() if (record.key < limit) == held] for held in (False, True)]
    names = () if task == "choice" else _names([record.answer for record in records.values()], label, documents)
    return Labelled(task, *sides, names, total - documents.bad.total - len(records), bad)


def _record(document: Document, task: str, label: str, others: tuple[str, ...]) -> Record:
    """The record of a document; ValueError says why there is none."""
    answer, beside = _name(document.beside[label]), [document.beside[name] for name in others]
    if task == "choice":
        answers = _answers(beside[0])
        if answer in answers and isinstance(document.beside[label], str):
            answer = str(answers.index(answer))
        if not answer.isdecimal() or int(answer) >= len(answers):
            raise ValueError("the right answer is none of the choices, nor the number of one, counted from 0")
        return Record((document.text, *answers), answer, hash_of(document.text)[1])
    for text in beside:
        if not isinstance(text, str) or not text.strip():
            raise ValueError("the second text is empty or no text")
    return Record((document.text, *beside), answer, hash_of(document.text)[1])


def _name(value: object) -> str:
    """A class as it is printed: text, or a number."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float) or not str(value).strip():
        raise ValueError(f"the label is {'empty' if isinstance(value, str) else type(value).__name__}")
    return str(value)


def _answers(value: object) -> list[str]:
    """A list of texts, or the JSON of one, as a cell of .csv holds it."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = None
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(text, str) and text for text in value):
        raise ValueError("the choices are no list of two or more texts")
    return value


def _names(answers: list[str], label: str, documents: Documents) -> tuple[str, ...]:
    found = set(answers)
    if len(found) < 2:
        raise Error(
            f"{documents.source}: every {label!r} is {found.pop()!r}: nothing to tell apart: name another field"
        )
    if len(found) > MOST_CLASSES:
        raise Error(
            f"{documents.source}: {label!r} has {len(found):,} different values, expected classes: at most 1,000"
        )
    numbers = all(name.removeprefix("-").isdecimal() for name in found)
    return tuple(sorted(found, key=int if numbers else str))


def encode(
    labelled: Labelled, records: Sequence[Record], encode_all: Callable[[list[str]], list[list[int]]], room: int
) -> tuple[list[Example], int]:
    """Records as examples whose sequences have at most `room` ids, the task's own included; and how many were cut."""
    ids = iter(encode_all([text for record in records for text in record.texts]))
    examples, n_cut = [], 0
    for record in records:
        whole = [next(ids) for _ in record.texts]
        texts = cut(labelled.task, whole, room)
        n_cut += texts != whole
        examples.append(Example(texts, labelled.number(record)))
    return examples, n_cut


def cut(task: str, texts: list[list[int]], room: int) -> list[list[int]]:
    """The texts, shortened at their ends so that every sequence of them fits into `room` ids.

    Of two the longer gives way. Of a choice answers may take half of the room, and the context has the rest.

    >>> cut("entailment", [[1, 2, 3, 4, 5], [6, 7]], room=7)
    [[1, 2], [6, 7]]
    """
    if task == "classification":
        return [texts[0][: room - 2]]
    first, others = texts[0], texts[1:]
    left = room - 3
    if task == "choice":
        others = [text[: left - min(len(first), left // 2)] for text in others]
        return [first[: left - max(map(len, others))], *others]
    (second,) = others
    half = left // 2
    n_second = min(len(second), max(half, left - len(first)))
    return [first[: left - n_second], second[:n_second]]


class TaskBatches:
    """The batches of a run by global number, as corpus/batches.py has them for text: rows of an epoch in an order
    drawn from (seed, epoch) alone, the last batch of an epoch perhaps shorter. Padding is on the right.

    >>> examples = [Example([[i]], label=i % 2) for i in range(5)]
    >>> batches = TaskBatches("classification", examples, 2, seed=0, vocab_size=100, shuffle=False)
    >>> len(batches), batches[2].tokens.tolist(), batches[2].labels.tolist()
    (3, [[[100, 4, 102]]], [0])
    """

    def __init__(self, task: str, examples: list[Example], batch_size: int, seed: int, vocab_size: int, shuffle=True):
        self.task, self.examples, self.batch_size, self.seed = task, examples, batch_size, seed
        self.vocab_size, self.shuffle = vocab_size, shuffle
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        return -(-len(self.examples) // self.batch_size)

    def __getitem__(self, i: int) -> TaskBatch:
        return collate(self.task, [self.examples[row] for row in self.rows(i)], self.vocab_size)

    def __iter__(self):
        raise TypeError("batches have no end: index them, range(len(batches)) is one epoch")

    def rows(self, i: int) -> np.ndarray:
        """Which examples are the rows of batch i."""
        if i < 0:
            raise IndexError(f"batch {i}: batches count from 0")
        epoch, place = divmod(i, len(self))
        if not self.shuffle:
            order = np.arange(len(self.examples))
        else:
            if self._order is None or self._order[0] != epoch:
                self._order = epoch, shuffled(len(self.examples), self.seed, epoch)
            order = self._order[1]
        return order[place * self.batch_size : (place + 1) * self.batch_size]
