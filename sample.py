"""Write text with a trained model: a run directory of train.py, or any Hugging Face directory minigpt can represent.

A prompt is read as the beginning of a document; without one the model begins the document itself. Text appears as
it is made and ends where the model ends the document, after --max-new-tokens, or when the context is full.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lora
from minigpt import cli
from minigpt.errors import Error

EXAMPLES = """
examples:
  python sample.py runs/notes                                           a document from nothing
  python sample.py runs/notes --prompt "Chief complaint:"               continue a prompt
  python sample.py runs/notes --prompt "患者，女，" --num-samples 3        three ways to go on
  python sample.py runs/notes --prompt "Dx:" --greedy                   the most likely text; no randomness
  python sample.py runs/notes --prompts prompts.jsonl --top-p 0.95      many prompts, from a file
  python sample.py runs/notes --interactive                             a line in, its continuation out; Ctrl-D ends
  python sample.py runs/notes --adapter runs/letters                    with a LoRA adapter
  python sample.py runs/notes --prompt A --prompt B --adapter base --adapter runs/letters    one for each prompt

The same seed, prompts and options give the same text on the same kind of machine.
Exit codes: 0 done, 2 bad input (one line on stderr says which), 130 stopped by Ctrl-C.
"""


@dataclass(frozen=True)
class Input:
    """Model, adapters and prompts."""

    model: Path = field(metadata={"positional": True})  # a run or Hugging Face directory
    prompt: tuple[str, ...] = ()  # the beginning of a document; repeat the option for several
    prompts: Path | None = None  # file of prompts: one a line, or .jsonl with the field "prompt"
    interactive: bool = False  # read prompts from standard input, a line each
    eot: bool = True  # put the end-of-text token before each prompt, as in training
    adapter: tuple[str, ...] = ()  # LoRA adapter: one for all prompts, or one for each; "base" for none
    merge: bool = False  # put the adapter into the weights first: the speed of the base
    echo: bool = True  # print the prompt before its continuation (never with --interactive)


@dataclass(frozen=True)
class Writing:
    """How the text is chosen."""

    max_new_tokens: int = 256  # at most this many tokens a text
    temperature: float = 0.8  # below 1 plainer, above 1 wilder, 0 greedy
    top_k: int | None = None  # draw from the k most likely tokens only
    top_p: float | None = None  # draw from the likeliest tokens that hold this much probability
    greedy: bool = False  # always the most likely token, whatever the temperature
    num_samples: int = 1  # texts for each prompt
    seed: int = 0  # another seed, other texts
    threads: int | None = None  # CPU threads; all cores if not given

    def __post_init__(self):
        for name in ("num_samples", "threads"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise Error(f"--{name.replace('_', '-')} is {getattr(self, name)}: give a whole number of at least 1")
        if self.greedy and self.num_samples > 1:
            raise Error(f"--greedy writes the same text {self.num_samples} times: leave out --num-samples")


class Writer:
    """A model, its tokenizer and the options: prompts in, text on standard output."""

    def __init__(self, source: Input, writing: Writing):
        import torch  # only now: --help and a mistyped option should not wait for it

        from minigpt.model import GPT
        from minigpt.tokenizer import Tokenizer

        if writing.threads:
            torch.set_num_threads(writing.threads)
        self.model, self.tokenizer = GPT.from_pretrained(source.model), Tokenizer.load(source.model)
        ours, theirs = self.model.config.vocab_size, self.tokenizer.vocab_size
        if theirs > ours:
            raise Error(
                f"{source.model}: the tokenizer has {theirs} tokens, the model {ours}: they do not belong together"
            )
        self.source, self.writing = source, writing
        self._attach(source.adapter)

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

    def use(self, text: int):
        """Put the adapter of the text of that number to work."""
        adapters = self.source.adapter
        if len(set(adapters)) > 1:
            lora.use(self.model, *self.names[adapters[text // self.writing.num_samples]])

    def encode(self, prompt: str, where: str) -> list[int]:
        """The ids the model reads; `Error` if there are none, or more than it can read."""
        ids = [self.tokenizer.eot] * self.source.eot + self.tokenizer.encode(prompt)
        if not ids:
            raise Error(f"{where} is empty: write something, or leave out --no-eot")
        if len(ids) > (context := self.model.config.context):
            raise Error(f"{where} has {len(ids)} tokens, the model's context holds {context}: shorten it")
        return ids

    def write(self, ids: list[int], row: int, before: str = ""):
        """Print the continuation as it is made. `row` numbers the texts: each has its own randomness."""
        from minigpt.generation import stream

        options = {name: getattr(self.writing, name) for name in ("max_new_tokens", "top_k", "top_p", "seed")}
        options["temperature"] = 0 if self.writing.greedy else self.writing.temperature
        tokens = stream(self.model, ids, eos=self.tokenizer.eot, row=row, **options)
        print(before, end="", flush=True)  # not earlier: bad options end in a message, not in half a text
        text = self.tokenizer.stream()
        for token in tokens:
            if token != self.tokenizer.eot:
                print(text.push(token), end="", flush=True)
        print(text.flush(), flush=True)

    def write_all(self, prompts: list[str]):
        # All are encoded before the first is written: the last line of a file should not fail after an hour.
        encoded = [self.encode(prompt, f"prompt {number}") for number, prompt in enumerate(prompts, start=1)]
        samples = self.writing.num_samples
        for row in range(total := len(prompts) * samples):
            head = f"=== {row + 1} of {total} ===\n" if total > 1 else ""
            echo = prompts[row // samples] if self.source.echo else ""
            self.use(row)
            self.write(encoded[row // samples], row, before=head + echo)

    def answer_lines(self):
        """--interactive. A prompt that is too long costs a message, not the session."""
        for row, line in enumerate(_lines_of_stdin()):
            try:
                ids = self.encode(line, "the line")
            except Error as problem:
                print(f"sample.py: {problem}", file=sys.stderr)
                continue
            for sample in range(self.writing.num_samples):
                self.write(ids, row * self.writing.num_samples + sample)


def _lines_of_stdin() -> Iterator[str]:
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        if not (line := sys.stdin.readline()):
            return
        yield line.rstrip("\n")


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, blank lines left out; or the field "prompt" of each line of a .jsonl file."""
    try:
        lines = file.read_text("utf-8-sig").split("\n")  # not splitlines: U+2028 and its like are text
    except (OSError, UnicodeDecodeError) as problem:
        raise Error(f"{file}: cannot read the prompts: {getattr(problem, 'strerror', None) or problem}") from None
    numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise Error(f"{file}: holds no prompts: write one a line")
    if file.suffix != ".jsonl":
        return [line for _, line in numbered]
    return [_prompt_of(line, f"{file}:{number}") for number, line in numbered]


def _prompt_of(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except ValueError as problem:
        raise Error(f"{where}: not valid JSON ({problem})") from None
    if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
        raise Error(f'{where}: expected an object with the text field "prompt", such as {{"prompt": "Dx:"}}')
    return record["prompt"]


def main():
    source, writing = cli.parse(Input, Writing, prog="sample.py", description=__doc__, epilog=EXAMPLES)
    prompts = list(source.prompt) + (read_prompts(source.prompts) if source.prompts else [])
    if source.interactive and prompts:
        raise Error("--interactive reads its prompts from standard input: leave out --prompt and --prompts")
    if len(source.adapter) > 1 and len(source.adapter) != max(1, len(prompts)):
        raise Error(f"{len(source.adapter)} adapters for {len(prompts)} prompts: give one for all, or one for each")
    writer = Writer(source, writing)
    with lora.serving(writer.model):
        if source.interactive:
            writer.answer_lines()
        else:
            writer.write_all(prompts or [""])


if __name__ == "__main__":
    cli.run(main, "sample.py", lora.Error)
