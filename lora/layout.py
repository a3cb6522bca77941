"""Where a model's parameters lie in its checkpoint.

PEFT names layers as the checkpoint names its tensors, and so do we: a model whose own names differ tells them with a
method `checkpoint_layout()`, a list of (name in the checkpoint, ours, transposed), `ours` being the parameters that
are joined there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

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


def split(B: Tensor, sizes: list[int], ranks: list[int]) -> list[slice | None] | None:
    """Which ranks of B (O, R) belong to which of its parts, from `ranks` or from the zeros; None if it has no blocks.

    >>> B = torch.zeros(6, 2); B[:2, 0] = 1; B[4:, 1] = 1
    >>> split(B, [2, 2, 2], [])
    [slice(0, 1, None), None, slice(1, 2, None)]
    """
    if not ranks:
        filled = torch.stack([part.ne(0).any(0) for part in B.split(sizes)])  # (parts, R)
        if bool((filled.sum(0) != 1).any()):
            return None
        owners = filled.int().argmax(0)
        ranks = [int((owners == index).sum()) for index in range(len(sizes))]
        if not torch.equal(owners, owners.sort().values) or max(ranks) == 0:
            return None
    ends = torch.tensor([0, *ranks]).cumsum(0).tolist()
    return [slice(a, b) if b > a else None for a, b in zip(ends, ends[1:], strict=False)]
