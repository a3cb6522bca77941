"""How well does a model answer without learning, by shots and by wording? A table of trials, and what wording decides.

A trial is one template and one number of shots over all queries. Demonstrations come from the pool, never from the
queries, the nearest to the query last, where a model reads them best (Zhao et al. 2021: recency). The same task asked
in other words gives other numbers: `spread` says how far apart the best and the worst template are.
"""

import random
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from minigpt.corpus.documents import Documents
from minigpt.errors import Error
from minigpt.metrics import Scores, confusion
from minigpt.model import GPT
from minigpt.prompting.answers import Candidates, room_of
from minigpt.prompting.retrieval import Retriever, demonstrated
from minigpt.prompting.template import Builder, Example, Template
from minigpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Trial:
    """One template, one number of shots: how the answers were. `fitted`: examples a prompt held, on average."""

    template: str
    shots: int
    fitted: float
    tokens: float  # of a prompt, on average
    scores: Scores


def read_examples(file: str, field: str, label: str, where: tuple[str, ...] = (), cut: int = 0) -> list[Example]:
    """The records that have both fields as text, each text cut to its first `cut` characters (0: whole)."""
    texts, labels = (Documents(file, name, where=where) for name in (field, label))
    answers = {document.line: document.text.strip() for document in labels}
    found = [
        Example(document.text.strip()[: cut or None], answers[document.line])
        for document in texts
        if document.line in answers
    ]
    if not found:
        reasons = labels.bad.first or texts.bad.first or ["it is empty"]
        raise Error(f"{file}: no record has both {field!r} and {label!r} as text: {reasons[0]}")
    return found


def split(examples: Sequence[Example], queries: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Queries and pool, drawn from the seed; no text is in both."""
    shuffled = random.Random(seed).sample(list(examples), len(examples))
    asked, pool = shuffled[:queries], shuffled[queries:]
    texts = {example.text for example in asked}
    return asked, [example for example in pool if example.text not in texts]


def candidates_of(examples: Sequence[Example], most: int = 100) -> list[str]:
    """The answers that occur, in order of the alphabet."""
    found = sorted({example.answer for example in examples})
    if not 2 <= len(found) <= most:
        raise Error(
            f"the labels have {len(found)} different values: answers are chosen from 2 to {most}; "
            "name a field that holds classes"
        )
    return found


def run_trial(
    model: GPT, tokenizer: Tokenizer, template: Template, shots: int, queries: Sequence[Example],
    pool: Sequence[Example], retriever: Retriever, names: Sequence[str], by: str = "sum", front: Sequence[int] = (),
    tick: Callable[[], object] = int,
) -> Trial:  # fmt: skip
    """Ask every query, choosing among `names`. `front`: ids before each prompt, such as a soft prompt's.

    `tick` is called after each query. No weight changes.
    """
    builder = Builder(tokenizer, template, names)
    candidates = Candidates(model, builder.answers, [*front, *builder.prior] if by == "prior" else None)
    room = room_of(model, builder.answers) - len(front)
    labels, answers, fitted, tokens = [], [], 0, 0
    for query, shown in demonstrated(queries, pool, retriever, shots):
        prompt = builder.build(query.text, shown, room)
        answers.append(candidates.choose([*front, *prompt.ids], by))
        labels.append(builder.names.index(query.answer))
        fitted, tokens = fitted + prompt.examples, tokens + len(prompt.ids)
        tick()
    n = len(queries)
    return Trial(template.name, shots, fitted / n, tokens / n, Scores(confusion(labels, answers, len(names))))


@dataclass(frozen=True)
class Spread:
    """Accuracy over templates, for one number of shots: what the wording alone decides."""

    shots: int
    lowest: float
    median: float
    highest: float

    def __str__(self) -> str:
        return f"{self.lowest:.3f} / {self.median:.3f} / {self.highest:.3f}"


def spread(trials: Sequence[Trial]) -> list[Spread]:
    """One for each number of shots, in their order."""
    by_shots: dict[int, list[float]] = {}
    for trial in trials:
        by_shots.setdefault(trial.shots, []).append(trial.scores.accuracy)
    return [Spread(shots, min(found), statistics.median(found), max(found)) for shots, found in by_shots.items()]


def commonest(queries: Sequence[Example], pool: Sequence[Example]) -> float:
    """Accuracy of always naming the commonest label of the pool: what any model should beat."""
    label = Counter(example.answer for example in pool or queries).most_common(1)[0][0]
    return sum(example.answer == label for example in queries) / len(queries)
