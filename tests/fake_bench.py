"""Work whose cost is known, for the tests of the bench harness: each turn is a line in the file `work.log`."""

import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.harness import Missing


@dataclass(frozen=True)
class Work:
    name: str = "nothing"
    units: int = 10
    log: str = "/dev/null"


def doing(what, name: str, work: Work):
    print("a library that is proud of being loaded")  # must not be taken for an answer

    def turn():
        with Path(work.log).open("a") as file:
            file.write(f"{name} {os.getpid()}\n")
        return what()

    return turn


def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def burn(seconds: float) -> str:
    """So many seconds of the processor, however busy it is."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "burned"


def child() -> str:
    import subprocess

    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"], check=True)
    return "waited"


def large(work: Work):
    """Much memory to prepare, 64 MiB to work."""
    del [bytearray(256 << 20)][0]
    return lambda: len(bytearray(b"\1") * (64 << 20))


def absent(work: Work):
    raise Missing("nobody wrote it")


def broken(work: Work):
    raise ZeroDivisionError("cannot be prepared")


def dies(work: Work):
    turns = iter([None])
    return lambda: next(turns)


def killed(work: Work):
    os.kill(os.getpid(), signal.SIGKILL)


PEERS = {
    "short": partial(doing, partial(sleep, 0.02), "short"),
    "long": partial(doing, partial(sleep, 0.2), "long"),
    "busy": partial(doing, partial(burn, 0.1), "busy"),
    "parent": partial(doing, child, "parent"),
    "large": large,
    "absent": absent,
    "broken": broken,
    "dies": dies,
    "killed": killed,
}
UNIT, REFERENCE, WORKS = "things/s", "short", [Work()]
