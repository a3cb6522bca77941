"""Steps of fixed shapes, which torch.compile compiles once and a GPU replays as one CUDA graph: a twin of `Reader`.

Shapes: B prompts, K branches, S entries there is room for (the bucket), L of them written, V vocabulary.

    Reader            a step looks at L + K entries: another shape each time
    CompiledReader    at all S, of which the mask hides what is not written; S is 64, 128, 256, ...

New keys and values are written where an index tensor says. When the bucket is full, dead entries leave, or it doubles.
So there is one graph for each S; B and K stay what they are too: finished prompts and branches go on idly, unseen.
Banded layers keep everything here, and see what their window lets them.
"""

import warnings
from functools import cache

import torch
from torch import Tensor

from minigpt.cache import Cache
from minigpt.errors import Error
from minigpt.generation.reader import FORGET, PlainReader, Reader, evaluating, flush_right, only_rows, read_last
from minigpt.model import GPT

GRAPHS = 256  # kept of all models and sizes; PyTorch's own limit is 8


def kind_of_reader(use_cache: bool, compile: bool) -> type:
    if compile and not use_cache:
        raise Error("compile=True compiles the step from a cache: leave use_cache at True")
    return CompiledReader if compile else Reader if use_cache else PlainReader


def bucket(entries: int) -> int:
    """The next of 64, 128, 256, ...

    >>> [bucket(n) for n in (1, 64, 65, 1000)]
    [64, 64, 128, 1024]
    """
    return max(64, 1 << (entries - 1).bit_length())


class CompiledReader(Reader):
    """`Reader`, with the prompt read as there and each step compiled. `room` is not needed: the cache grows."""

    def start(self, prompts: list[list[int]]) -> Tensor:
        tokens, keep = flush_right(prompts)
        weight = next(self.model.parameters())
        dense = self.model.config.dense()
        size = bucket(tokens.shape[1] + 1)
        self.cache = Cache(dense, len(prompts), size, dtype=weight.dtype, device=weight.device)
        self._resize(size)
        self.live, self.width = list(range(len(prompts))), 1
        logits = read_last(self.model, tokens, keep, self.cache, self.places, self.prefill_chunk)
        if self.cache.capacity > size:  # a prefix has made room for itself
            self._resize(bucket(self.cache.capacity))
        return logits

    def step(self, tokens: list[list[int]], parents: list[list[int]]) -> Tensor:
        asked = len(tokens[0])
        self.width = max(self.width, asked)
        tokens, parents = self._fill(tokens), self._fill(parents)
        self.cache.split()
        self.cache.branch(parents)
        idle = sorted(set(range(self.cache.batch)) - set(self.live))
        self.cache.sees[idle] = False  # else they would count on, and past the last position
        self._make_room()
        logits = self._read(tokens)
        self.cache.advance(self.width)
        return logits[self.live, :asked]

    def select(self, prompts: list[int]):
        self.live = [self.live[i] for i in prompts]

    def _fill(self, given: list[list[int]]) -> Tensor:
        """(B, K) from the live rows and the branches that are asked for; 0 elsewhere."""
        full = torch.zeros(self.cache.batch, self.width, dtype=torch.int64)
        full[self.live, : len(given[0])] = torch.tensor(given)
        return full.to(self.cache.device)

    def _make_room(self):
        cache = self.cache
        if cache.length + self.width <= cache.capacity:
            return
        cache.compact()
        more = cache.length + max(FORGET, self.width)  # so that it is not full again at once
        if more > cache.capacity:
            self._resize(bucket(more))

    def _resize(self, size: int):
        self.cache.resize(size)
        if self.cache.device.type == "cuda":  # a graph may write to what stays where it is
            for layer in self.cache.layers:
                torch._dynamo.mark_static_address(layer.keys, guard=False)
                torch._dynamo.mark_static_address(layer.values, guard=False)

    def _read(self, tokens: Tensor) -> Tensor:
        cache = self.cache
        at = torch.arange(cache.length, cache.length + self.width, device=cache.device)
        cache.extend_keep(None, cache.batch, self.width)
        sees = cache.sees & (torch.arange(cache.capacity, device=cache.device) <= at[-1])
        keys, values = ([getattr(layer, name) for layer in cache.layers] for name in ("keys", "values"))
        with evaluating(self.model), only_rows(self.model, self.places):
            return _step(self.model.head.weight.is_cuda)(self.model, tokens, sees, at, keys, values)


class Bucket:
    """A cache of fixed size as the model sees it: all entries, new ones at `at` (K,) int64, a mask (B, K, S)."""

    length = 0  # positions are counts of what a branch sees

    def __init__(self, sees: Tensor, at: Tensor, keys: list[Tensor], values: list[Tensor]):
        self.sees, self.at, self.keys, self.values = sees, at, keys, values

    def extend_keep(self, keep, batch: int, time: int) -> Tensor:
        return self.sees

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.keys[layer].index_copy_(2, self.at, k)
        self.values[layer].index_copy_(2, self.at, v)
        return self.keys[layer], self.values[layer]

    def advance(self, time: int):
        pass


def read(model: GPT, tokens: Tensor, sees: Tensor, at: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    """Logits (B, K, V) after one more token of each branch; writes its keys and values."""
    return model(tokens, cache=Bucket(sees, at, keys, values))


class Compiled:
    """A function by torch.compile; where there is no compiler the function itself, and one warning."""

    def __init__(self, function, **options):
        self.function, self.usable = function, True
        self.compiled = torch.compile(function, dynamic=False, fullgraph=True, **options)

    def __call__(self, *args):
        if self.usable:
            try:
                with torch._dynamo.config.patch(recompile_limit=GRAPHS):
                    return self.compiled(*args)
            except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
                self.usable = False
                reason = str(error).strip().split("\n")[0]
                warnings.warn(f"torch.compile does not work here, going on without: {reason}", stacklevel=2)
        return self.function(*args)


@cache
def _step(on_gpu: bool) -> Compiled:
    return Compiled(read, mode="reduce-overhead" if on_gpu else None)
