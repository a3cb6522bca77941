"""Ways to break a file, drawn by a seed: the same seed gives the same damage.

A damage takes bytes and a `random.Random`, and gives other bytes. Those of BYTES need no format; those of JSON break
the meaning where the form is whole: another type at a key, a number too large, a key less, more or twice; those of
TENSORS do that to the header of a safetensors file, whose length stays right.
"""

import json
import random
import struct
from collections.abc import Callable

Damage = Callable[[bytes, random.Random], bytes]
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**40, -(10**40), 1.5, 1e308, float("nan"), float("inf"), "", "x",
    "../../etc/passwd", "/etc/passwd", "\x00", "\ud800", "9" * 5000, [], [[]], {}, {"a": 1}, [None] * 3, ["x", 1], [-1],
)  # fmt: skip
LINES = (
    b"\n", b"\x00\n", b"\xff\xfe\n", b"{\n", b"null\n", b"[]\n", b'"text"\n', b"1e999\n", b"\xed\xa0\x80\n", b'"\n',
    b'{"": NaN}\n', b'{"step": null}\n', "\u2028\n".encode(), b"9" * 5000 + b"\n", b"[" * 2000 + b"\n",
)  # fmt: skip


def flip(data: bytes, draw: random.Random) -> bytes:
    """One to eight bits."""
    found = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8)) if data else 0):
        found[draw.randrange(len(found))] ^= 1 << draw.randrange(8)
    return bytes(found)


def truncate(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randrange(len(data) or 1)]


def splice(data: bytes, draw: random.Random) -> bytes:
    """A piece is left out, said twice, or put elsewhere."""
    a, b, c = sorted(draw.randrange(len(data) + 1) for _ in range(3))
    return draw.choice((data[:a] + data[b:], data[:b] + data[a:], data[:a] + data[b:c] + data[a:b] + data[c:]))


def zeros(data: bytes, draw: random.Random) -> bytes:
    """A block is what a disk gives that lost it."""
    start = draw.randrange(len(data) or 1)
    length = draw.choice((1, 16, 512, 4096))
    return data[:start] + bytes(min(length, len(data) - start)) + data[start + length :]


def noise(data: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(data) + 1)
    return data[:start] + draw.randbytes(draw.choice((1, 3, 64))) + data[start:]


def line(data: bytes, draw: random.Random) -> bytes:
    """One more line, of what does not belong there."""
    rows = data.splitlines(keepends=True)
    rows.insert(draw.randrange(len(rows) + 1), draw.choice(LINES))
    return b"".join(rows)


def other(data: bytes, draw: random.Random) -> bytes:
    """Another file altogether."""
    deep = b'{"a":' * 100_000
    return draw.choice((b"", b"\x00" * 64, b"null", b"[]", b"{}", b"\xff\xfe\x00", deep, b"[" * 100_000, b"\x1f\x8b"))


def laughs(data: bytes, draw: random.Random) -> bytes:
    """A few lines of YAML whose value is ten to the ninth times a word, if anyone writes it out."""
    rows = [b"lr: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [b"k%d: &a%d [" % (i, i) + b", ".join([b"*a%d" % (i - 1)] * 10) + b"]" for i in range(1, 9)]
    return b"\n".join([*rows, draw.choice((b"lr: *a8", b"seed: *a8", b"- *a8"))]) + b"\n"


def swap(data: bytes, draw: random.Random) -> bytes:
    """Another value somewhere in a JSON text."""
    found = json.loads(data)
    holder, key = draw.choice(list(_places(found)))
    holder[key] = draw.choice(VALUES)
    return _text(found)


def drop(data: bytes, draw: random.Random) -> bytes:
    found = json.loads(data)
    holder, key = draw.choice(list(_places(found)))
    del holder[key]
    return _text(found)


def add(data: bytes, draw: random.Random) -> bytes:
    """A key nobody knows, or one from elsewhere in the same text."""
    found = json.loads(data)
    objects = [each for each, _ in _places(found) if isinstance(each, dict)]
    names = [key for each in objects for key in each]
    draw.choice(objects or [{}])[draw.choice([*names, "unknown", "__class__"])] = draw.choice(VALUES)
    return _text(found)


def twice(data: bytes, draw: random.Random) -> bytes:
    """A key that an object has already, before all the others: of two of a name, readers take the last, or neither."""
    found = json.loads(data)
    key = draw.choice(list(found) if isinstance(found, dict) and found else ["a"])
    return b"{" + _text(key) + b": " + _text(draw.choice(VALUES)) + b"," + data.lstrip()[1:]


def nest(data: bytes, draw: random.Random) -> bytes:
    """A value so deep that a parser which calls itself runs out of stack."""
    found = json.loads(data)
    holder, key = draw.choice(list(_places(found)))
    holder[key] = "@@"
    depth = draw.choice((50, 3000, 100_000))
    return _text(found).replace(b'"@@"', b"[" * depth + b"]" * depth)


def header(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header is another JSON text, of its true length."""
    (length,) = struct.unpack("<Q", data[:8])
    text = draw.choice((swap, drop, add, twice, nest, flip))(data[8 : 8 + length], draw)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def length(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file whose header is said to be longer or shorter than it is."""
    (true,) = struct.unpack("<Q", data[:8])
    said = draw.choice((0, 1, true - 1, true + 1, len(data), 2**31, 2**40, 2**63, 2**64 - 1))
    return struct.pack("<Q", said) + data[8:]


def numbers(data: bytes, draw: random.Random) -> bytes:
    """NaN, infinity or a huge number among the tensors of a safetensors file."""
    (begin,) = struct.unpack("<Q", data[:8])
    begin += 8
    at = begin + 4 * draw.randrange(max((len(data) - begin) // 4, 1))
    value = struct.pack("<f", draw.choice((float("nan"), float("inf"), -float("inf"), 3e38)))
    return data[:at] + value + data[at + 4 :]


def _places(value):
    """Every (holder, key) of a JSON value; each of a long list's would drown the rest, so a few stand for it."""
    pairs = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, inner in pairs if len(pairs) < 64 else pairs[:: len(pairs) // 24]:
        yield value, key
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _text(value) -> bytes:
    return json.dumps(value).encode()


BYTES: tuple[Damage, ...] = (flip, truncate, splice, zeros, noise, other)
TEXT = (*BYTES, line)
YAML = (*TEXT, laughs)
JSON = (*TEXT, swap, swap, swap, drop, drop, add, twice, nest)
TENSORS = (*BYTES, header, header, header, length, numbers)
