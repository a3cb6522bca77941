"""The frozen base in four bits, and back: QLoRA is `quantize`, then `attach` (Dettmers et al. 2023).

    lora.quantize(model)                  every linear layer but the output head becomes an NF4Linear
    lora.attach(model, lora.Config(...))  and training goes on as with any base
    lora.dequantize(model)                ordinary layers again, with the weights that the codes stand for

An adapter learns beside the rounded weights, so these are what it is merged onto: `dequantize` first, then `merge`
(`round_base` and rounded.py do it from what lies on disk).
Added to the weights of before rounding it is another model, whose outputs nobody trained.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from lora.config import ALL_LINEAR, Config
from lora.errors import Error
from lora.files import read
from lora.inventory import holders
from lora.layers import EmbeddingLayer
from lora.layout import Layout
from lora.nf4_layer import NF4Linear, check_fits
from lora.places import replace
from lora.rounded import doubled
from lora.targets import find_targets, kind_of


@dataclass(frozen=True)
class Quantized:
    """What `quantize` did, in numbers; print it."""

    layers: tuple[str, ...]
    weights: int
    nbytes: int
    before: int

    @property
    def bits(self) -> float:
        """A weight."""
        return 8 * self.nbytes / self.weights

    def __str__(self) -> str:
        mib = 2.0**20
        return (
            f"{len(self.layers)} layers, {self.weights:,} weights in NF4, {self.bits:.3f} bits each: "
            f"{self.nbytes / mib:.2f} MiB in place of {self.before / mib:.2f}"
        )


def quantize(model: nn.Module, targets: str | tuple[str, ...] = ALL_LINEAR, double: bool = True) -> Quantized:
    """Put the linear layers that `targets` names (as in `Config`) into four bits, frozen; `double`: their absmaxes too.

    Layers in four bits already stay as they are. On an `Error` nothing has changed.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    >>> round(quantize(model).bits, 2), type(model[0]).__name__
    (4.13, 'NF4Linear')
    >>> _ = lora.attach(model, lora.Config(targets="all-linear"))
    """
    if holders(model):
        raise Error("lora.quantize: adapters are attached: quantise first, then attach or load them")
    everything = find_targets(model, Config(targets=targets))
    found = {path: each for path, each in everything.items() if not isinstance(each, NF4Linear)}
    if not found:
        raise Error("lora.quantize: found no linear layer that is not in four bits already")
    users = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    for path, module in found.items():
        if users[id(module.weight)] > 1:
            raise Error(f"lora.quantize: {path} shares its weight, which would then be there twice: leave it out")
        if kind_of(module) is EmbeddingLayer:
            raise Error(f"lora.quantize: {path} is an embedding: NF4 here fits linear layers: leave it out")
        check_fits(path, module)
    made, before = {}, 0
    for path, module in found.items():
        try:
            made[path] = NF4Linear(module, double).train(module.training)
        except Error as problem:
            raise Error(f"{path}: {problem}") from None
        before += module.weight.nbytes
    for path, layer in made.items():
        replace(model, path, layer)
    weights = sum(layer.in_features * layer.out_features for layer in made.values())
    return Quantized(tuple(made), weights, sum(layer.packed.nbytes for layer in made.values()), before)


def dequantize(
    model: nn.Module, dtype: torch.dtype | None = None, only: tuple[str, ...] | None = None
) -> tuple[str, ...]:
    """Make ordinary layers of those in four bits, beneath adapters too, and name them: the base QLoRA is merged onto.

    In `dtype`, or else that of the weights before; all of them, or those at `only` these paths. The model computes
    what it computed, in the bytes of before.

    >>> model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    >>> _ = quantize(model)
    >>> dequantize(model), type(model[0]).__name__
    (('0', '2'), 'Linear')
    """
    paths = tuple(path for path, module in model.named_modules() if isinstance(module, NF4Linear))
    paths = paths if only is None else tuple(path for path in paths if path in only)
    for path in paths:
        layer = model.get_submodule(path)
        module = layer.restore(dtype)
        module.unpacked_from = f"NF4 ({layer.extra_repr().rpartition(', ')[2]})"
        replace(model, path, module)
    return paths


def round_base(model: nn.Module, directory: str | Path) -> tuple[str, ...]:
    """Round the weights of `model` as those were that a stored adapter learned beside; the layers, by name, or none.

    Layers that are so already, in four bits or unpacked from them, stay as they are. Before anything is attached.

    >>> import copy, lora, tempfile
    >>> model, folder = nn.Sequential(nn.Linear(64, 64)), tempfile.TemporaryDirectory()
    >>> base, _ = copy.deepcopy(model), quantize(model)
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> lora.save(model, folder.name)
    >>> round_base(base, folder.name)
    ('0',)
    """
    layout, by_way = Layout(model), {}
    for tensor, how in read(directory).rounded.items():
        if (entry := layout.at(tensor)) is None:
            raise Error(f"{directory}: was trained on a base with {tensor!r}, which this model has not")
        for ours, (_, rounded) in zip(entry.ours, how.parts, strict=True):
            path = ours.removesuffix(".weight")
            if rounded and doubled(model.get_submodule(path)) == ():
                by_way.setdefault(how.double, []).append(path)
    for double, paths in by_way.items():
        quantize(model, tuple(paths), double)
        dequantize(model, only=tuple(paths))
    return tuple(path for paths in by_way.values() for path in paths)
