"""YAML as people write it, read so that no file can do more than say values."""

from pathlib import Path
from typing import Any

import yaml

from minigpt.errors import Error

DEEPEST = 50  # what is within what


def read_yaml(file: Path, what: str) -> Any:
    """The values of a YAML file; `Error` for one that is none, `what` says of what.

    Aliases (`*name`) are refused: ten lines of them can stand for a thousand million values. So is what is nested
    deeper than any settings are: the time that PyYAML takes grows with the square of the depth.
    """
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        raise Error(f"{file}: cannot read the {what}: {getattr(problem, 'strerror', None) or problem}") from None
    try:
        if reason := _refused(text):
            raise Error(f"{file}: refused: {reason}")
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as problem:  # ValueError: a date that is none, a number too long
        raise Error(f"{file}: not valid YAML: {' '.join(str(problem).split())}") from None


def _refused(text: str) -> str:
    """Why these words are not even parsed, or ""."""
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        depth += isinstance(token, _OPEN) - isinstance(token, _CLOSE)
        if depth > DEEPEST:
            return f"it is nested more than {DEEPEST} deep"
        if isinstance(token, yaml.AliasToken):
            return "it holds an alias (*name): write the value in its place"
    return ""


_OPEN = (
    yaml.FlowMappingStartToken, yaml.FlowSequenceStartToken, yaml.BlockMappingStartToken, yaml.BlockSequenceStartToken,
)  # fmt: skip
_CLOSE = (yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken, yaml.BlockEndToken)
