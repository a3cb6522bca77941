"""How a beam search grew, step by step: every candidate of every step, where it came from and what became of it."""

from dataclasses import dataclass

from minigpt.generation.search import Beam
from minigpt.generation.tree import Decode, Spot, Trace, Tree


@dataclass(frozen=True)
class Candidate:
    """One node of the tree: what `trace.Node` holds, and the text that it adds to its branch."""

    parent: int
    token: int
    text: str
    logprob: float
    total: float
    fate: str
    score: float | None


def growth(trace: Trace, decode: Decode) -> list[list[Candidate]]:
    """The candidates of each step, best first; a text is never half a character.

    >>> from minigpt.generation.tree import Node
    >>> trace = Trace([[Node(-1, 7, -0.1, -0.1, "running")], [Node(0, 9, -0.2, -0.3, "finished", -0.15)]])
    >>> [[candidate.text for candidate in step] for step in growth(trace, lambda ids: "".join(map(str, ids)))]
    [['7'], ['9']]
    >>> part = [Node(-1, 0xC2, -0.1, -0.1, "running")], [Node(0, 0xB5, -0.2, -0.3, "finished", -0.15)]
    >>> found = growth(Trace(list(part)), lambda ids: bytes(ids).decode(errors="replace"))
    >>> [[candidate.text for candidate in step] for step in found]
    [[''], ['µ']]
    """
    tree = Tree(trace, decode, most=1)
    return [
        [
            Candidate(
                node.parent, node.token, tree.added((step - 1, node.parent), (step, place)),
                node.logprob, node.total, node.fate, node.score,
            )
            for place, node in enumerate(nodes)
        ]
        for step, nodes in enumerate(trace.steps)
    ]  # fmt: skip


def spot_of(trace: Trace, beam: Beam) -> Spot:
    """Where in the tree a text ends."""
    step = len(beam.tokens) - 1
    same = (place for place in range(len(trace.steps[step])) if trace.branch(step, place) == beam.tokens)
    return step, next(same)
