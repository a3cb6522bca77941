"""Which layers get an adapter, and how they get rid of it.

    attach(model, Config(r=8, alpha=16, targets=["q_proj", "v_proj"]), name="radiology")
    detach(model, "radiology")      detach(model)  all of them

A target is replaced by a `Layer` that holds the old module as `base`. The base is frozen, and never written to.
"""

from torch import nn

from lora.adapter import Adapter, TiedAdapter
from lora.config import Config
from lora.errors import Error
from lora.inventory import Report, adapters, added_to, base_of, check_known, holders, layers_of, report
from lora.layers import Layer
from lora.merging import unmerge
from lora.places import replace
from lora.saved import Saved
from lora.switching import use
from lora.targets import find_parts, find_saved, find_targets, find_tied, kind_of, like_of, sizes_of


def attach(model: nn.Module, config: Config, name: str = "default") -> Report:
    """Freeze `model`, put an adapter beside every layer that `config` names, and use it.

    What is beside the base already, of ours or of another library's (`base_of`), goes on learning if it did.

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
    base = sum(p.numel() for p in base_of(model).values())
    freeze(model)
    for path, module in targets.items():
        n_in, n_out = sizes_of(module)
        r, scale, weight = config.rank(path), config.scale(path), like_of(module)
        add(model, path, name, Adapter(config, r, scale, n_in, n_out, weight, parts[path]))
    for path, other in shared.items():
        add(model, other, name, TiedAdapter(layers_of(model)[path].adapters[name]))
    for path, only in saved.items():
        hold_whole(model, path, name, only)
    if config.dora or config.bias != "none":
        _extend(model, name, config)
    use(model, name)
    return report(model, name, base)


def check_name(model: nn.Module, name: str):
    if not name or "." in name or not isinstance(name, str):
        raise Error(f"lora: {name!r} cannot name an adapter: give a word without dots")
    if name in adapters(model):
        raise Error(f"lora: an adapter {name!r} is attached already: detach it first, or give another name")
    if any(layer.merged for layer in layers_of(model).values()):
        raise Error("lora: adapters are merged: call lora.unmerge(model) before attaching another")


def freeze(model: nn.Module):
    """No parameter of the base learns; what was put beside it stays as it is. `thaw` undoes it."""
    base = base_of(model).values()
    if "learned_before" not in vars(model):
        model.learned_before = [parameter for parameter in base if parameter.requires_grad]
    for parameter in base:
        parameter.requires_grad_(False)
        parameter.grad = None  # AdamW leaves alone what has none, but decays what has zeros


def thaw(model: nn.Module):
    """What learned before the first adapter learns again, if nothing is left beside the base, of ours or others'."""
    if not any(len(list(getattr(module, module.learned_in).children())) for module in added_to(model)):
        for parameter in vars(model).pop("learned_before", ()):
            parameter.requires_grad_(True)


def add(model: nn.Module, path: str, name: str, adapter: nn.Module):
    """Put an adapter beside the module at `path`, which becomes a Layer if it is none yet."""
    module = model.get_submodule(path)
    if not isinstance(module, Layer):
        layer = kind_of(module)(module).train(module.training)
        replace(model, path, layer)
        module = layer
    module.adapters[name] = adapter.train(module.training)


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


def detach(model: nn.Module, name: str | None = None) -> None:
    """Take an adapter away, or all of them; the last one gone, the model is the base again: same modules, same bits,
    and what learned before the first attach learns again.

    Merged adapters are unmerged first.

    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = attach(model, Config(r=2, targets=["0"]))
    >>> detach(model)
    >>> model
    Sequential(
      (0): Linear(in_features=4, out_features=3, bias=True)
    )
    """
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
    thaw(model)
