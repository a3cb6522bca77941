"""What a step makes smaller: a weighted sum of means, each taken over the whole step.

    loss = sum_i w_i  (sum of part i over all micro-batches and ranks) / (its count over all of them)

    LanguageModel   one part: the tokens that have a target
    TaskLoss        L3 = L2 + lambda L1 (heads.py): examples with a label, and tokens

A mean of means would weigh a token by how few neighbours it has, and an example by how short the last batch is.
"""

from torch import Tensor, nn

from minigpt.heads import Task
from minigpt.loss import cross_entropy
from minigpt.model import GPT


class LanguageModel:
    """The next token.

    module   what learns      model   the GPT in it      weights   w of every part
    """

    weights = (1.0,)
    head: tuple[Tensor, ...] = ()  # of a task

    def __init__(self, model: GPT):
        self.module: nn.Module = model
        self.model = model

    def counts(self, batch) -> tuple[int, ...]:
        """Of every part, what it is a mean over."""
        return (batch.n_targets,)

    def sums(self, batch) -> tuple[Tensor, ...]:
        """Of every part, the sum, in nats."""
        hidden = self.model.hidden(batch.tokens, positions=batch.positions, documents=batch.documents)
        return (cross_entropy(hidden, self.model.head, batch.targets, "sum"),)

    def tokens(self, batch) -> int:
        """How much was read, for the log."""
        return batch.n_targets


class TaskLoss:
    """The answer, and beside it the next token."""

    def __init__(self, task: Task):
        self.module, self.model = task, task.gpt
        self.weights = (1.0, task.config.lm_weight) if task.config.lm_weight else (1.0,)
        self.head = (task.words.weight, *task.head.parameters())

    def counts(self, batch) -> tuple[int, ...]:
        return self.module.counts(batch)

    def sums(self, batch) -> tuple[Tensor, ...]:
        return self.module.sums(batch)

    def tokens(self, batch) -> int:
        return int(batch.keep.sum()) if (batch.labels >= 0).any() else 0
