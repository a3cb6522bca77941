"""A model and prompts in, new tokens out: greedy or sampled, one prompt or many of unequal length.

Shapes: B rows still being written, T tokens read in a step, V vocabulary.

    while rows are unfinished:   read what is new -> logits of the last place -> choose a token a row

Prompts of unequal length stand flush right; padding to their left is masked and takes no position, so a row is
written as if it were alone. A finished row leaves the batch.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index

import torch
from torch import Generator, Tensor

from minigpt.cache import Cache
from minigpt.errors import Error
from minigpt.generation.sampling import Sampler, row_generator
from minigpt.model import GPT


def generate(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos: int | Collection[int] | None = None,
    use_cache: bool = True,
) -> list[list[int]]:
    """The new tokens of each prompt; the last one is an `eos` where the row ended with one.

    A row ends at an `eos` (one id or several), after `max_new_tokens`, or when the context is full: a token is
    written as long as all before it fit the context, so len(prompt) + len(new) <= context + 1.

    temperature=0 is greedy. Otherwise row i draws from its own stream, made from (seed, i): it depends on its prompt,
    seed and place in the list alone, not on its neighbours, the cache or the global random state. Same PyTorch, same
    kind of CPU: same tokens, up to the rounding of logits, which differ by about 1e-6 with the shape of a batch.

    The model may be in training mode: dropout is off meanwhile, and back on afterwards. `use_cache=False` reads
    everything again at each step, slowly; same tokens. Raises `Error` for an empty prompt, one longer than the
    context, ids outside the vocabulary and values out of range.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> [len(new) for new in generate(model, [[1, 2, 3], [4]], max_new_tokens=5)]
    [5, 5]
    """
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
    rows = [_row(model, prompt, place, max_new_tokens, seed) for place, prompt in enumerate(prompts)]
    written = [[] for _ in rows]
    for new in _decode(model, rows, sampler, _ends(model, eos), use_cache):
        for place, token in new:
            written[place].append(token)
    return written


def stream(
    model: GPT,
    prompt: Sequence[int],
    max_new_tokens: int = 64,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos: int | Collection[int] | None = None,
    row: int = 0,
) -> Iterator[int]:
    """The new tokens of one prompt as they are made: those of `generate` with this prompt at place `row`.

    Between two tokens the model is as the caller left it, training mode included. Arguments are checked at the call.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> list(stream(model, [1, 2], 3, seed=7)) == generate(model, [[1, 2]], 3, seed=7)[0]
    True
    """
    sampler = Sampler(temperature=temperature, top_k=top_k, top_p=top_p)
    steps = _decode(model, [_row(model, prompt, row, max_new_tokens, seed)], sampler, _ends(model, eos))
    return (token for ((_, token),) in steps)


@dataclass(slots=True)
class _Row:
    place: int  # in the user's list
    tokens: list[int]  # the prompt and what was written
    limit: int  # how many tokens it may become
    generator: Generator


def _decode(
    model: GPT, rows: list[_Row], sampler: Sampler, ends: frozenset[int], use_cache: bool = True
) -> Iterator[list[tuple[int, int]]]:
    """A step at a time: (place, new token) of every unfinished row."""
    cache = None
    while rows:
        # Padding takes slots. When they run out before the short rows are done, those start over with less of it:
        # a row without padding is done by then, so each round has fewer rows.
        if cache is None or cache.length == cache.capacity:
            tokens, keep = _flush_right([row.tokens for row in rows])
            cache = _cache_for(model, rows) if use_cache else None
        else:
            tokens, keep = torch.tensor([row.tokens[-1:] for row in rows]), None
        logits = _last_logits(model, tokens, keep, cache, [row.place for row in rows])
        new = sampler.choose(logits, [row.generator for row in rows]).tolist()
        for row, token in zip(rows, new, strict=True):
            row.tokens.append(token)
        yield [(row.place, row.tokens[-1]) for row in rows]
        going = [i for i, row in enumerate(rows) if row.tokens[-1] not in ends and len(row.tokens) < row.limit]
        if cache is not None and 0 < len(going) < len(rows):
            cache.select(going)
        rows = [rows[i] for i in going]


def _last_logits(model: GPT, tokens: Tensor, keep: Tensor | None, cache: Cache | None, places: list[int]) -> Tensor:
    """What the model says after the last token of each row: (B, T) -> (B, V)."""
    device = next(model.parameters()).device
    with _evaluating(model), _only_rows(model, places):
        hidden = model.hidden(tokens.to(device), keep=None if keep is None else keep.to(device), cache=cache)
        return model.head(hidden[:, -1])


@contextmanager
def _evaluating(model: GPT) -> Iterator[None]:
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
def _only_rows(model: GPT, places: list[int]) -> Iterator[None]:
    """Modules that treat each row of the batch in its own way (`rows`, an entry each) hear which rows are left."""
    aware = [(module, module.rows) for module in model.modules() if getattr(module, "rows", None) is not None]
    aware = [(module, rows) for module, rows in aware if len(rows) != len(places)]
    try:
        for module, rows in aware:
            module.rows = tuple(rows[place] for place in places)
        yield
    finally:
        for module, rows in aware:
            module.rows = rows


def _cache_for(model: GPT, rows: list[_Row]) -> Cache:
    """Room for what the rows may become; the last token of a row is never read."""
    longest = max(len(row.tokens) for row in rows)
    slots = longest + max(row.limit - len(row.tokens) for row in rows) - 1
    weight = next(model.parameters())
    return Cache(model.config, len(rows), min(slots, model.config.context), dtype=weight.dtype, device=weight.device)


def _flush_right(rows: list[list[int]]) -> tuple[Tensor, Tensor | None]:
    """Rows of unequal length as (B, T) tokens and (B, T) bool, False at the padding on the left; None if none."""
    longest = max(map(len, rows))
    tokens = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
    if all(len(row) == longest for row in rows):
        return tokens, None
    return tokens, torch.tensor([[False] * (longest - len(row)) + [True] * len(row) for row in rows])


def _row(model: GPT, prompt: Sequence[int], place: int, max_new_tokens: int, seed: int) -> _Row:
    context = model.config.context
    if not isinstance(max_new_tokens, int) or max_new_tokens < 1:
        raise Error(f"max_new_tokens is {max_new_tokens!r}: give a whole number of at least 1")
    try:
        tokens = [index(token) for token in prompt]
    except TypeError:
        raise Error(f"prompt {place} is {prompt!r:.60}: give a list of token ids for each prompt") from None
    if not tokens:
        raise Error(f"prompt {place} is empty: begin with at least one token, such as the end-of-text token")
    if len(tokens) > context:
        raise Error(f"prompt {place} has {len(tokens)} tokens, the model's context holds {context}: shorten it")
    for token in tokens:
        _check_id(model, token, f"prompt {place}")
    return _Row(place, tokens, min(len(tokens) + max_new_tokens, context + 1), row_generator(seed, place))


def _ends(model: GPT, eos: int | Collection[int] | None) -> frozenset[int]:
    """The ids that end a row."""
    if eos is None:
        return frozenset()
    ends = frozenset(map(index, eos)) if isinstance(eos, Collection) else frozenset([index(eos)])
    for token in ends:
        _check_id(model, token, "eos")
    return ends


def _check_id(model: GPT, token: int, where: str):
    if not 0 <= token < model.config.vocab_size:
        raise Error(f"{where}: token {token} is not in the model's vocabulary of {model.config.vocab_size} tokens")
