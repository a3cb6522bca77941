"""--task lm: text, and the next token of it. tasks.py is the other such room.

What train.py asks of each: `batches` to learn from and to be judged by, the `objective`, how an evaluation is made
(`judge`), compared (`score`) and said (`say`), and what a person is told before (`announce`) and after (`report`).
"""

from dataclasses import asdict

import torch

from minigpt.corpus.tokens import Tokens
from minigpt.memory import Job
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.training import compose, loop
from minigpt.training.compute import Compute
from minigpt.training.estimate import announce, unigram_entropy
from minigpt.training.evaluate import evaluate
from minigpt.training.objective import LanguageModel
from minigpt.training.report import loss_lines


class Language:
    """Prepared tokens and the tokenizer that made them."""

    score, say = staticmethod(loop.by_loss), staticmethod(loop.in_bits)

    def __init__(self, tokens: Tokens, tokenizer: Tokenizer):
        self.tokens, self.tokenizer = tokens, tokenizer
        self.vocab_size = tokens.vocab_size

    @classmethod
    def open(cls, options) -> "Language":
        return cls(*compose.open_data(options.data, options.shape, options.run))

    def objective(self, model: GPT, options) -> LanguageModel:
        return LanguageModel(model)

    def batches(self, context: int, options, vocab_size: int):
        """Training batches and validation batches, rows of `context` tokens."""
        return compose.make_batches(self.tokens, context, options.batching, options.loop.seed)

    def judge(self, compute: Compute, validation, most: int | None) -> dict:
        """One evaluation, on all batches or on `most` of them."""
        lengths = torch.from_numpy(self.tokenizer.token_lengths())
        with compute.evaluating():
            return asdict(evaluate(compute.model, validation, lengths, most, compute.ranks))

    def prompt(self, given: str) -> list[int]:
        """What a sample goes on from: the beginning of a document."""
        return [self.tokenizer.eot, *self.tokenizer.encode(given)]

    def shown(self, given: str, prompt: list[int]) -> str:
        """And how it is shown."""
        return given

    def announce(self, model: GPT, job: Job, steps: int, trained: bool) -> str:
        """The lines a run begins with."""
        lines = [announce(model, job, steps, self.tokens.train, trained)]
        if left := left_out(self.tokens.manifest):
            lines.append(f"left out    {left}")
        return "\n".join(lines)

    def report(self, model: GPT, found: dict | None) -> dict:
        """What report.html has beside what every run's has: flat lines of the loss figure, tables, pictures."""
        data = {
            f"{split} {name}": f"{self.tokens.manifest[split][name]:,}"
            for split in ("train", "val")
            for name in ("documents", "tokens", "bytes")
        }
        if left := left_out(self.tokens.manifest):
            data["left out"] = left
        entropy = unigram_entropy(self.tokens.train, model.config.vocab_size)
        return {"lines": loss_lines(model.config.vocab_size, entropy), "tables": {"Data": data}}


def left_out(manifest: dict) -> str:
    """The documents that are not among the tokens, and why; "" if all are.

    >>> left_out({"duplicates": 2, "bad": {"total": 3, "first": ["a.txt: empty"]}, "unread": {".csv": 1}})
    '2 exact duplicates; 3 that could not be used, first a.txt: empty; 1 .csv, only read when named itself'
    """
    duplicates, bad = manifest.get("duplicates", 0), manifest.get("bad", {"total": 0})
    said = [f"{duplicates:,} exact duplicates"] if duplicates else []
    said += [f"{bad['total']:,} that could not be used, first {bad['first'][0]}"] if bad["total"] else []
    said += [f"{n:,} {kind}, only read when named itself" for kind, n in manifest.get("unread", {}).items()]
    return "; ".join(said)
