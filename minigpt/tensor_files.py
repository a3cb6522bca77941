"""Tensors of a directory, in one safetensors file or in shards: read one at a time, written whole or not at all."""

import json
from pathlib import Path

import torch
from torch import Tensor

from minigpt.errors import Error
from minigpt.files import atomic_file

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


class TensorFiles:
    """The tensors of a directory, read one at a time from however many files; shapes and dtypes are known before."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.file_of, self.header = {}, {}
        for file in self._files():
            opened = self._open(file)
            for name in opened.keys():  # noqa: SIM118
                described = opened.get_slice(name)
                self.file_of[name], self.header[name] = file, (tuple(described.get_shape()), described.get_dtype())

    def _files(self) -> list[Path]:
        single, index = self.directory / SINGLE, self.directory / INDEX
        if single.is_file():
            return [single]
        if index.is_file():
            try:
                names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            except (ValueError, KeyError, AttributeError, TypeError, RecursionError, OSError):
                raise Error(f"{index}: not an index of safetensors files: download it again") from None
            # An index is a file from elsewhere: a name in it must not lead out of the directory.
            for name in names:
                if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
                    raise Error(f"{index}: names {name!r}, not a .safetensors file of this directory; refused")
            return [self.directory / name for name in names]
        if any(self.directory.glob("*.bin")):
            raise Error(f"{self.directory}: holds pickled weights (.bin), which can run code; convert to safetensors")
        raise Error(f"{self.directory}: no model.safetensors and no model.safetensors.index.json")

    def _open(self, file: Path):
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(file, framework="pt")
        except FileNotFoundError:
            raise Error(f"{file}: not found, but the index names it: download it again") from None
        except (SafetensorError, OSError) as problem:
            raise Error(f"{file}: not a readable safetensors file ({problem})") from None

    def read(self, name: str) -> Tensor:
        """One tensor, from its file."""
        return self._open(self.file_of[name]).get_tensor(name)

    def dtype(self) -> torch.dtype:
        """What the weights are stored in."""
        return self.read(min(name for name in self.file_of if not is_derived(name))).dtype


def is_derived(name: str) -> bool:
    """Buffers that old files carry and anyone can compute: causal masks, rotary frequencies."""
    return name.endswith((".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq"))


def write_tensors(path: Path, tensors: dict[str, Tensor]):
    """One safetensors file, under its name only once it is whole."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with atomic_file(path) as temporary:
        try:
            save_file(tensors, temporary, metadata={"format": "pt"})
        except SafetensorError as problem:  # a full disk
            raise Error(f"{path}: cannot write it: {problem}") from None


def file_names(directory: Path, count: int) -> list[str]:
    """Names for so many files. Shards that the index names keep theirs: they are the model until it names others."""
    if count == 1:
        return [SINGLE]
    names = [f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)]
    index = directory / INDEX
    live = index.read_text(encoding="utf-8", errors="replace") if index.is_file() else ""
    return [name.replace("model-", "model-b-") for name in names] if any(name in live for name in names) else names


def remove_others(directory: Path, written: set[str]):
    """Files of an earlier save that would now be read instead of, or beside, the new ones."""
    if len(written) == 1:
        (directory / INDEX).unlink(missing_ok=True)
    for pattern in (SINGLE, "model-?????-of-?????.safetensors", "model-b-?????-of-?????.safetensors"):
        for file in directory.glob(pattern):
            if file.name not in written:
                file.unlink()
