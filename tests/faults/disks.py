"""A disk that fills up, and a place that cannot be written: told in a sentence, and what was there stays there.

`full` sets the largest size of a file that this process may write (RLIMIT_FSIZE): the kernel then refuses the rest of
it with EFBIG, in the middle of the file, as a full disk does with ENOSPC; it holds for root and for libraries that
write by themselves. Where a file system of a few blocks can be mounted, `mounted` is a real full disk.
"""

import resource
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import lora
from minigpt import heads, hub
from minigpt.training.checkpoint import Progress, save_checkpoint
from minigpt.training.weights import WholeModel
from minigpt.tuning import adapter, prefix, prompt
from tests.faults import subjects
from tests.faults.fuzz import OURS
from tests.faults.kills import LEFT, content, merge_into, prepare_into


@contextmanager
def full(size: int) -> Iterator[None]:
    """Inside, no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # else the kernel ends the process; so write() fails
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


@contextmanager
def mounted(folder: Path, kilobytes: int) -> Iterator[Path | None]:
    """A disk of so many kilobytes at `folder`, or None where this process may not mount one."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def refused(write: Callable[[], object], folder: Path) -> str:
    """What a writer said when it could not; an AssertionError where it did not say so, or left something half."""
    before = content(folder)
    try:
        write()
    except OURS as problem:
        assert content(folder) == before, "what was there has changed"
        left = [path.name for path in folder.rglob(f"*{LEFT}*")]
        assert not left, f"left behind: {left}"
        return str(problem)
    raise AssertionError("nothing was refused")


def writers(folder: Path) -> dict[str, Callable[[Path], object]]:
    """Everything that writes, by what it writes; each takes the name of a directory."""
    model, learner, config = subjects.gpt(d_model=64, n_layers=2), subjects.Learner(), {"d_model": 64}
    learned = {
        "a LoRA adapter": (lora, lora.Config(r=4, targets=("q_proj",))),
        "a soft prompt": (prompt, prompt.PromptConfig(length=12)),
        "a prefix": (prefix, prefix.PrefixConfig(length=12)),
        "an adapter": (adapter, adapter.AdapterConfig()),
    }
    found = {"a model": lambda out: hub.save(model, out)}
    for name, (method, options) in learned.items():
        tuned = subjects.gpt(**config)
        method.attach(tuned, options)
        found[name] = partial(method.save, tuned)
    state = WholeModel(learner.model), learner.model, learner.optimizer, Progress(step=1)
    return found | {
        "a checkpoint": lambda out: save_checkpoint(out, *state),
        "a merged model": merge_into(folder / "merging"),
        "tokens": prepare_into(folder / "preparing"),
        "a task's head": partial(heads.save, subjects.task()),
    }
