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

from minigpt.corpus.batches import Order
from minigpt.corpus.documents import Documents
from minigpt.corpus.split import hash_of, settle, shown
from minigpt.corpus.usable import Unusable, usable
from minigpt.errors import Error
from minigpt.inputs import Example, TaskBatch, collate

MOST_CLASSES = 1000


@dataclass(frozen=True)
class Record:
    """Texts as `inputs.sequences` wants them, the name (or, of a choice, the number) of the answer, and the key."""

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


class Labels(Documents):
    """The records of a file, each as a `Record`; what has no class, or no list of answers, is bad as a document is."""

    def __init__(self, source, task: str, field: str, label: str, others: tuple[str, ...], **options):
        super().__init__(source, field, **options)
        self.task, self.label, self.others = task, label, others
        self.needed += [(name,) for name in (label, *others)]

    def take(self, record: dict) -> Record | Unusable:
        for name in (self.field, self.label, *self.others):
            if record.get(name) is None:
                return Unusable(f"no field {name!r}")
        first = usable(record[self.field])
        if isinstance(first, Unusable):
            return first
        others, answer = [record[name] for name in self.others], _name(record[self.label])
        if self.task == "choice":
            others = _answers(others[0])
            answer = _place(record[self.label], answer, others)
        texts = [usable(text, "the second text" if len(others) == 1 else "an answer") for text in others]
        bad = next((each for each in (answer, *texts) if isinstance(each, Unusable)), None)
        return bad or Record((first, *texts), answer, hash_of(first)[1])


def read(documents: Labels, validation: float) -> Labelled:
    """All records of a source, on their sides; exact duplicates are left out."""
    if not 0 < validation < 1:
        raise Error(f"--validation is {validation}: a task is judged on records kept apart: give a share such as 0.1")
    found = [document.text for document in shown(documents, "reading", progress=True)]
    records = list(dict.fromkeys(found))
    bad = [f"{documents.bad.total:,} bad, first {documents.bad.first[0]}"] if documents.bad.total else []
    keys = [record.key for record in records]
    if len(set(keys)) < 2:
        what = ": ".join([f"{len(records)} usable records, expected at least 2 different texts", *bad])
        raise Error(f"{documents.source}: {what}")
    limit = settle(int(validation * 2**64), min(keys), max(keys))
    sides = [[record for record in records if (record.key < limit) == held] for held in (False, True)]
    names = () if documents.task == "choice" else _names([record.answer for record in records], documents)
    return Labelled(documents.task, *sides, names, len(found) - len(records), bad)


def _place(value: object, name: str | Unusable, answers: list[str]) -> str | Unusable:
    """The number of the right answer, given as a number or as the answer itself."""
    if isinstance(value, str) and value in answers:
        return str(answers.index(value))
    right = isinstance(name, str) and name.isdecimal() and int(name) < len(answers)
    return name if right else Unusable("the right answer is none of the choices, nor the number of one, from 0")


def _name(value: object) -> str | Unusable:
    """A class as it is printed: text, or a number."""
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float) or not str(value).strip():
        return Unusable(f"the label is {'empty' if isinstance(value, str) else type(value).__name__}")
    return str(value)


def _answers(value: object) -> list[object]:
    """A list of two or more, or the JSON of one, as a cell of .csv holds it; anything else is none."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            value = None
    good = isinstance(value, list) and len(value) >= 2
    return value if good else [Unusable("the choices are no list of two or more texts")]


def _names(answers: list[str], documents: Labels) -> tuple[str, ...]:
    found, where = set(answers), f"{documents.source}: the field {documents.label!r}"
    if len(found) < 2:
        raise Error(f"{where} is {found.pop()!r} everywhere: there is nothing to tell apart: name another field")
    if len(found) > MOST_CLASSES:
        raise Error(f"{where} has {len(found):,} different values, expected classes, at most {MOST_CLASSES:,}")
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


class TaskBatches(Order):
    """The batches of a run by global number, as corpus/batches.py has them for text; padding is on the right.

    >>> examples = [Example([[i]], label=i % 2) for i in range(5)]
    >>> batches = TaskBatches("classification", examples, 2, seed=0, vocab_size=100, shuffle=False)
    >>> len(batches), batches[2].tokens.tolist(), batches[2].labels.tolist()
    (3, [[[100, 4, 102]]], [0])
    """

    def __init__(self, task: str, examples: list[Example], batch_size: int, seed: int, vocab_size: int, shuffle=True):
        super().__init__(len(examples), batch_size, seed, shuffle)
        self.task, self.examples, self.vocab_size = task, examples, vocab_size

    def __getitem__(self, i: int) -> TaskBatch:
        return collate(self.task, [self.examples[row] for row in self.rows(i)], self.vocab_size)

    def describe(self, window: int) -> str:
        """Which record a row is, counted from 0."""
        return f"record {window} of its side"
