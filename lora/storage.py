"""Files that are whole or not there: safetensors opened safely, a directory written under a temporary name."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lora.errors import Error


@contextmanager
def open_tensors(file: Path) -> Iterator[safe_open]:
    """A safetensors file to read from; whatever is wrong with it is an `Error` with its name."""
    try:
        with safe_open(file, framework="pt") as source:
            yield source
    except FileNotFoundError:
        raise Error(f"{file}: not found") from None
    except (SafetensorError, OSError) as problem:
        raise Error(f"{file}: not a readable safetensors file ({problem})") from None


def write_directory(directory: Path, texts: dict[str, str], tensors: dict[str, tuple[dict[str, Tensor], dict]]):
    """Write text files and safetensors files (tensors, metadata) into a directory, each whole or not at all.

    All are complete under temporary names before the first is renamed to its own.
    """
    end = f".tmp-{os.getpid()}-{secrets.token_hex(4)}"
    written = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, (content, metadata) in tensors.items():
            written.append((directory / (name + end), directory / name))
            save_file(content, written[-1][0], metadata=metadata)
        for name, text in texts.items():
            written.append((directory / (name + end), directory / name))
            written[-1][0].write_text(text, encoding="utf-8")
        for temporary, _ in written:
            _sync(temporary)
        for temporary, name in written:
            temporary.replace(name)
    except (OSError, SafetensorError) as problem:
        raise Error(f"{directory}: cannot be written: {getattr(problem, 'strerror', None) or problem}") from None
    finally:
        for temporary, _ in written:
            temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(directory: Path) -> Iterator[Path]:
    """A temporary directory that becomes `directory` when the body ends well; `directory` must be new or empty."""
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise Error(f"{directory}: already exists: remove it or choose another name")
    temporary = directory.with_name(f"{directory.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            _sync(file)
        temporary.rename(directory)
    except OSError as problem:
        raise Error(f"{directory}: cannot be written: {problem.strerror or problem}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(file: Path):
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())
