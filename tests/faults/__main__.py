"""python -m tests.faults: break everything that can break, and write down what came of it."""

import argparse
import tempfile
import warnings
from pathlib import Path

import torch
from tqdm import tqdm

from minigpt.files import write_atomic
from tests.faults import kills, report, subjects, texts
from tests.faults.fuzz import Subject, fuzz

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def every() -> list[Subject]:
    """All kinds of files."""
    return [*subjects.models(), *subjects.adapters(), *subjects.runs(), *texts.notes(), *texts.made()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="damages of each kind of file (default 400)")
    parser.add_argument("--kills", type=int, default=100, help="kills of each kind of work (default 100)")
    parser.add_argument("--only", default="", help="kinds of files, with + between them; no kills, and no page written")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--page", type=Path, default=PAGE, help="where the tables go")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of the libraries, about damaged files
    torch.set_num_threads(1)
    # The kills first: what has used threads cannot fork.
    killed = [] if options.only else [_killed(name, options.kills) for name in tqdm(kills.WORKS, unit="kind of work")]
    chosen = [subject for subject in every() if not options.only or subject.name in options.only.split("+")]
    results = [_fuzzed(subject, options.count, options.seed) for subject in tqdm(chosen, unit="kind of file")]
    faults = [fault for each in [*killed, *results] for fault in each.faults]
    print("\n".join([report.kills_table(killed), "", report.files_table(results), "", *faults]))
    if not options.only:
        write_atomic(options.page, report.page(results, killed))
    return bool(faults)


def _fuzzed(subject: Subject, count: int, seed: int):
    with tempfile.TemporaryDirectory() as folder:
        return fuzz(subject, count, Path(folder), seed)


def _killed(name: str, count: int) -> kills.Killed:
    with tempfile.TemporaryDirectory() as folder:
        return kills.WORKS[name](Path(folder) / "work", count)


if __name__ == "__main__":
    raise SystemExit(main())
