"""Turn your files into tokens: python data/prepare.py notes.jsonl tokens/notes --field note

The source is a .txt file, a folder of them, or a .jsonl, .csv or .parquet file with a named field.
"""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # a checkout works without being installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.corpus.preparation import prepare
from minigpt.errors import Error


@dataclass(frozen=True)
class Request:
    """Turn text files into a directory of tokens for training.

    Args:
        source: a .txt file, a folder of .txt files, or a .jsonl, .csv or .parquet file
        out: the directory to write: train.bin, val.bin, manifest.json and the tokenizer
        field: which field of a .jsonl, .csv or .parquet file holds the text
        tokenizer: gpt2, cl100k_base, o200k_base or a directory with a tokenizer; learned from the text if left out
        vocab_size: ids of a learned tokenizer, at most
        validation: share of the documents kept for validation
        on_bad: what to do with lines that cannot be used: skip or refuse
        progress: show progress bars
    """

    source: str
    out: str
    field: str | None = None
    tokenizer: str | None = None
    vocab_size: int = 4096
    validation: float = 0.1
    on_bad: str = "skip"
    progress: bool = True


def main(arguments: list[str]) -> int:
    """Run one request; the exit code is 0, or 2 when the input has to be mended."""
    from jsonargparse import auto_cli

    request = auto_cli(Request, args=[_underscored(argument) for argument in arguments])
    try:
        print(summary(prepare(**asdict(request)), request.out))
    except Error as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    return "--" + name.replace("-", "_") + equals + value


def summary(manifest: dict, out: str) -> str:
    """What was prepared, in a few lines; of bad lines the places and reasons, never the content."""
    lines = [f"{out}: {manifest['vocab_size']} ids, {manifest['dtype']}"]
    for split in ("train", "val"):
        counts = manifest[split]
        ratio = counts["bytes"] / max(counts["tokens"], 1)
        lines.append(f"{split}: {counts['documents']} documents, {counts['tokens']} tokens, {ratio:.2f} bytes a token")
    if manifest["duplicates"]:
        lines.append(f"left out: {manifest['duplicates']} exact duplicates")
    bad = manifest["bad"]
    if bad["total"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in bad["counts"].items())
        lines += [f"left out: {bad['total']} bad ({reasons}), the first:", *(f"  {place}" for place in bad["first"])]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
