"""Files and directories that are either complete or not there at all.

Everything is written under a temporary name beside the target (`name.tmp-...`), flushed to the disk, then renamed.
A crash leaves at most a `*.tmp-*` to delete, never a half-written file under the real name.
"""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minigpt.errors import Error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


def write_atomic(path: str | Path, data: bytes | str) -> None:
    r"""Write `data` (text as UTF-8, newlines unchanged) to `path`, complete or not at all; parents are created.

    Raises Error when the disk is full, the path is a directory or the folder is not writable.

    >>> import tempfile; folder = Path(tempfile.mkdtemp())
    >>> write_atomic(folder / "runs/note.txt", "咳嗽\n")
    >>> (folder / "runs/note.txt").read_bytes().decode(), len(list((folder / "runs").iterdir()))
    ('咳嗽\n', 1)
    """
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode("utf-8") if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """A temporary path for the body to write one file to; synced and renamed to `path` when the body ends well.

    For writers that want a file name (safetensors, matplotlib). On any exception the temporary file is removed and
    what was at `path` before stays. Raises Error when the place cannot be written or the body wrote nothing.
    """
    path = Path(path)
    temporary = _temporary_beside(path)
    with as_error("write", path):
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; safetensors would leave 0600
        temporary.unlink()
    try:
        with as_error("write", path):
            yield temporary
            if not temporary.is_file():
                raise Error(f"{path}: nothing was written")
            temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: str | Path, replace: bool = False) -> Iterator[Path]:
    """An empty temporary directory for the body to fill; synced and renamed to `path` when the body ends well.

    With `replace`, a directory already at `path` gives way to the new one: it is renamed away first and removed last,
    so a crash between the two renames leaves both, complete, under `*.tmp-*` names. On any exception in the body
    the temporary directory is removed and the old one stays. Raises Error when `path` is taken or cannot be written.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise Error(f"{path}: is a file, expected a directory or nothing: choose another name")
    if not replace and path.is_dir() and any(path.iterdir()):
        raise Error(f"{path}: already exists and is not empty: remove it or choose another name")
    temporary = _temporary_beside(path)
    old = None
    try:
        with as_error("create", path):
            temporary.mkdir()
        with as_error("write", path):
            yield temporary
            for root, _, names in os.walk(temporary):
                for name in names:
                    _sync(Path(root, name))
                _sync(Path(root))
            old = _swap(temporary, path)
            _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if old is not None:
            shutil.rmtree(old, ignore_errors=True)


@contextmanager
def alone(directory: str | Path) -> Iterator[None]:
    """Inside, whoever else asks to be alone in this directory, in any process, gets an `Error`.

    The kernel holds the lock, and lets go of it when the process ends, however it ends. Without fcntl there is none.
    """
    if fcntl is None:
        yield
        return
    file = Path(directory, ".lock")
    with as_error("write into", directory):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = _locked(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)  # while it is held: the next one makes its own
        os.close(descriptor)


def _locked(file: Path) -> int:
    """A descriptor of the file that stands there now, locked."""
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if file.exists() and os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise Error(
                f"{file.parent}: another process is writing here: wait for it, or choose another name"
            ) from None
        os.close(descriptor)  # it was taken away between the two calls


def _swap(temporary: Path, path: Path) -> Path | None:
    """Rename `temporary` to `path`; returns where the former `path` went, None if there was none."""
    old = None
    if path.is_dir():
        old = _temporary_beside(path)
        path.rename(old)
    try:
        temporary.rename(path)
    except OSError:
        if old is not None:
            old.rename(path)
        raise
    return old


def _temporary_beside(path: Path) -> Path:
    # Beside the target: a rename is atomic only within one file system. Not mkstemp: its mode 0600 would stay.
    with as_error("create the folder of", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f"{path.name}.tmp-{os.getpid()}-{secrets.token_hex(4)}")


def _sync(path: Path) -> None:
    # Windows cannot open a directory; its renames are journalled without this.
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def as_error(verb: str, path: str | Path) -> Iterator[None]:
    """Inside, what the system refuses (a full disk, a place that is not ours) is an `Error` with its reason."""
    try:
        yield
    except OSError as problem:
        raise Error(f"{path}: cannot {verb} it: {problem.strerror or problem}") from problem
