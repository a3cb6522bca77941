"""A file of records -> batches to train on and batches to validate on, and what became of every line.

Each record is encoded once, and held as tokens: four bytes and a bit for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from minigpt.corpus.records import READERS, RecordConfig, Records
from minigpt.corpus.rows import RecordBatches
from minigpt.corpus.split import hash_of, settle, shown
from minigpt.corpus.talk import Example, Layout
from minigpt.corpus.usable import Bad
from minigpt.errors import Error, nearest
from minigpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Side:
    """Training or validation in numbers."""

    records: int
    tokens: int
    targets: int


@dataclass(frozen=True)
class Counts:
    """What became of the records. `cut`: inputs cut, `dropped`: utterances dropped, in records that are `shortened`."""

    training: Side
    validation: Side
    shortened: int
    dropped: int
    duplicates: int
    bad: Bad = field(repr=False)

    def __str__(self) -> str:
        train, learned = self.training, f"{self.training.targets:,} of their {self.training.tokens:,} tokens"
        lines = [
            f"{train.records:,} records to train on ({learned} are learned), {self.validation.records:,} to validate on"
        ]
        if self.shortened:
            lost = (
                f"{self.dropped:,} of their oldest utterances are dropped" if self.dropped else "their inputs are cut"
            )
            lines.append(f"{self.shortened:,} are longer than the context: {lost}")
        if self.duplicates:
            lines.append(f"{self.duplicates:,} more are there twice")
        if self.bad.total:
            lines.append(f"{self.bad.total:,} are left out, such as {self.bad.first[0]}")
        return "\n".join(lines)


def open_records(
    source: str | Path,
    kind: str,
    options: RecordConfig,
    tokenizer: Tokenizer,
    context: int,
    batch_size: int,
    seed: int,
    progress: bool = True,
) -> tuple[RecordBatches, RecordBatches, Counts]:
    """Batches to train on and to validate on (in the order of the file), and the counts to be printed.

    kind: "instruct" or "chat". Exact duplicates are left out. A record validates when a hash of its text falls below
    `options.validation`, so it stays on its side when others come or go; neither side is left empty. With
    `options.held_out` the records of those tasks validate, and all others are trained on.
    A record longer than the context loses the end of its input, or its oldest utterances; never part of an answer.
    Errors: those of the reader, no usable record, a single one that cannot be split, a held-out task that no record is.
    """
    reader = make_reader(source, kind, options)
    examples, keys, tasks, duplicates = _read(reader, tokenizer, context, progress)
    if not examples:
        reports = f": {reader.bad.total} bad, first {reader.bad.first[0]}" if reader.bad.total else ""
        raise Error(f"{source}: no usable record{reports}")
    apart = _held_out(source, tasks, options) if options.held_out else _split(source, keys, options.validation)
    sides = [[example for example, val in zip(examples, apart, strict=True) if val == side] for side in (False, True)]
    training, validation = (
        RecordBatches(*_columns(side), context, batch_size, seed, tokenizer.eot, options.pack, shuffle=shuffle)
        for side, shuffle in zip(sides, (True, False), strict=True)
    )
    dropped = sum(example.lost for example in examples) if kind == "chat" else 0
    shortened = sum(example.lost > 0 for example in examples)
    return training, validation, Counts(*map(_side, sides), shortened, dropped, duplicates, reader.bad)


def _read(reader: Records, tokenizer: Tokenizer, context: int, progress: bool) -> tuple[list, list, list, int]:
    """The records that fit, each once, as examples, with their hashes and tasks; and how many were there twice."""
    seen, examples, keys, tasks, duplicates = set(), [], [], [], 0
    layout = Layout.of(tokenizer)
    for document in shown(reader, "records", progress):
        digest, key = hash_of(repr(document.text.texts))
        if digest in seen:
            duplicates += 1
            continue
        example = document.text.fitted(layout, tokenizer.encode, context + 1)
        if example is None:
            reader.leave_out(document, f"an answer and its question do not fit the context of {context} tokens")
            continue
        seen.add(digest)
        examples.append(_small(example))
        keys.append(key)
        tasks.append(document.text.task)
    return examples, keys, tasks, duplicates


def make_reader(source: str | Path, kind: str, options: RecordConfig) -> Records:
    if kind not in READERS:
        raise Error(f"records are {kind!r}: {nearest(kind, READERS)}")
    return READERS[kind](source, options)


def texts(source: str | Path, kind: str, options: RecordConfig) -> Iterator[str]:
    """Every text of the records, for a tokenizer to learn from."""
    return (text for document in make_reader(source, kind, options) for text in document.text.texts if text)


def _small(example: Example) -> Example:
    return Example(np.asarray(example.ids, dtype=np.int32), np.asarray(example.learned, dtype=bool), example.lost)


def _columns(examples: list[Example]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [example.ids for example in examples], [example.learned for example in examples]


def _side(examples: list[Example]) -> Side:
    tokens, targets = (sum(map(count, examples)) for count in (lambda e: len(e.ids), lambda e: int(e.learned.sum())))
    return Side(len(examples), tokens, targets)


def _split(source, keys: list[int], validation: float) -> list[bool]:
    if validation and len(keys) < 2:
        raise Error(f"{source}: one record cannot be trained on and validate too: add some")
    limit = int(validation * 2**64)
    if validation:
        limit = settle(limit, min(keys), max(keys))
    return [key < limit for key in keys]


def _held_out(source, tasks: list[str], options: RecordConfig) -> list[bool]:
    for task in options.held_out:
        if task not in tasks:
            raise Error(f"{source}: no record has {options.held_out_by}={task}: {nearest(task, set(tasks))}")
    apart = [task in options.held_out for task in tasks]
    if all(apart):
        raise Error(f"{source}: every record is of a held-out task: leave some to learn from")
    return apart
