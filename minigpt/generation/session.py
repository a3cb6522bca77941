"""Prompts in, texts on the screen: what sample.py does once it knows model, adapters and options.

    session.write_all(prompts)     texts as they are made; beams, the best of several, how likely; records for scripts
    session.answer_lines(lines)    a line in, its continuation out
    session.chat(lines, talking)   a line in, its answer out, and both remembered (chat.py)

Which adapter a prompt has is the business of `adapters` (tuning/composed.py): this file asks it to put the right ones
to work, and for the ids that the model is to read.
"""

import json
import sys
from collections.abc import Iterable, Iterator

from minigpt.chat import Chat, converse
from minigpt.errors import Error
from minigpt.generation.writer import Text, Writer, record
from minigpt.sample_options import Beams, Choosing, Output, Talking


class Session:
    """A writer with the adapters of its prompts, and where the texts go."""

    def __init__(self, writer: Writer, adapters, choosing: Choosing, beams: Beams, output: Output, eot: bool = True):
        self.writer, self.adapters, self.eot = writer, adapters, eot
        self.choosing, self.beams, self.output = choosing, beams, output

    def write_all(self, prompts: list[str]):
        # All are encoded before the first is written: the last line of a file should not fail after an hour.
        encoded = [self._encode(prompt, f"prompt {i + 1}", i) for i, prompt in enumerate(prompts)]
        if self.output.json and not (self.output.score or self.choosing.best_of or self.beams.num_beams > 1):
            self.write_batches(prompts, encoded)
            return
        pages = []
        for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True)):
            with self.adapters.rows([number]):
                if self.output.score:
                    self.rate(prompt, ids)
                elif self.beams.num_beams > 1:
                    pages.append(self.search(prompt, ids, number, len(prompts)))
                elif self.choosing.best_of:
                    self.print_texts(prompt, [self.writer.best(ids)], number, len(prompts))
                else:
                    self.show(prompt, ids, number, len(prompts))
        if self.beams.beams_html:
            self.beams.beams_html.write_text("\n".join(pages), encoding="utf-8")
            print(f"wrote {self.beams.beams_html}", file=sys.stderr)

    def _encode(self, prompt: str, where: str, number: int) -> list[int]:
        with self.adapters.rows([number]):  # a prefix takes room
            return self.writer.encode(prompt, where, self.eot, self.adapters.before(number))

    def show(self, prompt: str, ids: list[int], number: int, total: int):
        """Texts as they are made."""
        samples = self.choosing.num_samples
        for row in range(number * samples, (number + 1) * samples):
            pieces = self.writer.pieces(ids, row)
            head = f"=== {row + 1} of {total * samples} ===\n" if total * samples > 1 else ""
            print(head + prompt * self.output.echo, end="", flush=True)
            for piece in pieces:
                print(piece, end="", flush=True)
            print(flush=True)

    def write_batches(self, prompts: list[str], encoded: list[list[int]]):
        """Records of many texts, written some at a time; the texts that `show` would print."""
        from tqdm import tqdm

        samples = self.choosing.num_samples
        owners = [row // samples for row in range(len(prompts) * samples)]  # of each text, its prompt
        with tqdm(total=len(owners), unit="text", disable=None, leave=False) as bar:
            for chunk in self.adapters.chunks(owners, self.output.batch_size):
                numbers = [owners[row] for row in chunk]
                with self.adapters.rows(numbers):
                    texts = self.writer.batch([encoded[number] for number in numbers], chunk[0])
                for number, text in zip(numbers, texts, strict=True):
                    print(record(prompts[number], text, self.adapters.label(number)), flush=True)
                bar.update(len(chunk))

    def search(self, prompt: str, ids: list[int], number: int, total: int) -> str:
        texts, tree, page = self.writer.search(ids)
        self.print_texts(prompt, texts, number, total)
        if tree:
            print(tree, file=sys.stderr if self.output.json else sys.stdout)
        return page

    def print_texts(self, prompt: str, texts: list[Text], number: int, total: int):
        """Texts that come with scores: beams, or the best of several samples."""
        each = self.beams.num_return if self.beams.num_beams > 1 else 1
        for i, text in enumerate(texts):
            if self.output.json:
                print(record(prompt, text, self.adapters.label(number)), flush=True)
                continue
            scores = ", ".join(f"{name} {value:.3f}" for name, value in text.more.items() if isinstance(value, float))
            head = f"{number * each + i + 1} of {total * each}" if total * each > 1 else "the best"
            print(f"=== {head}: {scores} ===\n{prompt * self.output.echo}{text.text}", flush=True)

    def rate(self, prompt: str, ids: list[int]):
        found = self.writer.rate(ids)
        if self.output.json:
            print(json.dumps({"prompt": prompt} | found, ensure_ascii=False), flush=True)
        else:
            numbers = f"perplexity {found['perplexity']:.3f}, {found['bits_per_byte']:.3f} bits per byte"
            print(f"log-probability {found['logprob']:.2f} of {found['tokens']} tokens, {numbers}: {prompt!r:.60}")

    def answer_lines(self, lines: Iterable[str]):
        """A prompt that is too long costs a message, not the session."""
        samples = self.choosing.num_samples
        for number, line in enumerate(lines):
            try:
                ids = self._encode(line, "the line", 0)
            except Error as problem:
                print(f"sample.py: {problem}", file=sys.stderr)
                continue
            with self.adapters.rows([0]):
                for row in range(number * samples, (number + 1) * samples):
                    for piece in self.writer.pieces(ids, row):
                        print(piece, end="", flush=True)
                    print(flush=True)

    def chat(self, lines: Iterable[str], talking: Talking):
        """Answers as they are made, or records of them."""
        writer = self.writer
        beams = writer.searching() if self.beams.num_beams > 1 else None
        with self.adapters.rows([0]):
            options = {"beams": beams, "before": self.adapters.before(0), "stop": writer.steering.stop}
            options |= writer.limits | writer.sampling
            chat = Chat(writer.model, writer.tokenizer, talking.system, talking.history, **options)
            converse(chat, lines, self.output.json)


def lines_of_stdin() -> Iterator[str]:
    """Lines as they come, without their ends; someone at a terminal is asked for each."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        yield line.rstrip("\n")
