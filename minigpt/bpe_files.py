"""How a byte-level BPE vocabulary lies on disk: tokenizer.json, GPT-2's two files."""

import json
import re
from pathlib import Path

from minigpt.bpe import Vocabulary, by_id, canonical_merges, to_bytes, to_text
from minigpt.errors import Error

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
    lines = read_bytes(directory / "merges.txt").decode("utf-8", "replace").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    specials = {EOT: vocab[EOT]} if EOT in vocab else {}
    return Vocabulary(_ranks(directory / "vocab.json", vocab, merges, specials), GPT2, specials)


def read_end_of_text(directory: Path, specials: dict[str, int]) -> str:
    """The special token that ends a text: "<|endoftext|>", or what tokenizer_config.json names as eos_token."""
    config = directory / "tokenizer_config.json"
    if EOT in specials or not config.is_file():
        return EOT
    eos = _json(config).get("eos_token")
    text = eos.get("content", EOT) if isinstance(eos, dict) else eos or EOT
    if not isinstance(text, str):
        raise Error(f"{config}: eos_token is {text!r:.80}, expected the text of a token: the file is damaged")
    return text


def _ranks(path: Path, vocab: dict[str, int], merges: list[tuple], specials: dict[str, int]) -> dict[bytes, int]:
    if (bad := next((text for text, i in vocab.items() if type(i) is not int), None)) is not None:
        raise Error(f"{path}: the id of {bad!r} is {vocab[bad]!r:.80}, expected a whole number: the file is damaged")
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
        content = json.loads(read_bytes(path))
    except (ValueError, RecursionError) as problem:
        raise Error(f"{path}: not valid JSON ({type(problem).__name__}): the file is damaged") from None
    if not isinstance(content, dict):
        raise Error(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as problem:
        raise Error(f"{path}: cannot read it: {problem.strerror}") from None
