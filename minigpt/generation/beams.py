"""Beam search with a model: many prompts at once, groups that keep apart, processors inside.

Shapes: B prompts, K beams of each, V vocabulary.

The search itself is search.py. Here the model is read for all prompts at once; they know nothing of each other.
"""

from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from minigpt.errors import Error
from minigpt.generation.checks import check_prompt, context_of, end_tokens, make_sampler
from minigpt.generation.compiled import kind_of_reader
from minigpt.generation.constraints import Banks
from minigpt.generation.processors import BROKEN
from minigpt.generation.reader import Memory
from minigpt.generation.sampling import Sampler
from minigpt.generation.search import Beam, Group, Rules, Running
from minigpt.generation.tree import Trace
from minigpt.model import GPT


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
    contains: Sequence[Sequence[int]] = (),
    use_cache: bool = True,
    compile: bool = False,
    traces: list[Trace] | None = None,
    memory: Memory | None = None,
    **processing,
) -> list[list[Beam]]:
    """The best texts of each prompt, best first: all K, or `num_return_sequences` of them.

    A beam ends at an `eos`, after `max_new_tokens`, or when the context is full. A search stops when K have ended and
    no other can come into their places: early_stopping=False takes for the best that a running beam may reach its
    score at its length now, "never" its score at full length, and True stops at K ended whatever the others promise.
    `groups` (Vijayakumar et al. 2018): so many searches of K/groups beams, one after the other at each step; a token
    costs a group `diversity` times as often as it was taken by the groups before it.
    `contains`: phrases of ids that every text must hold (Post & Vilar 2018): give more beams than they have tokens.
    `processing` are the fields of `Sampler` that change scores: repetition_penalty, no_repeat_ngram, banned,
    min_new_tokens, extra, ...; here they are given log-probabilities, and nothing is normalised again.
    `traces` is filled with the tree of each search (see tree.py). `use_cache=False`: slowly, the same beams.
    `compile=True`: as for `generate`. `memory`: as for `stream`, of one prompt.

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> best, second = beam_search(model, [[1, 2, 3]], num_beams=2, max_new_tokens=5)[0]
    >>> best.score >= second.score and len(best.tokens)
    5
    """
    rules = Rules(num_beams, length_penalty, early_stopping, groups, diversity, end_tokens(model, eos), tuple(contains))
    wanted = num_beams if num_return_sequences is None else num_return_sequences
    if not isinstance(wanted, int) or not 1 <= wanted <= num_beams:
        raise Error(f"num_return_sequences is {wanted!r}: give a whole number from 1 to the {num_beams} beams")
    sampler = make_sampler(ends=rules.ends, max_new_tokens=max_new_tokens, **processing)
    searches = [_search(model, prompt, i, rules, sampler, max_new_tokens) for i, prompt in enumerate(prompts)]
    if memory and len(searches) > 1:
        raise Error(f"a memory is of one prompt that goes on, found {len(searches)}: give them one at a time")
    if searches:
        _run(model, searches, memory.with_room if memory else kind_of_reader(use_cache, compile))
    if traces is not None:
        traces += [search.trace for search in searches]
    return [search.best()[:wanted] for search in searches]


class Search:
    """The groups of one prompt, stepped one after the other; without diversity there is one."""

    def __init__(self, place: int, prompt: list[int], limit: int, rules: Rules, sampler: Sampler):
        self.place, self.prompt, self.rules, self.sampler = place, prompt, rules, sampler
        self.limit, size = limit, rules.num_beams // rules.groups
        banks = Banks(rules.contains) if rules.contains else None
        self.groups = [Group(size, prompt, limit, rules, banks) for _ in range(rules.groups)]
        self.trace = Trace([])

    @property
    def running(self) -> list[Running]:
        return [beam for group in self.groups if not group.done for beam in group.running]

    def step(self, logits: Tensor) -> tuple[list[int], list[int]]:
        """Logits (K, V) of the running beams; what to read next: tokens and parents."""
        if not logits.amax(-1).isfinite().all():
            raise Error(BROKEN)
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
            hint = "loosen the bans" + ", or give more beams or tokens to hold the phrases" * bool(self.rules.contains)
            raise Error(f"prompt {self.place}: the search found no text that is allowed: {hint}")
        return found


def _run(model: GPT, searches: list[Search], reader: Callable):
    """Read the model for all searches at once; one that is done leaves the batch."""
    places, beams = [search.place for search in searches], searches[0].rules.num_beams
    reader = reader(model, places, beams * max(search.limit for search in searches))
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
        tokens, parents = ([each[k] + [0] * (width - len(each[k])) for each in new] for k in (0, 1))
        logits = reader.step(tokens, parents)


def _search(model: GPT, prompt, place: int, rules: Rules, sampler: Sampler, max_new_tokens: int) -> Search:
    tokens = check_prompt(model, prompt, place, max_new_tokens)
    return Search(place, tokens, min(max_new_tokens, context_of(model) + 1 - len(tokens)), rules, sampler)
