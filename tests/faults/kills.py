"""kill -9 at random moments of what writes: nothing is lost, nothing is half there, and going on gives the same bits.

A moment is drawn over the whole time that the work takes in peace. The work is done by a fork of this process, which
has torch already: so the kills fall into the work and not into the seconds of importing it.
"""

import contextlib
import os
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

import lora
from lora.merge_files import merge_checkpoint
from minigpt import GPT, hub
from minigpt.corpus.preparation import prepare
from minigpt.training.checkpoint import list_checkpoints
from tests.faults import subjects, texts
from tests.faults.fuzz import OURS
from tests.runs import RARELY, SHAPE, SMALL, train, write_lines

LEFT = ".tmp-"  # in the name of what a killed process may leave; anything else is a whole thing


@dataclass(frozen=True)
class Killed:
    """How often work was killed, how often it had ended before, and what was wrong after."""

    work: str
    kills: int
    ended: int
    faults: list[str]


def killed_after(work: Callable[[], object], seconds: float) -> bool:
    """Do `work` in a fork and kill that after so long; whether it was still at work. An exception there is ours."""
    child = os.fork()
    if not child:
        tqdm.set_lock(threading.RLock())  # its own is shared with the parent, and who is killed does not give it back
        with contextlib.suppress(BaseException):
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            work()
            os._exit(0)
        os._exit(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return _ended(status)
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    return _ended(os.waitpid(child, 0)[1])


def _ended(status: int) -> bool:
    if os.WIFSIGNALED(status):
        return True
    if os.WEXITSTATUS(status):
        raise AssertionError("the work failed, and not by the kill")
    return False


def together(work: Callable[[], object], count: int = 2) -> list[int]:
    """`count` forks do the same at once; of each 0: done, 2: an `Error` of ours, 1: anything else."""
    children = []
    for _ in range(count):
        if not (child := os.fork()):
            code = 1
            with contextlib.suppress(Exception):
                try:
                    work()
                    code = 0
                except OURS:
                    code = 2
            os._exit(code)
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def content(folder: Path) -> dict[str, bytes]:
    """The files below a folder, without those under temporary names."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): f.read_bytes() for f in files if LEFT not in str(f.relative_to(folder))}


def writer(name: str, folder: Path, write: Callable[[Path], object], kills: int, seed: int = 0) -> Killed:
    """Kill `write(folder / "out")`: "out" is absent or whole, and writing it again gives what peace gives."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    killed_after(lambda: write(folder / "peace"), 600)
    lasts, draw = time.monotonic() - began, random.Random(seed)
    whole, out, found, ended, faults = content(folder / "peace"), folder / "out", 0, 0, []
    while found < kills and ended < 10 * kills:
        shutil.rmtree(out, ignore_errors=True)
        caught = killed_after(lambda: write(out), lasts * draw.random())
        found, ended, lasts = found + caught, ended + (not caught), lasts * (1 if caught else 0.9)  # it may get faster
        if out.exists() and content(out) != whole:
            faults.append(f"{name}: after kill {found} something half is there")
        if not out.exists():
            write(out)
            if content(out) != whole:
                faults.append(f"{name}: after kill {found}, done again, it is other than in peace")
    return Killed(name, found, ended, faults)


def merge_into(folder: Path) -> Callable[[Path], object]:
    """What merges an adapter of `folder` into the base there."""
    torch.manual_seed(0)
    model = subjects.gpt(d_model=64, n_layers=4, vocab_size=500)
    hub.save(model, folder / "base")
    lora.attach(model, lora.Config(r=4, targets=("q_proj", "v_proj")))
    lora.save(model, folder / "adapter")
    return lambda out: merge_checkpoint(folder / "base", folder / "adapter", out)


def prepare_into(folder: Path) -> Callable[[Path], object]:
    """What makes tokens of notes in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    source = write_lines(folder / "notes.jsonl", ({"note": f"{note} {i}"} for i in range(300) for note in texts.NOTES))
    return lambda out: prepare(source, out, field="note", vocab_size=400, progress=False)


def merging(folder: Path, kills: int) -> Killed:
    return writer("python -m lora merge", folder / "work", merge_into(folder), kills)


def preparing(folder: Path, kills: int) -> Killed:
    return writer("data/prepare.py", folder / "work", prepare_into(folder), kills)


def saving(folder: Path, kills: int) -> Killed:
    """A model saved over another of its shape: the weights are those of one of the two."""
    folder.mkdir(parents=True)
    old, new = (subjects.gpt(d_model=64, n_layers=4) for _ in range(2))
    with torch.no_grad():
        new.token_embedding.weight += 1
    out, draw, found, ended, faults = folder / "out", random.Random(0), 0, 0, []
    began = time.monotonic()
    killed_after(lambda: hub.save(new, folder / "peace"), 600)
    lasts = time.monotonic() - began
    either = [subjects.values(each) for each in (old, new)]
    while found < kills and ended < 10 * kills:
        hub.save(old, out)
        caught = killed_after(lambda: hub.save(new, out), lasts * draw.random())
        found, ended, lasts = found + caught, ended + (not caught), lasts * (1 if caught else 0.9)  # it may get faster
        if subjects.values(GPT.from_pretrained(out)) not in either:
            faults.append(f"saving: after kill {found} the weights are of neither model")
    return Killed("a model saved over another", found, ended, faults)


def training(folder: Path, kills: int, steps: int = 12) -> Killed:
    """Runs of `steps` steps, each saved, killed and resumed until they are done: bit for bit the run in peace."""
    folder.mkdir(parents=True)
    notes = write_lines(folder / "notes.jsonl", ({"note": f"{note} {i}"} for i in range(20) for note in texts.NOTES))
    words = ["--data", notes, "--field", "note", *SHAPE, *SMALL, *RARELY, "--steps", steps, "--save-every", 1]

    def go(out: Path):
        resume = ["--resume"] if list_checkpoints(out) else ["--overwrite", *words]
        code, said = train("--out", out, *resume)
        assert code == 0, said

    began = time.monotonic()
    killed_after(lambda: go(folder / "peace"), 600)
    lasts, whole = time.monotonic() - began, _learned(folder / "peace")
    draw, found, runs, faults = random.Random(0), 0, 0, []
    while found < kills:
        out = folder / f"run-{runs}"
        while killed_after(lambda out=out: go(out), lasts * draw.random() if found < kills else 600):
            found += 1
        if _learned(out) != whole:
            faults.append(f"training: run {runs}, {found} kills in all, is not the run in peace")
        shutil.rmtree(out)
        runs += 1
    return Killed("train.py, resumed", found, runs, faults)


def _learned(run: Path) -> tuple:
    """The model kept, and the last checkpoint with its optimizer."""
    last = list_checkpoints(run)[-1]
    files = run / "model.safetensors", last / "model.safetensors", last / "optimizer.safetensors"
    return last.name, [file.read_bytes() for file in files]


WORKS = {"training": training, "saving": saving, "merging": merging, "preparing": preparing}
