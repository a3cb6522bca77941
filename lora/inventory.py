"""What is attached to a model: reads, never writes.

A target of an adapter has been replaced by a `Holder`, at the same path, with the old module as its `base`.
"""

from dataclasses import dataclass

from torch import nn

from lora.config import Config
from lora.errors import Error, nearest
from lora.layers import Layer
from lora.saved import Holder


@dataclass(frozen=True)
class Report:
    """What `attach` did, in numbers; print it."""

    name: str
    layers: tuple[str, ...]
    parameters: int  # that learn
    stored: int  # their bytes; a file for PEFT holds zeros besides, where the layers are fused on disk
    base: int  # parameters of the model without adapters

    def __str__(self) -> str:
        total = self.parameters + self.base
        share = f"{self.parameters:,} of {total:,} ({100 * self.parameters / max(1, total):.4f} %)"
        return f"trains {share}, stores {self.stored:,} bytes, in {len(self.layers)} layers"


def report(model: nn.Module, name: str, base: int | None = None) -> Report:
    """The numbers of an adapter: trained parameters and the bytes they take."""
    learned = {id(p): p for module in modules_of(model, name) for p in module.parameters() if p.requires_grad}.values()
    base = sum(p.numel() for p in base_of(model).values()) if base is None else base
    adapted = tuple(path for path, layer in layers_of(model).items() if name in layer.adapters)
    return Report(name, adapted, sum(p.numel() for p in learned), sum(p.nbytes for p in learned), base)


def holders(model: nn.Module) -> dict[str, Holder]:
    """Path in the original model -> what stands there now."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Holder)}


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """The holders whose adapters are an A and a B, by their paths in the original model.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"], modules_to_save=["2"]))
    >>> list(layers_of(model))
    ['0']
    """
    return {path: holder for path, holder in holders(model).items() if isinstance(holder, Layer)}


def adapters(model: nn.Module) -> tuple[str, ...]:
    """The names of all adapters of a model, in the order they came.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = [lora.attach(model, lora.Config(r=2, targets=["0"]), name) for name in ("a", "b")]
    >>> adapters(model)
    ('a', 'b')
    """
    return tuple(dict.fromkeys(name for holder in holders(model).values() for name in holder.adapters))


def names(model: nn.Module) -> list[str]:
    """Of all adapters held: `adapters`, by the name that every method of tuning has for it.

    >>> names(nn.Linear(4, 3))
    []
    """
    return list(adapters(model))


def config_of(model: nn.Module, name: str) -> Config:
    """The config of an attached adapter."""
    check_known(model, name)
    for layer in layers_of(model).values():
        if name in layer.adapters:
            return layer.adapters[name].config
    return Config(targets=(), modules_to_save=tuple(holders(model)))


def check_known(model: nn.Module, *given: str):
    known = adapters(model)
    for name in given:
        if name not in known:
            raise Error(f"lora: no adapter {name!r} is attached: {nearest(name, known)}")


def base_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that nobody put beside the model's own, by their names in the model as it is now.

    Who does says in which child of a module they are, by `learned_in`: we, and other libraries that know the word.
    """
    learned = set()
    for module in added_to(model):
        base = getattr(module, "base", None)
        shared = {id(p) for p in base.parameters()} if isinstance(base, nn.Module) else set()
        learned |= {id(p) for p in getattr(module, module.learned_in).parameters()} - shared
    return {name: p for name, p in model.named_parameters() if id(p) not in learned}


def added_to(model: nn.Module) -> list[nn.Module]:
    """The modules that hold something learned beside the model's own."""
    return [module for module in model.modules() if isinstance(getattr(module, "learned_in", None), str)]


def modules_of(model: nn.Module, name: str) -> list[nn.Module]:
    """The A and B of each layer, and the modules learned whole, of one adapter.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> [(each.A.shape, each.B.shape) for each in modules_of(model, "default")]
    [(torch.Size([2, 4]), torch.Size([3, 2]))]
    """
    return [holder.adapters[name] for holder in holders(model).values() if name in holder.adapters]


def parameters(model: nn.Module, name: str | None = None) -> list[nn.Parameter]:
    """The parameters of one adapter, or of all: for an optimizer.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> sum(weight.numel() for weight in parameters(model))  # r (I + O)
    14
    """
    chosen = adapters(model) if name is None else (name,)
    check_known(model, *chosen)
    found = {id(p): p for each in chosen for module in modules_of(model, each) for p in module.parameters()}
    return [p for p in found.values() if p.requires_grad]
