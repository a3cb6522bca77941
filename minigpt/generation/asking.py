"""What is asked of the engine and what it answers; and how rows that differ in everything choose their next tokens.

Shapes: N rows, V vocabulary.
"""

import math
from dataclasses import dataclass, field, replace

from torch import Generator, Tensor

from minigpt.errors import Error
from minigpt.generation.sampling import Sampler
from minigpt.tuning import mixed


@dataclass(frozen=True, slots=True)
class Ask:
    """A text to be written: the tokens of `generate(model, [prompt], seed=seed, row=row, ...)`.

    sampler   with `max_new_tokens`, and the `ends` that end it; without a maximum, to the end of the context
    adapter   one of the engine's `names`; None: the base
    top       so many of the most likely tokens are told with each token, and its log-probability; None: neither
    """

    prompt: list[int]
    sampler: Sampler = field(default_factory=Sampler)
    seed: int = 0
    row: int = 0
    adapter: str | None = None
    top: int | None = None

    def __post_init__(self):
        if self.top is not None and (type(self.top) is not int or self.top < 0):
            raise Error(f"top is {self.top!r}: give a whole number of at least 0, or None to be told no probabilities")


@dataclass(frozen=True, slots=True)
class Event:
    """A token of a text. The last one has a `finish`: "end", an end token; "length", no more may come; or "error".

    Log-probabilities are the model's own: of the logits as they are, before penalties and temperature.
    An error has no token: the text ends there, and others go on.
    """

    token: int | None
    logprob: float = math.nan
    top: list[tuple[int, float]] = field(default_factory=list)  # (token, logprob), the most likely first
    finish: str | None = None
    error: Exception | None = None


@dataclass(slots=True, eq=False)
class Row:
    """A text being written; `tokens` and `prompt` are what penalties look at."""

    ticket: int
    ask: Ask
    names: mixed.Names  # of what it has beside the model
    tokens: list[int]  # the prompt, virtual tokens before it, and what was written
    prompt: int  # how many of them are the prompt
    limit: int  # how many tokens it may become
    generator: Generator
    sampler: Sampler  # the ask's, less what only says when the text ends

    def take(self, token: int) -> str | None:
        """One more token; how the text finishes with it, if it does."""
        self.tokens.append(token)
        if token in self.ask.sampler.ends:
            return "end"
        return "length" if len(self.tokens) >= self.limit else None


def choosing(sampler: Sampler) -> Sampler:
    """One that chooses the same, whether or not texts end at other tokens and lengths: rows of these go together.

    >>> choosing(Sampler(top_k=5, max_new_tokens=7)) == choosing(Sampler(top_k=5, ends={1}))
    True
    """
    ends = sampler.ends if sampler.min_new_tokens or sampler.force_end else ()
    return replace(sampler, ends=ends, max_new_tokens=sampler.max_new_tokens if sampler.force_end else None)


def answer(rows: list[Row], logits: Tensor) -> list[Event]:
    """The next token of each row, after logits (N, V), and what its ask wants to know of it."""
    chosen: dict[int, int | Exception] = {}
    for places in _alike(rows):
        tokens = _choose([rows[place] for place in places], logits[places])
        chosen |= dict(zip(places, tokens, strict=True))
    return [_event(row, chosen[place], logits[place]) for place, row in enumerate(rows)]


def _event(row: Row, token: int | Exception, logits: Tensor) -> Event:
    if isinstance(token, Exception):
        return Event(None, finish="error", error=token)
    if row.ask.top is None:
        return Event(token, finish=row.take(token))
    logprobs = logits.float().log_softmax(-1)
    best = logprobs.topk(min(row.ask.top, len(logprobs)))
    top = list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
    return Event(token, float(logprobs[token]), top, row.take(token))


def _alike(rows: list[Row]) -> list[list[int]]:
    """The places of rows that are chosen together. Who has functions of his own is alone with them."""
    groups: list[tuple[Sampler, list[int]]] = []
    for place, row in enumerate(rows):
        sampler = row.sampler
        found = next((places for other, places in groups if not sampler.extra and other == sampler), None)
        if found is None:
            groups.append((sampler, [place]))
        else:
            found.append(place)
    return [places for _, places in groups]


def _choose(rows: list[Row], logits: Tensor) -> list[int | Exception]:
    """A token for each row, or what went wrong with it: then the others are chosen without it."""
    try:
        return rows[0].sampler.choose(logits, [row.generator for row in rows], rows).tolist()
    except Exception as problem:  # whatever a function of the caller's raises
        if len(rows) == 1:
            return [problem]
    # Nothing was drawn: a sampler checks all of its rows first.
    return [token for row, own in zip(rows, logits, strict=True) for token in _choose([row], own[None])]
