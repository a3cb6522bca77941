"""What a GPT reads for a task: GPT-1's input transformations (Radford et al. 2018, section 3.3).

Shapes: B examples, N sequences each, S = B N, T time, V vocabulary.

    classification   [start] text [extract]                                       N = 1
    entailment       [start] premise [delimiter] hypothesis [extract]             N = 1
    similarity       [start] a [delimiter] b [extract], and b before a            N = 2
    choice           [start] context [delimiter] answer_n [extract]               N answers

The three words are ids V, V + 1, V + 2; heads.py knows what they mean. Ids from V + 3 on are virtual tokens of a prompt
(tuning/extended.py, where they are ids from V on): they stand before the start, and nothing is asked of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange
from torch import Tensor

from minigpt.errors import Error
from minigpt.loss import IGNORE

TASKS = {"classification": 1, "entailment": 2, "similarity": 2, "choice": None}  # texts of an example
N_WORDS = 3  # start, delimiter, extract


@dataclass(frozen=True)
class Example:
    """Texts as ids: one; premise and hypothesis; two to compare; or context and answers. The label, if known."""

    texts: Sequence[Sequence[int]]
    label: int = IGNORE


def sequences(task: str, texts: Sequence[Sequence[int]], vocab_size: int) -> list[list[int]]:
    """What the model reads for one example.

    >>> sequences("similarity", [[1, 2], [3]], vocab_size=100)
    [[100, 1, 2, 101, 3, 102], [100, 3, 101, 1, 2, 102]]
    """
    start, delimiter, extract = range(vocab_size, vocab_size + N_WORDS)
    wanted = TASKS[task]
    if len(texts) != wanted if wanted else len(texts) < 3:
        raise Error(f"{task}: an example has {len(texts)} texts: give {wanted or 'a context and two or more answers'}")
    for text in texts:
        if any(not 0 <= token < vocab_size for token in text):
            raise Error(f"{task}: a text holds an id outside of 0 to {vocab_size - 1}: encode it with the model's own")
    if task == "classification":
        return [[start, *texts[0], extract]]
    pairs = [(texts[0], answer) for answer in texts[1:]]
    if task == "similarity":
        pairs.append((texts[1], texts[0]))
    return [[start, *a, delimiter, *b, extract] for a, b in pairs]


@dataclass(frozen=True)
class TaskBatch:
    """tokens (B, N, T) int64; keep (B, N, T) bool, False at padding; labels (B,), IGNORE where unknown.

    Where an example has fewer answers than another, a lone extract token stands for each that is not there.
    """

    tokens: Tensor
    keep: Tensor
    labels: Tensor

    @property
    def present(self) -> Tensor:
        """(B, N) bool: which sequences are there."""
        return self.keep.sum(-1) > 1

    def to(self, device) -> "TaskBatch":
        return TaskBatch(self.tokens.to(device), self.keep.to(device), self.labels.to(device))

    def blank(self) -> "TaskBatch":
        """The batch without a label, and so without a loss."""
        return replace(self, labels=torch.full_like(self.labels, IGNORE))

    def flat(self) -> tuple[Tensor, Tensor]:
        """tokens and keep of all sequences, (S, T)."""
        return rearrange(self.tokens, "b n t -> (b n) t"), rearrange(self.keep, "b n t -> (b n) t")

    def prepended(self, virtual: Sequence[int]) -> "TaskBatch":
        """The batch with these ids before every sequence, padding on the right: (B, N, P + T)."""
        shape = (*self.tokens.shape[:2], len(virtual))
        before = torch.tensor(virtual, device=self.tokens.device).expand(shape)
        keep = torch.ones(shape, dtype=torch.bool, device=self.keep.device)
        return replace(self, tokens=torch.cat((before, self.tokens), 2), keep=torch.cat((keep, self.keep), 2))


def collate(task: str, examples: Sequence[Example], vocab_size: int, side: str = "right") -> TaskBatch:
    """Examples as one batch, padded on one `side` to the longest sequence.

    >>> collate("classification", [Example([[1, 2]], 0), Example([[3]], 1)], vocab_size=100).tokens.tolist()
    [[[100, 1, 2, 102]], [[100, 3, 102, 0]]]
    """
    if side not in ("left", "right") or not examples:
        raise Error(f"collate: {len(examples)} examples, side {side!r}: give at least one, and 'left' or 'right'")
    rows = [sequences(task, example.texts, vocab_size) for example in examples]
    n, time = max(map(len, rows)), max(len(row) for found in rows for row in found)
    tokens = torch.zeros(len(rows), n, time, dtype=torch.int64)
    keep = torch.zeros(len(rows), n, time, dtype=torch.bool)
    for b, found in enumerate(rows):
        for i, row in enumerate(found + [[vocab_size + 2]] * (n - len(found))):
            place = slice(0, len(row)) if side == "right" else slice(time - len(row), time)
            tokens[b, i, place], keep[b, i, place] = torch.tensor(row), True
    return TaskBatch(tokens, keep, torch.tensor([example.label for example in examples]))


def next_tokens(tokens: Tensor, keep: Tensor, last: int | None = None) -> Tensor:
    """The targets of L1, (S, T): the next token; IGNORE where that is padding, there is none, or an id is above `last`.

    >>> next_tokens(torch.tensor([[103, 100, 7, 102]]), torch.ones(1, 4, dtype=torch.bool), last=102).tolist()
    [[-100, 7, 102, -100]]
    """
    real = keep if last is None else keep & (tokens <= last)
    targets = torch.full_like(tokens, IGNORE)
    targets[:, :-1] = tokens[:, 1:].where(real[:, 1:] & real[:, :-1], IGNORE)
    return targets
