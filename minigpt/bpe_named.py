"""The published vocabularies, gpt2, cl100k_base and o200k_base, from tiktoken's cache on this machine."""

import base64
import hashlib
import os
import tempfile
from pathlib import Path

from minigpt.bpe import Vocabulary, byte_characters, to_bytes
from minigpt.bpe_files import CL100K, EOT, GPT2, O200K, read_bytes
from minigpt.errors import Error, nearest

_BLOBS = "https://openaipublic.blob.core.windows.net/"
# name: file in the blob store, its sha256 (from tiktoken_ext/openai_public.py), pattern, specials
_NAMED = {
    "gpt2": (
        "gpt-2/encodings/main/vocab.bpe",
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        GPT2,
        {EOT: 50256},
    ),
    "cl100k_base": (
        "encodings/cl100k_base.tiktoken",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        CL100K,
        {
            EOT: 100257,
            "<|fim_prefix|>": 100258,
            "<|fim_middle|>": 100259,
            "<|fim_suffix|>": 100260,
            "<|endofprompt|>": 100276,
        },
    ),
    "o200k_base": (
        "encodings/o200k_base.tiktoken",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        O200K,
        {EOT: 199999, "<|endofprompt|>": 200018},
    ),
}


def read_named(name: str) -> Vocabulary:
    """The vocabulary of a published tokenizer from tiktoken's cache folder; never from the network.

    The file is read here and not by tiktoken, which deletes a cached file whose hash is wrong and downloads it again.
    """
    if name not in _NAMED:
        raise Error(f"tokenizer {name!r} is not known: {nearest(name, _NAMED)}")
    blob, sha256, pattern, specials = _NAMED[name]
    path = _cache_path(_BLOBS + blob)
    if not path.is_file():
        raise Error(
            f"tokenizer {name!r}: {path} is not there, and nothing is downloaded: fetch {_BLOBS + blob} elsewhere, "
            f"put it there under that name, or set TIKTOKEN_CACHE_DIR to the folder that has it"
        )
    data = read_bytes(path)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Error(f"tokenizer {name!r}: {path} is damaged: its sha256 is not {sha256}: replace it by {_BLOBS + blob}")
    if name == "gpt2":
        lines = [line.split(" ") for line in data.decode().split("\n")[1:-1]]
        return Vocabulary(_gpt2_ranks(lines), pattern, dict(specials))
    lines = [line.split() for line in data.splitlines() if line]
    return Vocabulary({base64.b64decode(token): int(rank) for token, rank in lines}, pattern, dict(specials))


def _gpt2_ranks(merges: list[list[str]]) -> dict[bytes, int]:
    # encoder.json says the same: bytes in the order of their characters, then one token a merge.
    tokens = [*sorted(byte_characters()), *(a + b for a, b in merges)]
    return {to_bytes(token): i for i, token in enumerate(tokens)}


def _cache_path(url: str) -> Path:
    folder = os.environ.get("TIKTOKEN_CACHE_DIR") or os.environ.get("DATA_GYM_CACHE_DIR")
    return Path(folder or Path(tempfile.gettempdir(), "data-gym-cache"), hashlib.sha1(url.encode()).hexdigest())
