"""Bytes of a client -> the fields of a request, each of its type, or one sentence that says what is wrong."""

import asyncio
import json
import math
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request

from minigpt.errors import nearest
from minigpt.web.limits import Limits
from minigpt.web.refusals import Refusal


async def read_object(request: Request, limits: Limits) -> dict[str, Any]:
    """The JSON object in the body of a POST; `Refusal` if there is none, or it is too long or too slow."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"the content type is {kind!r:.60}: send JSON, with Content-Type: application/json")
    try:
        async with asyncio.timeout(limits.upload):
            body = await _read(request, limits.body)
    except TimeoutError:
        raise Refusal(408, f"the request was not complete after {limits.upload:g} seconds: send it at once") from None
    except ClientDisconnect:
        raise Refusal(400, "the client left before its request was complete") from None
    return parse_object(body)


async def _read(request: Request, most: int) -> bytes:
    too_large = Refusal(413, f"the request is larger than {most:,} bytes: shorten it", code="request_too_large")
    told = request.headers.get("content-length", "")
    if told.isdigit() and (len(told) > 18 or int(told) > most):
        raise too_large
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise too_large
    return bytes(body)


def parse_object(body: bytes) -> dict[str, Any]:
    """
    >>> parse_object(b'{"n": 1}')
    {'n': 1}
    >>> parse_object(b'{"n": NaN}')
    Traceback (most recent call last):
    minigpt.web.refusals.Refusal: the body is not valid JSON: NaN is no JSON number
    """
    try:
        found = json.loads(body.decode("utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError as problem:
        raise Refusal(400, f"the body is not UTF-8: byte {problem.start} is wrong") from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply: send an object of plain fields") from None
    except ValueError as problem:
        raise Refusal(400, f"the body is not valid JSON: {problem}") from None
    if not isinstance(found, dict):
        raise Refusal(400, f"the body is {kind_of(found)}: expected an object, such as {{}}")
    return found


def _no_constant(name: str):
    raise ValueError(f"{name} is no JSON number")


def kind_of(value: Any) -> str:
    """What a JSON value is called, in a sentence.

    >>> [kind_of(value) for value in (None, True, 3, 0.5, "a", [1], {})]
    ['null', 'true', '3', '0.5', "'a'", 'a list', 'an object']
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return f"{value!r:.60}"


@dataclass(frozen=True)
class Field:
    """What a field may be; `None` is as good as not given at all."""

    what: str

    def read(self, value: Any, name: str) -> Any:
        raise NotImplementedError

    def wrong(self, value: Any, name: str) -> Refusal:
        return Refusal(400, f"{name} is {kind_of(value)}: expected {self.what}", name)


@dataclass(frozen=True)
class Number(Field):
    """A number in a range; `whole` ones only, if so; not `least` itself where it is `above` that."""

    least: float = -math.inf
    most: float = math.inf
    whole: bool = False
    above: bool = False

    def read(self, value, name):
        kinds = int if self.whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise self.wrong(value, name)
        if not self.least <= value <= self.most or (self.above and value == self.least):
            raise self.wrong(value, name)
        return value


@dataclass(frozen=True)
class Flag(Field):
    what: str = "true or false"

    def read(self, value, name):
        if not isinstance(value, bool):
            raise self.wrong(value, name)
        return value


@dataclass(frozen=True)
class Text(Field):
    what: str = "a text"

    def read(self, value, name):
        if not isinstance(value, str):
            raise self.wrong(value, name)
        return value


@dataclass(frozen=True)
class Anything(Field):
    """Read by whoever asked for it."""

    what: str = ""

    def read(self, value, name):
        return value


def read_fields(values: dict[str, Any], known: dict[str, Field], ignored=(), refused: dict[str, str] | None = None):
    """The fields that are given, in their types. Unknown names are refused, and so is what others can and we cannot.

    >>> read_fields({"n": 2, "user": "x", "best_of": None}, {"n": Number("a number")}, {"user"}, {"best_of": "no"})
    {'n': 2}
    >>> read_fields({"temprature": 1}, {"temperature": Number("a number")})
    Traceback (most recent call last):
    minigpt.web.refusals.Refusal: there is no field 'temprature': did you mean 'temperature'?
    """
    read, refused = {}, refused or {}
    for name, value in values.items():
        if value is None or name in ignored:
            continue
        if name in refused:
            raise Refusal(400, f"{name} is not possible here: {refused[name]}", name[:80], "unsupported")
        if name not in known:
            raise Refusal(400, f"there is no field {name[:80]!r}: {nearest(name[:80], known)}", name[:80])
        read[name] = known[name].read(value, name)
    return read
