"""Who learns when several methods meet in one model: the base is frozen once, and nobody freezes what others added.

    attach    freezes the base; what other methods and names have added goes on learning, or not, as before
    detach    takes away what is its own; when nothing is left that any method added, what learned before the first
              attach learns again

A module that holds something learned says in which child, by `learned_in`: the word is all that libraries need to
know of each other. `learned_before` in the model remembers what the first attach froze.
"""

from collections.abc import Iterable

from torch import nn

from minigpt.tuning.report import Report


def base_of(model: nn.Module) -> list[nn.Parameter]:
    """The parameters that no method has added."""
    added = set()
    for module in _holders(model):
        base = getattr(module, "base", None)  # what is the base's stays so, also where an addition shares it
        shared = {id(weight) for weight in base.parameters()} if isinstance(base, nn.Module) else set()
        added |= {id(weight) for weight in getattr(module, module.learned_in).parameters()} - shared
    return [weight for weight in model.parameters() if id(weight) not in added]


def freeze(model: nn.Module):
    """The base learns nothing from now on. Gradients go too: AdamW leaves alone what has none, but decays zeros."""
    base = base_of(model)
    if "learned_before" not in vars(model):
        model.learned_before = [weight for weight in base if weight.requires_grad]
    for weight in base:
        weight.requires_grad_(False)
        weight.grad = None


def thaw(model: nn.Module):
    """What learned before the first attach learns again, if nothing is left that was added."""
    if not any(len(list(getattr(module, module.learned_in).children())) for module in _holders(model)):
        for weight in vars(model).pop("learned_before", ()):
            weight.requires_grad_(True)


def report(model: nn.Module, own: Iterable[nn.Parameter], stored: int) -> Report:
    """What of a method's `own` parameters learns, the bytes it takes on disk, and the size of the base."""
    learned = sum(weight.numel() for weight in own if weight.requires_grad)
    return Report(learned, stored, sum(weight.numel() for weight in base_of(model)))


def _holders(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(getattr(module, "learned_in", None), str)]
