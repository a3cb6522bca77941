"""A small model proposes, the large one disposes: several tokens a reading, and the text is as the large one's own.

Shapes: T tokens so far, n proposed after them, V vocabulary.

    draft   x_1 ~ q_1, .., x_n ~ q_n     n readings of one token, by the small model
    model   p_1, .., p_n, p_n+1          one reading of n + 1 tokens, little slower than of one if memory is the limit
    take    x_i with probability min(1, p_i(x_i) / q_i(x_i)), up to the first that is refused
    write   one more: from max(p_i - q_i, 0) / sum where x_i was refused, from p_n+1 where none was

Leviathan, Kalman & Matias 2023, algorithm 1; Chen et al. 2023, algorithm 2. Token v is written with probability p(v),
whatever q is: as a proposal with min(p, q), and after a refusal, which has probability 1 - sum min(p, q) =
sum max(p - q, 0), with max(p - q, 0). Here p and q are what the sampler draws from: penalties and filters are in them.
At temperature 0 both are 1 at one token, and the same rule is greedy decoding.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from minigpt.cache import Cache
from minigpt.errors import Error
from minigpt.generation.checks import check_prompt, check_read, context_of, end_tokens, make_sampler
from minigpt.generation.generate import Row
from minigpt.generation.reader import evaluating
from minigpt.generation.sampling import Sampler, draw, row_generator
from minigpt.model import GPT


@dataclass(frozen=True, slots=True)
class Speculated:
    tokens: list[int]  # the new ones, as of `generate`
    accepted: float  # share of the proposed tokens that were taken; 0 if none was proposed
    steps: int  # readings of the large model


@dataclass(frozen=True, slots=True)
class Round:
    """What one reading of the large model gave."""

    tokens: list[int]  # the taken ones, and one more unless they ended the text
    proposed: int
    taken: int


@dataclass(slots=True)
class Tally:
    """How often the draft was right, over several rounds and texts."""

    written: int = 0
    proposed: int = 0
    taken: int = 0
    readings: int = 0  # of the large model

    def count(self, found: Round) -> list[int]:
        """The tokens of this round."""
        self.written += len(found.tokens)
        self.proposed += found.proposed
        self.taken += found.taken
        self.readings += 1
        return found.tokens

    @property
    def accepted(self) -> float:
        return self.taken / self.proposed if self.proposed else 0.0

    def __str__(self):
        each = self.written / max(1, self.readings)
        return (
            f"draft: {self.accepted:.0%} of {self.proposed} tokens accepted, {each:.2f} tokens a reading of the model"
        )


def speculate(
    model: GPT,
    draft: GPT,
    prompt: Sequence[int],
    max_new_tokens: int = 64,
    draft_tokens: int = 4,
    **options,
) -> Speculated:
    """The new tokens of one prompt, with the probabilities of `generate(model, ...)`; `draft` only makes it faster.

    temperature=0 gives the tokens of `generate`, as long as the two highest logits differ by more than rounding.
    Otherwise the same seed gives another text than there, of the same distribution. `draft_tokens` is how many the
    draft proposes at a time; if each is taken with probability a, a reading of the model gives on average

        (1 - a^(n+1)) / (1 - a)   tokens        (Leviathan et al., equation 1)

    at the price of n readings of the draft: a large model with a draft that is much smaller and often right. The two
    have the same tokenizer. Limits, `options` (see `rounds`) and errors are those of `generate`. Functions in `extra`
    are also asked about texts that the draft proposed and the model will refuse; a text after which every token is
    banned raises `Error` even there.

    >>> from minigpt import GPTConfig
    >>> sizes = {"n_heads": 2, "d_model": 32, "vocab_size": 100, "context": 16}
    >>> model, draft = (GPT(GPTConfig(n_layers=n, **sizes)) for n in (3, 1))
    >>> len(speculate(model, draft, [1, 2, 3], max_new_tokens=5).tokens)
    5
    """
    tally = Tally()
    found = rounds(model, draft, prompt, max_new_tokens, draft_tokens, **options)
    tokens = [token for each in found for token in tally.count(each)]
    return Speculated(tokens, tally.accepted, tally.readings)


def rounds(
    model: GPT,
    draft: GPT,
    prompt: Sequence[int],
    max_new_tokens: int = 64,
    draft_tokens: int = 4,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    eos: int | Collection[int] | None = None,
    row: int = 0,
    **sampling,
) -> Iterator[Round]:
    """`speculate` as it happens. Between two rounds both models are as the caller left them.

    Arguments are checked at the call.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> [len(each.tokens) for each in rounds(model, model, [1, 2], 9, draft_tokens=3)]
    [4, 4, 1]
    """
    ends = end_tokens(model, eos)
    chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "max_new_tokens": max_new_tokens}
    sampler = make_sampler(ends=ends, **chosen, **sampling)
    tokens = check_prompt(model, prompt, 0, max_new_tokens)
    if not isinstance(draft_tokens, int) or draft_tokens < 1:
        raise Error(f"draft_tokens is {draft_tokens!r}: give a whole number of at least 1")
    check_vocabulary(model, draft)
    for token in tokens:  # virtual ones of the model's alone would mean nothing to the draft
        check_read(draft, token, "prompt 0, for the draft")
    limit = checked_limit(model, draft, len(tokens), max_new_tokens)
    text = Row(0, tokens, len(tokens), limit, row_generator(seed, row))
    return _rounds(_Chain(model, sampler, limit), _Chain(draft, sampler, limit), text, draft_tokens, ends)


class _Chain:
    """A model, and the keys and values of one text as far as it has read it."""

    def __init__(self, model: GPT, sampler: Sampler, limit: int):
        weight = next(model.parameters())
        self.model, self.sampler = model, sampler
        self.cache = Cache(model.config, 1, limit - 1, dtype=weight.dtype, device=weight.device)  # the last is not read

    def read(self, text: Row, places: int) -> Tensor:
        """Read what is new of the text; what the next token is drawn from after its last places, (places, V)."""
        new = torch.tensor([text.tokens[self.cache.read :]], device=self.cache.device)
        with evaluating(self.model):
            logits = self.model.head(self.model.hidden(new, cache=self.cache)[0, -places:])
        first = len(text.tokens) - places + 1
        texts = [replace(text, tokens=text.tokens[:end]) for end in range(first, len(text.tokens) + 1)]
        return self.sampler.probabilities(logits, texts)


def _rounds(model: _Chain, draft: _Chain, text: Row, draft_tokens: int, ends: frozenset[int]) -> Iterator[Round]:
    last = None
    while last not in ends and len(text.tokens) < text.limit:
        room = text.limit - len(text.tokens) - 1  # the model writes one itself
        proposed, q = _propose(draft, text, min(draft_tokens, room), ends)
        before = [token for token in proposed if token not in ends]  # nothing comes after an end
        p = model.read(replace(text, tokens=text.tokens + before), len(before) + 1)
        taken, more = accept(p, q, proposed, text.generator)
        new = proposed[:taken] + ([] if more is None else [more])
        text.tokens, last = text.tokens + new, new[-1]
        for each in (model, draft):
            each.cache.back(len(text.tokens) - 1)  # the last one was not read, unless in place of another
        yield Round(new, len(proposed), taken)


def _propose(draft: _Chain, text: Row, n: int, ends: frozenset[int]) -> tuple[list[int], Tensor]:
    """At most n tokens of the draft's, up to an end, and what each was drawn from, (n, V)."""
    proposed, q = [], []
    while len(proposed) < n and not ends.intersection(proposed):
        q.append(draft.read(replace(text, tokens=text.tokens + proposed), 1))
        proposed.append(int(draw(q[-1], [text.generator])))
    return proposed, torch.cat(q) if q else torch.empty(0, draft.model.config.vocab_size)


def accept(p: Tensor, q: Tensor, proposed: list[int], generator: Generator) -> tuple[int, int | None]:
    """How many of the n proposed tokens are taken, and the token after those: the rule at the head of this file.

    q (n, V) is what they were drawn from; p (n + 1, V), or (n, V) if nothing is to come after the last: then None
    when all are taken.

    >>> p, q = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([[0.5, 0.0, 0.5]])
    >>> accept(p, q, [0], row_generator(0, 0)), accept(p, q, [2], row_generator(0, 0))
    ((1, 2), (0, 1))
    """
    n, q = len(proposed), q.to(p.device)
    chance = p[range(n), proposed] / q[range(n), proposed]
    refused = (torch.rand(n, generator=generator) >= chance.cpu()).tolist()
    taken = refused.index(True) if True in refused else n
    if taken == len(p):
        return taken, None
    rest = p[taken]
    if taken < n:
        rest = (p[taken] - q[taken]).clamp(min=0)  # `draw` needs no sum of 1
        if not rest.any():  # p and q differ by rounding alone
            rest = p[taken]
    return taken, int(draw(rest[None], [generator]))


def check_vocabulary(model: GPT, draft: GPT):
    """`Error` if the two do not write the same tokens."""
    sizes = draft.config.vocab_size, model.config.vocab_size
    if sizes[0] != sizes[1]:
        raise Error(f"the draft knows {sizes[0]} tokens, the model {sizes[1]}: give a draft with the same tokenizer")


def checked_limit(model: GPT, draft: GPT, prompt: int, max_new_tokens: int) -> int:
    """How many tokens a text may become, its prompt included; `Error` if the draft cannot follow so far."""
    limit = min(prompt + max_new_tokens, context_of(model) + 1)
    if context_of(draft) < limit - 2:  # the last two are never read by the draft
        raise Error(
            f"the draft's context holds {context_of(draft)} tokens, this text may need {limit - 2}: "
            "give a draft with a longer context, or lower max_new_tokens"
        )
    return limit
