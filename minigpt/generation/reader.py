"""New tokens in, logits out, for prompts that branch: what greedy decoding, samples and beams have in common.

Shapes: B prompts, K branches of each, V vocabulary.

    reader.start(prompts)             (B, V)       after each prompt, read once however many texts begin with it
    reader.step(tokens, parents)      (B, K, V)    after one more token of each branch, which goes on from its parent
    reader.select(prompts)                         the others are done

Twins: `Reader` keeps what it has read in a cache, `PlainReader` reads everything again. Tested equal.
`places` says of each prompt where it stands in the user's list: modules that treat rows in their own way go by it.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from minigpt import rope
from minigpt.cache import Cache
from minigpt.model import GPT

PREFILL = 2048  # tokens of prompts read at a time, all rows together: memory for the rest is the cache alone
FORGET = 64  # entries that no branch sees any more, before it pays to move the others together


class PlainReader:
    """Knows the tokens of every branch, and reads all of them at each step."""

    def __init__(self, model: GPT, places: list[int], room: int = 0):
        self.model, self.places = model, places

    def start(self, prompts: list[list[int]]) -> Tensor:
        self.texts = [[list(prompt)] for prompt in prompts]
        return self._read()[:, 0]

    def step(self, tokens: list[list[int]], parents: list[list[int]]) -> Tensor:
        new = [zip(*each, strict=True) for each in zip(tokens, parents, strict=True)]
        self.texts = [
            [texts[parent] + [token] for token, parent in branches]
            for texts, branches in zip(self.texts, new, strict=True)
        ]
        return self._read()

    def select(self, prompts: list[int]):
        self.texts, self.places = ([held[i] for i in prompts] for held in (self.texts, self.places))

    def _read(self) -> Tensor:
        return torch.stack([self._read_texts(list(texts)) for texts in zip(*self.texts, strict=True)], dim=1)

    def _read_texts(self, texts: list[list[int]]) -> Tensor:
        tokens, keep = flush_right(texts)
        cache = None
        if isinstance(self.model.config.rope_scaling, rope.Dynamic):  # which turns a text that grows in its own way
            weight = next(self.model.parameters())
            cache = Cache(self.model.config, *tokens.shape, dtype=weight.dtype, device=weight.device)
        return read_last(self.model, tokens, keep, cache, self.places)


class Reader:
    """Reads each token once. `room`: how many tokens the branches of one prompt may write together."""

    prefill_chunk = PREFILL

    def __init__(self, model: GPT, places: list[int], room: int):
        self.model, self.places, self.room = model, places, room

    def start(self, prompts: list[list[int]]) -> Tensor:
        tokens, keep = flush_right(prompts)
        weight, self.prompt = next(self.model.parameters()), tokens.shape[1]
        capacity = self.prompt + self.room
        self.cache = Cache(self.model.config, len(prompts), capacity, dtype=weight.dtype, device=weight.device)
        return read_last(self.model, tokens, keep, self.cache, self.places, self.prefill_chunk)

    def step(self, tokens: list[list[int]], parents: list[list[int]]) -> Tensor:
        cache = self.cache
        cache.branch(torch.tensor(parents, device=cache.device))
        if cache.sees is not None and self._wasted() > max(FORGET, cache.length // 2):
            cache.compact()
        return _logits(self.model, torch.tensor(tokens), None, cache, self.places)

    def select(self, prompts: list[int]):
        self.cache.select(prompts)
        self.places = [self.places[i] for i in prompts]

    def _wasted(self) -> int:
        """Entries that no branch of any prompt sees: compacting would free so many."""
        written = self.cache.read - self.prompt
        if written <= FORGET or written % FORGET:  # not worth counting at each step
            return 0
        seen = self.cache.sees[:, :, : self.cache.length].any(1).sum(1)
        return self.cache.length - int(seen.amax())


class Memory(Reader):
    """A reader for one text that goes on over several calls, as a conversation does: each token is read once.

    Give it to `stream`, or to `beam_search`, again and again. What a new prompt shares with what was read, from its
    beginning, is not read anew; where they part, the rest is forgotten, or all of it, if a banded layer no longer has
    what came before. Of a beam search the prompt is known afterwards, and none of the beams. `fresh` tokens of the last
    prompt were read. A change of the weights or adapters asks for a new Memory.

    >>> from minigpt import GPT, GPTConfig
    >>> from minigpt.generation import stream
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> memory, text = Memory(model), [1, 2, 3]
    >>> text += stream(model, text, 4, memory=memory)
    >>> text += [4, 5]
    >>> text += stream(model, text, 4, memory=memory)  # reads 3 tokens before it writes: its own last one, 4 and 5
    """

    def __init__(self, model: GPT):
        super().__init__(model, [0], room=0)
        weight = next(model.parameters())
        room = sys.maxsize if model.config.endless else None
        self.cache = Cache(model.config, 1, room, dtype=weight.dtype, device=weight.device)
        self.text, self.prompt, self.fresh = [], 0, 0

    def with_room(self, model: GPT, places: list[int], room: int) -> "Memory":
        """The same, for a search whose beams will write so many tokens after the next prompt."""
        self.room = room
        return self

    def start(self, prompts: list[list[int]]) -> Tensor:
        (text,) = prompts
        self.cache.sees = None  # of a search before; its beams are not in `text`, and so forgotten below
        known, most = 0, min(len(self.text), len(text) - 1)  # the last one is always read
        while known < most and self.text[known] == text[known]:
            known += 1
        self.cache.back(known)
        known = self.cache.read
        self.text = text[:known]  # should reading fail, what was read stays true
        capacity = self.cache.prefix + len(text) + self.room
        if capacity > self.cache.capacity:
            self.cache.resize(capacity)
        new = torch.tensor([text[known:]])
        logits = read_last(self.model, new, None, self.cache, self.places, self.prefill_chunk)
        self.text, self.prompt, self.fresh, self.room = list(text), len(text), len(text) - known, 0
        return logits

    def step(self, tokens: list[list[int]], parents: list[list[int]]) -> Tensor:
        logits = super().step(tokens, parents)
        if self.cache.sees is None:
            self.text += tokens[0]
        return logits


def flush_right(texts: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    """Texts of unequal length as (B, T) tokens and (B, T) bool, False at the padding on the left; None if none."""
    longest = max(map(len, texts))
    tokens = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    if all(len(text) == longest for text in texts):
        return tokens, None
    return tokens, torch.tensor([[False] * (longest - len(text)) + [True] * len(text) for text in texts])


def read_last(
    model: GPT,
    tokens: Tensor,
    keep: Tensor | None,
    cache: Cache | None,
    places: list[int],
    prefill_chunk: int = PREFILL,
) -> Tensor:
    """Logits after the last token of each row, (B, V). Into a cache a long prompt is read a chunk at a time."""
    width = tokens.shape[1] if cache is None else max(1, prefill_chunk // len(tokens))
    parts = tokens.split(width, 1)
    kept = [None] * len(parts) if keep is None else keep.split(width, 1)
    for part, real in zip(parts, kept, strict=True):
        logits = _logits(model, part, real, cache, places, last=True)
    return logits[:, 0]


def _logits(model: GPT, tokens: Tensor, keep, cache: Cache | None, places: list[int], last: bool = False) -> Tensor:
    """(B, T) -> (B, T, V), or (B, 1, V) of the last place."""
    device = next(model.parameters()).device
    with evaluating(model), only_rows(model, places):
        hidden = model.hidden(tokens.to(device), keep=None if keep is None else keep.to(device), cache=cache)
        return model.head(hidden[:, -1:] if last else hidden)


@contextmanager
def evaluating(model: GPT) -> Iterator[None]:
    # Module by module: a caller may have part of the model in evaluation mode, and gets it back so.
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def only_rows(model: GPT, places: list[int]) -> Iterator[None]:
    """Modules that treat each row of the batch in its own way (`rows`, an entry each) hear which rows are read."""
    aware = [(module, module.rows) for module in row_aware(model)]
    try:
        for module, rows in aware:
            module.rows = tuple(rows[place] for place in places)
        yield
    finally:
        for module, rows in aware:
            module.rows = rows


def row_aware(model: GPT) -> list:
    return [module for module in model.modules() if getattr(module, "rows", None) is not None]
