"""Keys and values of one layer, as far back as anybody looks: everything, or in a banded layer the last few.

Shapes: B prompts, K branches, G key/value heads, D head size, L entries so far, T new tokens, R room.

    entries    0 . . . . . . start . . . . . . . . L
    buffer     front         | kept . . . . . . . .| free . . . . |      R entries

A banded layer looks at the last `window` tokens of a branch. When its buffer is full, what may still be looked at goes
to the front of another one, and fills at most half of it: so an entry is moved about once. Entries keep their numbers.
With sinks the first few entries stay in front of them for good.
"""

import torch
from torch import Tensor

SPARE = 32  # tokens that may be taken back without reading anew: speculative decoding does so all the time


def room(window: int) -> int:
    """Entries a banded layer begins with: what it keeps, twice."""
    return 2 * (window + SPARE)


def oldest(seen: Tensor | None, end: int, last: int) -> int:
    """The first of `end` entries that is among the `last` ones some branch sees; `end` if none is.

    `seen` (B, K, end) bool; None: one branch that sees all. Padding and the entries of other branches do not count.

    >>> oldest(None, 10, last=3), oldest(torch.tensor([[[1, 1, 0, 0, 1], [1, 1, 1, 0, 0]]]).bool(), 5, last=2)
    (7, 1)
    """
    if seen is None:
        return max(0, end - last)
    since = seen.flip(-1).cumsum(-1).flip(-1)  # how many are seen from here on
    wanted = (seen & (since <= last)).flatten(0, 1).any(0)
    return min(wanted.nonzero().flatten().tolist(), default=end)


def front(seen: Tensor | None, end: int, sinks: int) -> int | None:
    """How many of the first entries hold the first `sinks` tokens of every branch; None while one has had fewer.

    >>> front(None, 10, 4), front(torch.tensor([[[0, 1, 1, 1], [0, 1, 0, 1]]]).bool(), 4, 2), front(None, 3, 4)
    (4, 4, None)
    """
    if seen is None or not sinks:
        return sinks if sinks <= end else None
    had = seen.cumsum(-1)
    return None if (had[..., -1] < sinks).any() else int((had < sinks).sum(-1).amax()) + 1


class Entries:
    """The entries from `start` on, and the first `front`. A dense layer has room for all, and keeps all."""

    def __init__(self, batch: int, heads: int, room: int, d_head: int, dtype=None, device=None):
        size = batch, heads, room, d_head
        self.keys, self.values = (torch.empty(size, dtype=dtype, device=device) for _ in range(2))
        self.start, self.front, self.moved = 0, 0, None

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.values.nbytes

    def full(self, end: int) -> bool:
        return self.front + end - self.start > self.keys.shape[2]

    def add(self, k: Tensor, v: Tensor, length: int, cut: int, front: int = 0) -> tuple[Tensor, Tensor]:
        """After `length` entries come k and v (B, G, T, D); returns all that is here, which the new tokens may see.

        If there is no room, only the first `front` and what is from `cut` on are kept for later. That is settled by
        `advance`: a call that fails in a later layer changes nothing.
        """
        end, self.moved = length + k.shape[2], None
        old = slice(0, self.front + length - self.start)
        if self.full(end):
            whole = torch.cat((self.keys[:, :, old], k), 2), torch.cat((self.values[:, :, old], v), 2)
            recent = self.front + cut - self.start
            self.moved = [self._front(each[:, :, :front], each[:, :, recent:]) for each in whole], cut, front
            return whole
        for stored, new in ((self.keys, k), (self.values, v)):
            stored[:, :, old.stop : old.stop + k.shape[2]] = new
        return self.keys[:, :, : old.stop + k.shape[2]], self.values[:, :, : old.stop + k.shape[2]]

    def _front(self, *kept: Tensor) -> Tensor:
        """A buffer that begins with these; larger than before if they would leave less than half of it free."""
        kept = torch.cat(kept, 2)
        batch, heads, n, d_head = kept.shape
        size = batch, heads, max(self.keys.shape[2], 2 * n), d_head
        with torch.inference_mode(False):  # it will be written to outside, too
            buffer = torch.empty(size, dtype=kept.dtype, device=kept.device)
        buffer[:, :, :n] = kept
        return buffer

    def advance(self):
        if self.moved is not None:
            ((self.keys, self.values), self.start, self.front), self.moved = self.moved, None

    def rearrange(self, order: Tensor, start: int):
        """Entry j of row b becomes what `order` (B, L') says it is, from `start` on.

        Nobody looks at what is no longer here: there anything will do that is a number.
        """
        which = (order[:, start:] - self.start).clamp(min=0)[:, None, :, None]
        for stored in (self.keys, self.values):
            each = stored.gather(2, which.expand(-1, stored.shape[1], -1, stored.shape[3]))
            stored[:, :, : each.shape[2]] = each
        self.start = start

    def resize(self, room: int, end: int):
        n = self.front + end - self.start
        for name in ("keys", "values"):
            old = getattr(self, name)
            new = old.new_zeros(*old.shape[:2], room, old.shape[3])
            new[:, :, :n] = old[:, :, :n]
            setattr(self, name, new)

    def select(self, which: Tensor):
        self.keys, self.values = self.keys.index_select(0, which), self.values.index_select(0, which)
