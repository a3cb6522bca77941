"""Answers in OpenAI's shapes, whole and in the chunks of a stream: of a completion, and of a chat.

    whole    {"id", "object", "created", "model", "system_fingerprint", "choices": [...], "usage"}
    chunk    the same without usage, its choices hold what is new;  the last has no choices, and usage if it was asked

system_fingerprint is the seed that was used: give it back as `seed` for the same text. A choice of a request with
"details" has "tokens" besides: each with its text, log-probability and the likeliest in its place.
"""

import secrets
import time
from dataclasses import dataclass, field

from minigpt.tokenizer import Tokenizer
from minigpt.web.asking import Asking
from minigpt.web.telling import Piece, Told, spelled

DIGITS = 6  # of a log-probability


@dataclass(frozen=True)
class Shape:
    """What completions and chats have in common."""

    asking: Asking
    tokenizer: Tokenizer
    texts: int  # choices
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    kind, chunk_kind, prefix = "", "", ""

    def envelope(self, choices: list[dict], chunk: bool) -> dict:
        found = {
            "id": f"{self.prefix}-{self.id}",
            "object": self.chunk_kind if chunk else self.kind,
            "created": self.created,
            "model": self.asking.model,
            "system_fingerprint": f"seed-{self.asking.seed}",
            "choices": choices,
        }
        return found | ({"usage": None} if chunk and self.asking.usage else {})

    def begin(self, index: int) -> list[Piece]:
        """What stands before the first token that is written."""
        return []

    def first(self, index: int) -> list[dict]:
        """The choices of the chunks before the first token."""
        return []

    def part(self, index: int, piece: Piece) -> dict:
        """A choice of a chunk."""
        raise NotImplementedError

    def whole(self, index: int, piece: Piece) -> dict:
        """A choice of a whole answer."""
        raise NotImplementedError

    def details(self, piece: Piece) -> dict:
        return {"tokens": [self._detail(told) for told in piece.tokens]} if self.asking.details else {}

    def _detail(self, told: Told) -> dict:
        top = [{"id": each.token, "text": each.text, "logprob": _round(each.logprob)} for each in told.top]
        return {"id": told.token, "text": told.text, "logprob": _round(told.logprob), "top": top}


@dataclass(frozen=True)
class Completion(Shape):
    """echoes: for each text, the prompt in front of it, as far as the client asked for it."""

    echoes: tuple[Piece, ...] = ()
    prompts: tuple[list[Told], ...] = ()

    kind = chunk_kind = "text_completion"
    prefix = "cmpl"

    def begin(self, index: int) -> list[Piece]:
        return [self.echoes[index]] if self.echoes else []

    def first(self, index: int) -> list[dict]:
        if not (self.echoes or self.asking.details):
            return []
        return [self.part(index, self.echoes[index] if self.echoes else Piece("")) | self._prompt(index)]

    def part(self, index: int, piece: Piece) -> dict:
        found = {"index": index, "text": piece.text, "logprobs": self.logprobs(piece), "finish_reason": piece.finish}
        return found | self.details(piece)

    def whole(self, index: int, piece: Piece) -> dict:
        return self.part(index, piece) | self._prompt(index)

    def logprobs(self, piece: Piece) -> dict | None:
        if self.asking.top is None:
            return None
        offsets, at = [], piece.at
        for told in piece.tokens:
            offsets.append(at)
            at += len(told.text)
        return {
            "tokens": [spelled(self.tokenizer, told.token) for told in piece.tokens],
            "token_logprobs": [_round(told.logprob) for told in piece.tokens],
            "top_logprobs": [self._top(told) for told in piece.tokens],
            "text_offset": offsets,
        }

    def _top(self, told: Told) -> dict | None:
        if told.logprob is None:
            return None
        return {spelled(self.tokenizer, each.token): _round(each.logprob) for each in told.top}

    def _prompt(self, index: int) -> dict:
        if not self.asking.details:
            return {}
        return {"prompt_tokens": [{"id": told.token, "text": told.text} for told in self.prompts[index]]}


@dataclass(frozen=True)
class Answer(Shape):
    """What an assistant says."""

    kind, chunk_kind, prefix = "chat.completion", "chat.completion.chunk", "chatcmpl"

    def first(self, index: int) -> list[dict]:
        delta = {"role": "assistant", "content": ""}
        return [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None}]

    def part(self, index: int, piece: Piece) -> dict:
        delta = {"content": piece.text} if piece.text else {}
        found = {"index": index, "delta": delta, "logprobs": self.logprobs(piece), "finish_reason": piece.finish}
        return found | self.details(piece)

    def whole(self, index: int, piece: Piece) -> dict:
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        found = {"index": index, "message": message, "logprobs": self.logprobs(piece), "finish_reason": piece.finish}
        return found | self.details(piece)

    def logprobs(self, piece: Piece) -> dict | None:
        if self.asking.top is None:
            return None
        content = []
        for told in piece.tokens:
            top = [self._spelled(each.token, each.logprob) for each in told.top]
            content.append(self._spelled(told.token, told.logprob) | {"top_logprobs": top})
        return {"content": content, "refusal": None}

    def _spelled(self, token: int, logprob: float) -> dict:
        found = list(self.tokenizer.decode_bytes([token]))
        return {"token": spelled(self.tokenizer, token), "logprob": _round(logprob), "bytes": found}


def usage(prompt: int, written: int) -> dict:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}


def _round(logprob: float | None) -> float | None:
    return None if logprob is None else round(max(logprob, -9999.0), DIGITS)
