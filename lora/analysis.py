"""`python -m lora analyze`: adapters on disk in, a table, a picture and numbers out."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from lora import files
from lora.checkpoint import HEAD
from lora.errors import Error
from lora.files import Stored
from lora.picture import draw
from lora.recipe import recipes
from lora.rounded import RoundedCheckpoint
from lora.spectrum import Report, analyze, table
from lora.storage import write_directory


def add_arguments(parser: ArgumentParser):
    """The options of `python -m lora analyze`."""
    parser.add_argument("adapter", type=Path, metavar="ADAPTER", help="directory of an adapter")
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER", help="a second one, to compare directions with")
    parser.add_argument("--base", type=Path, help="the model they were trained on: adds the amplification of table 7")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw spectra and phi(i, j)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")


def run(options: Namespace) -> int:
    """Print the table, write what was asked for; 0."""
    directories = [options.adapter] if options.other is None else [options.adapter, options.other]
    stored = [files.read(directory) for directory in directories]
    weight_of = None if options.base is None else base_weights(options.base, stored)
    report = analyze(*stored, weight_of=weight_of, names=short_names(directories))
    print(table(report))
    for file, make in ((options.picture, draw), (options.json, Report.as_json)):
        if file is not None:
            write_directory(file.parent, {file.name: make(report)}, {})
            print(f"wrote {file}")
    return 0


def base_weights(directory: Path, stored: list[Stored]) -> Callable[[str], Tensor]:
    """path -> W (O, I), of a checkpoint on disk; `Error` for a base that the adapters were not trained on."""
    base = RoundedCheckpoint(directory, stored[0].rounded)
    # Only whose weight it is and which way round: what is tied or replaced does not matter here.
    plain = [replace(each, config=replace(each.config, tied="untie"), replaced={}) for each in stored]
    made = [recipes(base, each) for each in plain]

    def weight_of(path: str) -> Tensor:
        name = base.find(f"{path}.weight") or HEAD
        recipe = next(each[name] for each in made if name in each and each[name].update is not None)
        weight = base.as_trained(recipe.source) if recipe.source in base.rounded else base.tensor(recipe.source)
        for each in stored:
            if each.fingerprint.get(f"{path}.weight") not in (None, files.fingerprint(weight)):
                raise Error(
                    f"{directory}: {recipe.source} is not the weight that the adapter was trained on: wrong base"
                )
        return weight.T if recipe.update.transposed else weight

    return weight_of


def short_names(directories: list[Path]) -> tuple[str, ...]:
    """The last part of each path, if that tells them apart.

    >>> short_names([Path("runs/r8"), Path("runs/r64")])
    ('r8', 'r64')
    """
    short = tuple(directory.resolve().name for directory in directories)
    return short if len(set(short)) == len(short) else tuple(map(str, directories))
