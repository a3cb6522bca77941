"""Where a model's parameters lie in its checkpoint.

PEFT names layers as the checkpoint names its tensors, and so do we: a model whose own names differ tells them with a
method `checkpoint_layout()`, a list of (name in the checkpoint, ours, transposed), `ours` being the parameters that
are joined there.
"""

from dataclasses import dataclass

from torch import nn

from lora.errors import Error


@dataclass(frozen=True)
class Entry:
    """One tensor of the checkpoint: its name, the parameters joined in it, and whether it is stored (I, O)."""

    name: str
    ours: tuple[str, ...]
    transposed: bool = False


class Layout:
    """Names in the model to names in the checkpoint; the same names, for a model that says nothing."""

    def __init__(self, model: nn.Module):
        told = getattr(model, "checkpoint_layout", None)
        entries = [Entry(entry.name, tuple(entry.ours), entry.transposed) for entry in told()] if told else []
        self.differs = bool(told)
        self.entries = {entry.name: entry for entry in entries}
        self.of = {ours: entry for entry in entries for ours in entry.ours}

    def entry(self, parameter: str) -> Entry:
        """Where a parameter lies on disk."""
        if not self.differs:
            return Entry(parameter, (parameter,))
        if parameter not in self.of:
            raise Error(f"lora: {parameter} is not in the model's checkpoint_layout(): its adapter cannot be saved")
        return self.of[parameter]

    def at(self, tensor: str) -> Entry | None:
        """What lies in the tensor of that name; None if the model has no such."""
        return self.entries.get(tensor) if self.differs else Entry(tensor, (tensor,))
