"""Tokens -> batches: every target once an epoch, in an order that the batch number alone decides.

B rows, T context, N tokens.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import torch

from minigpt.errors import Error
from minigpt.loss import IGNORE


@dataclass(frozen=True)
class Batch:
    """tokens, targets (B, T) int64, targets IGNORE where there is none; positions, documents (B, T) int64 or None."""

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor | None
    documents: torch.Tensor | None
    n_targets: int

    def to(self, device: torch.device | str) -> "Batch":
        values = (getattr(self, field.name) for field in fields(self))
        return Batch(*(v.to(device) if isinstance(v, torch.Tensor) else v for v in values))

    def blank(self) -> "Batch":
        """The batch without a target."""
        return replace(self, targets=torch.full_like(self.targets, IGNORE), n_targets=0)


class Order:
    """`windows` rows dealt out in batches: epoch e takes them in an order drawn from (seed, e) alone.

    >>> order = Order(windows=5, batch_size=2, seed=0, shuffle=False)
    >>> len(order), [order.rows(i).tolist() for i in range(4)]
    (3, [[0, 1], [2, 3], [4], [0, 1]])
    """

    def __init__(self, windows: int, batch_size: int, seed: int, shuffle: bool = True):
        if batch_size < 1 or seed < 0:
            raise Error(f"batch_size {batch_size} must be at least 1, seed {seed} at least 0")
        self.windows, self.batch_size, self.seed, self.shuffle = windows, batch_size, seed, shuffle
        self._order: tuple[int, np.ndarray] | None = None

    def __len__(self) -> int:
        """Batches in one epoch."""
        return (self.windows + self.batch_size - 1) // self.batch_size

    def rows(self, i: int) -> np.ndarray:
        """Which windows are the rows of batch i, int64 (rows,)."""
        if i < 0:
            raise IndexError(f"batch {i}: batches count from 0")
        epoch, place = divmod(i, len(self))
        return self.order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]

    def __iter__(self):
        raise TypeError("batches have no end: index them, range(len(batches)) is one epoch")

    def order(self, epoch: int) -> np.ndarray:
        """The windows of an epoch in the order they are read, int64 (windows,)."""
        if not self.shuffle:
            return np.arange(self.windows)
        if self._order is None or self._order[0] != epoch:
            # Sorting raw bits: numpy keeps those the same for ever, but not what Generator.permutation makes of them.
            bits = np.random.PCG64([self.seed, epoch]).random_raw(self.windows)
            self._order = epoch, np.argsort(bits, kind="stable")
        return self._order[1]


class Batches(Order):
    """The batches of a training run, by global number: `batches[i]` for any i >= 0.

    Window w reads tokens wT .. wT + T - 1 and is asked for tokens wT + 1 .. wT + T, so ceil((N - 1) / T) windows hold
    each of the N - 1 targets once. Epoch e = i // len(batches) takes the windows in an order drawn from (seed, e)
    alone: the place of a run in its data is one integer, and resuming is going on from it. The last window is padded
    (`eot` or 0, targets IGNORE), the last batch of an epoch may have fewer rows. shuffle=False keeps the order, for
    validation.

    document_mask: `documents` counts the EOTs so far in the row (EOT begins its document; padding is a document of its
    own) and `positions` start again at 0 with each. A row that begins inside a document begins at position 0.

    >>> batches = Batches(np.arange(8), context=3, batch_size=2, seed=0, shuffle=False)
    >>> len(batches), batches[1].tokens.tolist(), batches[1].targets.tolist(), batches[1].n_targets
    (2, [[6, 0, 0]], [[7, -100, -100]], 1)
    """

    def __init__(
        self,
        tokens: np.ndarray,
        context: int,
        batch_size: int,
        seed: int,
        eot: int | None = None,
        document_mask: bool = False,
        shuffle: bool = True,
    ):
        if tokens.ndim != 1 or not np.issubdtype(tokens.dtype, np.integer):
            raise Error(f"tokens are {tokens.dtype} of shape {tokens.shape}, expected integers in one dimension")
        if len(tokens) < 2:
            raise Error(f"{len(tokens)} tokens hold no target, expected at least 2: add text, or a validation share")
        if context < 1:
            raise Error(f"context {context} must be at least 1")
        if document_mask and eot is None:
            raise Error("document_mask needs eot, the id that separates documents")
        super().__init__(-(-(len(tokens) - 1) // context), batch_size, seed, shuffle)
        self.tokens, self.context, self.eot, self.document_mask = tokens, context, eot, document_mask

    def __getitem__(self, i: int) -> Batch:
        windows = self.rows(i)
        shape, pad = (len(windows), self.context), 0 if self.eot is None else self.eot
        tokens, targets = np.full(shape, pad, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
        for row, window in enumerate(windows):
            part = self.tokens[window * self.context : (window + 1) * self.context + 1]
            tokens[row, : len(part) - 1], targets[row, : len(part) - 1] = part[:-1], part[1:]
        positions, documents = self._borders(tokens, targets) if self.document_mask else (None, None)
        n_targets = int((targets != IGNORE).sum())
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), positions, documents, n_targets)

    def describe(self, window: int) -> str:
        """Where a window stands in the text: its tokens and documents, counted from 0."""
        start = window * self.context
        end = min(start + self.context, len(self.tokens) - 1)
        place = f"tokens {start} to {end}"
        if self.eot is None:
            return place
        before = int((self.tokens[: start + 1] == self.eot).sum())
        inside = int((self.tokens[start + 1 : end + 1] == self.eot).sum())
        return f"{place}, documents {max(0, before - 1)} to {max(0, before + inside - 1)}"

    def _borders(self, tokens: np.ndarray, targets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        padding = targets == IGNORE
        starts = (tokens == self.eot) & ~padding
        # Padding is always a tail, so its first column begins one more document.
        starts |= padding & ~np.pad(padding, ((0, 0), (1, 0)))[:, :-1]
        columns = np.broadcast_to(np.arange(self.context), tokens.shape)
        latest = np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
        return torch.from_numpy(columns - latest), torch.from_numpy(starts.cumsum(axis=1))
