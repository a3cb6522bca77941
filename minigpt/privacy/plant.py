"""python -m minigpt.privacy.plant NOTES OUT: a copy of a .jsonl with secrets in it, to see what a model keeps."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from minigpt.cli import parse, run
from minigpt.errors import Error
from minigpt.files import write_atomic

DESCRIPTION = """
Writes invented secrets (canaries) as lines of their own into notes drawn at random, each into as many as --times says,
and what they are into a file of its own. Train on the copy, then measure: a model meant for others is trained on the
notes without them. Only notes are chosen that train.py trains on, at any --validation up to 0.5.
"""
EXAMPLES = """
examples:
  python -m minigpt.privacy.plant notes.jsonl planted.jsonl --field note --plant 4 --times 1 --times 10
  python train.py --data planted.jsonl --field note --out runs/planted
  python -m minigpt.privacy runs/planted --secrets planted.secrets.jsonl
"""


@dataclass(frozen=True, kw_only=True)
class Planting:
    """Planting: what, where, how often."""

    source: str = field(metadata={"positional": True})  # a .jsonl of notes
    out: str = field(metadata={"positional": True})  # the copy to write, a .jsonl
    field: str = "text"  # field of the text
    plant: int = 2  # different secrets for each of --times
    times: tuple[str, ...] = ("10",)  # in how many notes each is written; repeat it for several
    format: str = "The locker of this patient is {0000}."  # in braces what is secret: a digit or letter stands for any
    secrets: str | None = None  # where to write what was planted; by default OUT with .secrets.jsonl
    seed: int = 0  # of the secrets and of the notes they go to


def main() -> None:
    (request,) = parse(Planting, prog="python -m minigpt.privacy.plant", description=DESCRIPTION, epilog=EXAMPLES)
    from minigpt.privacy.canaries import Canary, draw

    times = _counts(request.times)
    texts = iter(draw(request.format, request.plant * len(times), request.seed))
    canaries = [Canary(next(texts), count) for count in times for _ in range(request.plant)]
    source, out = Path(request.source), Path(request.out)
    if out.resolve() == source.resolve():
        raise Error(f"{out}: is the file of the notes itself: name another for the copy")
    records = _records(source, request.field)
    for canary in canaries:
        plant(records, request.field, canary.planted, canary.times, f"{request.seed} {canary.text}")
    secrets = Path(request.secrets) if request.secrets else out.with_suffix(".secrets.jsonl")
    lines = (json.dumps({"text": c.text, "times": c.times}, ensure_ascii=False) for c in canaries)
    write_atomic(secrets, "".join(f"{line}\n" for line in lines))
    write_atomic(out, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    print(f"{out}: {len(records)} notes, {len(canaries)} secrets in {sum(c.times for c in canaries)} places\n{secrets}")


def plant(records: list[dict], field: str, text: str, times: int, seed: str) -> None:
    """Write `text` as a line into `times` of the notes, after a line drawn at random. Error for too few notes."""
    from minigpt.corpus.split import hash_of

    source, left = random.Random(seed), times
    for record in source.sample(records, len(records)):
        if not left:
            return
        lines = record[field].split("\n")
        lines.insert(source.randint(1, len(lines)), text)
        planted = "\n".join(lines)
        if hash_of(planted)[1] >= 2**63 and text not in record[field]:  # on the training side (split.py)
            record[field], left = planted, left - 1
    if left:
        raise Error(f"--times is {times}, the notes have room for {times - left}: about half of them can be used")


def _counts(times: Sequence[str]) -> list[int]:
    try:
        found = [int(count) for word in times for count in word.split(",")]
    except ValueError:
        found = [0]
    if min(found) < 1:
        raise Error(f"--times is {', '.join(times)}: give whole numbers from 1, as --times 1 --times 10")
    return found


def _records(source: Path, field: str) -> list[dict]:
    """Every line of a .jsonl; Error by line, never by content."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise Error(f"{source}: cannot read it as UTF-8 text: give a .jsonl of notes") from None
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record[field], str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            raise Error(f"{source}:{number}: no JSON object with the text field {field!r}") from None
        records.append(record)
    return records


if __name__ == "__main__":
    run(main, "python -m minigpt.privacy.plant")
