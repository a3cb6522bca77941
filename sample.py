"""Write text with a trained model: a run directory of train.py, or any Hugging Face directory minigpt can represent.

A prompt is read as the beginning of a document; without one the model begins the document itself. Text appears as
it is made and ends where the model ends the document, at --stop, after --max-new-tokens, or when the context is full.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import groupby

import lora
from minigpt import cli
from minigpt.errors import Error
from minigpt.sample_options import Beams, Choosing, Drafting, Input, Output, Steering

EXAMPLES = """
examples:
  python sample.py runs/notes                                           a document from nothing
  python sample.py runs/notes --prompt "Chief complaint:"               continue a prompt
  python sample.py runs/notes --prompt "患者，女，" --num-samples 3        three ways to go on
  python sample.py runs/notes --prompt "Dx:" --greedy                   the most likely text; no randomness
  python sample.py runs/notes --prompt "Dx:" --num-beams 4 --show-beams  the likeliest of many, and how it was found
  python sample.py runs/notes --prompt "Dx:" --one-of " gout" --one-of " sepsis" --num-beams 2 --num-return 2
  python sample.py runs/notes --prompts prompts.jsonl --top-p 0.95 --json   many prompts, a record a line
  python sample.py runs/notes --draft runs/small --draft-tokens 4       the law of runs/notes, a small model guessing
  python sample.py runs/notes --prompts notes.txt --score               how likely is each text
  python sample.py runs/notes --interactive                             a line in, its continuation out; Ctrl-D ends
  python sample.py runs/notes --adapter runs/letters                    with a LoRA adapter
  python sample.py runs/notes --prompt A --prompt B --adapter base --adapter runs/letters    one for each prompt

The same seed, prompts and options give the same text on the same kind of machine.
Exit codes: 0 done, 2 bad input (one line on stderr says which), 130 stopped by Ctrl-C.
"""


class Session:
    """A model with its adapters and tokenizer, and where the texts go."""

    def __init__(
        self, source: Input, choosing: Choosing, steering: Steering, beams: Beams, drafting: Drafting, output: Output
    ):
        drafting.check(choosing, steering, beams, output)
        import torch  # only now: --help and a mistyped option should not wait for it

        from minigpt.generation.writer import Writer
        from minigpt.model import GPT
        from minigpt.tokenizer import Tokenizer

        if output.threads:
            torch.set_num_threads(output.threads)
        self.model, tokenizer = GPT.from_pretrained(source.model), Tokenizer.load(source.model)
        ours, theirs = self.model.config.vocab_size, tokenizer.vocab_size
        if theirs > ours:
            raise Error(
                f"{source.model}: the tokenizer has {theirs} tokens, the model {ours}: they do not belong together"
            )
        self.source, self.choosing, self.beams, self.output = source, choosing, beams, output
        self._attach(source.adapter)
        self.draft = GPT.from_pretrained(drafting.draft) if drafting.draft else None
        if self.draft and Tokenizer.load(drafting.draft).vocabulary.ranks != tokenizer.vocabulary.ranks:
            raise Error(
                f"{drafting.draft}: this draft has another tokenizer than {source.model}: give one with the same"
            )
        self.writer = Writer(self.model, tokenizer, choosing, steering, beams, self.draft, drafting.draft_tokens)

    def _attach(self, adapters: tuple[str, ...]):
        """Load every adapter once, and merge if asked; "base" is none."""
        self.names = {"base": ()}
        for directory in dict.fromkeys(adapters):
            if directory != "base":
                self.names[directory] = (f"adapter{len(self.names)}",)
                lora.load(self.model, directory, name=self.names[directory][0])
        if self.source.merge:
            if len(set(adapters)) != 1 or adapters[0] == "base":
                raise Error("--merge puts one adapter into the weights: give --adapter once")
            lora.merge(self.model)

    def adapter_of(self, prompt: int) -> str | None:
        adapters = self.source.adapter
        return adapters[prompt if len(adapters) > 1 else 0] if adapters else None

    def use(self, prompt: int):
        """Put the adapter of the prompt of that number to work."""
        if len(set(self.source.adapter)) > 1:
            lora.use(self.model, *self.names[self.adapter_of(prompt)])

    def write_all(self, prompts: list[str]):
        # All are encoded before the first is written: the last line of a file should not fail after an hour.
        eot = self.source.eot
        encoded = [self.writer.encode(prompt, f"prompt {i}", eot) for i, prompt in enumerate(prompts, start=1)]
        if self.output.json and not (self.output.score or self.choosing.best_of or self.beams.num_beams > 1):
            self.write_batches(prompts, encoded)
            return
        pages = []
        for number, (prompt, ids) in enumerate(zip(prompts, encoded, strict=True)):
            self.use(number)
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

        from minigpt.generation.writer import record

        samples, size = self.choosing.num_samples, self.output.batch_size
        rows = range(len(prompts) * samples)
        with tqdm(total=len(rows), unit="text", disable=None, leave=False) as bar:
            for adapter, alike in groupby(rows, lambda row: self.adapter_of(row // samples)):
                alike = list(alike)
                self.use(alike[0] // samples)
                for chunk in (alike[i : i + size] for i in range(0, len(alike), size)):
                    texts = self.writer.batch([encoded[row // samples] for row in chunk], chunk[0])
                    for row, text in zip(chunk, texts, strict=True):
                        print(record(prompts[row // samples], text, adapter), flush=True)
                    bar.update(len(chunk))

    def search(self, prompt: str, ids: list[int], number: int, total: int) -> str:
        texts, tree, page = self.writer.search(ids)
        self.print_texts(prompt, texts, number, total)
        if tree:
            print(tree, file=sys.stderr if self.output.json else sys.stdout)
        return page

    def print_texts(self, prompt: str, texts: list, number: int, total: int):
        """Texts that come with scores: beams, or the best of several samples."""
        from minigpt.generation.writer import record

        each = self.beams.num_return if self.beams.num_beams > 1 else 1
        for i, text in enumerate(texts):
            if self.output.json:
                print(record(prompt, text, self.adapter_of(number)), flush=True)
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

    def answer_lines(self):
        """--interactive. A prompt that is too long costs a message, not the session."""
        samples = self.choosing.num_samples
        for number, line in enumerate(_lines_of_stdin()):
            try:
                ids = self.writer.encode(line, "the line", self.source.eot)
            except Error as problem:
                print(f"sample.py: {problem}", file=sys.stderr)
                continue
            for row in range(number * samples, (number + 1) * samples):
                for piece in self.writer.pieces(ids, row):
                    print(piece, end="", flush=True)
                print(flush=True)


def _lines_of_stdin() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        yield line.rstrip("\n")


def main():
    options = cli.parse(
        Input, Choosing, Steering, Beams, Drafting, Output, prog="sample.py", description=__doc__, epilog=EXAMPLES
    )
    source = options[0]
    prompts = list(source.prompt)
    if source.prompts:
        from minigpt.generation.writer import read_prompts

        prompts += read_prompts(source.prompts)
    if source.interactive and prompts:
        raise Error("--interactive reads its prompts from standard input: leave out --prompt and --prompts")
    if len(source.adapter) > 1 and len(source.adapter) != max(1, len(prompts)):
        raise Error(f"{len(source.adapter)} adapters for {len(prompts)} prompts: give one for all, or one for each")
    session = Session(*options)
    from minigpt.serving import serving

    weights = options[-1].weights
    drafted = serving(session.draft, weights) if session.draft else nullcontext()
    with serving(session.model, weights), lora.serving(session.model), drafted:
        if source.interactive:
            session.answer_lines()
        else:
            session.write_all(prompts or [""])
    if session.writer.tally.readings:
        print(session.writer.tally, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main, "sample.py", lora.Error)
