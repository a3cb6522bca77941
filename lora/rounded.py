"""The base that QLoRA trains beside, from the base on disk: every weight that was in four bits, rounded as it was.

An adapter that learned beside rounded weights belongs to these (Dettmers et al. 2023): merged onto the weights of
before, it is another model. So its file says which tensors were rounded, and how; by that

    lora.round_base(model, ADAPTER)              gives a model the weights that the adapter saw, as ordinary layers
    python -m lora merge BASE ADAPTER OUT        merges onto BASE rounded so, exactly, and says it
    python -m lora verify BASE ADAPTER MERGED    checks against that

A tensor is the same to the bit whether it is rounded here or by `quantize` and `dequantize`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lora.checkpoint import Checkpoint
from lora.errors import Error
from lora.layout import Entry, Layout
from lora.nf4 import pack, unpack
from lora.nf4_layer import NF4Linear

DTYPES = ("float64", "float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Rounded:
    """How one tensor of a checkpoint was rounded.

    parts        ((size, whether it was), ...) of the outputs: a fused tensor is rounded part by part
    transposed   it is stored (I, O), and rounded as (O, I)
    double       its absmaxes were rounded too
    dtype        that the codes were unpacked to: a base may be opened in a wider one than it is stored in
    """

    parts: tuple[tuple[int, bool], ...]
    transposed: bool = False
    double: bool = True
    dtype: str = "float32"

    def apply(self, weight: Tensor) -> Tensor:
        """The weight that the codes of `weight` stand for, in its own dtype.

        >>> Rounded(((1, True), (1, False)), double=False).apply(torch.tensor([[0.5, -1.0], [0.5, -1.0]])).tolist()
        [[0.44070982933044434, -1.0], [0.5, -1.0]]
        """
        whole = weight.T if self.transposed else weight
        done = [
            unpack(pack(part, self.double), part.dtype) if rounded else part
            for part, (_, rounded) in zip(whole.split([size for size, _ in self.parts]), self.parts, strict=True)
        ]
        return (torch.cat(done).T if self.transposed else torch.cat(done)).contiguous()


def rounded_in(model: nn.Module) -> dict[str, Rounded]:
    """The tensors of a model's checkpoint that it has in four bits, or had: see `quantizing.dequantize`."""
    layout, found = Layout(model), {}
    modules = {path.removesuffix(".base"): module for path, module in model.named_modules() if doubled(module) != ()}
    for path in modules:
        entry = layout.entry(f"{path}.weight")
        if entry.name not in found:
            found[entry.name] = _rounded(entry, modules, model)
    return found


def _rounded(entry: Entry, modules: dict[str, nn.Module], model: nn.Module) -> Rounded:
    parts, ways = [], []
    for ours in entry.ours:
        path = ours.removesuffix(".weight")
        module = modules.get(path) or model.get_submodule(path)
        module = getattr(module, "base", module)
        transposed = module.transposed if isinstance(module, NF4Linear) else not isinstance(module, nn.Linear)
        outputs = (
            module.out_features if hasattr(module, "out_features") else module.weight.shape[1 if transposed else 0]
        )
        parts.append((outputs, path in modules))
        if path in modules:
            dtype = str(module.weight.dtype).removeprefix("torch.")
            ways.append((transposed != entry.transposed, *doubled(module), dtype))
    if len(set(ways)) > 1:
        raise Error(f"lora: {entry.name}: its parts were rounded in different ways: quantise them alike")
    return Rounded(tuple(parts), *ways[0])


def doubled(module: nn.Module) -> tuple[bool] | tuple[()]:
    """Whether the absmaxes of a layer in four bits are rounded too; nothing, for a layer that is not in four bits."""
    if isinstance(module, NF4Linear):
        return (module.double,)
    origin = getattr(module, "unpacked_from", None)
    return () if not isinstance(origin, str) else ("double" in origin,)


class RoundedCheckpoint(Checkpoint):
    """A checkpoint whose tensors are read as an adapter's base had them. One rounded tensor is held at a time."""

    def __init__(self, path: str | Path, rounded: dict[str, Rounded]):
        super().__init__(path)
        self.rounded, self._last = {}, ("", None)
        for name, how in rounded.items():
            found = self.find(name)
            outputs = sum(size for size, _ in how.parts)
            if found is None or outputs not in (shape := self.entries[found].shape) or len(shape) != 2:
                raise Error(f"{path}: has no {name} of {outputs} outputs, which the adapter's base had in four bits")
            self.rounded[found] = how

    def as_trained(self, name: str) -> Tensor:
        """A rounded tensor in the dtype in which the adapter saw it."""
        entry, how = self.entries[name], self.rounded[name]
        stored = super().bytes(name, 0, entry.nbytes).view(entry.dtype).view(entry.shape)
        return how.apply(stored.to(getattr(torch, how.dtype)))

    def bytes(self, name: str, start: int, stop: int) -> Tensor:
        if name not in self.rounded:
            return super().bytes(name, start, stop)
        if self._last[0] != name:
            entry = self.entries[name]
            stored = super().bytes(name, 0, entry.nbytes).view(entry.dtype).view(entry.shape)
            self._last = name, self.rounded[name].apply(stored).view(-1).view(torch.uint8)
        return self._last[1][start:stop].clone()


def to_json(rounded: dict[str, Rounded]) -> dict:
    return {"nf4": {name: asdict(how) for name, how in rounded.items()}} if rounded else {}


def from_json(values: dict) -> dict:
    """The inverse; ValueError, TypeError, KeyError or AttributeError for what is not such."""
    found = {}
    for name, how in values.get("nf4", {}).items():
        how = how | {"parts": tuple((int(size), bool(rounded)) for size, rounded in how["parts"])}
        if how.get("dtype", "float32") not in DTYPES:
            raise ValueError(how["dtype"])
        found[name] = Rounded(**how)
    return {"nf4": found}
