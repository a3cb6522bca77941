"""A directory of tokens, opened without reading it: memory maps of train.bin and val.bin, checked by the manifest."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from minigpt.errors import Error
from minigpt.tokenizer import Tokenizer

FORMAT = 1
_AGAIN = "run data/prepare.py again"


@dataclass(frozen=True)
class Tokens:
    """Token ids of the two splits, 1-D read-only arrays on the disk, and what the manifest says of them.

    Layout of each: EOT doc EOT doc EOT ..., one EOT between documents. `manifest["val"]["bytes"]` are the UTF-8 bytes
    behind the tokens, for bits per byte.
    """

    directory: Path
    train: np.ndarray
    val: np.ndarray
    vocab_size: int
    eot: int
    manifest: dict

    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the tokens; Error when the one in the directory has other ids."""
        tokenizer = Tokenizer.load(self.directory)
        if (tokenizer.vocab_size, tokenizer.eot) != (self.vocab_size, self.eot):
            raise Error(
                f"{self.directory}: tokenizer.json has {tokenizer.vocab_size} ids and EOT {tokenizer.eot}, the tokens "
                f"were made with {self.vocab_size} and {self.eot}: {_AGAIN}"
            )
        return tokenizer


def load_tokens(directory: str | Path, verify: bool = False) -> Tokens:
    """Open what `prepare` wrote. Sizes are always checked; with `verify` also the hashes and that every id is in range.

    Error when the directory is incomplete or a file is not the one the manifest describes.
    """
    directory = Path(directory)
    manifest = read_manifest(directory)
    splits = {}
    for name in ("train", "val"):
        path = directory / f"{name}.bin"
        dtype = np.dtype(manifest["dtype"]).newbyteorder("<")
        splits[name] = np.memmap(path, dtype=dtype, mode="r")
        if verify:
            _verify(path, splits[name], manifest[name]["sha256"], manifest["vocab_size"])
    return Tokens(directory, splits["train"], splits["val"], manifest["vocab_size"], manifest["eot"], manifest)


def read_manifest(directory: Path) -> dict:
    """manifest.json of `directory`, when the sizes of both .bin files agree with it."""
    path = directory / "manifest.json"
    if not path.is_file():
        raise Error(f"{directory}: holds no tokens (no manifest.json): make them with data/prepare.py")
    try:
        manifest = json.loads(path.read_bytes())
        if manifest["format"] != FORMAT:
            raise Error(f"{path}: format {manifest['format']}, expected {FORMAT}: {_AGAIN}")
        width = {"uint16": 2, "uint32": 4}[manifest["dtype"]]
        expected = {name: manifest[name]["tokens"] * width for name in ("train", "val")}
        for name, size in expected.items():
            str.encode(manifest[name]["sha256"])
            if type(size) is not int or size < width:  # each split begins with an EOT
                raise ValueError
        if type(manifest["vocab_size"]) is not int or type(manifest["eot"]) is not int:
            raise ValueError
        if not 0 <= manifest["eot"] < manifest["vocab_size"] <= 256**width:
            raise Error(f"{path}: {manifest['vocab_size']} ids do not fit {manifest['dtype']}: {_AGAIN}")
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise Error(f"{path}: not a manifest of tokens ({type(problem).__name__}): {_AGAIN}") from None
    for name, size in expected.items():
        file = directory / f"{name}.bin"
        found = file.stat().st_size if file.is_file() else "no file"
        if found != size:
            raise Error(f"{file}: expected {size} bytes, found {found}: it is damaged: {_AGAIN}")
    return manifest


def _verify(path: Path, tokens: np.ndarray, sha256: str, vocab_size: int) -> None:
    digest, step = hashlib.sha256(), 2**22
    for start in range(0, len(tokens), step):
        part = tokens[start : start + step]
        digest.update(part.tobytes())
        if part.max() >= vocab_size:
            at = start + int(part.argmax())
            raise Error(f"{path}: token {at} is {tokens[at]}, expected an id below {vocab_size}: {_AGAIN}")
    if digest.hexdigest() != sha256:
        raise Error(f"{path}: its sha256 is not the one in manifest.json: it is damaged: {_AGAIN}")
