"""What stands in the place of a module that has adapters; and the simplest such, a module that is learned whole."""

from copy import deepcopy

from torch import nn


class Holder(nn.Module):
    """The frozen module as `base`, its `adapters` by name, and the names of those at work: `active`.

    With `enable(False)` it is as if there were none. `learned_in` tells whoever asks in which child what learns is.
    """

    learned_in = "adapters"

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.active: tuple[str, ...] = ()
        self.enabled = True

    def enable(self, enabled: bool):
        self.enabled = enabled


class Saved(Holder):
    """Each adapter is a copy of the base, learned whole: PEFT's modules_to_save. With only="bias" the copy shares
    everything with the base but its bias: PEFT's bias="all".
    """

    def add(self, name: str, only: str | None = None):
        shared = {id(p): p for own, p in self.base.named_parameters() if only is not None and own != only}
        copy = deepcopy(self.base, shared)  # which leaves what is shared as it is
        for parameter in copy.parameters():
            parameter.requires_grad_(id(parameter) not in shared)
        self.adapters[name] = copy

    def forward(self, *args, **kwargs):
        works = self.adapters[self.active[0]] if self.enabled and self.active else self.base
        return works(*args, **kwargs)
