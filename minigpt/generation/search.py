"""Beam search over log-probabilities, whoever makes them: the K most likely texts so far, grown a token at a time.

Shapes: K beams, V vocabulary, M candidates.

    score of a beam          log P(tokens) = sum of log p(token | what came before)
    score of a finished one  log P / length ** length_penalty,   length = new tokens, the closing end token included

    every beam x every token -> the M best -> those that end compete for a place among the K finished
                                           -> of the others the K best go on

Tokens, scores and stopping are those of transformers 5. Of equal candidates the lower beam comes first, then the lower
token.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from minigpt.errors import Error
from minigpt.generation.constraints import Banks
from minigpt.generation.tree import Node


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
    contains: tuple = ()

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


@dataclass(slots=True)
class Running:
    """A beam that goes on: what `Sampler.adjust` calls a history, `tokens` being prompt and text."""

    tokens: list[int]
    prompt: int
    total: float = 0.0
    logprobs: list[float] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    node: int = -1  # its place in the last step of the trace

    @property
    def new(self) -> list[int]:
        return self.tokens[self.prompt :]

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

    def __init__(self, beams: int, prompt: list[int], limit: int, rules: Rules, banks: Banks | None):
        self.beams, self.limit, self.rules, self.banks = beams, limit, rules, banks
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
            grown = self.running[beam].grown(beam, token, logprob, len(trace))
            fate, score = "dropped", None
            if token in self.rules.ends or last:
                # An end that is not among the best K is thrown away; one without the phrases it must hold, too.
                if self.banks.met(grown.new) if self.banks else rank < self.beams:
                    score = grown.total / self.steps**self.rules.length_penalty
                    fate = "finished" if self._finish(grown, score) else "dropped"
            else:
                going.append(grown)
            if token not in self.rules.ends:
                taken.append(token)
            trace.append(Node(self.running[beam].node, token, logprob, grown.total, fate, score))
        chosen = self.banks.share([beam.new for beam in going], self.beams) if self.banks else range(len(going))
        self.running = [going[i] for i in chosen][: self.beams]
        for beam in self.running:
            trace[beam.node] = replace(trace[beam.node], fate="running")
        self.done = last or not self.running or self._settled()
        return taken[: self.beams]

    def _candidates(self, logprobs: Tensor) -> list[tuple[int, int, float]]:
        """The M best (beam, token, log-probability), best first. Enough that K go on, should the others all end."""
        totals = logprobs + torch.tensor([beam.total for beam in self.running])[:, None]
        count = min(max(2, 1 + len(self.rules.ends)) * self.beams, totals.numel())
        least = totals.flatten().topk(count).values[-1]
        enough = totals >= least if least > -math.inf else totals > -math.inf  # what is banned is no candidate
        places = enough.nonzero()  # in order of beam, then token: topk would break ties as it likes
        best = sorted(range(len(places)), key=totals[enough].neg().tolist().__getitem__)[:count]
        found = [(beam, token) for beam, token in places[best].tolist()]
        if self.banks:
            offered = {(i, token) for i, beam in enumerate(self.running) for token in self.banks.offers(beam.new)}
            more = [each for each in sorted(offered - set(found)) if totals[each] > -math.inf]
            found = sorted([*found, *more], key=lambda each: -totals[each].item())
        return [(beam, token, logprobs[beam, token].item()) for beam, token in found]

    def _finish(self, beam: Running, score: float) -> bool:
        """Whether it is among the best K so far; of equal scores the earlier stays ahead."""
        new = Beam(beam.new, score, beam.logprobs, beam.parents, beam.total)
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
