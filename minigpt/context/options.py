"""The options of `python -m minigpt.context`, one record a concern. Importing this does not wait for torch."""

from dataclasses import dataclass, field
from pathlib import Path

from minigpt.errors import Error, nearest

ROPES = ("yarn", "ntk", "dynamic", "linear", "llama3", "none")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Model: which one, and whether it is to read further."""

    model: Path = field(metadata={"positional": True})  # a run or Hugging Face directory
    extend: str | None = None  # let it read further first: 2x, or a number of tokens
    rope: str = "yarn"  # how rotary positions are stretched: yarn, ntk, dynamic, linear, llama3 or none
    save: Path | None = None  # write the extended model here; transformers opens it
    threads: int | None = None  # CPU threads; PyTorch's choice by default

    def __post_init__(self):
        if self.rope not in ROPES:
            raise Error(f"--rope is {self.rope!r}: {nearest(self.rope, ROPES)}")
        if self.save is not None and self.extend is None:
            raise Error("--save writes an extended model: say how far with --extend, such as 2x")


@dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts: what to judge it on; long ones, that it was not trained on."""

    data: Path | None = None  # folder of .txt, or a .txt, .jsonl, .csv, .parquet
    field: str | None = None  # name of the text in .jsonl, .csv, .parquet
    where: tuple[str, ...] = ()  # only records with type=discharge, or type!=discharge; repeat it for more conditions
    join: bool = False  # one text of all, for notes that are shorter than the context
    most: int = 40  # rows and texts read; spread over the data


@dataclass(frozen=True, kw_only=True)
class Tasks:
    """Tasks: perplexity by position, by stride, and a fact to be found."""

    length: int | None = None  # tokens of a row; by default the context
    stride: tuple[int, ...] = ()  # of windows over texts; by default the context, a half and a quarter of it
    needle: bool = True  # plant a fact in a text and ask for it
    fact: str = "\nAllergies:{}.\n"  # with {} for the value; the question is what comes before
    value: tuple[str, ...] = ()  # a value the fact may have; repeat it (default: four, such as penicillin)
    depths: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)  # where in the text it stands
    fillers: int = 2  # texts to hide it in

    def __post_init__(self):
        if not all(0 <= depth <= 1 for depth in self.depths) or not self.depths:
            raise Error(f"--depths is {','.join(map(str, self.depths))}: give numbers from 0 to 1")
        if self.fillers < 1:
            raise Error(f"--fillers is {self.fillers}: give at least 1, or --no-needle")


@dataclass(frozen=True, kw_only=True)
class Output:
    """Output: where the pictures go."""

    out: Path | None = None  # directory for positions.svg, needle.svg and context.json
    json: bool = False  # one JSON object instead of tables
