"""Files of prompts: one a line, or the field "prompt" of each line of a .jsonl file."""

import json
from pathlib import Path

from minigpt.corpus.foreign import decoded
from minigpt.corpus.usable import Unusable
from minigpt.errors import Error


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, blank lines left out; or the field "prompt" of each line of a .jsonl file."""
    return [record["prompt"] for _, record in read_records(file)]


def read_records(file: Path) -> list[tuple[str, dict]]:
    """Where each prompt stands, and its record: the line alone, or the object that it holds."""
    try:
        text = decoded(file.read_bytes())
    except OSError as problem:
        raise Error(f"{file}: cannot read the prompts: {problem.strerror}") from None
    if isinstance(text, Unusable):
        raise Error(f"{file}: cannot read the prompts: {text.reason}")
    lines = text.split("\n")  # not splitlines: U+2028 and its like are text
    numbered = [(number, line.rstrip("\r")) for number, line in enumerate(lines, start=1) if line.strip()]
    if not numbered:
        raise Error(f"{file}: holds no prompts: write one a line")
    if file.suffix != ".jsonl":
        return [(f"{file}:{number}", {"prompt": line}) for number, line in numbered]
    return [(f"{file}:{number}", _record_of(line, f"{file}:{number}")) for number, line in numbered]


def _record_of(line: str, where: str) -> dict:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as problem:
        raise Error(f"{where}: not valid JSON ({problem})") from None
    if not isinstance(found, dict) or not isinstance(found.get("prompt"), str):
        raise Error(f'{where}: expected an object with the text field "prompt", such as {{"prompt": "Dx:"}}')
    return found
