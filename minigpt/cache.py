"""What a decoder remembers: the keys and values of every layer, one row a prompt, written once and never moved.

Shapes: B batch (prompts), G key/value heads, L keys so far, T new tokens, D head size.
"""

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.errors import Error


class Cache:
    """Room for `capacity` tokens a row, allocated at once: 2 x n_layers x B x G x capacity x D numbers.

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
        self.length = 0

    def extend_keep(self, keep: Tensor | None, batch: int, time: int) -> Tensor | None:
        """Remember which of the T new tokens are real; returns the answer for all L + T, None if all are."""
        end = self.length + time
        if batch != self.keys.shape[1] or end > self.capacity:
            raise Error(
                f"Cache: made for {self.keys.shape[1]} rows of {self.capacity} tokens, "
                f"asked to hold {batch} rows of {end}: make it larger"
            )
        if keep is None and self.keep is None:
            return None
        if self.keep is None:
            self.keep = torch.ones(batch, self.capacity, dtype=torch.bool, device=self.keys.device)
        self.keep[:, self.length : end] = True if keep is None else keep
        return self.keep[:, :end]

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new keys and values (B, G, T, D) at the end; returns views of all of them (B, G, L + T, D)."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, time: int):
        """The T new tokens are in, at every layer."""
        self.length += time

    def select(self, rows: list[int]):
        """Keep these rows, in this order: when a prompt is finished the others go on without it. Copies them once."""
        which = torch.tensor(rows, device=self.keys.device)
        self.keys, self.values = self.keys.index_select(1, which), self.values.index_select(1, which)
        if self.keep is not None:
            self.keep = self.keep.index_select(0, which)
