"""What a client asks for, checked: the fields that completions and chats share, as one frozen record.

Names, ranges and defaults are OpenAI's where it has them; beyond them top_k, min_p, repetition_penalty and details.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from minigpt.generation.sampling import SEEDS, Sampler
from minigpt.web.fields import Anything, Field, Flag, Number, Text, kind_of, read_fields
from minigpt.web.refusals import Refusal
from minigpt.web.studio import Studio

DEFAULT_LENGTH = 256  # tokens, as sample.py
LONGEST_STOP = 1000
MOST_STOPS = 4
MOST_TOP = 20
WHOLE = 2**63 - 1

SHARED: dict[str, Field] = {
    "model": Text(),
    "max_tokens": Number("a whole number of at least 0", 0, WHOLE, whole=True),
    "temperature": Number("a number from 0 to 2", 0, 2),
    "top_p": Number("a number above 0 and at most 1", 0, 1, above=True),
    "top_k": Number("a whole number of at least 1", 1, WHOLE, whole=True),
    "min_p": Number("a number above 0 and at most 1", 0, 1, above=True),
    "repetition_penalty": Number("a number above 0 and at most 100", 0, 100, above=True),
    "presence_penalty": Number("a number from -2 to 2", -2, 2),
    "frequency_penalty": Number("a number from -2 to 2", -2, 2),
    "logit_bias": Anything(),
    "seed": Number("a whole number of at most 64 bits", -(2**63), WHOLE, whole=True),
    "stop": Anything(),
    "n": Number("a whole number of at least 1", 1, WHOLE, whole=True),
    "stream": Flag(),
    "stream_options": Anything(),
    "details": Flag(),
}
IGNORED = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "parallel_tool_calls"}


@dataclass(frozen=True)
class Bias:
    """logit_bias: amounts added to the logits of some tokens, (N, V) -> (N, V)."""

    tokens: tuple[int, ...]
    amounts: tuple[float, ...]

    def __call__(self, scores: Tensor, histories) -> Tensor:
        scores = scores.clone()
        scores[:, list(self.tokens)] += scores.new_tensor(self.amounts)
        return scores


@dataclass(frozen=True)
class Asking:
    """How texts are to be written. `top`: alternatives to report with each token, None for no log-probabilities.

    `seed` is the one that is used, drawn by lot if the client gave none. `usage`: tell it at the end of a stream.
    """

    model: str
    sampler: Sampler
    seed: int
    stop: tuple[str, ...]
    n: int
    top: int | None
    stream: bool
    usage: bool
    details: bool


def read_asking(values: dict[str, Any], studio: Studio, top: int | None) -> Asking:
    """The shared fields of a request, which `read_all` has read."""
    eot, length = studio.tokenizer.eot, values.get("max_tokens", DEFAULT_LENGTH)
    names = ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
    chosen = {name: values[name] for name in names if name in values}
    temperature = values.get("temperature", 1.0)
    sampler = Sampler(
        temperature=temperature if temperature >= 1e-6 else 0,
        max_new_tokens=max(1, min(length, 2**31)),
        ends=frozenset([eot]),
        extra=_bias(values.get("logit_bias"), studio.tokenizer.vocab_size),
        **chosen,
    )
    seed = values["seed"] % SEEDS if "seed" in values else secrets.randbelow(SEEDS)
    return Asking(
        model=values.get("model", studio.name),
        sampler=sampler,
        seed=seed,
        stop=_stops(values.get("stop")),
        n=_count(values.get("n", 1), studio),
        top=top,
        stream=values.get("stream", False),
        usage=_usage(values.get("stream_options"), values.get("stream", False)),
        details=values.get("details", False),
    )


def read_all(values: dict[str, Any], own: dict[str, Field], refused: dict[str, str]) -> dict[str, Any]:
    """All fields of a request: the shared ones and its own."""
    return read_fields(values, SHARED | own, IGNORED, refused)


def _count(n: int, studio: Studio) -> int:
    most = min(studio.limits.choices, studio.worker.room)
    if n > most:
        raise Refusal(400, f"n is {n}: expected at most {most} texts", "n")
    return n


def _stops(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise Refusal(400, f"stop is {kind_of(value)}: expected a text, or a list of up to {MOST_STOPS}", "stop")
    if len(stops) > MOST_STOPS:
        raise Refusal(400, f"stop holds {len(stops)} texts: expected at most {MOST_STOPS}", "stop")
    if any(not 1 <= len(stop) <= LONGEST_STOP for stop in stops):
        raise Refusal(400, f"stop holds a text that is empty, or longer than {LONGEST_STOP} characters", "stop")
    return tuple(stops)


def _bias(value: Any, vocabulary: int) -> Sequence[Bias]:
    if not value and (value is None or isinstance(value, dict)):
        return ()
    if not isinstance(value, dict):
        raise Refusal(400, f"logit_bias is {kind_of(value)}: expected an object of token ids and amounts", "logit_bias")
    for token, amount in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10 and int(token) < vocabulary):
            message = f"logit_bias has the token {token[:80]!r}: expected an id below {vocabulary}, as a text"
            raise Refusal(400, message, "logit_bias")
        if isinstance(amount, bool) or not isinstance(amount, (int, float)) or not -100 <= amount <= 100:
            message = f"logit_bias of token {token} is {kind_of(amount)}: expected a number from -100 to 100"
            raise Refusal(400, message, "logit_bias")
    amounts = {int(token): float(amount) for token, amount in value.items()}
    return (Bias(tuple(amounts), tuple(amounts.values())),)


def _usage(value: Any, stream: bool) -> bool:
    if value is None:
        return False
    if not isinstance(value, dict):
        raise Refusal(400, f"stream_options is {kind_of(value)}: expected an object", "stream_options")
    if not stream:
        raise Refusal(400, "stream_options are of a stream: give stream as well", "stream_options")
    known = {"include_usage": Flag(), "include_obfuscation": Flag()}
    return read_fields(value, known).get("include_usage", False)
