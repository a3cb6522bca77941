"""Turn your files into tokens: python data/prepare.py notes.jsonl tokens/notes --field note

The source is a .txt file, a folder of them, or a .jsonl, .csv or .parquet file with a named field.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

if __name__ == "__main__":  # a checkout works without being installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from minigpt.cli import parse, run

EXAMPLES = """
examples:
  python data/prepare.py notes/ tokens/notes                         a folder of .txt files
  python data/prepare.py notes.jsonl tokens/notes --field note       one field of each line
  python data/prepare.py notes.csv tokens/gpt2 --field text --tokenizer gpt2
then:
  python train.py --data tokens/notes
"""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Tokens: from what, to where, and how."""

    source: str = field(metadata={"positional": True})  # a .txt, .jsonl, .csv or .parquet file, or a folder of .txt
    out: str = field(metadata={"positional": True})  # the directory to write: tokens, manifest.json, tokenizer
    field: str | None = None  # which field of a .jsonl, .csv or .parquet file holds the text
    tokenizer: str | None = None  # gpt2, cl100k_base, o200k_base or a directory; else one is learned from the text
    vocab_size: int = 4096  # ids of a learned tokenizer, at most
    validation: float = 0.1  # share of the documents kept for validation
    on_bad: str = "skip"  # lines that cannot be used: skip (and count) or refuse
    where: tuple[str, ...] = ()  # only records with type=radiology, or type!=radiology; repeat it for more conditions
    progress: bool = True  # show progress bars
    identifiers_check: bool = True  # count what looks like names, telephone numbers, IDs; never shown, only counted


def main() -> None:
    (request,) = parse(Request, prog="prepare.py", description="Turn text into tokens for training.", epilog=EXAMPLES)
    from minigpt.corpus.preparation import prepare
    from minigpt.privacy.identifiers import warning

    manifest = prepare(**asdict(request))
    print(summary(manifest, request.out))
    if found := warning(manifest["identifiers"]):
        print(f"warning: {request.source} {found}", file=sys.stderr)


def summary(manifest: dict, out: str) -> str:
    """What was prepared, in a few lines; of bad lines the places and reasons, never the content."""
    lines = [f"{out}: {manifest['vocab_size']} ids, {manifest['dtype']}"]
    for split in ("train", "val"):
        counts = manifest[split]
        ratio = counts["bytes"] / max(counts["tokens"], 1)
        lines.append(f"{split}: {counts['documents']} documents, {counts['tokens']} tokens, {ratio:.2f} bytes a token")
    if manifest["duplicates"]:
        lines.append(f"left out: {manifest['duplicates']} exact duplicates")
    for kind, count in manifest["unread"].items():
        lines.append(f"left out: {count} {kind}, only read when named itself")
    bad = manifest["bad"]
    if bad["total"]:
        reasons = ", ".join(f"{count} {reason}" for reason, count in bad["counts"].items())
        lines += [f"left out: {bad['total']} bad ({reasons}), the first:", *(f"  {place}" for place in bad["first"])]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, "prepare.py")
