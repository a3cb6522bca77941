"""Damage a file, read it as a user does, and judge.

refused   an `Error` of ours, one sentence that fits on a screen; what was in memory is as it was
same      the same values as before the damage: it hit what says nothing, such as a space
other     other values, and they are those that the damaged file says, as its `witness` (another library, or the
          standard one) reads it: a flipped bit of a weight is a weight, no reader can know
FAULT     anything else: another exception, more than SECONDS of the processor, more than MEMORY, other values
              than the file's
"""

import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lora
import minigpt
from tests.faults.damage import Damage

SECONDS, MEMORY = 5, 1 << 30
OURS = (minigpt.Error, lora.Error)
LONGEST = 1200  # characters of an error


@dataclass(frozen=True)
class Subject:
    """A kind of file.

    name     as the table says it
    files    name of a file in the folder -> the damages it is given
    make     fills an empty folder with whole files
    read     what a user does with the folder: something that compares equal for equal values
    witness  (folder, what was read) -> whether the damaged files do say that; None: they may say anything readable
    memory   what must be as before after an error: a function of nothing, or None where reading only makes new things
    """

    name: str
    files: dict[str, tuple[Damage, ...]]
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    witness: Callable[[Path, object], bool] | None = None
    memory: Callable[[], object] | None = None


@dataclass
class Result:
    """What came of a subject's damages."""

    subject: str
    counts: Counter = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return sum(self.counts.values())


class Late(BaseException):
    """A reader took too long."""


def fuzz(subject: Subject, count: int, folder: Path, seed: int = 0) -> Result:
    """`count` damages, spread evenly over the files of a subject; each is done to whole files."""
    whole, work = folder / "whole", folder / "work"
    whole.mkdir(parents=True)
    subject.make(whole)
    expected, result = subject.read(whole), Result(subject.name)
    files = list(subject.files)
    shutil.copytree(whole, work)
    for number in range(count):
        name = files[number % len(files)]
        draw = random.Random(f"{seed} {subject.name} {name} {number}")
        damage = draw.choice(subject.files[name])
        data = _broken((whole / name).read_bytes(), damage, draw)
        (work / name).write_bytes(data)
        verdict, why = judge(subject, work, expected)
        result.counts[verdict] += 1
        if verdict == "FAULT":
            result.faults.append(f"{subject.name}: {name}, {damage.__name__}, number {number}: {why}")
        if {path.name for path in work.iterdir()} != {path.name for path in whole.iterdir()}:
            shutil.rmtree(work)
            shutil.copytree(whole, work)
        (work / name).write_bytes((whole / name).read_bytes())
    return result


def judge(subject: Subject, folder: Path, expected) -> tuple[str, str]:
    """The verdict, and what happened."""
    before = subject.memory() if subject.memory else None
    try:
        with limits(SECONDS, MEMORY):
            found = subject.read(folder)
    except OURS as problem:
        text = str(problem)
        if "\n" in text.strip() or not 10 < len(text) <= LONGEST:
            return "FAULT", f"not a sentence: {text!r:.300}"
        if subject.memory and subject.memory() != before:
            return "FAULT", f"refused, and half changed: {text}"
        return "refused", text
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a panic of Rust is not an Exception
        return "FAULT", f"{_place(problem)}: {type(problem).__name__}: {str(problem)[:200]}"
    if found == expected:
        return "same", ""
    if subject.witness and not subject.witness(folder, found):
        return "FAULT", "the values read are not those of the file"
    return "other", ""


@contextmanager
def limits(seconds: float, memory: int = MEMORY) -> Iterator[None]:
    """Inside, who works longer meets `Late`, and who asks for more memory a `MemoryError`."""
    import resource

    def late(number, frame):
        raise Late(f"more than {seconds} seconds of the processor")

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = signal.signal(signal.SIGPROF, late)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _broken(data: bytes, damage: Damage, draw: random.Random) -> bytes:
    """Other bytes than these, if the damage can find any."""
    for _ in range(20):
        if (found := damage(data, draw)) != data:
            return found
    return data


def _place(problem: BaseException) -> str:
    """The last line of ours that it went through."""
    place, trace = "?", problem.__traceback__
    while trace:
        file = trace.tb_frame.f_code.co_filename
        if "/minigpt/" in file or "/lora/" in file:
            place = f"{Path(file).parent.name}/{Path(file).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place
