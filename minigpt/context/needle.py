"""A needle in a note: is a fact that stands far back still found?

    note       ... text ...  Allergies: penicillin.  ... text ...  Allergies:
                             depth p of n tokens                    |-> log p of each value

The answer is the value that the model finds likeliest among the candidates. Each of them is planted in turn, so that a
model which only knows how common they are is right 1/K of the time. Rows of the picture are lengths, columns depths.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from minigpt.errors import Error
from minigpt.model import GPT
from minigpt.prompting.answers import Candidates, room_of


@dataclass(frozen=True)
class Fact:
    """A statement with {} where the value stands, and the values it may have. The question is what comes before {}."""

    statement: str = "\nAllergies:{}.\n"
    values: tuple[str, ...] = (" penicillin", " aspirin", " latex", " iodine")

    def __post_init__(self):
        if self.statement.count("{}") != 1 or self.statement.startswith("{}"):
            raise Error(f"the fact is {self.statement!r}: write {{}} once, where the value stands, after some words")
        if len(set(self.values)) < 2:
            raise Error(f"the fact has {len(set(self.values))} values: give two or more, or there is nothing to choose")

    @property
    def question(self) -> str:
        return self.statement[: self.statement.index("{}")]


CHINESE = Fact("\n过敏史：{}。\n", ("青霉素", "头孢", "磺胺", "阿司匹林"))


@dataclass(frozen=True)
class Cell:
    """All trials of one length and depth: how often the right value was the likeliest, and its mean share."""

    length: int
    depth: float
    hits: int
    trials: int
    share: float  # of the candidates' probability


def plant(filler: Sequence[int], statement: Sequence[int], question: Sequence[int], depth: float) -> list[int]:
    """The filler, with the statement where `depth` of it is past, and the question.

    >>> plant([1, 2, 3, 4], [8, 9], [7], 0.5)
    [1, 2, 8, 9, 3, 4, 7]
    """
    place = round(depth * len(filler))
    return [*filler[:place], *statement, *filler[place:], *question]


def logprobs(model: GPT, prompt: Sequence[int], candidates: Sequence[Sequence[int]]) -> list[float]:
    """log p(candidate | prompt) of each; the prompt is read once."""
    return [found.total for found in Candidates(model, candidates).score(prompt)]


def trials(
    model: GPT, encode, fillers: Sequence[Sequence[int]], fact: Fact, length: int, depth: float
) -> Iterator[tuple[bool, float]]:
    """(right, share of the right value) for every value in every filler; notes of `length` tokens, question included.

    `encode` makes ids of a text; a filler begins with the end-of-text token, if notes do, and is long enough.
    """
    question, values = encode(fact.question), _values(encode, fact)
    room = room_of(model, values)
    if length > room:
        raise Error(f"a note of {length} tokens and the value do not fit the model's context: give up to {room}")
    for filler in fillers:
        for right, value in enumerate(fact.values):
            statement = encode(fact.statement.replace("{}", value))
            body = length - len(statement) - len(question)
            if not 1 <= body <= len(filler):
                least = shortest(encode, fact)
                raise Error(
                    f"a note of {length} tokens from a text of {len(filler)}: give at least {least}, and a longer text"
                )
            prompt = [filler[0], *plant(filler[1:body], statement, question, depth)]
            found = torch.tensor(logprobs(model, prompt, values))
            yield int(found.argmax()) == right, found.softmax(0)[right].item()


def shortest(encode, fact: Fact) -> int:
    """Tokens of a note that holds little but the fact."""
    return (
        2 + len(encode(fact.question)) + max(len(encode(fact.statement.replace("{}", value))) for value in fact.values)
    )


def cell(model: GPT, encode, fillers, fact: Fact, length: int, depth: float) -> Cell:
    """The trials of one cell of the picture."""
    hits, shares = zip(*trials(model, encode, fillers, fact, length, depth), strict=True)
    return Cell(length, depth, sum(hits), len(hits), sum(shares) / len(shares))


def _values(encode, fact: Fact) -> list[list[int]]:
    """Ids of the values as they follow the question: where a tokenizer joins the two, they are cut after its ids."""
    question = encode(fact.question)
    whole = [encode(fact.question + value) for value in fact.values]
    joined = any(ids[: len(question)] != question or len(ids) == len(question) for ids in whole)
    found = [encode(value) if joined else ids[len(question) :] for value, ids in zip(fact.values, whole, strict=True)]
    for a in found:
        for b in found:
            if a is not b and a == b[: len(a)]:
                raise Error(f"the value {fact.values[found.index(a)]!r} begins another one: give values that differ")
    return found
