"""metrics.jsonl read while it is being written: each time only what is new, never more than a screen can show.

    file     |--- read before ---|--- at most CHUNK bytes, whole lines ---|--- left ---|
                              place                                   next place

A reader keeps its `Place` and gives it back: nothing is remembered here, and a hundred readers cost what one does.
A place holds a check on the bytes before it. A run that was resumed or begun again has other bytes there (or none),
so that its reader begins anew; where the same bytes are, the same records were.

Records know no time of day. Seconds and tokens are sums over steps, as far as they are written down: a record that
stands for 10 steps counts 10 times. They are those of learning, without evaluations and samples.
"""

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHUNK = 1 << 23  # bytes read at once: a tenth of a second's work
LOOKED_AT = 512  # bytes before a place that are checked: a few records, with their speeds, which no two runs share
MOST = 1000  # points of a curve in one answer
SHOWN = 20  # samples in one answer, the newest
LETTERS = 20_000  # of a sample
SMOOTH = 25  # records that a smoothed loss is about
COUNTED = ("step", "tokens", "seconds")
TRAINED = ("loss", "lr", "grad_norm", "tokens_per_second")
EVALUATED = ("loss", "bits_per_byte", "perplexity", "accuracy", "macro_f1")


@dataclass(frozen=True)
class Place:
    """How far a reader has come, and what was counted up to there.

    >>> str(Place(812, 99, step=4, tokens=8192)), Place.read("812_99_4_8192_0_0_0").step, Place.read("nonsense").step
    ('812_99_4_8192_0_0_0', 4, 0)
    """

    offset: int = 0
    check: int = 0
    step: int = 0
    tokens: int = 0
    milliseconds: int = 0
    records: int = 0  # of training
    smoothed: int = 0  # millionths of a nat

    def __str__(self) -> str:
        return "_".join(str(number) for number in vars(self).values())

    @classmethod
    def read(cls, text: str) -> "Place":
        """The place a reader gave back; the beginning, if it is none."""
        words = text.split("_")
        sound = len(words) == 7 and all(word.isascii() and word.isdigit() and len(word) < 19 for word in words)
        return cls(*map(int, words)) if sound else cls()


@dataclass
class News:
    """What was read: rows of numbers, None where one is not known.

    trained      COUNTED, the smoothed loss, TRAINED
    evaluated    COUNTED, EVALUATED
    """

    place: Place
    anew: bool = False  # forget what was read before
    size: int = 0  # of the file
    unreadable: int = 0  # lines
    trained: list[tuple] = field(default_factory=list)
    evaluated: list[tuple] = field(default_factory=list)
    samples: list[dict] = field(default_factory=list)

    def answer(self) -> dict[str, Any]:
        """For a browser."""
        return {
            "place": str(self.place),
            "anew": self.anew,
            "read": self.place.offset,
            "size": self.size,
            "unreadable": self.unreadable,
            "trained": _columns(self.trained, (*COUNTED, "smoothed"), TRAINED),
            "evaluated": _columns(self.evaluated, COUNTED, EVALUATED),
            "samples": self.samples[-SHOWN:],
        }


def _columns(rows: list[tuple], counted: Sequence[str], measured: Sequence[str]) -> dict[str, Sequence]:
    """The rows, thinned by what was measured, as columns."""
    names = (*counted, *measured)
    shown = thin(rows, range(len(counted), len(names)))
    return dict(zip(names, zip(*shown, strict=True) if shown else [()] * len(names), strict=True))


def follow(path: Path, place: Place = Place(), chunk: int = CHUNK) -> News:
    """What was written after `place`; all from the beginning, if the file is another by now. `OSError` if it is gone.

    A last line without an end is still being written and is left for the next time. One longer than a chunk, which
    no run writes, is passed over.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        anew = not place.offset or place.offset > size or _check(file, place.offset) != place.check
        place = Place() if anew else place
        file.seek(place.offset)
        data = file.read(chunk)
        end = data.rfind(b"\n") + 1
        if not end and len(data) == chunk:
            end = chunk
        lines = data[:end].split(b"\n")
        news = News(place, anew, size)
        counted = _count(lines, place, news)
        news.place = Place(place.offset + end, _check(file, place.offset + end), *counted)
    return news


def _check(file, offset: int) -> int:
    begin = max(0, offset - LOOKED_AT)
    file.seek(begin)
    return zlib.crc32(file.read(offset - begin))


def _count(lines: list[bytes], place: Place, news: News) -> tuple[int, ...]:
    """Sort records into `news`; what is counted after them, as a place has it."""
    step, tokens, seconds = place.step, place.tokens, place.milliseconds / 1000
    records, smoothed = place.records, place.smoothed / 1e6
    for line in filter(None, lines):
        record = parse(line)
        if record is None:
            news.unreadable += 1
            continue
        if record["kind"] == "train":
            steps, speed = max(0, record["step"] - step), number(record.get("tokens_per_second"))
            own = number(record.get("tokens")) or 0
            step, tokens = record["step"], tokens + int(steps * own)
            seconds += steps * own / speed if speed else 0
            loss, records = number(record.get("loss")), records + 1
            smoothed += (loss - smoothed) / min(records, SMOOTH) if loss is not None else 0  # first the mean of all
            news.trained.append((step, tokens, round(seconds, 3), round(smoothed, 6), *_numbers(record, TRAINED)))
        elif record["kind"] == "eval":
            news.evaluated.append((record["step"], tokens, round(seconds, 3), *_numbers(record, EVALUATED)))
        elif record["kind"] == "sample":
            news.samples.append({"step": record["step"], "text": sound(record.get("text"), LETTERS)})
    return step, tokens, int(seconds * 1000), records, int(max(0.0, smoothed) * 1e6)


def parse(line: bytes) -> dict | None:
    """The record of a line, or None: half of one, or something else.

    >>> parse(b'{"kind": "train", "step": 1}'), parse(b'{"kind": "tra'), parse(b'{"kind": "eval", "step": -1}')
    ({'kind': 'train', 'step': 1}, None, None)
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("kind"), str):
        return None
    step = record.get("step")
    return record if isinstance(step, int) and 0 <= step < 2**53 else None


def number(value: Any) -> float | int | None:
    """A number that JSON can hold and a curve can show; None for all else, such as NaN.

    >>> number(2.5), number(float("nan")), number(True), number("3"), number(10**400)
    (2.5, None, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if -1e300 < value < 1e300 else None


def sound(text: Any, most: int) -> str:
    """A text that can be sent: half a surrogate pair cannot."""
    return text[:most].encode("utf-8", "replace").decode("utf-8") if isinstance(text, str) else ""


def _numbers(record: dict, names: Sequence[str]) -> list:
    return [number(record.get(name)) for name in names]


def thin(rows: list[tuple], columns: Sequence[int], most: int = MOST) -> list[tuple]:
    """At most `most` of the rows, in order: of each stretch those with the least and the greatest of each column.

    So a spike of one step is seen however long the run is; every n-th row would lose it.

    >>> thin([(0, 1.0), (1, 2.0), (2, 9.0), (3, 2.0), (4, 1.5), (5, 1.0)], [1], most=4)
    [(0, 1.0), (2, 9.0), (5, 1.0)]
    """
    if len(rows) <= most:
        return rows
    stretches = max(1, (most - 2) // (2 * len(columns)))
    kept = {0, len(rows) - 1}
    for k in range(stretches):
        stretch = range(k * len(rows) // stretches, (k + 1) * len(rows) // stretches)
        for column in columns:
            known = [(rows[i][column], i) for i in stretch if rows[i][column] is not None]
            if known:
                kept |= {min(known)[1], max(known)[1]}
    return [rows[i] for i in sorted(kept)]
