"""Text to token ids and back, losslessly: byte-level BPE, run by tiktoken.

A tokenizer is trained here on the user's own text, read from a Hugging Face directory, or one of OpenAI's by name.
Files are in bpe_files.py and bpe_named.py, merges and training in bpe.py.
"""

import codecs
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from minigpt import bpe, bpe_files, bpe_named
from minigpt.bpe import Vocabulary
from minigpt.bpe_files import EOT
from minigpt.errors import Error
from minigpt.files import write_atomic

# GPT-4's cut, with bounds. A piece is a contraction, a word with the one space or sign before it, up to two digits,
# signs with the newlines after them, or blanks. Why bounds: BPE over one endless piece is slow (a page of Chinese
# without punctuation is one "word"), and a million blanks overflow the regex engine's stack. Why two digits: as much
# compression as three on clinical notes, for a tenth of the possible number tokens. Why no rule for Han: cutting
# Chinese into fours costs a tenth of the compression. The last branch takes any blank, so no character is lost.
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}{1,32}|\p{N}{1,2}| ?[^\s\p{L}\p{N}]{1,32}[\r\n]{0,8}"
    r"|\s{0,32}[\r\n]|\s{1,32}(?!\S)|\s"
)
_LONGEST_BLANK = 250_000
_MOST_IDS = 2**24  # the largest vocabularies have 2^18; a table has a row for each id up to the highest
_LONG_BLANK = re.compile(rf"\s{{{_LONGEST_BLANK}}}")


class Tokenizer:
    """A byte-level BPE tokenizer.

    `vocab_size` counts every id up to the highest, specials included; `eot` is the id that separates documents;
    `specials` maps special text to its id; `pattern` is the regex that cuts text before merging. The text of a special
    token inside a note is ordinary text: no note can end a document.

    >>> t = Tokenizer.train(["no cough", "咳嗽 no cough", "咳嗽"], vocab_size=300)
    >>> t.vocab_size, t.eot, t.decode(t.encode("no cough 咳嗽 <|endoftext|>"))
    (268, 267, 'no cough 咳嗽 <|endoftext|>')
    """

    def __init__(self, ranks: dict[bytes, int], pattern: str, specials: dict[str, int], eot: str = EOT):
        """From bytes -> id, lower ids merging first; Error when ids clash or tiktoken refuses the pattern."""
        import tiktoken

        if eot not in specials:
            raise Error(f"the tokenizer has no end-of-text token {eot!r}; its special tokens: {sorted(specials)}")
        ids = [*ranks.values(), *specials.values()]
        if not all(type(i) is int and 0 <= i < _MOST_IDS for i in ids) or len(set(ids)) < len(ids):
            raise Error(f"two tokens have the same id, or one is not from 0 to {_MOST_IDS - 1}: damaged vocabulary")
        self.vocabulary = Vocabulary(ranks, pattern, dict(specials))
        self.pattern, self.specials = pattern, dict(specials)
        self.vocab_size, self.eot, self.eot_text = max(ids) + 1, specials[eot], eot
        try:
            self._tiktoken = tiktoken.Encoding(
                "minigpt", pat_str=pattern, mergeable_ranks=ranks, special_tokens=self.specials
            )
        except (ValueError, KeyError) as problem:
            raise Error(f"tiktoken cannot use this vocabulary or its pattern {pattern!r}: {problem}") from None

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, specials: Sequence[str] = (EOT,), progress: bool = False
    ) -> "Tokenizer":
        """Learn a vocabulary of at most `vocab_size` ids, specials included, from `texts`.

        Only pairs met twice are merged, so little text gives a smaller vocabulary: read `vocab_size` of the result.
        The same texts give the same tokenizer. Error when `vocab_size` has no room for the 256 bytes and the specials.
        """
        if vocab_size < 256 + len(specials):
            least = 256 + len(specials)
            raise Error(f"vocab_size is {vocab_size}, expected at least {least}: 256 bytes and the specials")
        ranks = bpe.learn(map(_checked, texts), vocab_size - len(specials), PATTERN, progress)
        return cls(ranks, PATTERN, {text: len(ranks) + i for i, text in enumerate(specials)})

    @classmethod
    def named(cls, name: str) -> "Tokenizer":
        """OpenAI's "gpt2", "cl100k_base" or "o200k_base", from tiktoken's cache folder; never from the network."""
        return cls(*bpe_named.read_named(name))

    @classmethod
    def load(cls, directory: str | Path) -> "Tokenizer":
        """The tokenizer in a directory: tokenizer.json, or GPT-2's vocab.json and merges.txt.

        Error with the reason when its ids or text could differ from those of the library that wrote it.
        """
        directory = Path(directory)
        if (directory / "tokenizer.json").is_file():
            vocabulary = bpe_files.read_tokenizer_json(directory / "tokenizer.json")
        elif (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
            vocabulary = bpe_files.read_vocab_and_merges(directory)
        else:
            raise Error(f"{directory}: has no tokenizer: expected tokenizer.json, or vocab.json and merges.txt")
        try:
            tokenizer = cls(*vocabulary, bpe_files.read_end_of_text(directory, vocabulary.specials))
            tokenizer._check_lossless()
        except Error as problem:
            raise Error(f"{directory}: {problem}") from None
        return tokenizer

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json and tokenizer_config.json, which transformers' AutoTokenizer opens with the same ids."""
        directory = Path(directory)
        write_atomic(directory / "tokenizer.json", bpe_files.tokenizer_json(self.vocabulary))
        write_atomic(directory / "tokenizer_config.json", bpe_files.tokenizer_config_json(self.eot_text))

    def encode(self, text: str) -> list[int]:
        """Token ids of `text`; no special id is added or produced. Error for a lone surrogate, which is no Unicode."""
        parts = self._cut(_checked(text))
        if len(parts) == 1:
            return self._tiktoken.encode_ordinary(text)
        return [i for part in parts for i in self._tiktoken.encode_ordinary(part)]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` for many texts, on all cores."""
        if any(len(self._cut(_checked(text))) > 1 for text in texts):
            return [self.encode(text) for text in texts]
        return self._tiktoken.encode_ordinary_batch(texts, num_threads=os.cpu_count() or 1)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the tokens; a special id gives its text. Error for an id the vocabulary does not have."""
        ids = ids.tolist() if hasattr(ids, "tolist") else list(ids)
        try:
            return self._tiktoken.decode_bytes(ids)
        except (KeyError, OverflowError):
            bad = next(i for i in ids if not self._has(i))
            raise Error(f"token id {bad} is not in the vocabulary of {self.vocab_size} ids") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the tokens; bytes that are no UTF-8 (a character cut in half) become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def stream(self) -> "TextStream":
        """An object that turns ids into text one at a time and never breaks a character."""
        return TextStream(self)

    def token_lengths(self):
        """UTF-8 bytes of each id, a numpy int64 array (vocab_size,); 0 for specials and ids without a token.

        Bits per byte of a text = (sum of its tokens' losses in nats) / ln 2 / (sum of its tokens' lengths).
        """
        import numpy as np

        lengths = np.zeros(self.vocab_size, dtype=np.int64)
        lengths[list(self.vocabulary.ranks.values())] = [len(token) for token in self.vocabulary.ranks]
        return lengths

    def _has(self, i: int) -> bool:
        try:
            self._tiktoken.decode_single_token_bytes(i)
        except (KeyError, OverflowError):
            return False
        return True

    def _cut(self, text: str) -> list[str]:
        # Other patterns than ours do not bound a run of blanks, and the regex engine overflows its stack on a million.
        if len(text) < _LONGEST_BLANK or self.pattern == PATTERN:
            return [text]
        ends = [match.end() for match in _LONG_BLANK.finditer(text)]
        return [text[a:b] for a, b in zip([0, *ends], [*ends, len(text)], strict=True)]

    def _check_lossless(self) -> None:
        # tiktoken drops what a pattern leaves out, where tokenizers keeps it.
        kinds = ["a", "B", "7", "½", " ", "\n", "\r\n", "\t", "-", "'s", "é", "e\u0301", "病", "\u3000", "😀", "\x00"]
        probe = "".join(a + b + c for a in kinds for b in kinds for c in kinds)
        if self.decode(self.encode(probe)) != probe:
            raise Error(f"the pattern {self.pattern!r} leaves some characters out, so text would be lost")


class TextStream:
    """Ids in, text out, only whole characters: the outputs joined equal `decode` of all the ids.

    >>> stream = Tokenizer.train(["x"], 300).stream()
    >>> [stream.push(i) for i in Tokenizer.train(["x"], 300).encode("痛!")], stream.flush()
    (['', '', '痛', '!'], '')
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The characters that are complete now; U+FFFD only for bytes that can no longer become one."""
        return self._decoder.decode(self._tokenizer.decode_bytes([token]))

    def would(self, token: int) -> str:
        """What `push` would give for this token; nothing changes."""
        state = self._decoder.getstate()
        try:
            return self.push(token)
        finally:
            self._decoder.setstate(state)

    def flush(self) -> str:
        """What was held back, as U+FFFD if it is half a character; the stream can then start again."""
        return self._decoder.decode(b"", final=True)


def _checked(text: str) -> str:
    if not isinstance(text, str):
        raise Error(f"expected text (str) to encode, found {type(text).__name__}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as problem:
        code = ord(text[problem.start])
        raise Error(
            f"character {problem.start} of the text is a lone surrogate (U+{code:04X}), which is not valid Unicode: "
            "read the file as UTF-8 or replace the character"
        ) from None
    return text
