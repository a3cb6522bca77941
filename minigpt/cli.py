"""A command line and a config file from frozen dataclasses: one field, one option, one key.

    @dataclass(frozen=True)
    class Sampling:
        "Sampling: how the next token is chosen."

        temperature: float = 1.0  # below 1 sharper, 0 greedy

    sampling, = parse(Sampling, prog="sample.py")        # --temperature 0.8, or temperature: 0.8 in a file

The docstring heads a group of --help; its first line is the title. The comment behind a field is its help.
On the command line `-` and `_` in names are the same. Order of precedence: command line, --config file, default.
"""

import os
import re
import sys
import textwrap
import tomllib
from argparse import SUPPRESS, ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin

from jsonargparse import ActionYesNo, ArgumentParser

from minigpt import room
from minigpt.errors import Error, nearest
from minigpt.options import Option, collect, headline, to_yaml, type_name
from minigpt.yaml_files import read_yaml

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH"}


def parse(*records: type, prog: str, description: str = "", epilog: str = "", args: Sequence[str] | None = None):
    """One instance of each dataclass, in order, from `args` (sys.argv) and the file of --config.

    A field without a default must be given; `metadata={"positional": True}` makes it an argument without a name.
    `bool` gives --x and --no-x. `tuple[str, ...]` is an option to repeat; other tuples read `--x 1,3,5`. A field that
    two records share is one option. --config reads YAML or TOML with flat keys, --print-config writes one and exits.
    A wrong name or value raises `Error`; so does whatever the records check when they are built.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Shape:
    ...     n_layers: int = 2
    >>> parse(Shape, prog="x", args=["--n-layers", "4"])
    [Shape(n_layers=4)]
    """
    options = collect(records)
    parser = _parser(options, prog, description, epilog)
    words = _join(sys.argv[1:] if args is None else list(args), options)
    files = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    values = {name: option.default for name, option in options.items()}
    for file in files:
        values |= _read(Path(file), parser, options)
    values |= _given(parser, words, options)
    if "--print-config" in words:
        print(to_yaml({name: values[name] for name in options}, options), end="")
        raise SystemExit(0)
    for name, option in options.items():
        if values[name] is MISSING:
            raise Error(f"{option.spelling} is missing: give {option.help or type_name(option.hint)}; see --help")
    return [record(**{field.name: values[field.name] for field in fields(record)}) for record in records]


def dump(*records: Any) -> str:
    """The instances as YAML text, a comment above each key: what `--config` reads back.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Shape:
    ...     n_layers: int = 2  # blocks
    >>> dump(Shape(n_layers=4)).splitlines()[-1]
    'n_layers: 4'
    """
    options = collect([type(record) for record in records])
    values = {field.name: getattr(record, field.name) for record in records for field in fields(record)}
    return to_yaml(values, options)


def run(main: Callable[[], int | None], prog: str, *errors: type[Exception]) -> NoReturn:
    """Call `main` and leave: its code, 2 with one line on stderr for an `Error` (or one of `errors`, of other
    libraries) and where memory is at its end, 130 for Ctrl-C, 141 for a closed pipe.

    The last two are what a shell reports for programs that the signals end. Text goes in and out as UTF-8, whatever
    the terminal was set to: a note is not lost to a code page.
    """
    for channel in (sys.stdin, sys.stdout, sys.stderr):
        channel.reconfigure(encoding="utf-8")
    try:
        code = main() or 0
        sys.stdout.flush()
    except (Error, *errors) as problem:
        print(f"{prog}: {problem}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as problem:
        if (said := room.spent(problem)) is None:
            raise
        print(f"{prog}: {said}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        # Python flushes stdout once more on its way out, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


def _parser(options: dict[str, Option], prog: str, description: str, epilog: str) -> ArgumentParser:
    parser = ArgumentParser(
        prog=prog,
        description=textwrap.dedent(description).strip(),
        epilog=textwrap.dedent(epilog).strip(),
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        usage=" ".join(["%(prog)s", *(o.spelling for o in options.values() if o.positional), "[options]"]),
    )
    groups = {}
    for name, option in options.items():
        if option.record not in groups:
            title, _, rest = headline(option.record).partition("\n")
            groups[option.record] = parser.add_argument_group(title.rstrip("."), rest.strip() or None)
        groups[option.record].add_argument(*_argument_names(name, option), **_argument(option))
    general = parser.add_argument_group("General")
    general.add_argument("--config", metavar="FILE", default=SUPPRESS, help="YAML or TOML file of the options above")
    general.add_argument("--print-config", action="store_true", default=SUPPRESS, help="print such a file and exit")
    return parser


def _argument_names(name: str, option: Option) -> list[str]:
    return [name] if option.positional else [option.spelling]


def _argument(option: Option) -> dict[str, Any]:
    """The keywords of add_argument. Defaults are ours to fill in: a file comes between them and the command line."""
    keywords: dict[str, Any] = {"default": SUPPRESS, "help": (option.help + option.shown).strip().replace("%", "%%")}
    if option.hint is bool:
        return keywords | {"action": ActionYesNo(no_prefix="no-")}
    if option.positional:
        keywords |= {"nargs": "?"}
    plain = next((t for t in (option.hint, *get_args(option.hint)) if t in METAVARS), None)
    if plain and not option.positional:
        keywords["metavar"] = METAVARS[plain]
    if option.repeated:
        return keywords | {"action": "append", "type": str}
    return keywords | {"type": option.hint}


def _join(args: list[str], options: dict[str, Option]) -> list[str]:
    """Each option as one word, --name=value, dashes for underscores: a value may then begin with a dash."""
    known = {option.spelling for option in options.values() if not option.positional} | {"--config"}
    flags = {o.spelling for o in options.values() if o.hint is bool} | {"--print-config", "--help"}
    flags |= {"--no-" + flag[2:] for flag in flags}
    words, rest = [], iter(args)
    for word in rest:
        if not re.match(r"--[A-Za-z]", word):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in known | flags:
            raise Error(f"there is no option {name}: {nearest(name, known | flags)}")
        if name in flags:
            words.append(name + equals + value)
            continue
        if not equals and (value := next(rest, None)) is None:
            raise Error(f"{name} needs a value; see --help")
        option = options.get(name[2:].replace("-", "_"))
        words.append(f"{name}={_bracketed(value, option)}")
    return words


def _bracketed(value: str, option: Option | None) -> str:
    """1,3,5 as the list that a tuple is read from."""
    listed = option is not None and get_origin(option.hint) is tuple and not option.repeated
    return f"[{value}]" if listed and not value.startswith("[") else value


def _given(parser: ArgumentParser, words: list[str], options: dict[str, Option]) -> dict[str, Any]:
    """The values on the command line, in their types."""
    try:
        values = parser.parse_args(words).as_dict()
    except ArgumentError as problem:
        raise _translate(problem, options) from None
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items() if name in options}


def _translate(problem: ArgumentError, options: dict[str, Option]) -> Error:
    """jsonargparse names its key and explains the type at length; one sentence is enough."""
    key = re.search(r'Parser key "(\w+)"', str(problem))
    if key is None:
        return Error(f"{problem.message or problem}; see --help")
    option = options[key[1]]
    value = re.search(r"[Vv]alue: (.*)\Z", str(problem))
    return Error(f"{option.spelling} is {value[1] if value else '?'}: expected {type_name(option.hint)}")


def _read(file: Path, parser: ArgumentParser, options: dict[str, Option]) -> dict[str, Any]:
    """The values of a config file, in their types; every key must be known."""
    content = _read_toml(file) if file.suffix == ".toml" else read_yaml(file, "config file")
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise Error(f"{file}: expected lines of 'key: value', found {type(content).__name__}")
    values = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in options:
            raise Error(f"{file}: there is no key {str(key)!r}: {nearest(name, options)}")
        values[name] = _typed(file, name, value, parser, options[name])
    return values


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise Error(f"{file}: cannot read the config file: {getattr(problem, 'strerror', None) or problem}") from None
    except (ValueError, RecursionError) as problem:
        raise Error(f"{file}: not valid TOML: {' '.join(str(problem).split())}") from None


def _typed(file: Path, name: str, value: Any, parser: ArgumentParser, option: Option) -> Any:
    wrong = Error(f"{file}: {name} is {value!r}: expected {type_name(option.hint)}")
    if option.repeated:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise wrong
        return tuple(value)
    if option.hint is bool and not isinstance(value, bool):
        raise wrong  # jsonargparse would take the text "yes", and YAML has a true
    try:
        return parser.parse_object({name: value})[name]
    except ArgumentError:
        raise wrong from None
