"""python -m minigpt.context RUN: how far does this model read, and does it make use of it?"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from minigpt.cli import parse, run
from minigpt.context.options import Model, Output, Tasks, Texts
from minigpt.errors import Error

DESCRIPTION = """
How far does this model read, and does it make use of it?  Perplexity by position in the context, perplexity of whole
texts by stride, and a needle in a note. With --extend it reads further than it was trained to; with --save that model
is written, to be tuned a little and opened anywhere.
"""
EXAMPLES = """
examples:
  python -m minigpt.context runs/notes --data long.jsonl --field note --out runs/notes/context
  python -m minigpt.context runs/notes --extend 4x --rope yarn --data long.jsonl --field note
  python -m minigpt.context runs/notes --extend 4x --save runs/notes-1024
  python train.py --init runs/notes --extend-context 4x --steps 100 --lr 1e-4 --out runs/long    and tune it
  python -m minigpt.context runs/zh --data zh.jsonl --field text --fact "过敏史：{}。" --value 青霉素 --value 头孢
"""


def main() -> int:
    model, texts, tasks, output = parse(
        Model, Texts, Tasks, Output, prog="python -m minigpt.context", description=DESCRIPTION, epilog=EXAMPLES
    )
    import torch

    from minigpt.tokenizer import Tokenizer

    if model.threads:
        torch.set_num_threads(model.threads)
    if texts.data is None and model.save is None:
        raise Error("nothing to do: give texts to judge the model on with --data, or --extend and --save")
    tokenizer = Tokenizer.load(model.model)
    gpt = open_model(model, tokenizer)
    if texts.data is None:
        return 0
    found = judge(gpt, tokenizer, read(texts, tokenizer), texts.most, tasks)
    if output.json:
        print(json.dumps(found.record()))
    else:
        print(found)
    if output.out is not None:
        found.draw(output.out)
    return 0


def open_model(options: Model, tokenizer):
    """The model of the directory, extended and written if asked."""
    from minigpt import GPT
    from minigpt.context.extend import extend, parse_length

    gpt = GPT.from_pretrained(options.model)
    if options.extend is not None:
        gpt = extend(gpt, parse_length(options.extend, gpt.config.context), options.rope)
    if options.save is not None:
        from minigpt import hub

        if options.save.exists() and any(options.save.iterdir()):
            raise Error(f"{options.save} is not empty: name another directory")
        hub.save(gpt, options.save, bos_token_id=tokenizer.eot, eos_token_id=tokenizer.eot)
        tokenizer.save(options.save)
        print(f"{options.save}: reads {gpt.config.context} tokens; tune it with train.py --init", file=sys.stderr)
    return gpt


def read(options: Texts, tokenizer) -> list[list[int]]:
    """The texts as ids, the end-of-text token before each, as in training."""
    from minigpt.corpus.documents import Documents

    texts = [[tokenizer.eot, *tokenizer.encode(each.text)] for each in Documents(options.data, options.field,
                                                                                 where=options.where)]  # fmt: skip
    return [[token for text in texts for token in text]] if options.join else texts


class Findings:
    """What was found: buckets by position, by stride, cells of the needle."""

    def __init__(self, positions, strides, cells):
        self.positions, self.strides, self.cells = positions, strides, cells

    def __str__(self) -> str:
        from minigpt.context import show

        parts = ["perplexity by position\n" + show.position_table({"model": self.positions})]
        if self.strides:
            parts.append("perplexity of whole texts\n" + show.stride_table(self.strides))
        if self.cells:
            parts.append("the right value was the likeliest\n" + show.needle_table(self.cells))
        return "\n\n".join(parts)

    def record(self) -> dict:
        return {
            "positions": [asdict(each) | {"perplexity": each.perplexity} for each in self.positions],
            "strides": {
                str(stride): {"perplexity": each.perplexity, "tokens": each.tokens}
                for stride, each in self.strides.items()
            },
            "needle": [asdict(each) for each in self.cells],
        }

    def draw(self, directory: Path):
        """positions.svg, needle.svg and context.json."""
        from minigpt.context import show
        from minigpt.files import write_atomic

        directory.mkdir(parents=True, exist_ok=True)
        write_atomic(directory / "positions.svg", show.draw_positions({"": self.positions}))
        if self.cells:
            write_atomic(directory / "needle.svg", show.draw_needle({"needle": self.cells}))
        write_atomic(directory / "context.json", json.dumps(self.record(), indent=2) + "\n")


def judge(gpt, tokenizer, texts: list[list[int]], most: int, tasks: Tasks) -> Findings:
    """All tasks, with a bar of what is left."""
    from tqdm import tqdm

    from minigpt.context.lengths import by_position, by_stride, edges_of, rows_of
    from minigpt.context.needle import Fact, cell, shortest

    context = tasks.length or gpt.config.context
    rows = rows_of(texts, context, most)
    positions = by_position(gpt, tqdm(rows, desc="by position", leave=False), edges_of(context))
    # Not more than eight contexts of each: a small stride reads a text many times.
    long, strides = [text[: 8 * context] for text in texts if len(text) > context + 1][:most], {}
    for stride in tasks.stride or (context, max(1, context // 2), max(1, context // 4)):
        if long:
            strides[stride] = by_stride(gpt, tqdm(long, desc=f"stride {stride}", leave=False), stride)
    if not tasks.needle:
        return Findings(positions, strides, [])
    fact = Fact(tasks.fact, tasks.value or Fact.values)
    longest = context - max(len(tokenizer.encode(value)) for value in fact.values)
    least = shortest(tokenizer.encode, fact)
    lengths = sorted({max(least, n) for n in (longest // 4, longest // 2, longest)})
    places = [(n, depth) for n in lengths for depth in tasks.depths]
    bar = tqdm(places, desc="needle", leave=False)
    return Findings(positions, strides, [cell(gpt, tokenizer.encode, rows[: tasks.fillers], fact, *at) for at in bar])


if __name__ == "__main__":
    run(main, "python -m minigpt.context")
