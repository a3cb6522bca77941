"""One field of a dataclass as one option of the command line and one key of a config file."""

import ast
import inspect
import io
import textwrap
import tokenize
import types
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml


@dataclass(frozen=True)
class Option:
    """One field as the command line sees it."""

    field: Field
    hint: Any  # its type
    help: str
    record: type  # where it was met first

    @property
    def default(self):
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return self.field.default

    @property
    def positional(self) -> bool:
        return self.field.metadata.get("positional", False)

    @property
    def spelling(self) -> str:
        name = self.field.name
        return name.upper() if self.positional else "--" + name.replace("_", "-")

    @property
    def repeated(self) -> bool:
        return self.hint == tuple[str, ...]

    @property
    def shown(self) -> str:
        """The default for --help; empty where there is none worth reading."""
        value = self.default
        if value is MISSING or value is None or value is False or value == ():
            return ""
        return f" (default: {','.join(map(str, value)) if isinstance(value, tuple) else value})"


def collect(records: Sequence[type]) -> dict[str, Option]:
    options: dict[str, Option] = {}
    for record in records:
        if not is_dataclass(record):
            raise TypeError(f"{record!r} is not a dataclass")
        hints, comments = get_type_hints(record), _comments(record)
        for field in fields(record):
            option = Option(field, hints[field.name], comments.get(field.name, ""), record)
            first = options.setdefault(field.name, option)
            if (first.hint, first.default) != (option.hint, option.default):
                raise TypeError(f"{field.name} has one meaning in {first.record} and another in {record}")
    return options


def _comments(record: type) -> dict[str, str]:
    """The comment at the end of each field's line. Without the source (a frozen program, a prompt) there is none."""
    found: dict[str, str] = {}
    for cls in reversed(record.__mro__):
        try:
            source = textwrap.dedent(inspect.getsource(cls))
            words = list(tokenize.generate_tokens(io.StringIO(source).readline))
            made = ast.parse(source).body[0]
        except (OSError, TypeError, SyntaxError, tokenize.TokenError):
            continue
        if not isinstance(made, ast.ClassDef) or made.name != cls.__name__:
            continue  # of a class made at a prompt Python 3.13 takes some other lines for its own
        by_line = {w.start[0]: w.string.lstrip("# ") for w in words if w.type == tokenize.COMMENT}
        for node in made.body:
            if isinstance(node, ast.AnnAssign) and node.end_lineno in by_line:
                found[node.target.id] = by_line[node.end_lineno]
    return found


def headline(record: type) -> str:
    """The docstring up to its first example."""
    text = (inspect.getdoc(record) or "").partition(">>>")[0].strip()
    generated = text.startswith(f"{record.__name__}(")  # what @dataclass writes where there is no docstring
    return record.__name__ if generated or not text else text


def to_yaml(values: dict[str, Any], options: dict[str, Option]) -> str:
    """Flat keys with their help above them; what must still be given is commented out."""
    lines = []
    for name, value in values.items():
        if options[name].help:
            lines.append(f"# {options[name].help}")
        # A list of one in flow style is a value on one line, whatever its type.
        text = yaml.safe_dump([_plain(value)], default_flow_style=True, allow_unicode=True, width=float("inf"))
        lines.append(f"# {name}:" if value is MISSING else f"{name}: {text.strip()[1:-1]}")
    return "".join(line + "\n" for line in lines)


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) or value is MISSING else value


def type_name(hint: Any) -> str:
    """A type in words: "a whole number or null"."""
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(map(type_name, get_args(hint)))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        first, *rest = get_args(hint)
        size = "any number" if Ellipsis in rest else str(1 + len(rest))
        return f"a list of {size}, each {type_name(first)}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return "null" if hint is type(None) else words.get(hint, str(hint))
