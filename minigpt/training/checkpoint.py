"""Checkpoints: directories of safetensors and JSON, complete or not there, the last few kept.

    run/
      config.json  model.safetensors  tokenizer.json     the model that validated best, as Hugging Face knows it
      checkpoints/step-00000500/
        config.json  model.safetensors                   the model after step 500, also a directory of its own
        optimizer.safetensors  state.json                what resuming needs besides

There is no random state to save: see streams.py. There is no data state either: batch i is a function of i.
"""

import json
import math
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from minigpt.errors import Error
from minigpt.files import atomic_directory
from minigpt.tensor_files import write_tensors
from minigpt.training.optimizer import load_state_by_name, state_by_name
from minigpt.training.ranks import ALONE

NAME = re.compile(r"step-(\d{8})")


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run has come; with the weights and the optimizer, all that its future depends on."""

    step: int = 0  # optimizer steps made
    tokens: int = 0  # targets trained on
    seconds: float = 0.0  # spent training, over all its processes
    scaler: dict = field(default_factory=dict)  # of fp16, see precision.py


def save_checkpoint(
    run: Path, weights, model: nn.Module, optimizer, progress: Progress, keep: int = 2, ranks=ALONE
) -> Path:
    """Write checkpoints/step-N, then remove all but the last `keep`.

    `weights` saves what is learned of the model, such as `weights.WholeModel`. Killed at any moment, the run has its
    previous checkpoint: a directory gets its name only when it is whole and on the disk.
    """
    directory = Path(run) / "checkpoints" / f"step-{progress.step:08d}"
    ranks.settle(model)
    state = ranks.gather(state_by_name(model, optimizer))
    with ranks.writing(model) as whole:
        if whole:
            _write(directory, weights, state, progress, keep)
    return directory


def _write(directory: Path, weights, state: dict, progress: Progress, keep: int):
    with atomic_directory(directory, replace=True) as temporary:
        weights.save(temporary)
        write_tensors(temporary / "optimizer.safetensors", state)
        (temporary / "state.json").write_text(json.dumps(vars(progress)) + "\n", encoding="utf-8")
    for old in list_checkpoints(directory.parents[1])[:-keep]:
        # Renamed first: killed half-way through removing it, what is left must not look like a checkpoint.
        shutil.rmtree(old.rename(old.with_name(f"{old.name}.tmp-old")))


def remove_leftovers(run: Path):
    """What an earlier process was killed over: files and directories under temporary names."""
    for folder in (Path(run), Path(run) / "checkpoints"):
        for path in folder.glob("*.tmp-*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def list_checkpoints(run: Path) -> list[Path]:
    """The complete checkpoints of a run, oldest first."""
    found = (Path(run) / "checkpoints").glob("step-*")
    return sorted(path for path in found if NAME.fullmatch(path.name))


def load_checkpoint(run: Path, weights, model: nn.Module, optimizer, ranks=ALONE, before_step=None) -> Progress:
    """Put the latest checkpoint of `run` into a model and optimizer of the same shape.

    Where what learns depends on the step, `before_step` makes it what it was: only that the optimizer remembers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    checkpoints = list_checkpoints(run)
    if not checkpoints:
        raise Error(f"{run}: no checkpoint to resume from: start the run without --resume")
    latest = checkpoints[-1]
    try:
        ranks.load(weights, model, latest)
        progress = read_progress(latest / "state.json")
        if before_step is not None and progress.step:
            before_step(progress.step - 1)
        load_state_by_name(model, optimizer, load_file(latest / "optimizer.safetensors"))
        ranks.spread(optimizer)
        return progress
    except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as problem:
        raise Error(f"{latest}: damaged ({problem}); remove it to resume from the one before") from None


def read_progress(file: Path) -> Progress:
    """What state.json says; ValueError or TypeError for what no run has written."""
    values = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or values.keys() != vars(Progress()).keys():
        raise ValueError(f"state.json holds other keys than {', '.join(vars(Progress()))}")
    counts = values["step"], values["tokens"]
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
        raise ValueError(f"state.json: step and tokens are {counts!r:.80}, expected whole numbers")
    if type(values["seconds"]) not in (int, float) or not 0 <= values["seconds"] < math.inf:
        raise ValueError(f"state.json: seconds is {values['seconds']!r:.80}, expected a number")
    if not isinstance(values["scaler"], dict):
        raise ValueError(f"state.json: scaler is {values['scaler']!r:.80}, expected an object")
    return Progress(**values)
