"""Rows that are written by the same steps, and the prompts that are on their way to them.

Shapes: N prompts read together, B rows being written, V vocabulary.

    Reading    prompts, a chunk at a time, into a cache of their own; each text once, however many rows begin with it
    Lane       the rows of one batch in their common cache (joining.py): what each has beside the model acts on it alone
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

from minigpt.cache import Cache
from minigpt.errors import Error
from minigpt.generation.asking import Row
from minigpt.generation.joining import Joined
from minigpt.generation.reader import flush_right, read_last
from minigpt.model import GPT
from minigpt.tuning import mixed


class Lane:
    """A batch whose rows have each their own."""

    def __init__(self, model: GPT, others: Sequence[ModuleType] = ()):
        self.model, self.others, weight = model, others, next(model.parameters())
        self.rows: list[Row] = []
        self.joined = Joined(model.config, weight.dtype, weight.device)

    @contextmanager
    def working(self, rows: list[mixed.Names]) -> Iterator[None]:
        """Inside, row b of a batch has what rows[b] says."""
        with mixed.rows(self.model, rows, *self.others):
            yield

    def step(self) -> Tensor:
        """Logits (B, V) after the last token of each row, which is read."""
        tokens = torch.tensor([row.tokens[-1:] for row in self.rows])
        with torch.inference_mode():
            self.joined.make_room()
        with self.working([row.names for row in self.rows]):
            return read_last(self.model, tokens, None, self.joined, range(len(self.rows)))

    @torch.inference_mode()
    def join(self, reading: "Reading", rows: list[Row]):
        """These rows of a reading that is done are now written on."""
        self.joined.join(reading.cache, [reading.place[row.ticket] for row in rows])
        self.rows += rows

    @torch.inference_mode()
    def leave(self, gone: set[int]):
        """The rows of these tickets are done."""
        for place in reversed(range(len(self.rows))):  # a last row that moves has been asked already
            if self.rows[place].ticket in gone:
                self.joined.leave(place)
                self.rows[place] = self.rows[-1]
                self.rows.pop()


class AsItStands(Lane):
    """The model is used as it is found, whatever is attached, merged or at work."""

    @contextmanager
    def working(self, rows: list[mixed.Names]) -> Iterator[None]:
        yield


class Apart(Lane):
    """All rows have the same, which cannot be mixed with anything else."""

    @contextmanager
    def working(self, rows: list[mixed.Names]) -> Iterator[None]:
        with mixed.alike(self.model, rows[0], len(rows), *self.others):
            yield


def make_lanes(model: GPT, names: Mapping[str, mixed.Names], others: Sequence[ModuleType]) -> dict[str | None, Lane]:
    """The lane of each name, and of none: one for all that can be mixed. `Error` for what is not attached."""
    if not names:
        return {None: AsItStands(model)}
    lanes, errors = {None: Lane(model, others)}, (Error, *(method.Error for method in others))
    for name, held in names.items():
        try:
            with lanes[None].working([held]):
                lanes[name] = lanes[None]
        except errors:
            lanes[name] = Apart(model, others)
            with lanes[name].working([held]):
                pass  # or it is attached to nothing
    return lanes


class Reading:
    """The prompts of some rows of a lane, on their way into a cache."""

    def __init__(self, lane: Lane, rows: list[Row], share: int):
        self.lane, self.rows = lane, rows
        texts: dict[tuple, int] = {}
        self.place = {row.ticket: texts.setdefault((row.names, *row.tokens), len(texts)) for row in rows}
        first = {self.place[row.ticket]: row for row in reversed(rows)}
        self.names = [first[place].names for place in range(len(texts))]
        tokens, keep = flush_right([first[place].tokens for place in range(len(texts))])
        parts = tokens.split(share, 1)  # several texts are short, and one part: see `Engine._begin`
        self.parts = list(zip(parts, [None] * len(parts) if keep is None else keep.split(share, 1), strict=True))
        self.size, self.cache = tokens.shape, None

    def read(self) -> Tensor | None:
        """One chunk; after the last one the logits of each row (B, V)."""
        model, (tokens, keep) = self.lane.model, self.parts.pop(0)
        if self.cache is None:
            weight = next(model.parameters())
            self.cache = Cache(model.config.dense(), *self.size, dtype=weight.dtype, device=weight.device)
            self.cache.sinks = model.config.sinks  # so that a prefix is refused where `generate` refuses it
        with self.lane.working(self.names):
            logits = read_last(model, tokens, keep, self.cache, range(len(tokens)), tokens.numel())
        return None if self.parts else logits[[self.place[row.ticket] for row in self.rows]]
