"""--task instruct and chat: records with answers, of which the answers alone are learned.

The same questions as in language.py, whose loss, evaluation and words these are; what differs is where batches come
from (corpus/examples.py).
"""

from minigpt.corpus.examples import open_records, texts
from minigpt.loss import IGNORE
from minigpt.memory import Job
from minigpt.model import GPT
from minigpt.tokenizer import Tokenizer
from minigpt.training import compose
from minigpt.training.estimate import describe_model
from minigpt.training.language import Language
from minigpt.training.streams import stream_seed


class Talks(Language):
    """Instructions or dialogues, and a tokenizer."""

    def __init__(self, options, tokenizer: Tokenizer):
        self.options, self.tokenizer, self.vocab_size = options, tokenizer, tokenizer.vocab_size
        self.counts = self.first = None

    @classmethod
    def open(cls, options) -> "Talks":
        """The tokenizer is that of the run or of --init, or learned from the texts of the records."""
        source, kind, records = options.data.data, options.goal.task, options.records
        return cls(options, compose.find_tokenizer(options, texts(source, kind, records)))

    def batches(self, context: int, options, vocab_size: int):
        """Training batches and validation batches; their rows hold up to `context` tokens."""
        kind, size, seed = options.goal.task, options.batching.batch_size, stream_seed(options.loop.seed, "data")
        source = options.data.data, kind, options.records, self.tokenizer
        training, validation, self.counts = open_records(*source, context, size, seed)
        self.first = validation[0]
        return training, validation

    def prompt(self, given: str) -> list[int]:
        """A sample answers what is given; or else the beginning of the first validation record."""
        eot = self.tokenizer.eot
        if given:
            return [eot, *self.tokenizer.encode(given), eot]
        asked = (self.first.targets[0] != IGNORE).nonzero()[0].item()
        return self.first.tokens[0, : asked + 1].tolist()

    def shown(self, given: str, prompt: list[int]) -> str:
        """And how it is shown: a line for each utterance."""
        texts = [[]]
        for token in prompt[1:]:
            texts.append([]) if token == self.tokenizer.eot else texts[-1].append(token)
        return "\n".join(self.tokenizer.decode(text) for text in texts)

    def announce(self, model: GPT, job: Job, steps: int, trained: bool) -> str:
        """The lines a run begins with."""
        rows = job.batch * job.accumulate
        data, *more = str(self.counts).splitlines()
        epochs = f"{steps:,} steps of {rows} = {steps * rows / self.counts.training.records:.1f} epochs"
        lines = [
            *describe_model(model, job),
            f"data        {data}; {epochs}",
            *(f"            {line}" for line in more),
        ]
        return "\n".join(lines)

    def report(self, model: GPT, found: dict | None) -> dict:
        """What report.html has beside what every run's has."""
        sides = {"training": self.counts.training, "validation": self.counts.validation}
        data = {f"{side} {name}": value for side, counts in sides.items() for name, value in vars(counts).items()}
        return {"lines": {}, "tables": {"Data": data}}
