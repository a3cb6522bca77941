"""Which layers get an adapter, and which adapter is in use.

    attach(model, Config(r=8, alpha=16, targets=["q_proj", "v_proj"]), name="radiology")
    use(model, "radiology")         use(model)  none       with disabled(model): ...
    with rows(model, ["radiology", None, "default"]): ...  one adapter per row of the batch
    detach(model, "radiology")      detach(model)  all of them

A target is replaced by a `Layer` that holds the old module as `base`. The base is frozen, and never written to.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from lora.adapter import Adapter, TiedAdapter
from lora.config import Config
from lora.errors import Error, nearest
from lora.layers import Layer
from lora.saved import Holder, Saved
from lora.targets import base_module, find_parts, find_saved, find_targets, find_tied, kind_of, sizes_of


@dataclass(frozen=True)
class Report:
    """What `attach` did, in numbers; print it."""

    name: str
    layers: tuple[str, ...]
    parameters: int
    nbytes: int
    base_parameters: int

    def __str__(self) -> str:
        share = self.parameters / max(1, self.base_parameters)
        mib = self.nbytes / 2**20
        return (
            f"adapter {self.name!r}: {len(self.layers)} layers, {self.parameters:,} parameters learn, "
            f"{share:.2%} of the base's {self.base_parameters:,}; "
            f"{mib:.2f} MiB, as much for gradients, {2 * mib:.2f} MiB for Adam"
        )


def attach(model: nn.Module, config: Config, name: str = "default") -> Report:
    """Freeze `model`, put an adapter beside every layer that `config` names, and use it.

    Nothing changes yet: B is zero. A is drawn from torch's generator, layer by layer in the order of the model.
    Raises `Error` if a name of the config fits no layer, or a layer of a kind that has no adapter; then the model is
    as it was.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> attach(model, Config(r=2, alpha=4, targets=["0", "2"])).parameters
    44
    """
    check_name(model, name)
    targets = find_targets(model, config)
    saved = find_saved(model, config)
    shared = find_tied(model, config, targets)
    parts = {path: find_parts(config, path, module) for path, module in targets.items()}
    base_parameters = sum(p.numel() for p in base_of(model).values())
    freeze(model)
    for path, module in targets.items():
        n_in, n_out = sizes_of(module)
        r, scale, weight = config.rank(path), config.scale(path), base_module(module).weight
        add(model, path, name, Adapter(config, r, scale, n_in, n_out, weight, parts[path]))
    for path, other in shared.items():
        add(model, other, name, TiedAdapter(layers_of(model)[path].adapters[name]))
    for path, only in saved.items():
        hold_whole(model, path, name, only)
    if config.dora or config.bias != "none":
        _extend(model, name, config)
    use(model, name)
    return report(model, name, base_parameters)


def report(model: nn.Module, name: str, base_parameters: int | None = None) -> Report:
    """The numbers of an adapter: trained parameters and the bytes they take."""
    learned = {id(p): p for module in modules_of(model, name) for p in module.parameters() if p.requires_grad}.values()
    base = sum(p.numel() for p in base_of(model).values()) if base_parameters is None else base_parameters
    adapted = tuple(path for path, layer in layers_of(model).items() if name in layer.adapters)
    return Report(name, adapted, sum(p.numel() for p in learned), sum(p.nbytes for p in learned), base)


def holders(model: nn.Module) -> dict[str, Holder]:
    """Path in the original model -> what stands there now."""
    return {path: module for path, module in model.named_modules() if isinstance(module, Holder)}


def layers_of(model: nn.Module) -> dict[str, Layer]:
    """The holders whose adapters are an A and a B."""
    return {path: holder for path, holder in holders(model).items() if isinstance(holder, Layer)}


def adapters(model: nn.Module) -> tuple[str, ...]:
    """The names of all adapters of a model, in the order they came."""
    return tuple(dict.fromkeys(name for holder in holders(model).values() for name in holder.adapters))


def config_of(model: nn.Module, name: str) -> Config:
    """The config of an attached adapter."""
    check_known(model, name)
    for layer in layers_of(model).values():
        if name in layer.adapters:
            return layer.adapters[name].config
    return Config(targets=(), modules_to_save=tuple(holders(model)))


def check_known(model: nn.Module, *names: str):
    known = adapters(model)
    for name in names:
        if name not in known:
            raise Error(f"lora: no adapter {name!r} is attached: {nearest(name, known)}")


def check_name(model: nn.Module, name: str):
    if not name or "." in name or not isinstance(name, str):
        raise Error(f"lora: {name!r} cannot name an adapter: give a word without dots")
    if name in adapters(model):
        raise Error(f"lora: an adapter {name!r} is attached already: detach it first, or give another name")
    if any(layer.merged for layer in layers_of(model).values()):
        raise Error("lora: adapters are merged: call lora.unmerge(model) before attaching another")


# --- putting adapters in and out --------------------------------------------------------------------------------


def freeze(model: nn.Module):
    """No parameter of the base learns; adapters stay as they are."""
    for parameter in base_of(model).values():
        parameter.requires_grad_(False)


def base_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are not an adapter's, by their names in the model as it is now."""
    learned = set()
    for holder in holders(model).values():
        learned |= {id(p) for p in holder.adapters.parameters()} - {id(p) for p in holder.base.parameters()}
    return {name: p for name, p in model.named_parameters() if id(p) not in learned}


def add(model: nn.Module, path: str, name: str, adapter: nn.Module):
    """Put an adapter beside the module at `path`, which becomes a Layer if it is none yet."""
    module = model.get_submodule(path)
    if not isinstance(module, Layer):
        layer = kind_of(module)(module).train(module.training)
        replace(model, path, layer)
        module = layer
    module.adapters[name] = adapter.train(module.training)


def replace(model: nn.Module, path: str, module: nn.Module):
    parent, _, leaf = path.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def hold_whole(model: nn.Module, path: str, name: str, only: str | None = None):
    """Give the module at `path` a copy that the adapter learns whole; with only="bias", its bias alone."""
    module = model.get_submodule(path)
    if not isinstance(module, Saved):
        saved = Saved(module).train(module.training)
        replace(model, path, saved)
        module = saved
    module.add(name, only)


def _extend(model: nn.Module, name: str, config: Config):
    """DoRA's magnitudes start as the lengths of the rows, learned biases as the base's."""
    for layer in layers_of(model).values():
        if name not in layer.adapters or isinstance(layer.adapters[name], TiedAdapter):
            continue
        adapter = layer.adapters[name]
        if config.dora:
            adapter.magnitude = nn.Parameter(layer.squares().sqrt())
        bias = getattr(layer.base, "bias", None)
        if config.bias != "none" and bias is not None:
            adapter.bias = nn.Parameter(bias.detach().clone())


def detach(model: nn.Module, name: str | None = None):
    """Take an adapter away, or all of them; the last one gone, the model is the base again: same modules, same bits.

    Merged adapters are unmerged first.
    """
    from lora.merging import unmerge

    if name is not None:
        check_known(model, name)
    unmerge(model)
    for path, holder in holders(model).items():
        for gone in [name] if name is not None else list(holder.adapters):
            if gone in holder.adapters:
                del holder.adapters[gone]
        holder.active = tuple(active for active in holder.active if active in holder.adapters)
        if not holder.adapters:
            replace(model, path, holder.base)


# --- which adapter is in use ------------------------------------------------------------------------------------


def use(model: nn.Module, *names: str):
    """From now on these adapters work, their updates added; none if none is named. Says nothing of who learns."""
    check_known(model, *names)
    _refuse_merged(model, "changing which adapters work")
    if len(names) > 1:
        for name in names:
            if config_of(model, name).dora or _replaces(model, name):
                raise Error(f"lora: {name!r} has dora, a bias or saved modules, which do not add up: use it alone")
    for holder in holders(model).values():
        holder.active = tuple(name for name in names if name in holder.adapters)


def _replaces(model: nn.Module, name: str) -> bool:
    """Whether an adapter puts whole tensors in the place of the base's."""
    for holder in holders(model).values():
        if name in holder.adapters and (isinstance(holder, Saved) or holder.adapters[name].bias is not None):
            return True
    return False


def _refuse_merged(model: nn.Module, what: str):
    if any(layer.merged for layer in layers_of(model).values()):
        raise Error(f"lora: adapters are merged: call lora.unmerge(model) before {what}")


@contextmanager
def disabled(model: nn.Module) -> Iterator[None]:
    """Inside, the model is its base, merged or not; outside, everything is as before, and as trainable."""
    found = list(holders(model).values())
    before = [holder.enabled for holder in found]
    for holder in found:
        holder.enable(False)
    try:
        yield
    finally:
        for holder, enabled in zip(found, before, strict=True):
            holder.enable(enabled)


@contextmanager
def rows(model: nn.Module, names: list[str | None]) -> Iterator[None]:
    """Inside, row b of every batch uses the adapter names[b] alone, or the base where it is None."""
    given = tuple(names)
    check_known(model, *(name for name in given if name is not None))
    _refuse_merged(model, "giving each row its own")
    for name in {name for name in given if name is not None}:
        if config_of(model, name).dora or _replaces(model, name):
            raise Error(f"lora.rows: {name!r} has dora, a bias or saved modules, which rows cannot have each their own")
    found = list(layers_of(model).values())
    before = [layer.rows for layer in found]
    for layer in found:
        layer.rows = given
    try:
        yield
    finally:
        for layer, was in zip(found, before, strict=True):
            layer.rows = was


def modules_of(model: nn.Module, name: str) -> list[nn.Module]:
    """The A and B of each layer, and the modules learned whole, of one adapter."""
    return [holder.adapters[name] for holder in holders(model).values() if name in holder.adapters]


def parameters(model: nn.Module, name: str | None = None) -> list[nn.Parameter]:
    """The parameters of one adapter, or of all: for an optimizer."""
    names = adapters(model) if name is None else (name,)
    check_known(model, *names)
    found = {id(p): p for each in names for module in modules_of(model, each) for p in module.parameters()}
    return [p for p in found.values() if p.requires_grad]
