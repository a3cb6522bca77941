"""How a beam search grew, step by step: every candidate of every step, where it came from and what became of it."""

from collections.abc import Callable
from dataclasses import dataclass

from minigpt.generation.search import Beam
from minigpt.generation.tree import Spot, Trace

Texts = Callable[[list[int]], list[str]]  # tokens after the prompt -> what became certain with each of them


@dataclass(frozen=True)
class Candidate:
    """One node of the tree: what `tree.Node` holds, and the text that it adds to its branch."""

    parent: int
    token: int
    text: str
    logprob: float
    total: float
    fate: str
    score: float | None


def growth(trace: Trace, texts: Texts) -> list[list[Candidate]]:
    """The candidates of each step, best first.

    A text is never half a character: the token that completes one has it, and those before it have none; U+FFFD stands
    for bytes that can no longer become one. So the texts along a branch, joined, are the text of the branch.

    >>> from minigpt.generation.tree import Node
    >>> trace = Trace([[Node(-1, 7, -0.1, -0.1, "running")], [Node(0, 9, -0.2, -0.3, "finished", -0.15)]])
    >>> [[candidate.text for candidate in step] for step in growth(trace, lambda ids: [f"<{each}>" for each in ids])]
    [['<7>'], ['<9>']]
    """
    return [
        [
            Candidate(
                node.parent, node.token, texts(trace.branch(step, place))[-1],
                node.logprob, node.total, node.fate, node.score,
            )
            for place, node in enumerate(nodes)
        ]
        for step, nodes in enumerate(trace.steps)
    ]  # fmt: skip


def spot_of(trace: Trace, beam: Beam) -> Spot:
    """Where in the tree a text ends.

    >>> from minigpt.generation.tree import Node
    >>> trace = Trace([[Node(-1, 7, -0.1, -0.1, "running"), Node(-1, 9, -2.3, -2.3, "finished", -2.3)]])
    >>> spot_of(trace, Beam([9], -2.3, [-2.3], [-1], -2.3))
    (0, 1)
    """
    step = len(beam.tokens) - 1
    same = (place for place in range(len(trace.steps[step])) if trace.branch(step, place) == beam.tokens)
    return step, next(same)
