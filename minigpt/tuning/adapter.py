"""Adapters: a small bottleneck after every sub-layer of a frozen model (Houlsby et al. 2019).

Shapes: B batch, T time, C channels (d_model), M bottleneck, L blocks.

    A(h) = h + W_up act(W_down h + b_down) + b_up          W_down (M, C), W_up (C, M)
    x + A_1(attention(norm(x)))     x + A_2(feed-forward(norm(x)))

It acts on what a sub-layer would add to the residual stream, after its output projection and dropout and before the
sum (figure 2 there, and the code of adapter-bert). The last module of a sub-layer is its dropout: an `Adapted`
(bottleneck.py) stands in that place, and no weight of the base changes its name. Numbers to learn: 2 L (2 C M + M + C).

Unlike LoRA it cannot be merged: a nonlinearity is between. It is two more products in a row for each sub-layer, which
a batch of one feels. The cache is untouched, for keys and values are made before it acts.

`after=("mlp",)` is one adapter a block, where Pfeiffer et al. 2021 put it; with `norm=True` it normalises its input
first, AdapterL of Lin et al. 2020 as the LoRA paper counts it: L (2 C M + M + C) + 2 L C. The layer norms of the base,
which Houlsby et al. train as well, stay frozen here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning import learning, stored
from minigpt.tuning.bottleneck import SUBLAYERS, Adapted, Adapter, AdapterConfig
from minigpt.tuning.report import Report

Config = AdapterConfig  # as every method calls it


def attach(model: GPT, config: AdapterConfig, name: str = "default") -> Report:
    """Put new adapters into every block, freeze the base, and set them to work; several can be held by name.

    What other methods have added goes on learning (learning.py).

    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=3, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> print(attach(model, AdapterConfig(bottleneck=8)))
    trains 3,312 of 45,200 (7.3274 %), stores 13,248 bytes
    >>> detach(model)
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or hasattr(nn.ModuleDict(), name):
        raise Error(f"adapter: cannot be named {name!r}: take letters, digits, - and _, and no word of Python's dicts")
    if name in names(model):
        raise Error(f"adapter: {name!r} is there already: choose another name or detach it first")
    like = model.blocks[0].attn_norm.weight  # floating point also where matrices are quantised
    dtype = torch.promote_types(like.dtype, torch.float32)
    learning.freeze(model)
    for block in model.blocks:
        for part in config.after:
            sublayer = getattr(block, part)
            if not isinstance(sublayer.dropout, Adapted):
                sublayer.dropout = Adapted(sublayer.dropout).train(model.training)
            made = Adapter(config, model.config.d_model).to(like.device, dtype)
            sublayer.dropout.adapters[name] = made.train(model.training)
    use(model, name)
    return report(model, name)


def report(model: GPT, name: str = "default") -> Report:
    """What learns of the adapters of a name, and what they take on disk."""
    own = _tensors(model, name).values()
    return learning.report(model, own, sum(tensor.nbytes for tensor in own))


def use(model: GPT, name: str | None) -> None:
    """From now on the adapters of this name are at work; None: the base alone, bit for bit."""
    if name is not None:
        _check_known(model, name)
    for adapted in _adapted(model).values():
        adapted.active = name


@contextmanager
def rows(model: GPT, names: list[str | None]) -> Iterator[None]:
    """Inside, row b of every batch has the adapters names[b], or none where it is None; sizes may differ."""
    for name in names:
        if name is not None:
            _check_known(model, name)
    found = list(_adapted(model).values())
    before = [adapted.rows for adapted in found]
    for adapted in found:
        adapted.rows = tuple(names)
    try:
        yield
    finally:
        for adapted, was in zip(found, before, strict=True):
            adapted.rows = was


def detach(model: GPT, name: str | None = None) -> None:
    """Take away the adapters of a name, or all; the last gone, the model has the modules and bits of before."""
    if name is not None:
        _check_known(model, name)
    for block in model.blocks:
        for part in SUBLAYERS:
            adapted = getattr(block, part).dropout
            if not isinstance(adapted, Adapted):
                continue
            for gone in [name] if name is not None else list(adapted.adapters):
                if gone in adapted.adapters:
                    del adapted.adapters[gone]
            if not adapted.adapters:
                getattr(block, part).dropout = adapted.base
    learning.thaw(model)


def names(model: GPT) -> list[str]:
    """Of all adapters held."""
    return list(dict.fromkeys(name for adapted in _adapted(model).values() for name in adapted.adapters))


def save(model: GPT, directory: str | Path, name: str = "default", base: str = "") -> None:
    """adapter_config.json and adapter_model.safetensors: tensors "blocks.0.attn.down.weight" and so on.

    `base` is the name of the model they belong to.
    """
    _check_known(model, name)
    held = next(adapted.adapters[name] for adapted in _adapted(model).values() if name in adapted.adapters)
    stored.write(directory, "adapter", held.config, _tensors(model, name), base=base)


def load(model: GPT, directory: str | Path, name: str = "default", trainable: bool = False) -> Report:
    """Attach the adapters of a directory under `name`, to learn on only if `trainable`; on `Error` all is as before."""
    config = stored.read_config(directory, "adapter", AdapterConfig)
    with torch.device("meta"):
        own = {key: tuple(tensor.shape) for key, tensor in Adapter(config, model.config.d_model).state_dict().items()}
    places = [f"blocks.{i}.{part}" for i in range(model.config.n_layers) for part in config.after]
    found = stored.read_tensors(directory, {f"{place}.{key}": own[key] for place in places for key in own})
    attach(model, config, name)
    with torch.no_grad():
        for key, tensor in _tensors(model, name).items():
            tensor.requires_grad_(trainable).copy_(found[key])
    return report(model, name)


def _adapted(model: GPT) -> dict[str, Adapted]:
    """{"blocks.0.attn": the end of that sub-layer}."""
    ends = {f"blocks.{i}.{p}": getattr(block, p).dropout for i, block in enumerate(model.blocks) for p in SUBLAYERS}
    return {path: end for path, end in ends.items() if isinstance(end, Adapted)}


def _tensors(model: GPT, name: str) -> dict[str, nn.Parameter]:
    return {
        f"{path}.{key}": tensor
        for path, adapted in _adapted(model).items()
        if name in adapted.adapters
        for key, tensor in adapted.adapters[name].named_parameters()
    }


def _check_known(model: GPT, name: str):
    if name not in (known := names(model)):
        raise Error(f"adapter: there is none named {name!r}: {nearest(name, known) if known else 'attach one first'}")
