"""A safetensors checkpoint of any size, read and written a block of rows at a time.

A checkpoint is a directory with model.safetensors, or with model.safetensors.index.json and the shards it names, or a
single .safetensors file. A file of this format is 8 bytes with the length of a JSON header, the header (name -> dtype,
shape, offsets), and the numbers, row by row.

Why not the library's own slices: they come out of a memory map, and every page that was touched counts as this
process's memory until the file is closed. Reading into a buffer keeps a 7B checkpoint at a few MiB. The library still
opens each file first, and so checks the header: lengths, offsets that overlap, shapes that do not fit.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from lora.errors import Error
from lora.storage import open_tensors

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
BLOCK = 1 << 22  # bytes read at a time where no arithmetic sets the size
PREFIXES = ("transformer.", "model.")  # that some files have before every name, and some lack
EMBEDDINGS = ("wte", "embed_tokens", "tokens_embed", "word_embeddings", "embed_in")
HEAD = "lm_head.weight"
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies: `start` is the position of its first byte in `file`, `code` the format's dtype."""

    file: Path
    code: str
    shape: tuple[int, ...]
    start: int
    nbytes: int

    @property
    def dtype(self) -> torch.dtype | None:
        """None for a format that torch cannot hold here (8-bit floats): such tensors are bytes."""
        return DTYPES.get(self.code)

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


class Rows:
    """A weight on disk that looks like a tensor to whoever takes blocks of its rows: `weight[rows]`."""

    def __init__(self, checkpoint: "Checkpoint", name: str):
        self.checkpoint, self.name = checkpoint, name
        self.shape, self.dtype = checkpoint.entries[name].shape, checkpoint.entries[name].dtype
        self.device = torch.device("cpu")
        self._last = (None, None)

    def __getitem__(self, rows: slice) -> Tensor:
        if self._last[0] != rows:  # truth, size and doubt ask for the same block in turn
            self._last = (rows, self.checkpoint.rows(self.name, rows))
        return self._last[1]


class Checkpoint:
    """The tensors of a checkpoint: `entries` by name, in the order they lie; no number is read before it is asked for.

    path     the directory or the file, as given
    files    its weight files, in order
    config   config.json beside it, {} without one
    Raises `Error` for what is not there, not safetensors, damaged, or named so as to lead out of the directory.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.files = _weight_files(self.path)
        folder = self.path if self.path.is_dir() else self.path.parent
        self.config = _json(folder / "config.json") if (folder / "config.json").is_file() else {}
        self.entries: dict[str, Entry] = {}
        self.metadata: dict[Path, dict] = {}
        self._opened = {}
        for file in self.files:
            entries, self.metadata[file] = _header(file)
            if twice := entries.keys() & self.entries.keys():
                other = self.entries[min(twice)].file.name
                raise Error(f"{file}: tensor {min(twice)!r} is also in {other}: which one counts? Save the model again")
            self.entries |= entries
        self._check_index()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for opened in self._opened.values():
            opened.close()
        self._opened.clear()

    @property
    def indexed(self) -> bool:
        """Whether an index names the files."""
        return self.path.is_dir() and self.files != [self.path / SINGLE]

    def _check_index(self):
        index = self.path / INDEX
        if not self.indexed:
            return
        for name, file in _json(index)["weight_map"].items():
            if name not in self.entries or self.entries[name].file.name != file:
                raise Error(f"{index}: tensor {name!r} should be in {file} and is not: the download is incomplete")

    def bytes(self, name: str, start: int, stop: int) -> Tensor:
        """uint8: these bytes of a tensor."""
        entry = self.entries[name]
        if entry.file not in self._opened:
            self._opened[entry.file] = entry.file.open("rb", buffering=0)
        opened = self._opened[entry.file]
        block = torch.empty(stop - start, dtype=torch.uint8)
        view = memoryview(block.numpy())
        try:
            opened.seek(entry.start + start)
            while len(view):
                if not (got := opened.readinto(view)):
                    raise Error(f"{entry.file}: ends inside {name}: the file changed while it was read")
                view = view[got:]
        except OSError as problem:
            raise Error(f"{entry.file}: cannot be read: {problem.strerror}") from None
        return block

    def rows(self, name: str, rows: slice) -> Tensor:
        """These rows of a tensor, in its own dtype."""
        entry = self.entries[name]
        width = entry.nbytes // entry.shape[0]
        block = self.bytes(name, rows.start * width, rows.stop * width)
        return block.view(entry.dtype).view(rows.stop - rows.start, *entry.shape[1:])

    def tensor(self, name: str) -> Tensor:
        """The whole tensor, in memory."""
        entry = self.entries[name]
        return self.bytes(name, 0, entry.nbytes).view(entry.dtype).view(entry.shape)

    def find(self, name: str) -> str | None:
        """The name of this tensor here: files of one model differ in a leading "transformer." or "model."."""
        if name in self.entries:
            return name
        near = {prefix + name for prefix in PREFIXES} | {name.removeprefix(prefix) for prefix in PREFIXES}
        near = sorted(near & self.entries.keys())
        if len(near) > 1:
            raise Error(f"{self.path}: {name!r} could be {' or '.join(map(repr, near))}: rename one of them")
        return near[0] if near else None

    @property
    def embedding(self) -> str | None:
        """The name of the token embedding, if there is exactly one that can be it."""
        found = [name for name in self.entries if name.removesuffix(".weight").rpartition(".")[2] in EMBEDDINGS]
        return found[0] if len(found) == 1 else None

    @property
    def ties(self) -> bool | None:
        """tie_word_embeddings of config.json; None where it is not said."""
        text = self.config.get("text_config")
        said = self.config.get("tie_word_embeddings", (text or {}).get("tie_word_embeddings"))
        return None if said is None else bool(said)

    @cached_property
    def tied(self) -> bool:
        """Whether head and embedding are one matrix: the head is not stored, or is stored again with the same bits."""
        head, embedding = self.find(HEAD), self.embedding
        if embedding is None or self.ties is False:
            return False
        return head is None or same_bits(self, head, self, embedding)


def same_bits(left: Checkpoint, name: str, right: Checkpoint, other: str) -> bool:
    """Whether two stored tensors are equal in dtype, shape and every bit."""
    a, b = left.entries[name], right.entries[other]
    if (a.code, a.shape) != (b.code, b.shape):
        return False
    return all(torch.equal(left.bytes(name, *part), right.bytes(other, *part)) for part in spans(a.nbytes))


def spans(nbytes: int) -> Iterable[tuple[int, int]]:
    """(start, stop) of blocks of bytes; a block holds whole numbers of any dtype."""
    return ((start, min(start + BLOCK, nbytes)) for start in range(0, nbytes, BLOCK))


def _weight_files(path: Path) -> list[Path]:
    if path.is_file():
        if path.suffix != ".safetensors":
            raise Error(f"{path}: expected a .safetensors file; a pickle (.bin, .pt) can run code and is not read")
        return [path]
    if (path / SINGLE).is_file():
        return [path / SINGLE]
    if (path / INDEX).is_file():
        names = _json(path / INDEX).get("weight_map")
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise Error(f"{path / INDEX}: weight_map is missing or not a map from tensors to files")
        for name in sorted(set(names.values())):
            if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
                raise Error(f"{path / INDEX}: names the file {name!r}, expected a .safetensors file in this directory")
        return [path / name for name in sorted(set(names.values()))]
    if path.is_dir() and any(path.glob("*.bin")):
        raise Error(f"{path}: holds pickled weights (.bin), which can run code; convert them to safetensors")
    raise Error(f"{path}: no checkpoint here: expected a directory with {SINGLE} or {INDEX}, or a .safetensors file")


def _json(path: Path) -> dict:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as problem:
        raise Error(f"{path}: not valid JSON ({problem})") from None
    if not isinstance(values, dict):
        raise Error(f"{path}: expected a JSON object, found {type(values).__name__}")
    return values


def _header(file: Path) -> tuple[dict[str, Entry], dict]:
    with open_tensors(file), file.open("rb") as opened:  # opening it checks it
        length = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(length))
    metadata = header.pop("__metadata__", {})
    entries = {}
    for name, found in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        start, stop = found["data_offsets"]
        entries[name] = Entry(file, found["dtype"], tuple(found["shape"]), 8 + length + start, stop - start)
    return entries, metadata


def write_tensors(file: Path, shapes: dict[str, tuple[str, tuple[int, ...], int]], metadata: dict, blocks):
    """Write a safetensors file without holding it: `shapes` name -> (dtype code, shape, bytes), in the order written.

    `blocks(name)` yields the tensor's numbers in order. The header is padded so that the numbers start on 8 bytes.
    """
    header, start = {"__metadata__": metadata} if metadata else {}, 0
    for name, (code, shape, nbytes) in shapes.items():
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, start + nbytes]}
        start += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in shapes:
            for block in blocks(name):
                out.write(memoryview(block.contiguous().view(-1).view(torch.uint8).numpy()))
