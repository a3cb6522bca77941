"""How the next token is chosen, and where its randomness comes from.

Shapes: B batch, V vocabulary; N rows, which are the batch or its beams.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain
from numbers import Integral, Real
from operator import index

import torch
from torch import Generator, Tensor

from minigpt.errors import Error
from minigpt.generation import penalties, processors
from minigpt.generation.penalties import History

SEEDS = 2**32  # PyTorch's CPU generator uses no more bits of a seed
STRIDE = 0x9E3779B1  # 2^32 / golden ratio: odd, so all rows of a seed differ, and far from small seeds
COLDEST = 1e-6  # z / T must not overflow

Adjustment = Callable[[Tensor, Sequence[History]], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """What is done to the logits, in transformers' order, and the draw. Checked; temperature 0 is greedy.

    adjust   repetition, frequency and presence, n-grams, bans, least length, forced tokens, `extra`   penalties.py
    filter   temperature, top-k, top-p, min-p, typical                                                 processors.py

    `ends` are the ids that end a row: `min_new_tokens` bans them until so many are written, `force_end` makes one of
    them the last of `max_new_tokens`. `banned` holds ids, and sequences of ids whose last is banned where the others
    are the end of the text; an end token may be among them, which transformers would ignore. Where two disagree the
    later one wins: a forced token is written even if banned. `extra` are the caller's own functions
    (scores, histories) -> scores of the same shape.

    >>> Sampler(temperature=0).choose(torch.tensor([[1.0, 3.0, 3.0]]), [row_generator(0, 0)]).tolist()
    [1]
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    no_repeat_ngram: int | None = None
    banned: Collection[int | Sequence[int]] = ()
    min_new_tokens: int = 0
    forced_first: int | None = None
    force_end: bool = False
    max_new_tokens: int | None = None
    ends: frozenset[int] = frozenset()
    extra: Sequence[Adjustment] = ()

    def __post_init__(self):
        for name, (holds, give) in RULES.items():
            if not holds(getattr(self, name)):
                raise Error(f"{name} is {getattr(self, name)!r:.80}: give {give}")
        object.__setattr__(self, "banned", _sequences(self.banned))
        object.__setattr__(self, "ends", frozenset(map(index, self.ends)))
        object.__setattr__(self, "extra", tuple(self.extra))
        if self.force_end and not (self.ends and self.max_new_tokens):
            raise Error("force_end writes an end token as the last of max_new_tokens: give `ends` and `max_new_tokens`")
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            found = f"min_new_tokens is {self.min_new_tokens}, max_new_tokens is {self.max_new_tokens}"
            raise Error(f"{found}: give a minimum that is not above the maximum")

    @property
    def adjustments(self) -> tuple[str, ...]:
        """The names of what `adjust` has to do."""
        return tuple(name for name in ADJUSTMENTS if getattr(self, name) not in (None, 0, ()))

    def adjust(self, scores: Tensor, histories: Sequence[History] | None) -> Tensor:
        """Penalties, bans, forced tokens and `extra`, (N, V) -> (N, V); the same tensor if there is nothing to do.

        `histories` has the text of each row. `scores` are logits, or the log-probabilities of beams, which are not
        normalised afterwards.
        """
        if not self.adjustments:
            return scores
        self._check_fit(scores, histories)
        if self.repetition_penalty is not None:
            scores = penalties.repetition(scores, histories, self.repetition_penalty)
        if self.frequency_penalty or self.presence_penalty:
            amounts = self.frequency_penalty, self.presence_penalty
            scores = penalties.frequency_and_presence(scores, histories, *amounts)
        if self.no_repeat_ngram is not None:
            scores = penalties.no_repeat_ngram(scores, histories, self.no_repeat_ngram)
        if self.banned:
            scores = penalties.banned(scores, histories, self.banned)
        if self.min_new_tokens:
            scores = penalties.min_new_tokens(scores, histories, self.min_new_tokens, self.ends)
        if self.forced_first is not None:
            scores = penalties.forced_first(scores, histories, self.forced_first)
        if self.force_end:
            scores = penalties.force_end(scores, histories, self.max_new_tokens, self.ends)
        for process in self.extra:
            shape, scores = scores.shape, process(scores, histories)
            if not isinstance(scores, Tensor) or scores.shape != shape:
                found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
                raise Error(f"{process!r} in extra returned {found}: return scores of shape {tuple(shape)}")
        return scores

    def filter(self, scores: Tensor) -> Tensor:
        """Temperature, then what top-k, top-p, min-p and typical leave, (N, V) -> (N, V). Only for temperature > 0."""
        scores = processors.temperature(scores, self.temperature)
        if self.top_k is not None:
            scores = processors.top_k(scores, self.top_k)
        if self.top_p is not None:
            scores = processors.top_p(scores, self.top_p)
        if self.min_p is not None:
            scores = processors.min_p(scores, self.min_p)
        if self.typical_p is not None:
            scores = processors.typical(scores, self.typical_p)
        return scores

    def probabilities(self, logits: Tensor, histories: Sequence[History] | None = None) -> Tensor:
        """What `choose` draws from, (B, V) -> (B, V) float32: softmax of the adjusted and filtered logits."""
        scores = self._checked(logits, histories)
        if self.temperature == 0:
            return torch.zeros_like(scores).scatter(-1, scores.argmax(-1, keepdim=True), 1.0)
        return self.filter(scores).softmax(-1)

    def choose(self, logits: Tensor, generators: list[Generator], histories: Sequence[History] | None = None) -> Tensor:
        """The next token of each row, (B, V) -> (B,) int64. Greedy takes the lowest id of equal logits."""
        if self.temperature == 0:
            return self._checked(logits, histories).argmax(-1)
        return draw(self.probabilities(logits, histories), generators)

    def _checked(self, logits: Tensor, histories: Sequence[History] | None) -> Tensor:
        """The adjusted logits in float32: some token of each row can be drawn."""
        logits = logits.float()
        if not logits.amax(-1).isfinite().all():
            raise Error(processors.BROKEN)
        scores = self.adjust(logits, histories)
        if scores is logits or (highest := scores.amax(-1)).isfinite().all():
            return scores
        row = int((~highest.isfinite()).nonzero()[0])
        if highest[row] == -math.inf:
            raise Error(f"every token of row {row} is banned: loosen {' or '.join(self.adjustments)}")
        raise Error(f"the scores of row {row} became NaN or infinite by {' or '.join(self.adjustments)}: change it")

    def _check_fit(self, scores: Tensor, histories: Sequence[History] | None):
        if histories is None or len(histories) != len(scores):
            found = "none" if histories is None else f"those of {len(histories)}"
            raise Error(
                f"{self.adjustments[0]} looks at the text: give the histories of {len(scores)} rows, not {found}"
            )
        forced = () if self.forced_first is None else (self.forced_first,)
        named = {"ends": self.ends, "forced_first": forced, "banned": chain.from_iterable(self.banned)}
        for name, ids in named.items():
            if (highest := max(ids, default=-1)) >= scores.shape[-1]:
                raise Error(f"{name}: token {highest} is not in the model's vocabulary of {scores.shape[-1]} tokens")


def draw(probabilities: Tensor, generators: list[Generator]) -> Tensor:
    """One token v of each row with probability p_v, (B, V) -> (B,): an exponential race.

        v = argmax p_v / e_v,   e_v ~ Exp(1)

    since min_v e_v / p_v falls on v with probability p_v / sum p. The same noise as torch.multinomial, so one row
    equals transformers' sampling from the same generator. Each row takes V numbers from its own generator, always
    on the CPU: what a row draws depends neither on its neighbours nor on the device.
    """
    noise = [torch.empty(probabilities.shape[-1]).exponential_(generator=generator) for generator in generators]
    return (probabilities / torch.stack(noise).to(probabilities.device)).argmax(-1)


def row_generator(seed: int, row: int) -> Generator:
    """The random stream of the prompt at place `row` of the user's list; row 0 is `manual_seed(seed)`."""
    if not isinstance(seed, int) or not 0 <= seed < SEEDS:
        raise Error(f"seed is {seed!r}: give a whole number from 0 to {SEEDS - 1}")
    return Generator().manual_seed((seed + row * STRIDE) % SEEDS)


def _sequences(banned: Collection[int | Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Each id as a sequence of one.

    >>> _sequences([5, [1, 2]])
    ((5,), (1, 2))
    """
    return tuple(tuple(map(index, one)) if isinstance(one, (list, tuple)) else (index(one),) for one in banned)


def _is_banned(banned) -> bool:
    try:
        return all(sequence and min(sequence) >= 0 for sequence in _sequences(banned))
    except TypeError:
        return False


def _is_ids(ids) -> bool:
    try:
        return all(index(token) >= 0 for token in ids)
    except TypeError:
        return False


def _real(x, least: float = -math.inf) -> bool:
    return isinstance(x, Real) and not isinstance(x, bool) and math.isfinite(x) and x >= least


def _whole(x, least: int) -> bool:
    return isinstance(x, Integral) and not isinstance(x, bool) and x >= least


def _is_share(x) -> bool:
    return x is None or (_real(x) and 0 < x <= 1)


SHARE = (_is_share, "a number above 0 and at most 1, or None to keep every token")
AMOUNT = (_real, "a number, such as 0.5, or 0 for no penalty")
RULES = {  # field: (does the value hold?, what to give)
    "temperature": (lambda x: _real(x) and (x == 0 or x >= COLDEST), f"0 (greedy) or at least {COLDEST}, such as 0.8"),
    "top_k": (lambda x: x is None or _whole(x, 1), "a whole number of at least 1, or None to keep every token"),
    "top_p": SHARE,
    "min_p": SHARE,
    "typical_p": SHARE,
    "repetition_penalty": (lambda x: x is None or (_real(x) and x > 0), "a number above 0, such as 1.2, or None"),
    "frequency_penalty": AMOUNT,
    "presence_penalty": AMOUNT,
    "no_repeat_ngram": (lambda x: x is None or _whole(x, 1), "a whole number of at least 1, or None to allow all"),
    "banned": (_is_banned, "ids and lists of ids, such as [50256, [464, 262]], none empty"),
    "min_new_tokens": (lambda x: _whole(x, 0), "a whole number of at least 0"),
    "forced_first": (lambda x: x is None or _whole(x, 0), "the id of the first token to write, or None"),
    "force_end": (lambda x: isinstance(x, bool), "True or False"),
    "max_new_tokens": (lambda x: x is None or _whole(x, 1), "a whole number of at least 1"),
    "ends": (_is_ids, "the ids that end a row, such as {50256}"),
    "extra": (lambda x: isinstance(x, (list, tuple)) and all(map(callable, x)), "a tuple of functions"),
}
ADJUSTMENTS = (
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "no_repeat_ngram",
    "banned",
    "min_new_tokens",
    "forced_first",
    "force_end",
    "extra",
)
