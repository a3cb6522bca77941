"""The command line. Exit code 0: done, or equal; 1: checked, and not equal; 2: could not do it, and stderr says why.

torch is imported after the arguments are read, so that --help is quick.
"""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

from lora.errors import Error

EXAMPLES = """examples:
  python -m lora merge runs/notes adapters/radiology merged
  python -m lora verify runs/notes adapters/radiology merged --json verdict.json
  python -m lora inspect adapters/radiology

exit code: 0 done, or equal; 1 checked and not equal; 2 could not (stderr says why)
"""
VERIFY = """Is MERGED exactly BASE + ADAPTER?  Every adapted weight W + s B A is computed again in float64, block by
block; every other tensor must be the same bits. Needs neither transformers nor peft, nor more than a few hundred MiB.

policies:
  bound   (default) what any honest merge in that dtype can yield: merges by peft, litgpt, loralib pass;
          a wrong alpha, an adapter not applied, applied twice, transposed, of another base do not
  exact   every weight is the nearest number to the sum: merges by this library pass
"""
CHECK = """in your CI:
  python -m lora verify base adapter merged --quiet --junit verdict.xml

exit code: 0 equal; 1 not equal, with the reasons; 2 could not check
"""
ELSEWHERE = {  # subcommands that bring their own add_arguments and run
    "combine": ("lora.combine", "add adapters with weights, exactly"),
    "analyze": ("lora.analysis", "what did the update learn? (section 7 of the paper)"),
}


BASE = "directory of a safetensors checkpoint (one file or shards), or a .safetensors file"
ADAPTER = "directory with adapter_config.json and adapter_model.safetensors"
RAW = {"formatter_class": argparse.RawDescriptionHelpFormatter}


def parser(argv: list[str]) -> argparse.ArgumentParser:
    """The parser; a subcommand of another file is asked for its arguments only if it is the one in `argv`."""
    text = "Merge LoRA adapters exactly, and check merged checkpoints."
    whole = argparse.ArgumentParser("lora", description=text, epilog=EXAMPLES, **RAW)
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")

    merge = commands.add_parser("merge", help="write BASE + ADAPTER, correctly rounded, to OUT")
    merge.add_argument("base", type=Path, metavar="BASE", help=BASE)
    merge.add_argument("adapter", type=Path, metavar="ADAPTER", help=ADAPTER)
    merge.add_argument("out", type=Path, metavar="OUT", help="new directory; appears when it is complete")

    _add_verify(
        commands.add_parser("verify", help="is MERGED BASE + ADAPTER?", description=VERIFY, epilog=CHECK, **RAW)
    )

    inspect = commands.add_parser("inspect", help="what is in an adapter: layers, ranks, scales, norms, size")
    inspect.add_argument("adapter", type=Path, metavar="ADAPTER", help=ADAPTER)
    inspect.add_argument("--base", type=Path, metavar="BASE", help="also: is this the base it was trained on?")

    for name, (module, text) in ELSEWHERE.items():
        command = commands.add_parser(name, help=text, description=text)
        if argv[:1] == [name]:
            importlib.import_module(module).add_arguments(command)
    return whole


def _add_verify(command: argparse.ArgumentParser):
    command.add_argument("base", type=Path, metavar="BASE", help=BASE)
    command.add_argument("adapter", type=Path, metavar="ADAPTER", help=ADAPTER)
    command.add_argument("merged", type=Path, metavar="MERGED", help="the checkpoint to check, as BASE")
    command.add_argument("--policy", choices=("bound", "exact"), default="bound", help="see above")
    command.add_argument("--json", metavar="FILE", help="write everything as JSON; - for stdout, instead of the table")
    command.add_argument("--junit", metavar="FILE", help="write a JUnit report for a CI server")
    command.add_argument("--all", action="store_true", help="every tensor in the table, not the first 30 lines")
    command.add_argument("--quiet", action="store_true", help="only the answer")


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        options = parser(argv).parse_args(argv)
        if options.command in ELSEWHERE:
            return importlib.import_module(ELSEWHERE[options.command][0]).run(options)
        return {"merge": _merge, "verify": _verify, "inspect": _inspect}[options.command](options)
    except Error as problem:
        print(f"lora: {problem}", file=sys.stderr)
    except (MemoryError, RuntimeError) as problem:
        if not isinstance(problem, MemoryError) and "allocate memory" not in str(problem):  # as PyTorch says it
            raise
        print("lora: out of memory: end other programs, or use a machine with more", file=sys.stderr)
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 2


class _Progress:
    """A line on stderr, from the third second on."""

    def __init__(self, what: str):
        self.what, self.start, self.last = what, time.monotonic(), 0.0

    def __call__(self, done: int, total: int):
        now = time.monotonic()
        if now - self.start > 2 and now - self.last > 0.5:
            self.last = now
            speed = done / (now - self.start) / 1e6
            line = f"\r{self.what} {done / 1e6:,.0f} of {total / 1e6:,.0f} MB, {speed:,.0f} MB/s "
            print(line, end="", file=sys.stderr, flush=True)

    def end(self):
        if self.last:
            print(file=sys.stderr)


def _merge(options) -> int:
    from lora.files import read
    from lora.merge_files import merge_checkpoint

    progress = _Progress("merging")
    try:
        reports = merge_checkpoint(options.base, options.adapter, options.out, progress)
    finally:
        progress.end()
    if rounded := read(options.adapter).rounded:
        print(f"merged onto {options.base} rounded to four bits in {len(rounded)} tensors, as the adapter had it")
    elements = sum(report.elements for report in reports)
    changed = sum(report.changed * report.elements for report in reports) / max(1, elements)
    print(f"{options.out}: {len(reports)} tensors merged, {changed:.1%} of their {elements:,} weights changed")
    if reports:
        mean, worst = sum(report.loss for report in reports) / len(reports), max(reports, key=lambda it: it.loss)
        print(f"merge loss |rounded - sum| / |update|: mean {mean:.2g}, worst {worst.loss:.2g} in {worst.name}")
        if worst.loss > 0.1:
            coarse = str(worst.dtype).removeprefix("torch.")
            print(f"{coarse} is too coarse for part of this update: serve it unmerged, or merge into a wider base")
    return 0


def _verify(options) -> int:
    from lora.report import as_json, as_junit, sentence, table
    from lora.verify import verify

    progress = _Progress("checking")
    try:
        verdict = verify(options.base, options.adapter, options.merged, options.policy, progress)
    finally:
        progress.end()
    for file, text in ((options.json, as_json), (options.junit, as_junit)):
        if file and file != "-":
            _write(Path(file), text(verdict))
    if options.json == "-":
        print(as_json(verdict), end="")
        return 0 if verdict.equal else 1
    if not options.quiet:
        print(table(verdict, options.all))
        for note in verdict.notes:
            print(f"note: {note}")
    print(sentence(verdict))
    return 0 if verdict.equal else 1


def _write(file: Path, text: str):
    from lora.storage import write_directory

    write_directory(file.parent, {file.name: text}, {})


def _inspect(options) -> int:
    from lora.inspect_adapter import describe

    print(describe(options.adapter, options.base))
    return 0
