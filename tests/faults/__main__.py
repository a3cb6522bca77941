"""python -m tests.faults: break everything that can break, and write down what came of it."""

import argparse
import tempfile
from pathlib import Path

from tests.faults import subjects, texts
from tests.faults.fuzz import fuzz


def every() -> list:
    return [*subjects.models(), *subjects.adapters(), *subjects.runs(), *texts.notes(), *texts.made()]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=400, help="damages of each kind of file (default 400)")
    parser.add_argument("--only", default="", help="kinds of files, with + between them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    results = []
    for subject in every():
        if not options.only or subject.name in options.only.split("+"):
            with tempfile.TemporaryDirectory() as folder:
                results.append(fuzz(subject, options.count, Path(folder), options.seed))
            found = results[-1]
            print(f"{found.subject:40} {dict(found.counts)}", flush=True)
            for fault in found.faults:
                print("   ", fault, flush=True)
    return any(result.faults for result in results)


if __name__ == "__main__":
    raise SystemExit(main())
