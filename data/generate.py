"""Write the corpus that ships with this project: data/notes.jsonl and data/pairs.jsonl.

The notes are invented, one latent patient at a time (see data/clinic/), and the same seed gives the same bytes on every
machine. Standard library only.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

from clinic.card import table
from clinic.corpus import build

HERE = Path(__file__).resolve().parent
NAMES = ("notes.jsonl", "pairs.jsonl")
LIMIT = 4_000_000  # bytes, all files together

EPILOG = """examples:
  python data/generate.py                    write the two files again (the committed bytes)
  python data/generate.py --check            exit 0 if the files on disk are what this code writes, else 1
  python data/generate.py --card             print the measured table of data/README.md
  python data/generate.py --seed 1 --out x   other patients, in the folder x

Everything is synthetic: no sentence comes from a real record. For practice with language models
only, never medical advice."""


def jsonl(records):
    """Records as UTF-8 JSON lines; keys keep the order in which they were written."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode("utf-8")


def render(seed):
    """{file name: bytes} of the whole corpus."""
    return dict(zip(NAMES, map(jsonl, build(seed)), strict=True))


def write(path, data):
    """Write all or nothing: to a temporary name in the same folder, synced, then renamed."""
    handle, temporary = tempfile.mkstemp(prefix=f"{path.name}.tmp-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def differences(files, folder):
    """What does not match on disk, in words; empty when all is well."""
    found = []
    for name, data in files.items():
        path = folder / name
        if not path.is_file():
            found.append(f"{path}: missing")
        elif path.read_bytes() != data:
            found.append(f"{path}: differs from what this code and seed write")
    return found


def main(argv=None):
    """Command line; returns the exit code: 0 done or equal, 1 checked and different, 2 could not."""
    parser = argparse.ArgumentParser(
        prog="generate.py", description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other patients (default: 0)")
    parser.add_argument(
        "--out", type=Path, default=HERE, help="folder of the two files (default: where this script is)"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="write nothing; compare with the files and exit 0 or 1")
    what.add_argument("--card", action="store_true", help="write nothing; print the measured table of the dataset card")
    args = parser.parse_args(argv)
    files = render(args.seed)
    total = sum(map(len, files.values()))
    if total > LIMIT:
        message = f"generate.py: {total:,} bytes, more than the limit of {LIMIT:,}: lower CASES in clinic/corpus.py"
        print(message, file=sys.stderr)
        return 2
    if args.card:
        sys.stdout.reconfigure(encoding="utf-8")
        print(table(files))
        return 0
    if args.check:
        wrong = differences(files, args.out)
        print("\n".join(wrong) or "equal", file=sys.stderr if wrong else sys.stdout)
        return 1 if wrong else 0
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write(args.out / name, data)
            print(f"{args.out / name}: {len(data):,} bytes")
    except OSError as problem:
        print(f"generate.py: cannot write to {args.out}: {problem}; choose another folder with --out", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
