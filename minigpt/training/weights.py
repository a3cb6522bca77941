"""What a run keeps on disk of what it learns, and how it gets it back.

    `Kept`     what is needed to use it: a whole model, or the method's own files; beside them the head of a task
    `State`    what is needed to go on: the same, and where a frozen model is not kept every number that learns, by its
               name, in learned.safetensors; an encoder that only made the numbers to keep is among them

Both have `save` and `load`, which is all that checkpoints and ranks ask for.
"""

from pathlib import Path

import torch
from torch import nn

from minigpt import heads, hub
from minigpt.errors import Error
from minigpt.model import GPT
from minigpt.tensor_files import write_tensors
from minigpt.tuning import strict
from minigpt.tuning.method import Method

LEARNED = "learned.safetensors"


class WholeModel:
    """The model as a Hugging Face directory; `extra` goes into its config.json (`eos_token_id=...`)."""

    def __init__(self, model: GPT, **extra):
        self.model, self.extra = model, extra

    def save(self, directory: Path):
        hub.save(self.model, directory, **self.extra)

    def load(self, directory: Path):
        """Put the weights of `directory` into the model, which must be of that shape."""
        if hub.read_config(directory)[1] != self.model.config:
            raise Error(f"{directory}: another model than the one asked for: resume with the options of the run")
        hub.load_weights(self.model, directory)


class Kept:
    """What a method learned of `model`, whose name or directory is `base`, for use; `task` is a heads.Task or None."""

    def __init__(self, method: Method, model: GPT, task: nn.Module | None = None, base: str = "", **extra):
        self.method, self.model, self.task, self.base = method, model, task, base
        self.whole = WholeModel(model, **extra) if method.whole else None

    @property
    def module(self) -> nn.Module:
        return self.model if self.task is None else self.task

    def save(self, directory: Path):
        self.whole.save(directory) if self.whole else self.method.save(self.model, directory, self.base)
        if self.task is not None:
            heads.save(self.task, directory)

    def load(self, directory: Path):
        self.whole.load(directory) if self.whole else self.method.load(self.model, directory)
        if self.task is not None:
            heads.refill(self.task, directory)


class State:
    """What `kept` keeps, so that learning can go on from it."""

    def __init__(self, kept: Kept):
        self.kept = kept

    def save(self, directory: Path):
        self.kept.save(directory)
        if not self.kept.whole:
            learned = {name: weight.detach().cpu().contiguous() for name, weight in self._learned().items()}
            write_tensors(directory / LEARNED, learned)

    def load(self, directory: Path):
        if self.kept.whole:
            self.kept.load(directory)
            return
        ours, found = self._learned(), strict.read_tensors(directory / LEARNED)
        shapes = [{name: tuple(tensor.shape) for name, tensor in each.items()} for each in (ours, found)]
        if odd := sorted(dict(shapes[0].items() ^ shapes[1].items())):
            raise Error(f"{directory / LEARNED}: {odd[0]} does not fit: resume with the options of the run")
        with torch.no_grad():
            for name, weight in ours.items():
                weight.copy_(found[name])

    def _learned(self) -> dict[str, nn.Parameter]:
        return {name: weight for name, weight in self.kept.module.named_parameters() if weight.requires_grad}
