"""How a byte-level BPE vocabulary lies on disk: tokenizer.json, GPT-2's two files, tiktoken's cache."""

import base64
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

from minigpt.bpe import Vocabulary, by_id, byte_characters, canonical_merges, to_bytes, to_text
from minigpt.errors import Error, nearest

EOT = "<|endoftext|>"
# Kept free of what tiktoken's engine and the Oniguruma of tokenizer.json read differently: in Oniguruma `{1,3}+`
# repeats instead of being possessive and `$` matches before every newline. tiktoken's own copies use both.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_UNREADABLE = "not a byte-level BPE this library reads"
_AMBIGUOUS = re.compile(r"\d\}\+|(?<![\\\[])[$^]|\\[hHRXAZzGKbB]|&&")


def tokenizer_json(vocabulary: Vocabulary) -> str:
    """The text of tokenizer.json: the same cut pattern, vocabulary and merges for the `tokenizers` library.

    Specials stand in the model's vocabulary too: only there an id after a gap (cl100k has one) survives loading.
    """
    ranks, pattern, specials = vocabulary
    entries = [(to_text(token), i) for token, i in ranks.items()] + list(specials.items())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": text, **flags} for text, i in sorted(specials.items(), key=by_id)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(entries, key=by_id)),
            "merges": [f"{to_text(a)} {to_text(b)}" for a, b in canonical_merges(ranks)],
        },
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def tokenizer_config_json(end_of_text: str) -> str:
    """The text of tokenizer_config.json, for transformers.

    The class is the general one: beside a config.json of GPT-2 or Llama their own classes would rebuild the pattern.
    `split_special_tokens` makes "<|endoftext|>" inside a note ordinary text there as it is here.
    """
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": end_of_text,
        "eos_token": end_of_text,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def read_tokenizer_json(path: Path) -> Vocabulary:
    """The vocabulary in a tokenizer.json; Error with the reason when tiktoken would give other ids."""
    try:
        return _read_tokenizer(path, _json(path))
    except (KeyError, TypeError, AttributeError) as problem:
        raise Error(f"{path}: not laid out as a tokenizer.json ({problem!r}): the file is damaged") from None


def _read_tokenizer(path: Path, content: dict) -> Vocabulary:
    model = content.get("model") or {}
    if model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        raise Error(f"{path}: {_UNREADABLE}: the model is {model.get('type')!r}, expected 'BPE'")
    if content.get("normalizer") is not None:
        kind = content["normalizer"].get("type")
        raise Error(f"{path}: {_UNREADABLE}: the normalizer {kind!r} changes text, so decoding cannot give it back")
    for option in ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(option):
            raise Error(f"{path}: {_UNREADABLE}: option {option!r} is {model[option]!r}, expected none")
    if (content.get("decoder") or {}).get("type") != "ByteLevel":
        raise Error(f"{path}: {_UNREADABLE}: the decoder is not 'ByteLevel'")
    added = content.get("added_tokens") or []
    for entry in added:
        if not entry.get("special"):
            raise Error(f"{path}: {_UNREADABLE}: added token {entry['content']!r} would cut ordinary text")
    specials = dict(sorted(((entry["content"], entry["id"]) for entry in added), key=by_id))
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in model.get("merges", [])]
    ranks = _ranks(path, model["vocab"], merges, specials)
    return Vocabulary(ranks, _pattern(path, content.get("pre_tokenizer")), specials)


def read_vocab_and_merges(directory: Path) -> Vocabulary:
    """The vocabulary in GPT-2's own pair of files, vocab.json and merges.txt."""
    vocab = _json(directory / "vocab.json")
    lines = _bytes(directory / "merges.txt").decode("utf-8", "replace").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    specials = {EOT: vocab[EOT]} if EOT in vocab else {}
    return Vocabulary(_ranks(directory / "vocab.json", vocab, merges, specials), GPT2, specials)


def read_end_of_text(directory: Path, specials: dict[str, int]) -> str:
    """The special token that ends a text: "<|endoftext|>", or what tokenizer_config.json names as eos_token."""
    config = directory / "tokenizer_config.json"
    if EOT in specials or not config.is_file():
        return EOT
    eos = _json(config).get("eos_token")
    return eos.get("content", EOT) if isinstance(eos, dict) else eos or EOT


def _ranks(path: Path, vocab: dict[str, int], merges: list[tuple], specials: dict[str, int]) -> dict[bytes, int]:
    try:
        ranks = {to_bytes(text): i for text, i in sorted(vocab.items(), key=by_id) if text not in specials}
        pairs = [(to_bytes(a), to_bytes(b)) for a, b in merges]
    except KeyError as problem:
        raise Error(f"{path}: {_UNREADABLE}: character {problem} stands for no byte") from None
    except ValueError:
        raise Error(f"{path}: a merge does not have two parts: the file is damaged") from None
    if any(bytes([b]) not in ranks for b in range(256)):
        raise Error(f"{path}: {_UNREADABLE}: some of the 256 single bytes have no token")
    ids = [ranks.get(a + b, -1) for a, b in pairs]
    for before, after, merge in zip([0, *ids], ids, merges, strict=False):
        if after < before:
            raise Error(f"{path}: {_UNREADABLE}: the merge {merge} is out of order: ids must rise with the merges")
    # Further merges for a token may be listed, as converters do: canonical_merges says why they are never used.
    listed = set(pairs)
    try:
        canonical = canonical_merges(ranks)
    except Error as problem:
        raise Error(f"{path}: {_UNREADABLE}: {problem}") from None
    for pair in canonical:
        if pair not in listed:
            raise Error(f"{path}: {_UNREADABLE}: the merge of token {to_text(pair[0] + pair[1])!r} is missing")
    return ranks


def _pattern(path: Path, pre: dict | None) -> str:
    pre = pre or {}
    if pre.get("type") == "ByteLevel" and pre.get("use_regex", True) and not pre.get("add_prefix_space"):
        return GPT2
    parts = pre.get("pretokenizers") or []
    if pre.get("type") == "Sequence" and [p.get("type") for p in parts] == ["Split", "ByteLevel"]:
        split, last = parts
        regex = (split.get("pattern") or {}).get("Regex")
        plain = split.get("behavior") == "Isolated" and not split.get("invert")
        if regex and plain and not last.get("use_regex", True) and not last.get("add_prefix_space"):
            if _AMBIGUOUS.search(regex):
                raise Error(f"{path}: {_UNREADABLE}: regex engines disagree on the pattern {regex!r}")
            return regex
    raise Error(
        f"{path}: {_UNREADABLE}: the pre-tokenizer must be 'ByteLevel', or 'Split' by a regex and 'ByteLevel', "
        f"without a prefix space; found {pre.get('type')!r} {[p.get('type') for p in parts] or ''}".rstrip()
    )


def _json(path: Path) -> dict:
    try:
        content = json.loads(_bytes(path))
    except (ValueError, RecursionError) as problem:
        raise Error(f"{path}: not valid JSON ({type(problem).__name__}): the file is damaged") from None
    if not isinstance(content, dict):
        raise Error(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Error(f"{path}: cannot read it: {problem.strerror}") from None


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
    data = _bytes(path)
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
