"""Which texts may be written at all: closed vocabularies, given beginnings, phrases that must occur.

Shapes: N texts being written (rows, samples or beams), V vocabulary.

A constraint is a processor: called with the scores of the next token (N, V) and the N histories, it returns the scores
with -inf at what may not come. Scores are logits or log-probabilities. A history has `tokens`, the prompt and what was
written, and `prompt`, how many of them are the prompt. A row in which nothing may come any more is all -inf.

    class                  the text                              paper
    OneOf(phrases, ends)   is one of these                       De Cao et al. 2021, section 3.2 (a trie)
    StartsWith(ids)        begins with this
    Contains(phrase)       has this in it (state for a search)   Post & Vilar 2018; Knuth, Morris & Pratt 1977
"""

import math
from collections.abc import Collection, Iterable, Sequence
from functools import reduce
from operator import index

import torch
from torch import Tensor

from minigpt.errors import Error


class OneOf:
    """The text is exactly one of the phrases, then one of `ends`.

    The phrases are token ids, as the tokenizer writes them after the prompt: " cough" is not "cough". Where a phrase
    begins another, the text may end or go on. Give `ends` to the search as `eos` too, and let it write `longest`
    tokens: a text that is cut off earlier need not be a phrase.

    Drawn texts follow the probabilities renormalised at each token, not p(phrase) / sum p(phrases): a model that is
    led into a corner cannot turn back. Beam search adds up log-probabilities that were not renormalised, so with a
    beam for each phrase it ranks by p(phrase) itself, as does `score`.

    >>> colour = OneOf([[5], [5, 6], [7, 7]], ends={0})
    >>> sorted(colour.allowed([])), sorted(colour.allowed([5])), sorted(colour.allowed([7])), colour.longest
    ([5, 7], [0, 6], [7], 3)
    """

    def __init__(self, phrases: Iterable[Sequence[int]], ends: int | Collection[int]):
        self.ends = frozenset(_ids([ends] if isinstance(ends, int) else ends, "ends"))
        phrases = list(phrases)
        if not phrases:
            raise Error("OneOf: there are no phrases: give at least one")
        self._trie: dict = {}  # token -> the trie of what may follow it; None after an end
        self._highest, self.longest = max(self.ends), 0
        for number, phrase in enumerate(phrases):
            self._add(_ids(phrase, f"phrase {number}"), number)

    def _add(self, phrase: list[int], number: int):
        if inside := self.ends.intersection(phrase):
            raise Error(
                f"phrase {number} has the end token {min(inside)} in it, so it would end too early: leave it out; "
                "it is written after the phrase"
            )
        node = self._trie
        for token in phrase:
            node = node.setdefault(token, {})
        node.update(dict.fromkeys(self.ends))
        self._highest, self.longest = max(self._highest, *phrase), max(self.longest, len(phrase) + 1)

    def allowed(self, written: Sequence[int]) -> Collection[int] | None:
        """The ids that may come after what is written; None once it has ended: then nothing matters."""
        node = self._trie
        for token in written:
            if token not in node:
                return ()
            node = node[token]
            if node is None:
                return None
        return node.keys()

    def __call__(self, scores: Tensor, histories: Sequence) -> Tensor:
        _check_highest(self._highest, scores, "OneOf")
        return _keep_only(scores, [self.allowed(history.tokens[history.prompt :]) for history in histories])


class StartsWith:
    """The text begins with these ids; what follows is free. An end token among them ends the text there.

    >>> from types import SimpleNamespace
    >>> begun = SimpleNamespace(tokens=[9, 9, 3], prompt=2)
    >>> StartsWith([3, 1])(torch.zeros(1, 4), [begun]).tolist()
    [[-inf, 0.0, -inf, -inf]]
    """

    def __init__(self, ids: Sequence[int]):
        self.ids = _ids(ids, "the beginning")

    def allowed(self, written: Sequence[int]) -> Collection[int] | None:
        """The ids that may come after what is written; None once the beginning stands there."""
        if list(written[: len(self.ids)]) != self.ids[: len(written)]:
            return ()
        return None if len(written) >= len(self.ids) else [self.ids[len(written)]]

    def __call__(self, scores: Tensor, histories: Sequence) -> Tensor:
        _check_highest(max(self.ids), scores, "StartsWith")
        return _keep_only(scores, [self.allowed(history.tokens[history.prompt :]) for history in histories])


class Contains:
    """How much of a phrase that must occur is written: what a search needs to lead texts to it.

    The longest beginning of the phrase that ends the text (Knuth, Morris & Pratt 1977), or all of it once it
    occurred. A token that breaks a phrase off may itself begin it: after 1 1, phrase 1 1 2 has progress 2, and
    still has after 1 1 1.

    In beam search a text with progress p is in bank p, over several phrases in the bank of their sum. Each step
    offers, besides the likeliest tokens, the `next_token` of every unmet phrase; beams are shared out among the
    banks, or texts without the phrase would crowd out those under way; and none may end before all is met
    (Post & Vilar 2018, section 3). Phrases may overlap in the text: 1 2 3 contains both 1 2 and 2 3.

    >>> phrase = Contains([1, 1, 2])
    >>> [phrase.progress(text) for text in ([], [1, 1], [1, 1, 1], [1, 3], [1, 1, 1, 2, 9])]
    [0, 2, 2, 0, 3]
    >>> phrase.next_token([1, 1, 1]), phrase.next_token([1, 1, 2, 9])
    (2, None)
    """

    def __init__(self, phrase: Sequence[int]):
        self.phrase = _ids(phrase, "the phrase")
        self._border = [0, 0]  # of the first k tokens: the longest proper beginning that is also their end
        for token in self.phrase[1:]:
            self._border.append(self.step(self._border[-1], token))

    def __len__(self) -> int:
        return len(self.phrase)

    def step(self, progress: int, token: int) -> int:
        """The progress after one more token: a search that keeps it need not read the text again."""
        if progress == len(self.phrase):
            return progress
        while progress and self.phrase[progress] != token:
            progress = self._border[progress]
        return progress + (self.phrase[progress] == token)

    def progress(self, written: Iterable[int]) -> int:
        """Tokens of the phrase that are in place, `len(phrase)` once it occurred."""
        return reduce(self.step, written, 0)

    def next_token(self, written: Iterable[int]) -> int | None:
        """The token that brings the phrase on; None once it occurred."""
        progress = self.progress(written)
        return None if progress == len(self.phrase) else self.phrase[progress]


class Banks:
    """Beams shared out by how much of the phrases they hold (Post & Vilar 2018, section 3): see `Contains`."""

    def __init__(self, phrases: Iterable[Sequence[int]]):
        self.phrases = [Contains(phrase) for phrase in phrases]
        self.length = sum(map(len, self.phrases))

    def progress(self, written: Sequence[int]) -> int:
        return sum(phrase.progress(written) for phrase in self.phrases)

    def met(self, written: Sequence[int]) -> bool:
        return self.progress(written) == self.length

    def offers(self, written: Sequence[int]) -> set[int]:
        """The tokens that bring a phrase on."""
        return {phrase.next_token(written) for phrase in self.phrases} - {None}

    def share(self, written: Sequence[Sequence[int]], beams: int) -> list[int]:
        """Which of these texts, best first, go on: in turn the best that is left of each bank, fullest bank first."""
        banks: dict[int, list[int]] = {}
        for place, text in enumerate(written):
            banks.setdefault(self.progress(text), []).append(place)
        queues = [banks[progress] for progress in sorted(banks, reverse=True)]
        turns = [queue[turn] for turn in range(len(written)) for queue in queues if turn < len(queue)]
        return sorted(turns[:beams])


def _keep_only(scores: Tensor, allowed: list[Collection[int] | None]) -> Tensor:
    """(N, V) -> (N, V): -inf but at the allowed ids of each row; a row of None stays as it is."""
    free = [row for row, ids in enumerate(allowed) if ids is None]
    rows = [row for row, ids in enumerate(allowed) if ids is not None for _ in ids]
    columns = [token for ids in allowed if ids is not None for token in ids]
    at = torch.tensor([rows, columns], dtype=torch.int64, device=scores.device).unbind()
    kept = torch.full_like(scores, -math.inf).index_put(at, scores[at])
    kept[free] = scores[free]
    return kept


def _ids(given: Iterable[int], where: str) -> list[int]:
    try:
        ids = [index(token) for token in given]
    except TypeError:
        raise Error(f"{where}: found {given!r:.60}: give token ids, as tokenizer.encode makes them") from None
    if not ids:
        raise Error(f"{where}: has no tokens: give at least one")
    if min(ids) < 0:
        raise Error(f"{where}: token {min(ids)} is negative: give ids of the model's vocabulary")
    return ids


def _check_highest(token: int, scores: Tensor, where: str):
    if token >= scores.shape[-1]:
        raise Error(
            f"{where}: token {token} is not in the model's vocabulary of {scores.shape[-1]} tokens: "
            "encode the phrases with the tokenizer of the model"
        )
