"""Tasks on a GPT: GPT-1's linear head, and the loss that joins it to the language model's (Radford et al. 2018).

Shapes: B examples, N sequences each, S = B N, T time, C channels, K classes, V vocabulary.

What is read is in inputs.py. Of similarity the vectors of both orders are added; a choice has one score an answer.

    P(y | x) = softmax(h W_y + b)     h (C,): what the LM head would read at the extract token        (eq. 3)
    L3 = L2 + lambda L1               L2 = -log P(y | x), L1 = the loss of the next token              (eq. 5)

The transformer does not change (section 3.3). The three words are rows V, V + 1, V + 2, learned and kept here: they
come in by the model's opening `embeds`, and the head of L1 can name them too, as in the authors' code. New numbers:
K C + K + 3 C, with K = 1 for choice. L1 is a mean over all tokens of the batch ("token": transformers), or over the
tokens of each sequence and then over sequences ("sequence": the authors' code), a short text counting as a long one.
Padding may be on either side: `keep` says where, and the extract token is found by what it is, not by where.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minigpt.errors import Error, nearest
from minigpt.inputs import N_WORDS, TASKS, Example, TaskBatch, collate, next_tokens, sequences
from minigpt.linear import Linear
from minigpt.loss import IGNORE, cross_entropy
from minigpt.metrics import Scores, confusion
from minigpt.model import GPT
from minigpt.tuning import stored
from minigpt.tuning.report import Report

__all__ = [
    "Example", "Task", "TaskBatch", "TaskConfig", "collate", "evaluate", "load", "next_tokens", "refill", "report",
    "save", "sequences",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The task, its classes by name (choice has none of its own), and the constants of the authors' train.py."""

    task: str = "classification"
    classes: int = 2
    names: tuple[str, ...] = ()  # of the classes, in the order of their numbers; or none
    lm_weight: float = 0.5  # lambda; 0: the language model is not asked
    lm_mean: str = "token"  # or "sequence"
    dropout: float = 0.1  # of what the head reads
    init_std: float = 0.02

    def __post_init__(self):
        if self.task not in TASKS:
            raise Error(f"TaskConfig.task is {self.task!r}: {nearest(str(self.task), TASKS)}")
        if type(self.classes) is not int or self.classes < 2:
            raise Error(f"TaskConfig.classes is {self.classes!r}: give a whole number of at least 2")
        if not isinstance(self.names, list | tuple) or not all(isinstance(name, str) for name in self.names):
            raise Error(f"TaskConfig.names is {self.names!r:.60}: give texts")
        object.__setattr__(self, "names", tuple(self.names))
        if self.names and len(self.names) != self.classes:
            raise Error(f"TaskConfig.names has {len(self.names)} names, classes is {self.classes}: give one for each")
        if self.lm_mean not in ("token", "sequence"):
            raise Error(f"TaskConfig.lm_mean is {self.lm_mean!r}: give 'token' or 'sequence'")
        ranges = {"lm_weight": (0, float("inf")), "dropout": (0, 1), "init_std": (1e-9, 1)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value < high:
                raise Error(f"TaskConfig.{name} is {value!r}: give a number from {low} to below {high}")


class Task(nn.Module):
    """A GPT with three more words and a linear head.

    >>> from minigpt import GPTConfig
    >>> gpt = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> task = Task(gpt, TaskConfig(task="choice"))
    >>> task(collate("choice", [Example([[1, 2], [3], [4, 5], [6]], label=1)], vocab_size=100)).shape
    torch.Size([1, 3])
    """

    def __init__(self, gpt: GPT, config: TaskConfig):
        super().__init__()
        like = gpt.blocks[0].attn_norm.weight
        self.gpt, self.config = gpt, config
        self.words = nn.Embedding(N_WORDS, gpt.config.d_model, device=like.device, dtype=like.dtype)
        self.head = Linear(gpt.config.d_model, 1 if config.task == "choice" else config.classes).to(like)
        self.dropout = nn.Dropout(config.dropout)
        for weight in (self.words.weight, self.head.weight):
            nn.init.normal_(weight, std=config.init_std)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: TaskBatch) -> Tensor:
        """Logits: (B, K), or (B, N) of choices, -inf where there is none."""
        return self._logits(self.hidden(batch), batch)

    def loss(self, batch: TaskBatch) -> Tensor:
        """L3, each of its parts a mean."""
        task, lm = self.losses(batch)
        return task if lm is None else task + self.config.lm_weight * lm

    def losses(self, batch: TaskBatch) -> tuple[Tensor, Tensor | None]:
        """L2, the mean over examples, and L1, the mean of `lm_mean`; None with lm_weight 0."""
        task, *lm = (part / max(1, n) for part, n in zip(self.sums(batch), self.counts(batch), strict=True))
        return task, lm[0] if lm else None

    def sums(self, batch: TaskBatch) -> tuple[Tensor, ...]:
        """L2 and, unless lm_weight is 0, L1, each before the division by its count."""
        return self.judged(batch)[1]

    def judged(self, batch: TaskBatch) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Logits as of `forward`, and the sums, of one pass."""
        hidden = self.hidden(batch)
        logits = self._logits(hidden, batch)
        task = F.cross_entropy(logits.float(), batch.labels, ignore_index=IGNORE, reduction="sum")
        return logits, (task, *self._next(hidden, batch))

    def _next(self, hidden: Tensor, batch: TaskBatch) -> tuple[Tensor, ...]:
        """L1 as a sum, or nothing."""
        if not self.config.lm_weight:
            return ()
        targets = self.targets(batch)
        if self.config.lm_mean == "token":
            return (cross_entropy(hidden, self.name_tokens, targets, "sum"),)
        rows = [s for s in range(len(targets)) if (targets[s] != IGNORE).any()]
        means = [cross_entropy(hidden[s : s + 1], self.name_tokens, targets[s : s + 1]) for s in rows]
        return (torch.stack(means).sum() if means else hidden.sum() * 0.0,)

    def counts(self, batch: TaskBatch) -> tuple[int, ...]:
        """What the parts of the loss are means over: examples with a label; tokens with a target, or sequences."""
        examples = int((batch.labels != IGNORE).sum())
        if not self.config.lm_weight:
            return (examples,)
        asked = self.targets(batch) != IGNORE
        return examples, int((asked if self.config.lm_mean == "token" else asked.any(1)).sum())

    def targets(self, batch: TaskBatch) -> Tensor:
        """Of L1, (S, T): IGNORE at virtual tokens and padding, and in examples without a label."""
        last = self.gpt.config.vocab_size + N_WORDS - 1
        known = (batch.labels != IGNORE).repeat_interleave(batch.tokens.shape[1])
        return next_tokens(*batch.flat(), last).where(known[:, None], IGNORE)

    def hidden(self, batch: TaskBatch) -> Tensor:
        """What the heads read, (S, T, C)."""
        tokens, keep = batch.flat()
        return self.gpt.hidden(embeds=self.embed(tokens), keep=keep)

    def embed(self, tokens: Tensor) -> Tensor:
        """(S, T) ids, the three words and virtual tokens among them, -> (S, T, C)."""
        n_vocab = self.gpt.config.vocab_size
        word = (tokens >= n_vocab) & (tokens < n_vocab + N_WORDS)
        known = self.gpt.token_embedding(torch.where(tokens < n_vocab, tokens, tokens - N_WORDS).masked_fill(word, 0))
        return torch.where(word[..., None], self.words((tokens - n_vocab).clamp(0, N_WORDS - 1)), known)

    def name_tokens(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, the three words included: (..., C) -> (..., V + 3)."""
        return torch.cat((self.gpt.head(hidden), F.linear(hidden, self.words.weight)), dim=-1)

    def _logits(self, hidden: Tensor, batch: TaskBatch) -> Tensor:
        tokens, keep = batch.flat()
        extract = (tokens == self.gpt.config.vocab_size + 2) & keep
        if (extract.sum(-1) != 1).any():
            raise Error("Task: a sequence has no extract token, or several: make batches with heads.collate")
        vectors = rearrange(hidden[extract], "(b n) c -> b n c", b=len(batch.tokens))
        if self.config.task == "choice":
            scores = self.head(self.dropout(vectors))[..., 0]
            return scores.masked_fill(~batch.present, -torch.inf)
        return self.head(self.dropout(vectors.sum(1)))


@torch.no_grad()
def evaluate(task: Task, batches: Iterable[TaskBatch]) -> Scores:
    """The answers of a labelled set against the truth; of choices, the class is the number of the answer."""
    training, labels, answers = task.training, [], []
    task.eval()
    for batch in batches:
        answers += task(batch).argmax(-1).tolist()
        labels += batch.labels.tolist()
    task.train(training)
    choices = max([1, *labels, *answers]) + 1
    return Scores(confusion(labels, answers, choices if task.config.task == "choice" else task.config.classes))


def report(task: Task) -> Report:
    """What learns now: the words, the head, and whatever of the GPT is not frozen."""
    learned = [p for p in task.parameters() if p.requires_grad]
    count = sum(p.numel() for p in learned)
    return Report(count, sum(p.nbytes for p in learned), sum(p.numel() for p in task.parameters()) - count)


def save(task: Task, directory):
    """task_config.json and task_model.safetensors: words and head. Save the GPT beside it if it has learned, too."""
    stored.write(directory, "task", task.config, _tensors(task), name="task")


def load(gpt: GPT, directory, **changes) -> Task:
    """The task of a directory on this GPT; `changes` replace fields such as lm_weight."""
    task = Task(gpt, replace(stored.read_config(directory, "task", TaskConfig, name="task"), **changes))
    _fill(task, directory)
    return task.train(gpt.training)


def refill(task: Task, directory):
    """Put the words and head of a directory into a task, which must be that one."""
    found = stored.read_config(directory, "task", TaskConfig, name="task")
    for name in ("task", "classes", "names"):
        if (ours := getattr(task.config, name)) != (theirs := getattr(found, name)):
            raise Error(f"{directory}: {name} is {theirs!r:.80}, here it is {ours!r:.80}: other data, or another task")
    _fill(task, directory)


def _fill(task: Task, directory):
    found = stored.read_tensors(directory, {key: tensor.shape for key, tensor in _tensors(task).items()}, name="task")
    with torch.no_grad():
        for key, tensor in _tensors(task).items():
            tensor.copy_(found[key])


def _tensors(task: Task) -> dict[str, Tensor]:
    return {"words": task.words.weight, "head.weight": task.head.weight, "head.bias": task.head.bias}
