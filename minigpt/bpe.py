"""Byte-level byte-pair encoding: which merges a vocabulary stands for, and how a vocabulary is learned.

Sennrich et al. 2016 over bytes (GPT-2 section 2.2): start from the 256 bytes, join the most frequent adjacent pair into
a new token, repeat. A vocabulary is `ranks` (bytes of a token -> its id, lower ids merge first), `pattern` (the regex
that cuts text into pieces no merge crosses) and `specials` (text -> id, never met in ordinary text).
"""

import json
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

from minigpt.errors import Error


class Vocabulary(NamedTuple):
    ranks: dict[bytes, int]
    pattern: str
    specials: dict[str, int]


@cache
def byte_characters() -> tuple[str, ...]:
    """The printable character that stands for each byte in vocab files (GPT-2's `bytes_to_unicode`).

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    printable = [b for b in range(256) if chr(b).isprintable() and chr(b) != " "]
    others = [b for b in range(256) if b not in printable]
    table = {b: chr(b) for b in printable} | {b: chr(256 + n) for n, b in enumerate(others)}
    return tuple(table[b] for b in range(256))


def to_text(token: bytes) -> str:
    return "".join(byte_characters()[b] for b in token)


@cache
def _bytes_of_characters() -> dict[str, int]:
    return {c: b for b, c in enumerate(byte_characters())}


def to_bytes(text: str) -> bytes:
    """The bytes behind a token of a vocab file; KeyError when a character stands for no byte."""
    table = _bytes_of_characters()
    return bytes(table[c] for c in text)


def canonical_merges(ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The one merge that makes each token of two bytes or more, in order of ids.

    BPE always merges the adjacent pair of lowest rank, and a pair inside a token has a lower rank than the token. So
    the merges inside the span that becomes token t do not depend on what stands around it, and replaying BPE on the
    bytes of t alone ends in the only pair that can ever make t. Hence a merge list with these pairs in id order gives
    the ids tiktoken gives, which looks pairs up by the bytes they join.

    Raises Error for a token that no merge can make.

    >>> canonical_merges({b"a": 0, b"b": 1, b"ab": 2, b"aba": 3, b"abab": 4})
    [(b'a', b'b'), (b'ab', b'a'), (b'ab', b'ab')]
    """
    absent = max(ranks.values()) + 1
    return [_last_pair(token, ranks, absent) for token, _ in sorted(ranks.items(), key=by_id) if len(token) > 1]


def _last_pair(token: bytes, ranks: dict[bytes, int], absent: int) -> tuple[bytes, bytes]:
    rank = ranks[token]
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        joined = [ranks.get(a + b, absent) for a, b in zip(parts, parts[1:], strict=False)]
        lowest = min(joined)
        if lowest >= rank:
            raise Error(f"token {rank} ({to_text(token)!r}): no merge of tokens with lower ids makes it")
        i = joined.index(lowest)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def by_id(item: tuple) -> int:
    return item[1]


def learn(texts: Iterable[str], size: int, pattern: str, progress: bool = False) -> dict[bytes, int]:
    """Ranks of at most `size` tokens learned from `texts`: the 256 bytes first, then merges by falling frequency.

    A pair met only once is not learned: it would be a word of one note. So little text gives fewer than `size` tokens.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    split = pre_tokenizers.Split(Regex(pattern), "isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=2,
        initial_alphabet=list(byte_characters()),
        show_progress=progress,
    )
    model.train_from_iterator(_in_pieces(texts), trainer)
    vocab = json.loads(model.to_str())["model"]["vocab"]
    return {to_bytes(text): i for text, i in sorted(vocab.items(), key=by_id)}


def _in_pieces(texts: Iterable[str], size: int = 8192) -> Iterator[str]:
    # tokenizers takes 256 texts at a time and spends a hundred bytes on each word: 256 books would be gigabytes.
    for text in texts:
        for i in range(0, len(text), size):
            yield text[i : i + size]
