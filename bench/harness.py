"""Who does the same work how fast?  Every peer in a process of its own, all of them in turn.

    work    what is to be done: a frozen dataclass with `name`, and `units` (tokens, say) that one turn deals with
    peer    who does it: a function of the work, which prepares everything and returns turn(), the work done once

A benchmark is a module with `Work`, `WORKS`, `PEERS` (name -> function), `REFERENCE` (a name) and `UNIT`. All peers of
a work prepare, do one turn that does not count, and wait (worker.py). Then, in every round, each has a turn while the
others wait, forwards and backwards by turns: whatever slows the machine for a while slows them all.

    speed    units / median seconds of a turn
    ratio    median seconds of a turn / median seconds of the reference's
    spread   the quartiles of the same ratio, round by round: how far to trust it
    peak     highest resident memory of the process while it worked, its libraries with it

Seconds are those of the wall, or of the processor (all threads of the process together): a busy machine makes a
process wait, which is no work of its own. With one thread the two are the same on an idle machine.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
CLOCKS = {"wall": "seconds", "cpu": "cpu_seconds"}


@dataclass(frozen=True)
class Settings:
    """How to measure; `paths` are directories that the user names: {"nanogpt": ...}."""

    rounds: int = 5
    threads: int = 2
    clock: str = "wall"
    paths: dict[str, str] | None = None


@dataclass(frozen=True)
class Result:
    """What one peer took for one work: turns as the worker wrote them, in the order of the rounds."""

    work: object
    peer: str
    turns: list[dict]
    clock: str = "wall"

    @property
    def seconds(self) -> list[float]:
        return [turn[CLOCKS[self.clock]] for turn in self.turns]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def speed(self) -> float:
        return self.work.units / self.median

    @property
    def peak_mib(self) -> float:
        return max(turn["peak_mib"] for turn in self.turns)

    @property
    def answers(self) -> list:
        """What the turns returned: a loss, or tokens."""
        return [turn["answer"] for turn in self.turns]

    def times(self, reference: "Result") -> float:
        """How many times as fast the reference is: the ratio of the medians."""
        return self.median / reference.median

    def spread(self, reference: "Result") -> tuple[float, float]:
        """Lower and upper quartile of that ratio, round by round."""
        return quartiles([a / b for a, b in zip(self.seconds, reference.seconds, strict=True)])


def quartiles(values: list[float]) -> tuple[float, float]:
    """The lower and the upper.

    >>> quartiles([1.0, 2.0, 3.0, 4.0, 5.0])
    (2.0, 4.0)
    """
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return lower, upper


class Missing(Exception):
    """A peer that is not installed, or whose directory was not given: it is left out, in one line."""


class Failed(Exception):
    """A peer that is there and does not work."""


class Worker:
    """The process of one peer."""

    def __init__(self, module: str, peer: str, work, settings: Settings):
        self.peer = peer
        job = {"module": module, "peer": peer, "work": asdict(work), "paths": settings.paths or {}}
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = os.environ | {"OMP_NUM_THREADS": str(settings.threads), "PYTHONPATH": path}
        self.words = tempfile.TemporaryFile()  # noqa: SIM115  not a pipe, which would fill up and stop who writes
        self.process = subprocess.Popen(
            [sys.executable, "-m", "bench.worker", json.dumps(job)], cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.words,
        )  # fmt: skip

    def prepare(self):
        """Wait until it has done its first turn."""
        if why := self._read().get("missing"):
            raise Missing(why)

    def turn(self) -> dict:
        with suppress(BrokenPipeError):  # it has ended: reading says so
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict:
        if line := self.process.stdout.readline():
            return json.loads(line)
        self.words.seek(0)
        words, killed = self.words.read().decode(errors="replace"), self.process.wait() == -signal.SIGKILL
        why = "it was killed, for want of memory perhaps: try fewer --peers\n" if killed else ""
        raise Failed(f"{self.peer}: the process has ended\n{why}{words[-3000:]}")

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.words.close()


def measure(module: str, work, peers: list[str], settings: Settings, say=tqdm.write) -> list[Result]:
    """All of `peers` at one work. Those that are missing are said so, and left out."""
    workers, found = {}, {}
    with ExitStack() as ends, tqdm(total=settings.rounds, desc=work.name, unit="round", disable=None) as bar:
        for peer in peers:
            bar.set_postfix_str(f"preparing {peer}")
            worker = Worker(module, peer, work, settings)
            ends.callback(worker.close)
            try:
                worker.prepare()
                workers[peer], found[peer] = worker, []
            except Missing as why:
                say(f"{work.name}: without {peer}: {why}")
        for number in range(settings.rounds):
            for peer in list(workers) if number % 2 == 0 else list(workers)[::-1]:
                bar.set_postfix_str(peer)
                found[peer].append(workers[peer].turn())
            bar.update()
    return [Result(work, peer, turns, settings.clock) for peer, turns in found.items()]


def lines(results: list[Result]) -> Iterator[str]:
    """Every turn as a line of JSON."""
    for result in results:
        for number, turn in enumerate(result.turns):
            record = {"work": result.work.name, "peer": result.peer, "round": number, "units": result.work.units}
            yield json.dumps(record | turn)
