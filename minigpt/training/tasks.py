"""--task classify, entail, similar, choice: records with an answer, and a head that learns to give it.

The same questions as in language.py. What is judged is the share of right answers; the loss is L3 = L2 + lambda L1, of
which "task_loss" (L2) and "lm_loss" (L1) are recorded too.
"""

import math
from collections import Counter

import torch

from minigpt import metrics
from minigpt.corpus import labelled
from minigpt.corpus.labelled import Labelled, Labels, TaskBatches
from minigpt.errors import Error
from minigpt.heads import Task, TaskConfig
from minigpt.memory import Job
from minigpt.metrics import Scores, confusion
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.training import compose
from minigpt.training.compute import Compute
from minigpt.training.estimate import describe_model
from minigpt.training.goal import TASKS
from minigpt.training.objective import TaskLoss
from minigpt.training.streams import stream_seed

SHOWN = 30  # classes that a confusion matrix is drawn and recorded of


class Tasks:
    """Labelled records and a tokenizer."""

    def __init__(self, records: Labelled, tokenizer: Tokenizer):
        self.records, self.tokenizer, self.vocab_size = records, tokenizer, tokenizer.vocab_size
        self.n_cut = 0

    @classmethod
    def open(cls, options) -> "Tasks":
        """The records of --data; the tokenizer is that of the run or of --init, or learned from the training texts."""
        data, goal, (source, field) = options.data, options.goal, options.data.source()
        if source.is_dir() or source.suffix.lower() == ".txt":
            raise Error(f"{source}: --task {goal.task} reads records with a label: give a .jsonl, .csv or .parquet")
        options_of_reader = {"on_bad": data.on_bad, "where": data.where}
        documents = Labels(source, TASKS[goal.task], field, goal.label, goal.others, **options_of_reader)
        records = labelled.read(documents, data.validation)
        texts = (text for record in records.training for text in record.texts)
        return cls(records, compose.find_tokenizer(options, texts))

    def objective(self, model: GPT, options) -> TaskLoss:
        """The loss of a new head, drawn from the run's seed."""
        goal, names = options.goal, self.records.names
        torch.manual_seed(stream_seed(options.loop.seed, "head"))
        config = TaskConfig(
            task=self.records.task, classes=max(2, len(names)), names=names, lm_weight=goal.lm_weight,
            dropout=goal.head_dropout,
        )  # fmt: skip
        return TaskLoss(Task(model, config))

    def batches(self, context: int, options, vocab_size: int) -> tuple[TaskBatches, TaskBatches]:
        """Training batches in random order and validation batches in that of the file, cut to `context` tokens."""
        seeds = {True: stream_seed(options.loop.seed, "data"), False: 0}
        made = []
        for shuffle, side in ((True, self.records.training), (False, self.records.validation)):
            examples, n_cut = labelled.encode(self.records, side, self.tokenizer.encode_batch, context)
            self.n_cut += n_cut
            size = options.batching.batch_size
            made.append(TaskBatches(self.records.task, examples, size, seeds[shuffle], vocab_size, shuffle))
        return tuple(made)

    def judge(self, compute: Compute, validation, most: int | None) -> dict:
        """One evaluation, on all batches or on `most` of them, spread evenly: always the same ones."""
        n = len(validation) if most is None else min(most, len(validation))
        numbers = [k * len(validation) // n for k in range(n)]
        with compute.evaluating():
            matrix, means = judge(compute, validation, numbers, self.records.n_classes)
        scores = Scores(matrix)
        loss = sum(weight * mean for weight, mean in zip(compute.objective.weights, means, strict=True))
        found = {"loss": loss} | dict(zip(("task_loss", "lm_loss"), means, strict=False))
        found |= {"accuracy": scores.accuracy, "macro_f1": scores.macro_f1, "examples": int(matrix.sum())}
        return found | ({"confusion": matrix.tolist()} if most is None and len(matrix) <= SHOWN else {})

    @staticmethod
    def score(found: dict) -> tuple:
        """More right answers; of as many, the lower loss."""
        return -found["accuracy"], found["loss"]

    def say(self, found: dict) -> str:
        return (
            f"loss {found['loss']:.3f}, accuracy {found['accuracy']:.4f} (the commonest class alone: "
            f"{self.records.commonest():.4f}), macro-F1 {found['macro_f1']:.4f} of {found['examples']:,} examples"
        )

    def announce(self, model: GPT, job: Job, steps: int, trained: bool) -> str:
        """The lines a run begins with."""
        records, rows = self.records, job.batch * job.accumulate
        counts = Counter(map(records.number, records.training))
        classes = ", ".join(f"{name} {counts[i]:,}" for i, name in enumerate(records.names[:SHOWN]))
        lines = [
            *describe_model(model, job),
            f"data        {len(records.training):,} training and {len(records.validation):,} validation records; "
            f"{steps:,} steps of {rows} = {steps * rows / len(records.training):.1f} epochs",
            f"classes     {len(records.names)}: {classes}" if classes else f"answers     up to {records.n_classes}",
            f"to beat     the commonest class is right for {records.commonest():.4f} of the validation records",
            f"first loss  about ln {records.n_classes} = {math.log(records.n_classes):.2f} for the answer",
        ]
        if self.n_cut:
            lines.append(f"cut         {self.n_cut:,} records were longer than {job.length} tokens: their ends are cut")
        if records.duplicates or records.bad:
            left_out = [f"{records.duplicates:,} exact duplicates", *records.bad]
            lines.append(f"left out    {', '.join(left_out)}")
        return "\n".join(lines)

    def report(self, model: GPT, found: dict | None) -> dict:
        """What report.html has beside what every run's has."""
        records, pictures = self.records, []
        data = {"training records": len(records.training), "validation records": len(records.validation)}
        data |= {"classes or answers": records.n_classes, "cut at their end": self.n_cut}
        if found and "confusion" in found:
            svg = metrics.draw(torch.tensor(found["confusion"]), records.names or None)
            share = f"{100 * records.commonest():.1f} % are right who always give the commonest class"
            caption = f"Who was taken for whom, on all validation records: rows are the truth. {share}."
            pictures.append({"svg": svg, "caption": caption})
        lines = {f"ln {records.n_classes}": math.log(records.n_classes)}
        return {"lines": lines, "tables": {"Data": data}, "pictures": pictures}


@torch.no_grad()
def judge(compute: Compute, batches, numbers: list[int], n_classes: int) -> tuple[torch.Tensor, list[float]]:
    """The confusion matrix of these batches, and the means of the parts of their loss."""
    task, parts = compute.module, len(compute.objective.weights)
    matrix, sums = torch.zeros(n_classes**2, dtype=torch.int64), torch.zeros(2 * parts, dtype=torch.float64)
    training = task.training
    task.eval()
    for _, batch in compute.ranks.deal(batches, numbers):
        batch = batch.to(compute.device)
        logits, losses = task.judged(batch)
        known = batch.labels >= 0  # not in a blank
        matrix += confusion(batch.labels[known].cpu(), logits.argmax(-1)[known].cpu(), n_classes).flatten()
        sums += torch.tensor([*(loss.item() for loss in losses), *task.counts(batch)], dtype=torch.float64)
    task.train(training)
    added = compute.ranks.sum(*matrix.tolist(), *sums.tolist())
    matrix, sums = torch.tensor(added[: n_classes**2], dtype=torch.int64), added[n_classes**2 :]
    means = [total / max(1.0, count) for total, count in zip(sums[:parts], sums[parts:], strict=True)]
    return matrix.view(n_classes, n_classes), means
