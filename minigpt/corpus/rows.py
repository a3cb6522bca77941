"""Records -> batches: each record a row, padded on the right, or several of them packed into one.

B rows, T context, n tokens of a record: it takes n - 1 places, as its last token is asked for and not read.
"""

from bisect import bisect_right

import numpy as np
import torch

from minigpt.corpus.batches import Batch, Order
from minigpt.errors import Error
from minigpt.loss import IGNORE

STEP = 32  # widths of batches are multiples of it: what is compiled for a shape meets few of them


class RecordBatches(Order):
    """The batches of records by global number, as those of `Batches`: `batches[i]` for any i >= 0.

    ids, learned: of each record, its tokens (at most T + 1 of them) and which of these are targets. A row is a record,
    and a batch as wide as its longest; with `pack` a row holds as many as fit T, and positions and what a token sees
    begin anew with each: the same losses in fewer rows. Which records share a row is decided once, by their lengths.
    Padding is `pad`, with targets IGNORE; in packed rows it is a document of its own.

    >>> ids, learned = [[9, 1, 9, 2, 9], [9, 3, 9]], [[False, False, False, True, True], [False, True, True]]
    >>> batch = RecordBatches(ids, learned, context=6, batch_size=2, seed=0, pad=9, shuffle=False)[0]
    >>> batch.tokens.tolist(), batch.targets.tolist()
    ([[9, 1, 9, 2, 9, 9], [9, 3, 9, 9, 9, 9]], [[-100, -100, 2, 9, -100, -100], [3, 9, -100, -100, -100, -100]])
    """

    def __init__(
        self, ids, learned, context: int, batch_size: int, seed: int, pad: int, pack: bool = False, shuffle: bool = True
    ):
        lengths = np.array([len(record) for record in ids], dtype=np.int64)
        if len(lengths) == 0:
            raise Error("there is no record here to learn from or to validate on: add some, or change the share")
        if context < 1 or lengths.max() > context + 1 or lengths.min() < 2:
            found = f"from {lengths.min()} to {lengths.max()} tokens"
            raise Error(f"the records have {found}, expected 2 to {context + 1}, one more than the context")
        # All records in one array: a list of ints would take ten times the memory.
        self.ids = np.concatenate([np.asarray(record, dtype=np.int32) for record in ids])
        self.learned = np.concatenate([np.asarray(record, dtype=bool) for record in learned])
        self.starts = np.concatenate([[0], np.cumsum(lengths)])
        self.context, self.pad, self.packed = context, pad, pack
        self.bins = pack_lengths(lengths - 1, context) if pack else [[i] for i in range(len(lengths))]
        super().__init__(len(self.bins), batch_size, seed, shuffle)

    def __getitem__(self, i: int) -> Batch:
        rows = [self.bins[row] for row in self.rows(i)]
        width = self.context if self.packed else max(self._width(record) for (record,) in rows)
        width = min(self.context, -(-width // STEP) * STEP)
        tokens, targets = (np.full((len(rows), width), fill, dtype=np.int64) for fill in (self.pad, IGNORE))
        positions, documents = (np.zeros((len(rows), width), dtype=np.int64) for _ in range(2))
        for row, records in enumerate(rows):
            at = 0
            for number, record in enumerate(records):
                end = at + self._width(record)
                ids, learned = (
                    each[self.starts[record] : self.starts[record + 1]] for each in (self.ids, self.learned)
                )
                tokens[row, at:end], targets[row, at:end] = ids[:-1], np.where(learned[1:], ids[1:], IGNORE)
                positions[row, at:end], documents[row, at:end] = np.arange(end - at), number
                at = end
            positions[row, at:], documents[row, at:] = np.arange(width - at), len(records)
        borders = (torch.from_numpy(positions), torch.from_numpy(documents)) if self.packed else (None, None)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), *borders, int((targets != IGNORE).sum()))

    def describe(self, window: int) -> str:
        """Which records a row holds, counted from 0."""
        return f"records {', '.join(map(str, self.bins[window]))}"

    @property
    def n_targets(self) -> int:
        """Of an epoch."""
        return int(self.learned.sum())

    def _width(self, record: int) -> int:
        return int(self.starts[record + 1] - self.starts[record]) - 1


def pack_lengths(lengths: np.ndarray, room: int) -> list[list[int]]:
    """Numbers of records for each row: the longest that is left, then always the longest that still fits.

    >>> pack_lengths(np.array([5, 2, 4, 3]), room=7)
    [[0, 1], [2, 3]]
    """
    order = np.argsort(lengths, kind="stable").tolist()
    sizes, bins = lengths[order].tolist(), []
    while order:
        row, left = [], room
        while at := bisect_right(sizes, left):
            left -= sizes.pop(at - 1)
            row.append(order.pop(at - 1))
        bins.append(row)
    return bins
