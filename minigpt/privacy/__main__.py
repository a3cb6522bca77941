"""python -m minigpt.privacy RUN: does the model write what it has read, and does it know what was planted?"""

import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.cli import parse, run
from minigpt.errors import Error

DESCRIPTION = """
Lets a run write from nothing, after the beginnings of its training notes and of its validation notes, and finds the
longest passages that stand word for word in a training note; beside it, what validation notes share with training
notes: notes have sentences in common. With --secrets also how exposed planted secrets are (minigpt.privacy.plant).
It does not prove that nothing else was memorised: docs/privacy.md.
"""
EXAMPLES = """
examples:
  python -m minigpt.privacy runs/notes                                           the tokens the run has kept
  python -m minigpt.privacy runs/notes --data notes.jsonl --field note           they are gone, here is the text
  python -m minigpt.privacy runs/planted --secrets planted.secrets.jsonl --json
exit codes: 0 nothing to warn of, 1 a warning, 2 could not check
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Memorisation: of which run, and how much is tried."""

    run: str = field(metadata={"positional": True})  # a run of train.py that keeps a whole model
    data: str | None = None  # its text, or prepared tokens, where RUN/tokens is not there
    field: str | None = None  # name of the text in .jsonl, .csv, .parquet
    where: tuple[str, ...] = ()  # only records with type=radiology, as the run was trained; repeat it for more
    validation: float = 0.05  # share of the documents the run kept apart
    samples: int = 24  # texts of each kind
    new_tokens: int = 100  # length of each
    prompt_tokens: int = 16  # how much of a note is given
    seconds: float = 60.0  # for writing; what is not written by then is left out
    secrets: str | None = None  # the file of planted secrets: how exposed is each
    candidates: int = 10_000  # fillings ranked; all of them where a format has no more
    seed: int = 0  # of what is drawn
    show: bool = False  # print the longest passages: they may be somebody's data
    json: bool = False  # one JSON object
    threads: int | None = None  # CPU threads; PyTorch's choice by default

    def __post_init__(self):
        for name in ("samples", "new_tokens", "prompt_tokens", "candidates"):
            if getattr(self, name) < 1:
                raise Error(f"--{name.replace('_', '-')} is {getattr(self, name)}: give at least 1")


def main() -> int:
    (request,) = parse(Request, prog="python -m minigpt.privacy", description=DESCRIPTION, epilog=EXAMPLES)
    import torch

    from minigpt.model import GPT
    from minigpt.privacy import canaries, memorised
    from minigpt.tokenizer import Tokenizer

    if request.threads:
        torch.set_num_threads(request.threads)
    model, tokenizer = GPT.from_pretrained(request.run), Tokenizer.load(request.run)
    secrets = canaries.read(request.secrets) if request.secrets else []
    trial = memorised.Trial(
        samples=request.samples, new_tokens=request.new_tokens, prompt_tokens=request.prompt_tokens,
        seconds=request.seconds, seed=request.seed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        written = memorised.measure(model, tokens_of(request, tokenizer, Path(folder)), trial)
    records = memorised.summary(written)
    exposed = canaries.measure(model, tokenizer, secrets, request.candidates, request.seed) if secrets else []
    say(request, written, records, exposed)
    warnings = [text for text in (memorised.warning(records), canaries.warning(exposed)) if text]
    for text in warnings:
        print(f"warning: {text}", file=sys.stderr)
    return int(bool(warnings))


def say(request: Request, written: list, records: list[dict], exposed: list) -> None:
    """Numbers; excerpts only where they were asked for."""
    from minigpt.privacy.memorised import table

    ranks = [
        {"times": e.times, "exposure": round(e.bits, 2), "rank": e.rank, "of": e.size, "exact": e.exact}
        for e in exposed
    ]
    if request.json:
        print(json.dumps({"overlap": records, "canaries": ranks}))
    else:
        rows = {f"overlap, {name}": value for name, value in table(records).items()}
        for e in exposed:
            how = "exact" if e.exact else "by sampling"
            name = f"secret written {e.times} times"
            rows.setdefault(name, "")
            rows[name] += f"{'; ' * bool(rows[name])}{e.bits:.1f} bits, rank {e.rank:,} of {e.size:,}, {how}"
        width = max(map(len, rows), default=0)
        print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))
    if request.show:
        for each in sorted(written, key=lambda each: -each.characters)[:5]:
            print(f"--- {each.row}, {each.characters} characters\n{each.excerpt}", file=sys.stderr)


def tokens_of(request: Request, tokenizer, folder: Path):
    """The tokens of the run; or those of its text, made again on the same sides."""
    from minigpt.corpus import load_tokens, prepare

    kept = Path(request.run) / "tokens"
    if request.data is None:
        if not kept.is_dir():
            raise Error(f"{kept}: not found: name the text of the run with --data and --field")
        return load_tokens(kept)
    if (Path(request.data) / "manifest.json").is_file():
        return load_tokens(request.data)
    split = {"validation": request.validation, "where": request.where, "identifiers_check": False}
    prepare(request.data, folder / "tokens", request.field, tokenizer, **split)
    return load_tokens(folder / "tokens")


if __name__ == "__main__":
    run(main, "python -m minigpt.privacy")
