"""W0 + scale B A, correctly rounded; and back, bit for bit.

Merging writes to no weight. It makes new ones, and puts the old ones aside as the objects they are; unmerging puts
them back. The paper's way back, subtracting B A (section 4.1), does not return W0: (W + d) - d loses what W + d
rounded off, one weight in eight, and again with every cycle.

Nothing is changed before everything is computed and found finite. `.train()` and `.eval()` have no part in it.
"""

from dataclasses import replace as replace_fields

import torch
from torch import Tensor, nn

from lora.adapter import TiedAdapter
from lora.errors import Error
from lora.exact import Merged, Rounding, Update
from lora.inventory import adapters, holders, layers_of
from lora.layers import Layer
from lora.nf4_layer import NF4Linear
from lora.places import replace
from lora.saved import Saved
from lora.switching import use


def merge(model: nn.Module, *names: str) -> list[Merged]:
    """Put the sum of the named adapters (all that are in use, if none is named) into the weights, and only them.

    Each weight becomes the number of its dtype that is nearest to W + sum_i scale_i B_i A_i (see exact.py). The
    memory it takes is the merged weights and 2 MiB. On an `Error` nothing has changed.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> _ = nn.init.ones_(model[0].adapters["default"].B)
    >>> before = model(torch.ones(1, 4))
    >>> merged = lora.merge(model)
    >>> torch.allclose(model(torch.ones(1, 4)), before, atol=1e-5)
    True
    >>> lora.unmerge(model)
    """
    found = layers_of(model)
    if any(layer.merged for layer in found.values()):
        raise Error("lora.merge: adapters are merged already: call lora.unmerge(model) first")
    if any(layer.rows for layer in found.values()):
        raise Error("lora.merge: each row has its own adapter now: leave lora.rows first")
    names = names or _in_use(model)
    if not names:
        raise Error("lora.merge: no adapter is in use: name one, or lora.use(model, name) before")
    made = _compute(model, names)
    for layer in found.values():
        if layer.active:
            bias = layer.adapters[layer.active[0]].bias
            old = getattr(layer.base, "bias", None)
            if bias is not None:
                old = nn.Parameter(bias.detach().to(layer.base.weight.dtype), requires_grad=False)
            layer.original = (made[_key(layer)][0], old)
            layer.merged = layer.active
            if layer.enabled:
                layer.exchange()
    return [report for _, report in made.values()]


def unmerge(model: nn.Module) -> None:
    """Bring the weights of before back, every bit of them. Nothing happens to a model that is not merged.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> _ = lora.merge(model)
    >>> unmerge(model)
    """
    for layer in layers_of(model).values():
        layer.unmerge()


def bake(model: nn.Module, *names: str) -> list[Merged]:
    """Merge for good: the adapters are gone and the model has its old modules, ready to be saved.

    Where the update of a tied head makes it a matrix of its own, a transformers config is told so.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> _ = bake(model)
    >>> type(model[0]).__name__
    'Linear'
    """
    reports = merge(model, *names) if any(layer.adapters for layer in layers_of(model).values()) else []
    for path, holder in holders(model).items():
        holder.enable(True)
        whole = isinstance(holder, Saved) and holder.active
        replace(model, path, holder.adapters[holder.active[0]] if whole else holder.base)
    config = getattr(model, "config", None)
    if getattr(config, "tie_word_embeddings", False) and hasattr(model, "get_output_embeddings"):
        head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
        config.tie_word_embeddings = head is None or head.weight is embedding.weight
    return reports


def merged_weight(weight: Tensor, update: Update, name: str) -> tuple[Tensor, Merged]:
    """The correctly rounded W + update; `Error`, with the name, where that does not exist."""
    if weight.shape != update.shape:
        raise Error(f"{name}: the weight is {tuple(weight.shape)}, its adapter is for {update.shape}: not of this base")
    if not weight.is_floating_point() or weight.element_size() < 2:
        raise Error(f"{name}: the weight holds {weight.dtype}; merging needs floating point of at least 16 bits")
    result = torch.empty_like(weight, requires_grad=False)
    rounding = Rounding(name, weight, update)
    for rows, block in rounding.blocks():
        result[rows] = block
    return result, rounding.report


def _compute(model: nn.Module, names: tuple[str, ...]) -> dict[tuple, tuple[nn.Parameter, Merged]]:
    """The merged weights, by `_key`, with `names` in use from now on; on an error those that were before."""
    before = {holder: holder.active for holder in holders(model).values()}
    use(model, *names)
    made = {}
    try:
        for path, layer in layers_of(model).items():
            if layer.active and _key(layer) not in made:
                made[_key(layer)] = _merge_layer(path, layer)
    except BaseException:
        for holder, active in before.items():
            holder.active = active
        raise
    return made


def _merge_layer(path: str, layer: Layer) -> tuple[nn.Parameter, Merged]:
    if isinstance(layer.base, NF4Linear):
        raise Error(
            f"lora.merge: {path} is in four bits, which cannot hold W + (alpha/r) B A: call lora.dequantize(model) "
            "first, and merge onto the weights it unpacks, those the adapter was trained beside"
        )
    weight = layer.base.weight
    home = "cpu" if weight.device.type == "mps" else weight.device  # mps has no float64
    update = _sum([layer.update(name) for name in layer.active], home)
    result, report = merged_weight(weight.detach().to(home), update, path)
    if origin := getattr(layer.base, "unpacked_from", ""):
        report = replace_fields(report, onto=f"the weight unpacked from {origin}")
    return nn.Parameter(result.to(weight.device), requires_grad=False), report


def _sum(updates: list[Update], device) -> Update:
    """Several updates as one of all their ranks, with their scales in B."""
    if len(updates) == 1:
        one = updates[0]
        magnitude = None if one.magnitude is None else one.magnitude.to(device)
        return Update(one.A.to(device), one.B.to(device), one.scale, one.transposed, magnitude)
    A = torch.cat([update.A.detach().to(device).double() for update in updates])
    B = torch.cat([update.B.detach().to(device).double() * update.scale for update in updates], dim=1)
    return Update(A, B, 1.0, updates[0].transposed)


def _in_use(model: nn.Module) -> tuple[str, ...]:
    used = {name for holder in holders(model).values() for name in holder.active}
    return tuple(name for name in adapters(model) if name in used)


def _key(layer: Layer) -> tuple:
    """The same for a head and the embedding tied to it, where they share weight and adapter: merged once."""
    used = [layer.adapters[name] for name in layer.active]
    return id(layer.base.weight), *(id(one.head if isinstance(one, TiedAdapter) else one) for one in used)
