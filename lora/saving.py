"""A model's adapter as it lies on disk; loading.py brings it back.

Layers have the names of the checkpoint's tensors (see layout.py). Three projections q, k, v that are one c_attn on disk
thus become one adapter of blocks:

    A' = [A_q; A_v]  (2r, I)      B' = [B_q 0; 0 0; 0 B_v]  (3d, 2r)      alpha' = 2 alpha,  so that alpha'/r' = alpha/r

and the zeros of B' tell on the way back who adapted what. The product B' A' is the same, bit for bit.
"""

import math
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lora import files
from lora.config import Config, named
from lora.errors import Error
from lora.exact import Update
from lora.inventory import adapters, config_of, holders, layers_of
from lora.layers import EmbeddingLayer, Layer
from lora.layout import Entry, Layout
from lora.nf4_layer import NF4Linear
from lora.rounded import rounded_in
from lora.saved import Saved


def save(
    model: nn.Module, directory: str | Path, name: str | None = None, base: str = "", compact: bool = False
) -> None:
    """Write an adapter as PEFT does; with `base`, the name or path of the base, for who reads the file.

    Adapters of q and v that lie in one fused tensor on disk become one with blocks of zeros, which PEFT needs and
    which doubles the file; `compact` leaves the zeros out, and PEFT.

    `name` may be left out if there is one adapter only, or one at work. The weights it was trained on are recorded
    by a fingerprint, which `load` and `python -m lora verify` check.

    >>> import lora, tempfile
    >>> model, folder = nn.Sequential(nn.Linear(4, 3)), tempfile.TemporaryDirectory()
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> save(model, folder.name)
    >>> sorted(file.name for file in Path(folder.name).iterdir())
    ['adapter_config.json', 'adapter_model.safetensors']
    """
    files.write(collect(model, name), directory, base, compact)


def collect(model: nn.Module, name: str | None = None) -> files.Stored:
    """The adapter of a model as it would lie on disk; `Error` if no file can hold it.

    >>> import lora
    >>> model = nn.Sequential(nn.Linear(4, 3))
    >>> _ = lora.attach(model, lora.Config(r=2, targets=["0"]))
    >>> list(collect(model).updates)
    ['0']
    """
    name = the_only(model) if name is None else name
    config, layout = config_of(model, name), Layout(model)
    joined: dict[str, dict[str, Layer]] = {}
    for path, layer in layers_of(model).items():
        if name in layer.adapters:
            entry = layout.entry(f"{path}.weight")
            joined.setdefault(entry.name, {})[f"{path}.weight"] = layer
    weights = weights_of(model)
    updates, embeddings, parts, prints = {}, set(), {}, {}
    for tensor, adapted in joined.items():
        path = tensor.removesuffix(".weight")
        entry = layout.at(tensor)
        updates[path], parts[path] = _join(path, entry, adapted, name, weights)
        if any(isinstance(layer, EmbeddingLayer) for layer in adapted.values()):
            embeddings.add(path)
        prints[tensor] = files.fingerprint(on_disk(entry, weights))
    parts = {path: each for path, each in parts.items() if each}
    replaced, saved = _replaced(model, name, layout, weights)
    if layout.differs or parts:
        everything = [entry.removesuffix(".weight") for entry in layout.entries] or [*holders(model)]
        config = _described(config, updates, everything, saved)
    return files.Stored(config, updates, frozenset(embeddings), replaced, prints, parts, rounded_in(model))


def the_only(model: nn.Module) -> str:
    """The adapter that is meant where none is named."""
    known = adapters(model)
    working = {name for holder in holders(model).values() for name in holder.active}
    if len(known) != 1 and len(working) != 1:
        raise Error(f"lora: {len(known)} adapters are attached ({', '.join(known) or 'none'}): say which one by name")
    return known[0] if len(known) == 1 else working.pop()


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """The parameters of the base by their original names, unmerged."""
    found = {}
    held = holders(model)
    for path, module in model.named_modules(remove_duplicate=False):
        base = held[path].base if path in held else module
        for own, parameter in base._parameters.items():
            if parameter is not None:
                found[f"{path}.{own}" if path else own] = parameter
        if isinstance(base, NF4Linear):
            found[f"{path}.weight"] = base  # unpacked where it is looked at, one at a time
    for path, layer in layers_of(model).items():
        if layer.merged and layer.enabled:
            found |= {
                f"{path}.{own}": p for own, p in zip(("weight", "bias"), layer.original, strict=True) if p is not None
            }
    return found


def on_disk(entry: Entry, weights: dict[str, Tensor]) -> Tensor:
    parts = [_dense(weights[ours]) for ours in entry.ours]
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    return whole.T if entry.transposed else whole


def _dense(weight: Tensor | NF4Linear) -> Tensor:
    return weight.weight if isinstance(weight, NF4Linear) else weight.detach()


def _join(path: str, entry: Entry, adapted: dict[str, Layer], name: str, weights) -> tuple[Update, tuple]:
    """The update of one tensor on disk, and the (size, rank) of its parts if they are several."""
    if len(entry.ours) == 1:
        layer = adapted[entry.ours[0]]
        return layer.update(name), _slices(layer.adapters[name])
    updates = {ours: layer.update(name) for ours, layer in adapted.items()}
    scale = next(iter(updates.values())).scale
    if any(update.magnitude is not None for update in updates.values()) and len(updates) < len(entry.ours):
        raise Error(
            f"lora: {path}: dora on a part of a fused weight does not fit PEFT's format: adapt all parts, or none"
        )
    A, blocks, magnitudes, parts = [], [], [], []
    total = sum(update.A.shape[0] for update in updates.values())
    for ours in entry.ours:
        size, update = len(_dense(weights[ours])), updates.get(ours)
        rank = 0 if update is None else len(update.A)
        block = torch.zeros(size, total, dtype=next(iter(updates.values())).B.dtype)
        if update is not None:
            start = sum(len(each) for each in A)
            block[:, start : start + rank] = update.B.detach() * (update.scale / scale)
            A.append(update.A.detach())
            magnitudes.append(update.magnitude)
        blocks.append(block)
        parts.append((size, rank))
    magnitude = None if magnitudes[0] is None else torch.cat(magnitudes)
    return Update(torch.cat(A).cpu(), torch.cat(blocks), scale, entry.transposed, magnitude), tuple(parts)


def _slices(adapter: nn.Module) -> tuple:
    if len(getattr(adapter, "parts", ())) < 2:
        return ()
    return tuple((size, adapter.rank if adapted else 0) for size, adapted in adapter.parts)


def _replaced(model: nn.Module, name: str, layout: Layout, weights) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Whole tensors of the adapter by their names on disk; and the paths on disk of modules learned whole."""
    learned, modules = {}, []
    for path, holder in holders(model).items():
        if name not in holder.adapters:
            continue
        adapter = holder.adapters[name]
        if isinstance(holder, Saved):
            mine = {own for own, p in holder.base.named_parameters()}
            shared = {id(p) for p in holder.base.parameters()}
            news = {f"{path}.{own}": p for own, p in adapter.named_parameters() if own in mine and id(p) not in shared}
            learned |= news
            if len(news) == len(mine):
                modules += [layout.entry(own).name.rpartition(".")[0] for own in news]
        elif adapter.bias is not None:
            learned[f"{path}.bias"] = adapter.bias
    tensors = {}
    for ours in learned:
        entry = layout.entry(ours)
        tensors[entry.name] = on_disk(entry, weights | learned)
    return tensors, tuple(dict.fromkeys(modules))


def _described(config: Config, updates: dict[str, Update], everything: list[str], saved: tuple[str, ...]) -> Config:
    """The config that says of these updates what they are, in the names of the disk."""
    sizes = {path: (len(update.A), _alpha(config, update)) for path, update in updates.items()}
    (r, alpha), _ = Counter(sizes.values()).most_common(1)[0] if sizes else ((config.r, config.alpha), 0)
    leaves = tuple(sorted({path.rsplit(".", 1)[-1] for path in updates}))
    fits = {path for path in everything if named(leaves, path)} == updates.keys()
    return replace(
        config,
        r=r,
        alpha=alpha,
        targets=leaves if fits else tuple(sorted(updates)),
        exclude=(),
        layers=None,
        slices={},
        rank_pattern={f"^{re.escape(path)}": size[0] for path, size in sizes.items() if size[0] != r},
        alpha_pattern={f"^{re.escape(path)}": size[1] for path, size in sizes.items() if size[1] != alpha},
        modules_to_save=saved,
    )


def _alpha(config: Config, update: Update) -> float:
    r = len(update.A)
    divisor = math.sqrt(r) if config.rslora else r
    for alpha in (config.alpha, *config.alpha_pattern.values()):
        if alpha / divisor == update.scale:
            return alpha
    alpha = update.scale * divisor
    return round(alpha) if math.isclose(alpha, round(alpha), rel_tol=1e-12) else alpha
