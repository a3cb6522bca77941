"""What a decoder remembers: the keys and values of every layer, one row a prompt, written once, shared by its branches.

Shapes: B prompts, K branches of a prompt, G key/value heads, L entries so far, T new tokens, D head size.

    prompt     the patient has      one entry a token
    branches   fever .   cough .    K more a step, side by side in the same row, whichever branch they belong to

Who sees what is a boolean mask (B, K, L). So the prompt is read and kept once however many texts begin with it, and to
choose which branches go on is to index the mask:  sees' = [sees[parents], 1].  Greedy decoding is K = 1, n samples are
K = n, beams are the same with parents that change. Others copy the whole cache at every step instead.

A dense layer keeps every entry; a banded one the last few, however long the text becomes (see sliding.py).
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt import sliding
from minigpt.config import GPTConfig
from minigpt.errors import Error


class Past(Protocol):
    """What the model asks of whatever it reads after: `Cache` does it, and a prefix does."""

    length: int

    def extend_keep(self, keep: Tensor | None, batch: int, time: int) -> Tensor | None: ...

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]: ...

    def advance(self, time: int) -> None: ...


class Cache:
    """Room for `capacity` entries a prompt, allocated at once: 2 x B x G x capacity x D numbers a dense layer.

    A banded layer takes min(capacity, 2 (window + 32)) in place of the capacity; with K branches about K times that.
    Its sinks, if it has any, count to the window.

    The model calls `extend_keep`, then `update` once a layer, then `advance`. A prefix is a cache that is not
    empty; anything with these three methods and a `length` will do.

    >>> from minigpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16)).eval()
    >>> tokens, cache = torch.randint(100, (1, 6)), Cache(model.config, batch=1)
    >>> steps = torch.cat([model(tokens[:, :4], cache=cache), model(tokens[:, 4:], cache=cache)], dim=1)
    >>> torch.allclose(steps, model(tokens), atol=1e-5)
    True
    """

    def __init__(
        self, config: GPTConfig, batch: int, capacity: int | None = None,
        dtype: torch.dtype | None = None, device: torch.device | str | None = None,
    ):  # fmt: skip
        self.capacity, self.batch = capacity or config.context, batch
        self.window, self.sinks = config.window, config.sinks
        rooms = [self._room(config.kept_window(layer)) for layer in range(config.n_layers)]
        sizes = [(batch, config.n_kv_heads, room, config.d_head) for room in rooms]
        self.layers = [sliding.Entries(*size, dtype=dtype, device=device) for size in sizes]
        self.device = self.layers[0].keys.device
        self.keep = None  # (B, capacity) bool once a row is padded
        self.sees = None  # (B, K, capacity) bool once rows branch
        self.length = 0
        self.prefix = 0  # how many of the entries no token stands for: see `begin`
        self.front = 0  # the first entries, which banded layers keep for good: up to the last of the sinks
        self.cut = 0  # the entries before it are of no use to banded layers; looked up when one of them is full

    def _room(self, window: int | None) -> int:
        return self.capacity if window is None else min(self.capacity, sliding.room(window + self.sinks))

    @property
    def nbytes(self) -> int:
        """Of keys and values, free room included."""
        return sum(layer.nbytes for layer in self.layers)

    @property
    def read(self) -> int:
        """How many tokens are in; a prefix is none."""
        return max(0, self.length - self.prefix)

    def begin(self, keys: list[Tensor], values: list[Tensor], keep: Tensor | None = None):
        """Write a prefix into the empty cache: keys and values of each layer (B, G, P, D), `keep` (B, P) as elsewhere.

        It makes its own room. To whoever reads on it is a past like any other: banded layers see the end of it.
        """
        if self.sinks:
            raise Error("Cache: a prefix is in the place of the first tokens: attach it to a model without sinks")
        if self.length:
            raise Error(f"Cache: a prefix comes first, found {self.length} entries before it: begin a new cache")
        length, grown = keys[0].shape[2], keys[0].shape[2] - self.prefix
        with torch.inference_mode(False):  # it will be written to outside, too
            for layer in self.layers:
                layer.resize(layer.keys.shape[2] + max(0, grown), 0)
            self.keep = None if self.keep is None else F.pad(self.keep, (0, max(0, grown)))
        self.capacity, self.prefix = self.capacity + max(0, grown), length
        self.extend_keep(keep, self.batch, length)
        for layer, (k, v) in enumerate(zip(keys, values, strict=True)):
            self.update(layer, k.to(self.layers[layer].keys.dtype), v.to(self.layers[layer].keys.dtype))
        self.advance(length)

    def extend_keep(self, keep: Tensor | None, batch: int, time: int) -> Tensor | None:
        """Make room for T tokens, of which `keep` (B, T) says what is real; returns what is seen of all L + T:
        None for all of it, (B, L + T) for the same by every query, or (B, T, L + T), a row for each branch.
        """
        end = self.length + time
        if batch != self.batch or end > self.capacity:
            raise Error(
                f"Cache: made for {self.batch} rows of {self.capacity} tokens, "
                f"asked to hold {batch} rows of {end}: make it larger"
            )
        if self.sees is not None:
            self._extend_branches(keep, time, end)
        elif keep is not None or self.keep is not None:
            if self.keep is None:
                self.keep = torch.ones(batch, self.capacity, dtype=torch.bool, device=self.device)
            self.keep[:, self.length : end] = True if keep is None else keep
        if any(layer.full(end) for layer in self.layers):
            self._forget(end)
        seen = self.keep if self.sees is None else self.sees
        return None if seen is None else seen[..., :end]

    def _forget(self, end: int):
        """Settle what banded layers keep when the next tokens are in: the `front`, and all from the `cut` on."""
        start, cut = max(layer.start for layer in self.layers), self._oldest(end, spare=sliding.SPARE)
        front = self.front if start else sliding.front(self._seen(end), end, self.sinks)
        if front is None or front > cut:  # a row has not had its first tokens yet, or has them in its window
            self.cut = start
        else:
            self.cut, self.front = cut, front

    def _extend_branches(self, keep: Tensor | None, time: int, end: int):
        """Every branch sees its own new token and none of its neighbours'."""
        branches = self.sees.shape[1]
        if time != branches or keep is not None:
            raise Error(
                f"Cache: {branches} branches go on by one token each, found {time}: give (B, {branches}) tokens"
            )
        self.sees[:, :, self.length : end] = torch.eye(time, dtype=torch.bool, device=self.sees.device)

    def _oldest(self, end: int, spare: int = 0) -> int:
        """The first entry that banded layers look at after `end`, or should `spare` tokens be taken back."""
        return sliding.oldest(self._seen(end), end, self.window - 1 + spare)

    def _seen(self, end: int) -> Tensor | None:
        """(B, K, end) bool, who sees what; None: everybody all."""
        seen = self.keep[:, None] if self.sees is None and self.keep is not None else self.sees
        return None if seen is None else seen[:, :, :end]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (B, G, T, D) at the end; returns all of them (B, G, L + T, D), or the last
        ones, where no new token sees those before.
        """
        return self.layers[layer].add(k, v, self.length, self.cut, self.front)

    def advance(self, time: int):
        """The T new tokens are in, at every layer."""
        self.length += time
        for layer in self.layers:
            layer.advance()

    def branch(self, parents: Tensor):
        """The next token is one for each of K branches, of which branch k goes on from `parents` (B, K) int64.

        Before the first branching there is one branch, 0. No key and no value is touched.
        """
        if self.sees is None and parents.shape[1] == 1:
            return  # one row each, as before
        self.split()
        self.sees = self.sees.gather(1, parents[:, :, None].expand(-1, -1, self.capacity))

    def split(self):
        """From now on there are branches, if only one: the mask says what it sees."""
        if self.sees is None:
            self.sees = torch.ones(self.batch, 1, self.capacity, dtype=torch.bool, device=self.device)
            if self.keep is not None:
                self.sees[:, 0, : self.length] = self.keep[:, : self.length]

    def resize(self, capacity: int):
        """Room for so many entries; what is not written yet is 0, so that a mask may hide it."""
        for layer in self.layers:
            layer.resize(capacity, self.length)
        more = capacity - self.capacity
        self.keep = None if self.keep is None else F.pad(self.keep, (0, more))
        self.sees = None if self.sees is None else F.pad(self.sees, (0, more))
        self.capacity = capacity

    def back(self, length: int):
        """Forget what was read after the first `length` tokens, if anything: nobody sees it, and it is written over.
        A prefix stays.

        A banded layer that no longer has what it would look at there makes it forget all: see what `read` is then.
        """
        if self.sees is not None:
            raise Error("Cache: branches have no common way back: begin a new cache")
        length = min(self.length, self.prefix + length)
        starts = [layer.start for layer in self.layers]
        if any(starts) and max(starts) > self._oldest(length):
            length = 0
            self.front = 0
            for layer in self.layers:
                layer.start = layer.front = 0
        self.length = length

    def compact(self):
        """Forget the entries that no branch sees any more; the others move together, in their order. One copy.

        A row with fewer of them than another has its gap in front, as a padded prompt has.
        """
        if self.sees is None or self.front:
            return
        seen = self.sees[:, :, : self.length].any(1)
        length = int(seen.sum(1).amax())
        order = seen.to(torch.uint8).argsort(dim=1, stable=True)[:, self.length - length :]  # what is seen comes last
        self.sees[:, :, :length] = self.sees.gather(2, order[:, None].expand(-1, self.sees.shape[1], -1))
        for layer in self.layers:  # a layer at a time: no second cache
            held = int(seen[:, layer.start :].sum(1).amax())
            layer.rearrange(order, start=length - held)
        self.length = length

    def select(self, rows: list[int]):
        """Keep these prompts, in this order: when one is finished the others go on without it. Copies them once."""
        which = torch.tensor(rows, device=self.device)
        for layer in self.layers:
            layer.select(which)
        self.batch = len(rows)
        if self.keep is not None:
            self.keep = self.keep.index_select(0, which)
        if self.sees is not None:
            self.sees = self.sees.index_select(0, which)
