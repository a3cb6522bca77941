"""A past that nobody wrote: learned keys and values in front of the text, through the model's cache opening.

Shapes: B rows, T tokens, P virtual tokens (of the longest prefix of the batch), G key/value heads, e head size.

    K_l <- [PK_l ; K_l]    V_l <- [PV_l ; V_l]        every token sees all P of them; they ask nothing themselves

Without a cache (training, scoring) the model gets a `Past`: three methods and a length, made anew for each call and
never written, so a block may be run twice (activation checkpointing). With an empty `Cache` the prefix is written into
it first; from then on it is a past like any other, and its layers, branches and rows need not know of it.

In a banded layer the window counts virtual tokens as it counts others: late tokens no longer see them there.
"""

import torch
from einops import rearrange
from torch import Tensor

from minigpt import masks
from minigpt.cache import Cache
from minigpt.errors import Error
from minigpt.generation.reader import evaluating
from minigpt.model import GPT


class Past:
    """Keys and values of each layer (B, G, P, e), the same whoever asks; `keep` (B, P) bool where a row has fewer.

    `documents` (B, T) are those packed in the rows to come: each sees the prefix and itself.
    """

    constant = True

    def __init__(self, keys: list[Tensor], values: list[Tensor], keep: Tensor | None, documents: Tensor | None = None):
        self.keys, self.values, self.keep, self.documents = keys, values, keep, documents
        self.length = keys[0].shape[2]

    def extend_keep(self, keep: Tensor | None, batch: int, time: int) -> Tensor | None:
        if self.keep is None and keep is None and self.documents is None:
            return None
        device = self.keys[0].device
        ours = torch.ones(batch, self.length, dtype=torch.bool, device=device) if self.keep is None else self.keep
        text = torch.ones(batch, time, dtype=torch.bool, device=device) if keep is None else keep
        if self.documents is None:
            return torch.cat((ours, text), 1)
        text = masks.build(time, keep=text, documents=self.documents, device=device)[:, 0]
        return torch.cat((ours[:, None].expand(-1, time, -1), text), 2)  # a row for each query

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat((self.keys[layer].to(k.dtype), k), 2), torch.cat((self.values[layer].to(v.dtype), v), 2)

    def advance(self, time: int):
        pass


class Asked:
    """A cache that was told of the new tokens already: `seen` is what its `extend_keep` said."""

    def __init__(self, cache, seen: Tensor | None):
        self.cache, self.seen, self.length = cache, seen, cache.length
        self.constant = getattr(cache, "constant", False)
        self.update, self.advance = cache.update, cache.advance

    def extend_keep(self, keep, batch: int, time: int) -> Tensor | None:
        return self.seen


class Entrance:
    """Stands for `GPT.hidden` while prefixes are attached, as `GPT.through` may stand for a block's call.

    Positions are those of the text, and with shift=True (PEFT's) as many more as the row's prefix is long. Whoever
    gives `positions` gives the text's own.
    """

    def __init__(self, model: GPT):
        self.model = model

    @property
    def taken(self) -> int:
        """Positions that are not for the text; of rows with different prefixes, what the greediest takes."""
        return max((each.length for each in self.model.prefixes.working() if each.shift), default=0)

    def __call__(self, tokens=None, *, positions=None, keep=None, documents=None, cache=None, embeds=None) -> Tensor:
        model, given = self.model, tokens if embeds is None else embeds
        if not model.prefixes.working() or given is None or given.ndim < 2:
            openings = {"positions": positions, "keep": keep, "documents": documents, "cache": cache}
            return GPT.hidden(model, tokens, embeds=embeds, **openings)
        batch, time = given.shape[:2]
        model._check(batch, time, positions, keep, documents, cache)
        lengths, shifts = model.prefixes.sizes(batch, given.device)
        if cache is None:
            cache = Past(*model.prefixes.joined(batch), documents)
        elif isinstance(cache, Cache):
            self._begin(cache, batch)
        cache = Asked(cache, cache.extend_keep(keep, batch, time))
        if positions is None:
            counted = model._count_positions(time, cache.length, cache.seen, given.device)
            positions = (counted - lengths).clamp(min=0)
        positions = positions + shifts
        self._check_fits(positions, time, cache.length)
        return GPT.hidden(model, tokens, embeds=embeds, positions=positions, cache=cache)

    def _begin(self, cache: Cache, batch: int):
        if cache.length == 0:
            if batch != cache.batch:
                raise Error(f"Cache: made for {cache.batch} rows, found {batch}: make one of as many rows")
            cache.begin(*self.model.prefixes.joined(batch))
        elif cache.prefix == 0:
            raise Error("prefix: this cache was begun without it: begin a new one after attach, use and rows")

    def _check_fits(self, positions: Tensor, time: int, past: int):
        context, taken = self.model.config.context, self.taken
        if taken and past + time > context and positions.amax() >= context:
            raise Error(
                f"prefix: {taken} virtual tokens and a text up to position {int(positions.amax()) - taken} do not fit "
                f"the context of {context}: shorten the text, or attach with shift=False, which takes no positions"
            )


@torch.no_grad()
def keys_and_values(model: GPT, tokens: tuple[int, ...], shift: bool = True) -> Tensor:
    """F (P, 2L, G, e) of real tokens: the model, without any prefix, reads them at positions 0 .. P - 1.

    In front of a text this is the tokens themselves: logits equal to the hard prompt's. The keys of a rotary model are
    turned already; for a text that begins at 0 (shift=False) they are turned to -P .. -1, which only rotations allow.
    """
    if not tokens or not all(0 <= token < model.config.vocab_size for token in tokens):
        raise Error(f"prefix: tokens are {tokens!r:.60}: give ids of the model's {model.config.vocab_size} tokens")
    weight, length = next(model.parameters()), len(tokens)
    dense = model.config.dense()  # a cache that keeps all of every layer
    cache = Cache(dense, 1, length, dtype=weight.dtype, device=weight.device)
    first = -length if model.config.positions == "rotary" and not shift else 0
    positions = torch.arange(first, first + length, device=weight.device)[None]
    with evaluating(model):
        GPT.hidden(model, torch.tensor([tokens], device=weight.device), positions=positions, cache=cache)
    both = torch.stack([each for layer in cache.layers for each in (layer.keys, layer.values)], 1)
    return rearrange(both, "1 l g p e -> p l g e")
