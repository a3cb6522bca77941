"""Texts in, probabilities out: what sample.py does with a directory that holds a task's head (heads.py).

    classification        a text                        entailment, similarity     two
    choice                a context and two answers or more

A text is read as in training: without a document's beginning, after the virtual tokens of a prompt if the directory has
one, and cut at its end where it is too long.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor
from tqdm import tqdm

from minigpt import heads
from minigpt.corpus.labelled import cut
from minigpt.errors import Error
from minigpt.generation.checks import context_of
from minigpt.generation.prompts import read_records
from minigpt.generation.reader import evaluating
from minigpt.heads import Task
from minigpt.inputs import N_WORDS, Example, collate
from minigpt.model import GPT
from minigpt.sample_options import Input, Output
from minigpt.tokenizer import Tokenizer

SHOWN = 5  # classes that a line names

Texts = tuple[str, ...]  # what one question asks about


def answer(source: Input, output: Output, model: GPT, tokenizer: Tokenizer, adapters, lines: Iterable[str]):
    """All questions of the options, or of the `lines` of --interactive, by the head in the directory."""
    if len(set(source.adapter)) > 1:
        raise Error("a task's head was trained with one model: give --adapter once, or not at all")
    task = heads.load(model, source.model)
    answerer = Answerer(task, tokenizer, adapters, output)
    if source.interactive:
        answerer.answer_lines(lines)
    else:
        answerer.answer_all(read_questions(source, task.config.task))


class Answerer:
    """A task with its tokenizer and what it was tuned with, and where the answers go."""

    def __init__(self, task: Task, tokenizer: Tokenizer, adapters, output: Output):
        self.task, self.tokenizer, self.adapters, self.output = task, tokenizer, adapters, output
        self.kind = task.config.task
        self.names = task.config.names or tuple(f"class {i}" for i in range(task.config.classes))
        self.virtual = adapters.before(0)
        self.n_cut = 0

    def answer_all(self, questions: Sequence[Texts]):
        size = self.output.batch_size
        with tqdm(total=len(questions), unit="text", disable=None, leave=False) as bar:
            for start in range(0, len(questions), size):
                asked = questions[start : start + size]
                for texts, chances in zip(asked, self.probabilities(asked), strict=True):
                    self.show(texts, chances[: len(texts) - 1] if self.kind == "choice" else chances)
                bar.update(len(asked))
        if self.n_cut:
            print(f"{self.n_cut:,} texts were longer than the model reads: their ends are cut", file=sys.stderr)

    def answer_lines(self, lines: Iterable[str]):
        if self.kind != "classification":
            raise Error(f"--interactive reads one text a line, {self.kind} asks about several: give a .jsonl file")
        for line in lines:
            if line.strip():
                self.answer_all([(line,)])

    def probabilities(self, asked: Sequence[Texts]) -> Tensor:
        """P(y | x) of each question, (B, K), or (B, N) of choices: 0 where there is no such answer."""
        room = context_of(self.task.gpt) - len(self.virtual)
        examples = []
        for texts in asked:
            whole = self.tokenizer.encode_batch(list(texts))
            examples.append(Example(cut(self.kind, whole, room)))
            self.n_cut += examples[-1].texts != whole
        batch = collate(self.kind, examples, self.task.gpt.config.vocab_size)
        batch = batch.prepended([token + N_WORDS for token in self.virtual]) if self.virtual else batch
        with evaluating(self.task), self.adapters.rows([0]):
            return self.task(batch.to(self.task.words.weight.device)).float().softmax(-1).cpu()

    def show(self, texts: Texts, chances: Tensor):
        names = texts[1:] if self.kind == "choice" else self.names
        found = sorted(zip(chances.tolist(), names, strict=True), key=lambda each: -each[0])
        if self.output.json:
            values = {"prompt": texts[0]}
            if self.kind == "choice":
                values |= {"choices": names, "answer": found[0][1], "probabilities": chances.tolist()}
            else:
                values |= {"pair": texts[1]} if len(texts) > 1 else {}
                values |= {"answer": found[0][1], "probabilities": dict(zip(names, chances.tolist(), strict=True))}
            print(json.dumps(values, ensure_ascii=False), flush=True)
            return
        line = ", ".join(f"{name} {chance:.4f}" for chance, name in found[:SHOWN])
        more = f", {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        asked = texts[:1] if self.kind == "choice" else texts
        print(f"{line}{more}: {' | '.join(f'{text!r:.60}' for text in asked)}", flush=True)


def read_questions(source: Input, kind: str) -> list[Texts]:
    """The texts of every question, from the command line and the file of --prompts."""
    records = [{"prompt": prompt} for prompt in source.prompt]
    if source.pair and len(source.pair) != len(records):
        raise Error(f"{len(source.pair)} times --pair for {len(records)} times --prompt: give one for each")
    for record, second in zip(records, source.pair, strict=False):
        record["pair"] = second
    for record in records if source.choice else ():
        record["choices"] = list(source.choice)
    where = [f"prompt {i}" for i in range(1, len(records) + 1)]
    if source.prompts:
        for place, record in read_records(source.prompts):
            records.append(record)
            where.append(place)
    if not records:
        raise Error("a task answers about texts: give --prompt, or --prompts with a file of them")
    return [_texts(record, kind, place) for record, place in zip(records, where, strict=True)]


def _texts(record: dict, kind: str, where: str) -> Texts:
    if kind == "classification":
        return (record["prompt"],)
    if kind == "choice":
        answers = record.get("choices")
        if not isinstance(answers, list) or len(answers) < 2 or not all(isinstance(each, str) for each in answers):
            raise Error(f'{where}: choice asks which of several: give --choice twice or more, or a list "choices"')
        return (record["prompt"], *answers)
    if not isinstance(record.get("pair"), str):
        raise Error(f'{where}: {kind} asks about two texts: give --pair, or the text field "pair"')
    return (record["prompt"], record["pair"])


def has_head(directory: Path) -> bool:
    return (directory / "task_config.json").is_file()
