"""What a run says while it trains: a bar for the person, metrics.jsonl for programs, TensorBoard when asked."""

import json
import math
import re
from contextlib import suppress
from pathlib import Path

import torch

from minigpt.errors import Error
from minigpt.files import as_error, write_atomic


class Log:
    """Appends records to run/metrics.jsonl: {"kind": "method" | "train" | "eval" | "sample" | "final", "step": N, ...}.

    When a run goes on from step N, what was recorded after N is dropped: it is going to happen again.
    """

    def __init__(self, run: Path, start: int, steps: int, tensorboard: bool = False):
        from tqdm import tqdm

        self.path = Path(run) / "metrics.jsonl"
        kept = [record for record in read_metrics(run) if record["step"] <= start] if start else []
        write_atomic(self.path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))
        self.file = self.path.open("a", encoding="utf-8")
        self.evaluations = [record for record in kept if record["kind"] == "eval"]
        self.board = _tensorboard(run, start) if tensorboard else None
        self.bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, smoothing=0.05)

    def record(self, kind: str, step: int, **values):
        if kind == "eval":
            self.evaluations.append(values)
        with as_error("write", self.path):
            self.file.write(json.dumps({"kind": kind, "step": step, **values}, ensure_ascii=False) + "\n")
            self.file.flush()
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, str):
                    self.board.add_text(f"{kind}/{name}", value, step)
                elif isinstance(value, int | float):
                    self.board.add_scalar(f"{kind}/{name}", value, step)

    def best(self, score) -> tuple:
        """The lowest score of an evaluation, resumed ones included."""
        return min(map(score, self.evaluations), default=(math.inf,))

    def advance(self, loss: float, tokens_per_second: float):
        self.bar.set_postfix_str(
            f"loss {loss:.3f}, {tokens_per_second:,.0f} tokens/s, {peak_memory() / 2**20:,.0f} MiB", refresh=False
        )
        self.bar.update()

    def say(self, text: str):
        """A line above the bar."""
        self.bar.write(text)

    def close(self):
        self.bar.close()
        with suppress(OSError):  # of what `record` could not write, and said so
            self.file.close()
        if self.board is not None:
            self.board.close()


class Unheard(Log):
    """The log of a process beside the main one: it knows the best evaluation as that does, and writes nothing."""

    def __init__(self, run: Path, start: int):
        kept = [record for record in read_metrics(run) if record["step"] <= start] if start else []
        self.evaluations = [record for record in kept if record["kind"] == "eval"]

    def record(self, kind: str, step: int, **values):
        if kind == "eval":
            self.evaluations.append(values)

    def advance(self, loss: float, tokens_per_second: float): ...

    def say(self, text: str): ...

    def close(self): ...


def read_metrics(run: Path) -> list[dict]:
    """The records of a run; a line that is none is passed over: one cut short by a crash, or damaged."""
    path = Path(run) / "metrics.jsonl"
    try:
        lines = path.read_bytes().split(b"\n") if path.is_file() else []  # not splitlines: U+2028 may be in a sample
    except OSError as problem:
        raise Error(f"{path}: cannot read it: {problem.strerror}") from None
    return [record for line in lines if (record := _record(line)) is not None]


def _record(line: bytes) -> dict | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("step")) is not int or not isinstance(record.get("kind"), str):
        return None
    measured = {"train": ("loss", "lr"), "eval": ("loss",)}.get(record["kind"], ())  # what the pictures are made of
    return record if all(type(record.get(name)) in (int, float) for name in measured) else None


def peak_memory() -> int:
    """Most bytes this process has held: on the GPU where one is used, else resident in RAM; 0 where unknown."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # what Linux gives to getrusage may be that of the process which began this one
        return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status.read_text())[1])
    try:
        import resource
        import sys
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _tensorboard(run: Path, start: int):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise Error("--tensorboard needs the package: pip install minigpt[tensorboard]") from None
    return SummaryWriter(str(run), purge_step=start + 1)
