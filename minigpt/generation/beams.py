"""Beam search: the K most likely texts so far, all grown by one token at a time.

Shapes: B prompts, K beams of each, V vocabulary, M candidates.

    score of a beam          log P(tokens) = sum of log p(token | what came before)
    score of a finished one  log P / length ** length_penalty,   length = new tokens, the closing end token included

    every beam x every token -> the M best -> those that end compete for a place among the K finished
                                           -> of the others the K best go on

Tokens, scores and stopping are those of transformers 5 (`num_beams`). Of equal candidates the lower beam comes first,
then the lower token. One prompt's search knows nothing of the others: `Search` is all of it, `beam_search` only reads
the model for many of them at once.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt.errors import Error
from minigpt.generation.generate import check_prompt, end_tokens
from minigpt.generation.reader import PlainReader, Reader
from minigpt.generation.sampling import Sampler
from minigpt.generation.tree import Node, Trace
from minigpt.model import GPT


@dataclass(frozen=True)
class Beam:
    """A text and how likely it is. `parents[i]` is the place of token i's beam among the K of the step before."""

    tokens: list[int]
    score: float
    logprobs: list[float] = field(repr=False)  # of each token, as the processors left it; they add up to `total`
    parents: list[int] = field(repr=False)
    total: float


@dataclass(frozen=True)
class Rules:
    """What a search is after."""

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | str = False
    groups: int = 1
    diversity: float = 0.0
    ends: frozenset[int] = frozenset()

    def __post_init__(self):
        for name in ("num_beams", "groups"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise Error(f"{name} is {getattr(self, name)!r}: give a whole number of at least 1")
        if self.num_beams % self.groups:
            raise Error(f"{self.num_beams} beams cannot be shared equally by {self.groups} groups: give a multiple")
        if not isinstance(self.length_penalty, (int, float)) or not abs(self.length_penalty) < math.inf:
            raise Error(f"length_penalty is {self.length_penalty!r}: give a number; 0 is the sum, 1 the mean")
        if self.early_stopping not in (True, False, "never"):
            raise Error(f"early_stopping is {self.early_stopping!r}: give True, False or 'never'")
        if not isinstance(self.diversity, (int, float)) or not 0 <= self.diversity < math.inf:
            raise Error(f"diversity is {self.diversity!r}: give 0 or a positive number")
        if self.diversity and self.groups == 1:
            raise Error("diversity keeps groups of beams apart: give groups of at least 2")


def beam_search(
    model: GPT,
    prompts: Sequence[Sequence[int]],
    num_beams: int = 4,
    max_new_tokens: int = 64,
    length_penalty: float = 1.0,
    early_stopping: bool | str = False,
    eos: int | Collection[int] | None = None,
    num_return_sequences: int | None = None,
    groups: int = 1,
    diversity: float = 0.0,
    use_cache: bool = True,
    traces: list[Trace] | None = None,
    **processing,
) -> list[list[Beam]]:
    """The best texts of each prompt, best first: all K, or `num_return_sequences` of them.

    A beam ends at an `eos`, after `max_new_tokens`, or when the context is full. A search stops when K have ended and
    no other can come into their places: early_stopping=False takes for the best that a running beam may reach its
    score at its length now, "never" its score at full length, and True stops at K ended whatever the others promise.
    `groups` (Vijayakumar et al. 2018): so many searches of K/groups beams, one after the other at each step; a token
    costs a group `diversity` times as often as it was taken by the groups before it.
    `processing` are the fields of `Sampler` that change scores: repetition_penalty, no_repeat_ngram, banned,
    min_new_tokens, extra, ...; here they are given log-probabilities, and nothing is normalised again.
    `traces` is filled with the tree of each search (see tree.py). `use_cache=False`: slowly, the same beams.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> best, second = beam_search(model, [[1, 2, 3]], num_beams=2, max_new_tokens=5)[0]
    >>> best.score >= second.score and len(best.tokens)
    5
    """
    rules = Rules(num_beams, length_penalty, early_stopping, groups, diversity, end_tokens(model, eos))
    wanted = num_beams if num_return_sequences is None else num_return_sequences
    if not isinstance(wanted, int) or not 1 <= wanted <= num_beams:
        raise Error(f"num_return_sequences is {wanted!r}: give a whole number from 1 to the {num_beams} beams")
    sampler = _processors(rules.ends, max_new_tokens, processing)
    searches = [_search(model, prompt, i, rules, sampler, max_new_tokens) for i, prompt in enumerate(prompts)]
    if searches:
        _run(model, searches, use_cache)
    if traces is not None:
        traces += [search.trace for search in searches]
    return [search.best()[:wanted] for search in searches]


@dataclass(slots=True)
class Running:
    """A beam that goes on: what `Sampler.adjust` calls a history, `tokens` being prompt and text."""

    tokens: list[int]
    prompt: int
    total: float = 0.0
    logprobs: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    node: int = -1  # its place in the last step of the trace

    def grown(self, parent: int, token: int, logprob: float, node: int) -> "Running":
        return Running(
            [*self.tokens, token],
            self.prompt,
            self.total + logprob,
            [*self.logprobs, logprob],
            [*self.parents, parent],
            node,
        )


class Group:
    """K beams of one prompt, those that have finished, and whether that is all."""

    def __init__(self, beams: int, prompt: list[int], limit: int, rules: Rules):
        self.beams, self.limit, self.rules = beams, limit, rules
        self.running = [Running(prompt, len(prompt))]
        self.finished: list[Beam] = []
        self.steps = 0
        self.done = False

    def step(self, logprobs: Tensor, trace: list[Node]) -> list[int]:
        """One token more: log-probabilities (K, V) of the running beams; returns the K tokens that are no ends."""
        self.steps += 1
        last = self.steps == self.limit
        going, taken = [], []
        for rank, (beam, token, logprob) in enumerate(self._candidates(logprobs)):
            parent = self.running[beam]
            grown = parent.grown(beam, token, logprob, len(trace))
            fate, score = "dropped", None
            if token not in self.rules.ends:
                taken.append(token)
            if token in self.rules.ends or last:
                if rank < self.beams:  # an end that is not among the best K is thrown away
                    score = grown.total / self.steps**self.rules.length_penalty
                    kept = self._finish(grown, score)
                    fate = "finished" if kept else "dropped"
            elif len(going) < self.beams:
                going.append(grown)
                fate = "running"
            trace.append(Node(parent.node, token, logprob, grown.total, fate, score))
        self.running = going
        self.done = last or not going or self._settled()
        return taken[: self.beams]

    def _candidates(self, logprobs: Tensor) -> list[tuple[int, int, float]]:
        """The M best (beam, token, log-probability), best first. Enough that K go on, should the others all end."""
        totals = logprobs + torch.tensor([beam.total for beam in self.running])[:, None]
        count = min(max(2, 1 + len(self.rules.ends)) * self.beams, totals.numel())
        least = totals.flatten().topk(count).values[-1]
        enough = totals >= least if least > -math.inf else totals > -math.inf  # what is banned is no candidate
        places = enough.nonzero()  # in order of beam, then token: topk would break ties as it likes
        best = sorted(range(len(places)), key=totals[enough].neg().tolist().__getitem__)[:count]
        return [(beam, token, logprobs[beam, token].item()) for beam, token in places[best].tolist()]

    def _finish(self, beam: Running, score: float) -> bool:
        """Whether it is among the best K so far; of equal scores the earlier stays ahead."""
        new = Beam(beam.tokens[beam.prompt :], score, beam.logprobs, beam.parents, beam.total)
        self.finished = sorted([*self.finished, new], key=lambda each: -each.score)[: self.beams]
        return any(each is new for each in self.finished)

    def _settled(self) -> bool:
        """K have finished, and the best that runs cannot better the worst of them."""
        if len(self.finished) < self.beams:
            return False
        if self.rules.early_stopping is True:
            return True
        penalty = self.rules.length_penalty
        length = self.limit if self.rules.early_stopping == "never" and penalty > 0 else self.steps
        return not self.running[0].total / length**penalty > self.finished[-1].score


class Search:
    """The groups of one prompt, stepped one after the other; without diversity there is one."""

    def __init__(self, place: int, prompt: list[int], limit: int, rules: Rules, sampler: Sampler):
        self.place, self.prompt, self.rules, self.sampler = place, prompt, rules, sampler
        self.limit = limit
        self.groups = [Group(rules.num_beams // rules.groups, prompt, limit, rules) for _ in range(rules.groups)]
        self.trace = Trace([])

    @property
    def running(self) -> list[Running]:
        return [beam for group in self.groups if not group.done for beam in group.running]

    def step(self, logits: Tensor) -> tuple[list[int], list[int]]:
        """Logits (K, V) of the running beams; what to read next: tokens and parents."""
        if not logits.amax(-1).isfinite().all():
            raise Error("the model's logits are NaN or infinite: its weights are damaged, or its training diverged")
        logprobs = self.sampler.adjust(logits.float().log_softmax(-1), self.running[: len(logits)]).cpu()
        first, place, trace, parents, taken = not self.trace.steps, 0, [], [], []
        for group in (group for group in self.groups if not group.done):
            start = 0 if first else place  # after the prompt all groups stand at its end
            place += len(group.running)
            mine = logprobs[start : start + len(group.running)]
            if taken and self.rules.diversity:
                mine = mine - self.rules.diversity * torch.bincount(torch.tensor(taken), minlength=mine.shape[-1])
            taken += group.step(mine, trace)
            if not group.done:
                parents += [start + beam.parents[-1] for beam in group.running]
        self.trace.steps.append(trace)
        return [beam.tokens[-1] for beam in self.running], parents

    @property
    def done(self) -> bool:
        return all(group.done for group in self.groups)

    def best(self) -> list[Beam]:
        found = sorted((beam for group in self.groups for beam in group.finished), key=lambda beam: -beam.score)
        if not found:
            raise Error(
                f"prompt {self.place}: no text is allowed: every token was banned; loosen the bans or constraints"
            )
        return found


def _run(model: GPT, searches: list[Search], use_cache: bool):
    """Read the model for all searches at once; one that is done leaves the batch."""
    places = [search.place for search in searches]
    reader = PlainReader(model, places)
    if use_cache:
        beams = searches[0].rules.num_beams
        reader = Reader(model, places, beams * max(search.limit for search in searches))
    logits = reader.start([search.prompt for search in searches])[:, None]
    while True:
        # After the prompt there is one row; later a row for each running beam, and idle ones for other prompts' sake.
        new = [search.step(logits[i, : len(search.running)]) for i, search in enumerate(searches)]
        going = [i for i, search in enumerate(searches) if not search.done]
        if not going:
            return
        if len(going) < len(searches):
            reader.select(going)
        searches, new = [searches[i] for i in going], [new[i] for i in going]
        width = max(len(tokens) for tokens, _ in new)
        tokens, parents = (
            [each[k] + [0] * (width - len(each[k])) for each in new] for k in (0, 1)
        )  # 0: nobody reads it
        logits = reader.step(tokens, parents)


def _search(model: GPT, prompt, place: int, rules: Rules, sampler: Sampler, max_new_tokens: int) -> Search:
    tokens = check_prompt(model, prompt, place, max_new_tokens)
    return Search(place, tokens, min(max_new_tokens, model.config.context + 1 - len(tokens)), rules, sampler)


def _processors(ends: frozenset[int], max_new_tokens: int, fields: dict) -> Sampler:
    try:
        return Sampler(ends=ends, max_new_tokens=max_new_tokens, **fields)
    except TypeError as problem:
        raise Error(f"beam_search: {str(problem).replace('Sampler.__init__() ', '')}") from None
