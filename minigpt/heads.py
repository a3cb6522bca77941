"""Tasks on a GPT: GPT-1's input transformations, its linear head, and the loss that joins both (Radford et al. 2018).

Shapes: B examples, N sequences each, S = B N, T time, C channels, K classes, V vocabulary.

    classification   [start] text [extract]                                       N = 1
    entailment       [start] premise [delimiter] hypothesis [extract]             N = 1
    similarity       [start] a [delimiter] b [extract], and b before a            N = 2, their vectors are added
    choice           [start] context [delimiter] answer_n [extract]               N answers, one score each

    P(y | x) = softmax(h W_y + b)     h (C,): what the LM head would read at the extract token        (eq. 3)
    L3 = L2 + lambda L1               L2 = -log P(y | x), L1 = the loss of the next token              (eq. 5)

The transformer does not change (section 3.3). The three words are rows V, V + 1, V + 2, learned and kept here: they
come in by the model's opening `embeds`, and the head of L1 can name them too, as in the authors' code. New numbers:
K C + K + 3 C, with K = 1 for choice. L1 is a mean over all tokens of the batch ("token": transformers), or over the
tokens of each sequence and then over sequences ("sequence": the authors' code), a short text counting as a long one.
Padding may be on either side: `keep` says where, and the extract token is found by what it is, not by where.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minigpt.errors import Error, nearest
from minigpt.linear import Linear
from minigpt.loss import IGNORE, cross_entropy
from minigpt.metrics import Scores, confusion
from minigpt.model import GPT
from minigpt.tuning import stored
from minigpt.tuning.report import Report

TASKS = {"classification": 1, "entailment": 2, "similarity": 2, "choice": None}  # texts of an example
N_WORDS = 3  # start, delimiter, extract


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The task, its classes (choice has none of its own), and the constants of the authors' train.py."""

    task: str = "classification"
    classes: int = 2
    lm_weight: float = 0.5  # lambda; 0: the language model is not asked
    lm_mean: str = "token"  # or "sequence"
    dropout: float = 0.1  # of what the head reads
    init_std: float = 0.02

    def __post_init__(self):
        if self.task not in TASKS:
            raise Error(f"TaskConfig.task is {self.task!r}: {nearest(str(self.task), TASKS)}")
        if type(self.classes) is not int or self.classes < 2:
            raise Error(f"TaskConfig.classes is {self.classes!r}: give a whole number of at least 2")
        if self.lm_mean not in ("token", "sequence"):
            raise Error(f"TaskConfig.lm_mean is {self.lm_mean!r}: give 'token' or 'sequence'")
        ranges = {"lm_weight": (0, float("inf")), "dropout": (0, 1), "init_std": (1e-9, 1)}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if not isinstance(value, int | float) or not low <= value < high:
                raise Error(f"TaskConfig.{name} is {value!r}: give a number from {low} to below {high}")


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
        hidden = self.hidden(batch)
        task = F.cross_entropy(self._logits(hidden, batch).float(), batch.labels, ignore_index=IGNORE)
        if not self.config.lm_weight:
            return task, None
        targets = next_tokens(*_flat(batch))
        if self.config.lm_mean == "token":
            return task, cross_entropy(hidden, self.name_tokens, targets)
        rows = [s for s in range(len(targets)) if (targets[s] != IGNORE).any()]
        means = [cross_entropy(hidden[s : s + 1], self.name_tokens, targets[s : s + 1]) for s in rows]
        return task, torch.stack(means).mean()

    def hidden(self, batch: TaskBatch) -> Tensor:
        """What the heads read, (S, T, C)."""
        tokens, keep = _flat(batch)
        return self.gpt.hidden(embeds=self.embed(tokens), keep=keep)

    def embed(self, tokens: Tensor) -> Tensor:
        """(S, T) ids, the three words among them, -> (S, T, C)."""
        n_vocab = self.gpt.config.vocab_size
        known = self.gpt.token_embedding(tokens.clamp(max=n_vocab - 1))
        return torch.where((tokens < n_vocab)[..., None], known, self.words((tokens - n_vocab).clamp(min=0)))

    def name_tokens(self, hidden: Tensor) -> Tensor:
        """Logits of the next token, the three words included: (..., C) -> (..., V + 3)."""
        return torch.cat((self.gpt.head(hidden), F.linear(hidden, self.words.weight)), dim=-1)

    def _logits(self, hidden: Tensor, batch: TaskBatch) -> Tensor:
        tokens, keep = _flat(batch)
        extract = (tokens == self.gpt.config.vocab_size + 2) & keep
        if (extract.sum(-1) != 1).any():
            raise Error("Task: a sequence has no extract token, or several: make batches with heads.collate")
        vectors = rearrange(hidden[extract], "(b n) c -> b n c", b=len(batch.tokens))
        if self.config.task == "choice":
            scores = self.head(self.dropout(vectors))[..., 0]
            return scores.masked_fill(~batch.present, -torch.inf)
        return self.head(self.dropout(vectors.sum(1)))


def _flat(batch: TaskBatch) -> tuple[Tensor, Tensor]:
    return rearrange(batch.tokens, "b n t -> (b n) t"), rearrange(batch.keep, "b n t -> (b n) t")


def next_tokens(tokens: Tensor, keep: Tensor) -> Tensor:
    """The targets of L1, (S, T): the next token, IGNORE where that is padding or there is none."""
    targets = torch.full_like(tokens, IGNORE)
    targets[:, :-1] = tokens[:, 1:].where(keep[:, 1:] & keep[:, :-1], IGNORE)
    return targets


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
    config = stored.read_config(directory, "task", TaskConfig, name="task")
    task = Task(gpt, replace(config, **changes))
    found = stored.read_tensors(directory, {key: tensor.shape for key, tensor in _tensors(task).items()}, name="task")
    with torch.no_grad():
        for key, tensor in _tensors(task).items():
            tensor.copy_(found[key])
    return task.train(gpt.training)


def _tensors(task: Task) -> dict[str, Tensor]:
    return {"words": task.words.weight, "head.weight": task.head.weight, "head.bias": task.head.bias}
