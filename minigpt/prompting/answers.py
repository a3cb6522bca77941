"""Which of several answers does the model find likeliest? Read the prompt once, score every candidate after it.

Shapes: K candidates, n tokens of one, V vocabulary.

    sum      log P(answer | prompt) = sum_t log p(a_t | prompt, a_<t)      short answers win
    mean     the sum / n                                                   a token's
    prior    log P(answer | prompt) - log P(answer | "Answer:")            answers that are likely anyway lose

"prior" is GPT-3's (Brown et al. 2020, section 2.4: divide by the probability after a neutral context). All three are
the model's own probabilities, and their argmax is the answer. Twins: `plain` reads prompt and answer anew for each
candidate, `Candidates` keeps the prompt in a cache, and what the next prompt shares with it from the beginning: task
and examples that all queries have in common are read once for all. Tested equal.
"""

from collections.abc import Sequence

import torch

from minigpt.errors import Error, nearest
from minigpt.generation.checks import check_prompt, context_of
from minigpt.generation.processors import BROKEN
from minigpt.generation.reader import Memory, evaluating, only_rows
from minigpt.generation.scoring import Score, score
from minigpt.model import GPT

BY = ("sum", "mean", "prior")


def plain(model: GPT, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[Score]:
    """The score of each answer after the prompt, each text read on its own."""
    return [score(model, [[*prompt, *answer]], [len(prompt)])[0] for answer in answers]


def room_of(model: GPT, answers: Sequence[Sequence[int]]) -> int:
    """How many tokens a prompt may have before the longest answer; the last token is never read."""
    return context_of(model) - max(map(len, answers)) + 1


class Candidates:
    """Answers to choose from, after one prompt and the next. A change of the weights asks for a new one.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> candidates = Candidates(model, answers=[[7], [8, 9]], prior=[1])
    >>> [len(found.logprobs) for found in candidates.score([1, 2, 3])]
    [1, 2]
    >>> candidates.choose([1, 2, 3], by="mean") in (0, 1)
    True
    """

    def __init__(self, model: GPT, answers: Sequence[Sequence[int]], prior: Sequence[int] | None = None):
        self.model, self.answers = model, [list(answer) for answer in answers]
        for place, answer in enumerate(self.answers):
            if not answer or not all(0 <= token < model.config.vocab_size for token in answer):
                raise Error(f"answer {place} is {answer!r:.60}: give ids of the model's vocabulary, at least one")
        if not self.answers:
            raise Error("there are no answers to choose from: give at least one")
        self.memory = Memory(model)
        self.prior = None if prior is None else [found.total for found in self.score(prior)]

    def score(self, prompt: Sequence[int]) -> list[Score]:
        """Of each answer after the prompt."""
        prompt = check_prompt(self.model, prompt, 0, 1)
        if len(prompt) > (room := room_of(self.model, self.answers)):
            raise Error(f"the prompt has {len(prompt)} tokens, {room} leave room for the answers: shorten it")
        after = self.memory.start([prompt])  # (1, V)
        return [self._score(prompt, answer, after) for answer in self.answers]

    def _score(self, prompt: list[int], answer: list[int], after: torch.Tensor) -> Score:
        logits, cache = after, self.memory.cache
        if len(answer) > 1:
            if cache.read < len(prompt):  # a banded layer had no way back: see Cache.back
                self.memory.start([prompt])
            with evaluating(self.model), only_rows(self.model, self.memory.places):
                more = self.model(torch.tensor([answer[:-1]], device=cache.device), cache=cache)  # (1, n - 1, V)
            logits = torch.cat([after, more[0]])
            cache.back(len(prompt))
        logprobs = logits if logits.dtype == torch.float64 else logits.float()
        chosen = logprobs.log_softmax(-1)[range(len(answer)), answer]
        if chosen.isnan().any():
            raise Error(BROKEN)
        return Score(chosen.tolist())

    def values(self, prompt: Sequence[int], by: str = "sum") -> list[float]:
        """A number for each answer; the highest is the model's choice."""
        if by not in BY:
            raise Error(f"score is {by!r}: {nearest(str(by), BY)}")
        if by == "prior" and self.prior is None:
            raise Error("score 'prior' needs the prompt without a text: give prior to Candidates")
        found = self.score(prompt)
        if by == "prior":
            return [each.total - prior for each, prior in zip(found, self.prior, strict=True)]
        return [each.total if by == "sum" else each.mean for each in found]

    def choose(self, prompt: Sequence[int], by: str = "sum") -> int:
        """The place of the likeliest answer; of equals the first."""
        values = self.values(prompt, by)
        return values.index(max(values))
