"""What a decoder remembers: the keys and values of every layer, one row a prompt, written once and never moved.

Shapes: B prompts, K branches of a prompt, G key/value heads, L entries so far, T new tokens, D head size.

    prompt     the patient has      one entry a token
    branches   fever .   cough .    K more a step, side by side in the same row, whichever branch they belong to

Who sees what is a boolean mask (B, K, L). So the prompt is read and kept once however many texts begin with it, and to
choose which branches go on is to index the mask:  sees' = [sees[parents], 1].  Greedy decoding is K = 1, n samples are
K = n, beams are the same with parents that change. Others copy the whole cache at every step instead.
"""

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.errors import Error


class Cache:
    """Room for `capacity` entries a prompt, allocated at once: 2 x n_layers x B x G x capacity x D numbers.

    The model calls `extend_keep`, then `update` once a layer, then `advance`. A prefix is a cache that is not
    empty; anything with these three methods and a `length` will do.

    >>> from minigpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16)).eval()
    >>> tokens, cache = torch.randint(100, (1, 6)), Cache(model.config, batch=1)
    >>> steps = torch.cat([model(tokens[:, :4], cache=cache), model(tokens[:, 4:], cache=cache)], dim=1)
    >>> torch.allclose(steps, model(tokens), atol=1e-5)
    True
    """

    def __init__(self, config: GPTConfig, batch: int, capacity: int | None = None, dtype=None, device=None):
        self.capacity = capacity or config.context
        shape = (config.n_layers, batch, config.n_kv_heads, self.capacity, config.d_head)
        self.keys = torch.empty(shape, dtype=dtype, device=device)
        self.values = torch.empty(shape, dtype=dtype, device=device)
        self.keep = None  # (B, capacity) bool once a row is padded
        self.sees = None  # (B, K, capacity) bool once rows branch
        self.length = 0

    def extend_keep(self, keep: Tensor | None, batch: int, time: int) -> Tensor | None:
        """Make room for T tokens, of which `keep` (B, T) says what is real; returns what is seen of all L + T:
        None for all of it, (B, L + T) for the same by every query, or (B, T, L + T), a row for each branch.
        """
        end = self.length + time
        if batch != self.keys.shape[1] or end > self.capacity:
            raise Error(
                f"Cache: made for {self.keys.shape[1]} rows of {self.capacity} tokens, "
                f"asked to hold {batch} rows of {end}: make it larger"
            )
        if self.sees is not None:
            return self._extend_branches(keep, time, end)
        if keep is None and self.keep is None:
            return None
        if self.keep is None:
            self.keep = torch.ones(batch, self.capacity, dtype=torch.bool, device=self.keys.device)
        self.keep[:, self.length : end] = True if keep is None else keep
        return self.keep[:, :end]

    def _extend_branches(self, keep: Tensor | None, time: int, end: int) -> Tensor:
        """Every branch sees its own new token and none of its neighbours'."""
        branches = self.sees.shape[1]
        if time != branches or keep is not None:
            raise Error(
                f"Cache: {branches} branches go on by one token each, found {time}: give (B, {branches}) tokens"
            )
        self.sees[:, :, self.length : end] = torch.eye(time, dtype=torch.bool, device=self.sees.device)
        return self.sees[:, :, :end]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (B, G, T, D) at the end; returns views of all of them (B, G, L + T, D)."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, time: int):
        """The T new tokens are in, at every layer."""
        self.length += time

    def branch(self, parents: Tensor):
        """The next token is one for each of K branches, of which branch k goes on from `parents` (B, K) int64.

        Before the first branching there is one branch, 0. No key and no value is touched.
        """
        if self.sees is None and parents.shape[1] == 1:
            return  # one row each, as before
        if self.sees is None:
            batch, device = self.keys.shape[1], self.keys.device
            self.sees = torch.ones(batch, 1, self.capacity, dtype=torch.bool, device=device)
            if self.keep is not None:
                self.sees[:, 0, : self.length] = self.keep[:, : self.length]
        self.sees = self.sees.gather(1, parents[:, :, None].expand(-1, -1, self.capacity))

    def back(self, length: int):
        """Forget what was read after the first `length` tokens, if anything: nobody sees it, and it is written over."""
        if self.sees is not None:
            raise Error("Cache: branches have no common way back: begin a new cache")
        self.length = min(self.length, length)

    def compact(self):
        """Forget the entries that no branch sees any more; the others move together, in their order. One copy."""
        if self.sees is None:
            return
        seen = self.sees[:, :, : self.length].any(1)
        length = int(seen.sum(1).amax())
        order = (~seen).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]  # what is seen comes first
        self.sees[:, :, :length] = self.sees.gather(2, order[:, None].expand(-1, self.sees.shape[1], -1))
        for stored in (self.keys, self.values):
            for each in stored:  # a layer at a time: no second cache
                each[:, :, :length] = each.gather(
                    2, order[:, None, :, None].expand(-1, each.shape[1], -1, each.shape[3])
                )
        self.length = length

    def select(self, rows: list[int]):
        """Keep these prompts, in this order: when one is finished the others go on without it. Copies them once."""
        which = torch.tensor(rows, device=self.keys.device)
        self.keys, self.values = self.keys.index_select(1, which), self.values.index_select(1, which)
        if self.keep is not None:
            self.keep = self.keep.index_select(0, which)
        if self.sees is not None:
            self.sees = self.sees.index_select(0, which)
