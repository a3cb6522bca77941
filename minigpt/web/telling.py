"""Tokens in, text out as it becomes certain, and beside it which token made which part of the text.

    the model writes   患 = 3 bytes, 3 tokens    "：" 1    "\\n" 1    "\\n" 1        stop string "\\n\\n"
    shown              ""  ""  "患"              "："      ""        "" and the end
    told               -   -   3 tokens          1         -         dropped, as the stop string is

The texts of all that is shown, joined, are the text up to the first stop string; so are those of the tokens told, only
that a token is told when all of its text is certain. A character that the end of the text cuts in half is not shown.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

from minigpt.generation.stops import TextStream
from minigpt.tokenizer import Tokenizer


@dataclass(frozen=True)
class Told:
    """A token of the text: `text` became certain with it, `top` are the likeliest in its place."""

    token: int
    text: str
    logprob: float | None
    top: "tuple[Likely, ...]" = ()


class Likely(NamedTuple):
    """A token that could have come, with the text that would then have become certain, or the bytes it is made of."""

    token: int
    logprob: float
    text: str


@dataclass(frozen=True)
class Piece:
    """A part of a text, which begins at character `at`; `finish` is "stop" or "length" with the last one."""

    text: str
    tokens: tuple[Told, ...] = ()
    finish: str | None = None
    at: int = 0


class Telling:
    """Takes the events of one text, gives its pieces; `written` tokens came, `done` if no more are wanted.

    >>> from types import SimpleNamespace as Event
    >>> tokenizer = Tokenizer.train([""], 257)
    >>> events = [Event(token=i, logprob=-1.0, top=[], finish=None) for i in tokenizer.encode("痛. ab")]
    >>> telling = Telling(tokenizer, ("a",), tokenizer.eot)
    >>> pieces = [telling.push(event) for event in events[:6]]
    >>> [piece.text for piece in pieces], pieces[2].tokens[2].text, telling.done
    (['', '', '痛', '.', ' ', ''], '痛', True)
    """

    def __init__(self, tokenizer: Tokenizer, stops: tuple[str, ...], end: int, at: int = 0):
        self.end, self.written, self.finish, self.at = end, 0, None, at
        self._tokenizer = tokenizer
        self._text, self._characters = TextStream(tokenizer, stops), tokenizer.stream()
        self._waiting: deque[Told] = deque()
        self._owed = 0  # characters that were shown, and whose token was not told yet

    @property
    def done(self) -> bool:
        return self.finish is not None

    def push(self, event) -> Piece:
        """What became certain with an event of the engine."""
        self.written += 1
        text = ""
        if not (event.finish == "end" and event.token == self.end):
            logprob = None if math.isnan(event.logprob) else event.logprob
            top = likely(self._tokenizer, self._characters, event.top)
            self._waiting.append(Told(event.token, self._characters.push(event.token), logprob, top))
            text = self._text.push(event.token)
        if self._text.done:
            self.finish = "stop"
        elif event.finish is not None:
            self.finish = "length" if event.finish == "length" else "stop"
            half = self._characters.flush()
            text += self._text.flush().removesuffix(half)
        piece = Piece(text, tuple(self._certain(len(text))), self.finish, self.at)
        self.at += len(text)
        return piece

    def _certain(self, shown: int) -> Iterable[Told]:
        self._owed += shown
        if self.finish is not None and not self._text.done:
            return list(self._waiting)
        whole = self._whole()
        told = [self._waiting.popleft() for _ in range(whole)]
        self._owed -= sum(len(each.text) for each in told)
        if self._text.done and self._owed:  # the stop string begins inside a token
            first = next(each for each in self._waiting if each.text)
            told.append(replace(first, text=first.text[: self._owed]))
        return told

    def _whole(self) -> int:
        """How many of the waiting tokens are certain: up to the last that ends inside what was shown."""
        whole, length = 0, 0
        for number, each in enumerate(self._waiting, start=1):
            length += len(each.text)
            if length > self._owed:
                break
            if each.text:
                whole = number
        return whole


def join(pieces: Iterable[Piece]) -> Piece:
    """A whole text of its pieces."""
    pieces = list(pieces)
    tokens = tuple(told for piece in pieces for told in piece.tokens)
    return Piece("".join(piece.text for piece in pieces), tokens, pieces[-1].finish, pieces[0].at)


def texts_of(tokenizer: Tokenizer, ids: Iterable[int], end: int) -> list[Told]:
    """The tokens of a text that is there already; the end-of-text token has no text.

    >>> tokenizer = Tokenizer.train([""], 257)
    >>> [told.text for told in texts_of(tokenizer, [256, *tokenizer.encode("痛!")], 256)]
    ['', '', '', '痛', '!']
    """
    characters = tokenizer.stream()
    return [Told(token, "" if token == end else characters.push(token), None) for token in ids]


def texts_after(tokenizer: Tokenizer, ids: Iterable[int], run: Iterable[int], end: int) -> list[str]:
    """What becomes certain with each token of a run that comes after `ids`, which may end in half a character.

    >>> tokenizer = Tokenizer.train([""], 257)
    >>> ids = tokenizer.encode("a痛!")
    >>> texts_after(tokenizer, ids[:2], ids[2:], tokenizer.eot)
    ['', '痛', '!']
    """
    tail = [token for token in ids if token != end][-3:]  # half a character has three bytes at most
    return [told.text for told in texts_of(tokenizer, [*tail, *run], end)][len(tail) :]


def likely(tokenizer: Tokenizer, characters, top: Iterable[tuple[int, float]]) -> tuple[Likely, ...]:
    """Alternatives, as they would go on after the `characters` of a stream so far."""
    found = []
    for token, logprob in top:
        text = characters.would(token)
        found.append(Likely(token, logprob, text if text and "\ufffd" not in text else spelled(tokenizer, token)))
    return tuple(found)


def spelled(tokenizer: Tokenizer, token: int) -> str:
    r"""A token by itself, in a text: as it is, or byte by byte if it is half a character.

    >>> tokenizer = Tokenizer.train([""], 257)
    >>> [spelled(tokenizer, token) for token in (tokenizer.encode("a")[0], tokenizer.encode("痛")[0])]
    ['a', 'bytes:\\xe7']
    """
    found = tokenizer.decode_bytes([token])
    try:
        return found.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in found)
