"""One cache for rows that come and go: whenever a row joins, its entries end where those of all others end.

Shapes: R rows there is room for, B of them taken, G key/value heads, C entries there is room for, D head size,
L entries so far, n of them the row's own.

    row 0    . . . . . the patient has a cough        n = 5     what is to the left is masked, and takes no position
    row 1    . . chest pain for two days and a        n = 8
    row 2    . . . . . . . . 主 诉                     n = 2     joins later: written flush right
                                        ^ L           the next step writes one entry a row, here

So one step of the model is one for all, however old each row is. A row that leaves gives its place to the last one:
no other moves. A prompt longer than L moves the others to the right; when the rows that needed the left part are gone,
the others move back (one copy each, and seldom). All layers keep all entries, banded ones too: what they see of them
their window says.
"""

import torch
from torch import Tensor

from minigpt.cache import Cache
from minigpt.config import GPTConfig
from minigpt.errors import Error

SPARE = 64  # free entries after a move, at least; and a gap in front of all rows that is not worth closing


def bucket(n: int, least: int = 1) -> int:
    """The next of least, 2 least, 4 least, ...

    >>> [bucket(n, 64) for n in (1, 64, 65, 1000)]
    [64, 64, 128, 1024]
    """
    return least << max(0, (-(-n // least) - 1).bit_length())


class Joined:
    """Keys and values (R, G, C, D) of each layer, of which B rows and L entries are used. Empty, it has none.

    For the model it is a cache like any other: `extend_keep`, `update`, `advance` and a `length`. Before a step call
    `make_room`.
    """

    def __init__(self, config: GPTConfig, dtype=None, device=None):
        self.config, self.device = config, device
        none = torch.zeros(0, config.n_kv_heads, 0, config.d_head, dtype=dtype, device=device)
        self.none = none, torch.zeros(0, 1, 0, dtype=torch.bool, device=device)
        self._clear()

    def _clear(self):
        self.length, self.held = 0, []  # `held`: n of each row
        entries, self.sees = self.none
        self.keys, self.values = [entries] * self.config.n_layers, [entries] * self.config.n_layers

    @property
    def batch(self) -> int:
        return len(self.held)

    @property
    def capacity(self) -> int:
        return self.sees.shape[2]

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (*self.keys, *self.values))

    def join(self, cache: Cache, rows: list[int]):
        """New rows at the end of the batch, as `rows` of a cache that has read their prompts; one may be there twice.

        The cache must have kept all: one made for `config.dense()` has.
        """
        entries = torch.arange(cache.length, device=self.device)
        own = [entries if cache.keep is None else entries[cache.keep[row, : cache.length]] for row in rows]
        length = max(self.length, *map(len, own))
        if length > self.length or length >= self.capacity or self.batch + len(rows) > len(self.sees):
            self._move(length, self.batch + len(rows))
        for place, (row, which) in enumerate(zip(rows, own, strict=True), self.batch):
            self._write(place, cache, row, which)
        self.held += map(len, own)

    def _write(self, place: int, cache: Cache, row: int, which: Tensor):
        """A new row: the entries `which` of a row of the cache. Over its gap, too, where another's may still be."""
        gap = self.length - len(which)
        for layer, read in enumerate(cache.layers):
            for stored, new in ((self.keys, read.keys), (self.values, read.values)):
                stored[layer][place, :, :gap] = 0
                stored[layer][place, :, gap : self.length] = new[row, :, which]
        self.sees[place] = False
        self.sees[place, 0, gap : self.length] = True

    def leave(self, row: int):
        """The row is gone; the last one stands in its place."""
        last = self.batch - 1
        if row != last:
            for stored in (*self.keys, *self.values):
                stored[row, :, : self.length] = stored[last, :, : self.length]
            self.sees[row] = self.sees[last]
        self.held[row] = self.held[last]
        self.held.pop()
        if not self.held:
            self._clear()

    def make_room(self):
        """For one more entry of each row. A gap in front of all rows is closed when it is half as long as they are."""
        longest = max(self.held)
        if self.length >= self.capacity or self.length - longest > max(SPARE, longest // 2):
            self._move(longest, self.batch)

    def _move(self, length: int, rows: int):
        """The same rows, ending at `length`, in buffers for so many rows: larger or smaller ones, as it fits.

        If there is no memory for them all is as before: the old ones go when all the new ones are there.
        """
        rows, capacity, kept = bucket(rows), bucket(length + SPARE, SPARE), max(self.held, default=0)
        old = *self.keys, *self.values, self.sees
        # Zeros: a weight of 0 times what nobody wrote must be 0.
        new = [each.new_zeros(rows, each.shape[1], capacity, *each.shape[3:]) for each in old]
        for there, here in zip(old, new, strict=True):
            here[: self.batch, :, length - kept : length] = there[: self.batch, :, self.length - kept : self.length]
        layers = self.config.n_layers
        self.keys, self.values, self.sees, self.length = new[:layers], new[layers:-1], new[-1], length

    def extend_keep(self, keep: Tensor | None, batch: int, time: int) -> Tensor:
        """Who sees what, (B, 1, L + 1): each row its own entries, the new one the last of them."""
        if keep is not None or (batch, time) != (self.batch, 1) or self.length >= self.capacity:
            raise Error(f"Joined: {self.batch} rows go on by one token each, found {batch} rows of {time}: make room")
        self.sees[:batch, :, self.length] = True
        return self.sees[:batch, :, : self.length + 1]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (B, G, 1, D) of a layer; returns all of them (B, G, L + 1, D)."""
        found = []
        for stored, new in ((self.keys[layer], k), (self.values[layer], v)):
            stored[: self.batch, :, self.length : self.length + 1] = new
            found.append(stored[: self.batch, :, : self.length + 1])
        return tuple(found)

    def advance(self, time: int):
        """The new entries are in, at every layer."""
        self.length += time
        self.held = [n + time for n in self.held]
