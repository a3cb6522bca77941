"""Adapters: a small bottleneck after every sub-layer of a frozen model (Houlsby et al. 2019).

Shapes: B batch, T time, C channels (d_model), M bottleneck, L blocks.

    A(h) = h + W_up act(W_down h + b_down) + b_up          W_down (M, C), W_up (C, M)
    x + A_1(attention(norm(x)))     x + A_2(feed-forward(norm(x)))

It acts on what a sub-layer would add to the residual stream, after its output projection and dropout and before the
sum (figure 2 there, and the code of adapter-bert). The last module of a sub-layer is its dropout: an `Adapted`
stands in that place, and no weight of the base changes its name. Numbers to learn: 2 L (2 C M + M + C).

Unlike LoRA it cannot be merged: a nonlinearity is between. It is two more products in a row for each sub-layer, which
a batch of one feels. The cache is untouched, for keys and values are made before it acts.

`after=("mlp",)` is one adapter a block, where Pfeiffer et al. 2021 put it; with `norm=True` it normalises its input
first, AdapterL of Lin et al. 2020 as the LoRA paper counts it: L (2 C M + M + C) + 2 L C. The layer norms of the base,
which Houlsby et al. train as well, stay frozen here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.config import ACTIVATIONS
from minigpt.errors import Error, nearest
from minigpt.linear import Linear
from minigpt.model import GPT, activate
from minigpt.tuning import stored
from minigpt.tuning.report import Report

SUBLAYERS = ("attn", "mlp")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """bottleneck M; after which sub-layers; norm: a layer norm before W_down.

    Both matrices start from a normal distribution of `init_std`, cut at two of them (section 2.1 of the paper; its
    code has 1e-3): A is nearly the identity. With `exact` W_up starts at 0 and A is the identity, bit for bit.
    """

    bottleneck: int = 64
    activation: str = "gelu"
    after: tuple[str, ...] = SUBLAYERS
    norm: bool = False
    init_std: float = 1e-2
    exact: bool = False

    def __post_init__(self):
        if type(self.bottleneck) is not int or self.bottleneck < 1:
            raise Error(f"AdapterConfig.bottleneck is {self.bottleneck!r}: give a whole number of at least 1")
        if self.activation not in ACTIVATIONS:
            raise Error(
                f"AdapterConfig.activation is {self.activation!r}: {nearest(str(self.activation), ACTIVATIONS)}"
            )
        if not isinstance(self.after, list | tuple) or not self.after or set(self.after) - set(SUBLAYERS):
            raise Error(f"AdapterConfig.after is {self.after!r}: give one or both of {SUBLAYERS}")
        object.__setattr__(self, "after", tuple(part for part in SUBLAYERS if part in self.after))
        if not isinstance(self.init_std, int | float) or not 0 < self.init_std < 1:
            raise Error(f"AdapterConfig.init_std is {self.init_std!r}: give a number between 0 and 1, such as 0.01")
        for name in ("norm", "exact"):
            if not isinstance(getattr(self, name), bool):
                raise Error(f"AdapterConfig.{name} is {getattr(self, name)!r}: give True or False")


class Adapter(nn.Module):
    """A(h) of above, (..., C) -> (..., C); in float32 where the base has fewer bits."""

    def __init__(self, config: AdapterConfig, width: int):
        super().__init__()
        self.config = config
        self.norm = nn.LayerNorm(width) if config.norm else nn.Identity()
        self.down = Linear(width, config.bottleneck)
        self.up = Linear(config.bottleneck, width)
        for matrix in (self.down, self.up):
            nn.init.trunc_normal_(matrix.weight, std=config.init_std, a=-2 * config.init_std, b=2 * config.init_std)
            nn.init.zeros_(matrix.bias)
        if config.exact:
            nn.init.zeros_(self.up.weight)

    def forward(self, h: Tensor) -> Tensor:
        x = self.norm(h.to(self.down.weight.dtype))
        return h + self.up(activate(self.down(x), self.config.activation)).to(h.dtype)


class Adapted(nn.Module):
    """The end of a sub-layer, and after it the one adapter that is at work, or none, or one for each row."""

    def __init__(self, base: nn.Module):
        super().__init__()
        self.base = base
        self.adapters = nn.ModuleDict()
        self.active: str | None = None
        self.rows: tuple[str | None, ...] | None = None  # names one for each; generation/reader.py knows the word

    def forward(self, x: Tensor) -> Tensor:
        x = self.base(x)
        if self.rows is not None:
            return fast(x, self.rows, self.adapters)
        return self.adapters[self.active](x) if self.active in self.adapters else x


def plain(h: Tensor, rows: tuple[str | None, ...], adapters: nn.ModuleDict) -> Tensor:
    """Row b of h (B, T, C) through the adapter rows[b], or as it is: a row at a time.

    >>> held = nn.ModuleDict({name: Adapter(AdapterConfig(bottleneck=2), 4) for name in "ab"})
    >>> h, rows = torch.randn(3, 5, 4), ("b", None, "a")
    >>> torch.allclose(plain(h, rows, held), fast(h, rows, held), atol=1e-6)
    True
    """
    return torch.stack([adapters[name](x) if name in adapters else x for x, name in zip(h, rows, strict=True)])


def fast(h: Tensor, rows: tuple[str | None, ...], adapters: nn.ModuleDict) -> Tensor:
    """The same, the rows of an adapter together: they are brought side by side, and back into their order."""
    if len(rows) != len(h):
        raise Error(f"adapter.rows names {len(rows)} rows, the batch has {len(h)}: name an adapter or None for each")
    groups: dict[str | None, list[int]] = {}
    for row, name in enumerate(rows):
        groups.setdefault(name if name in adapters else None, []).append(row)
    if len(groups) == 1:
        (name,) = groups
        return h if name is None else adapters[name](h)
    order = torch.tensor([row for group in groups.values() for row in group], device=h.device)
    parts = h[order].split([len(group) for group in groups.values()])
    done = [part if name is None else adapters[name](part) for name, part in zip(groups, parts, strict=True)]
    return torch.cat(done)[order.argsort()]


def attach(model: GPT, config: AdapterConfig, name: str = "default") -> Report:
    """Put new adapters into every block, freeze the base, and set them to work; several can be held by name.

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
    added = {id(p) for adapted in _adapted(model).values() for p in adapted.adapters.parameters()}
    base = [p for p in model.parameters() if id(p) not in added]
    for parameter in base:
        parameter.requires_grad_(False)
    for block in model.blocks:
        for part in config.after:
            sublayer = getattr(block, part)
            if not isinstance(sublayer.dropout, Adapted):
                sublayer.dropout = Adapted(sublayer.dropout).train(model.training)
            made = Adapter(config, model.config.d_model).to(like.device, dtype)
            sublayer.dropout.adapters[name] = made.train(model.training)
    use(model, name)
    learned = _tensors(model, name).values()
    return Report(sum(t.numel() for t in learned), sum(t.nbytes for t in learned), sum(p.numel() for p in base))


def use(model: GPT, name: str | None):
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


def detach(model: GPT, name: str | None = None):
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


def names(model: GPT) -> list[str]:
    """Of all adapters held."""
    return list(dict.fromkeys(name for adapted in _adapted(model).values() for name in adapted.adapters))


def save(model: GPT, directory, name: str = "default"):
    """adapter_config.json and adapter_model.safetensors: tensors "blocks.0.attn.down.weight" and so on."""
    _check_known(model, name)
    held = next(adapted.adapters[name] for adapted in _adapted(model).values() if name in adapted.adapters)
    stored.write(directory, "adapter", held.config, _tensors(model, name))


def load(model: GPT, directory, name: str = "default") -> Report:
    """Attach the adapters of a directory under `name`; on an error nothing has changed."""
    config = stored.read_config(directory, "adapter", AdapterConfig)
    with torch.device("meta"):
        own = {key: tuple(tensor.shape) for key, tensor in Adapter(config, model.config.d_model).state_dict().items()}
    places = [f"blocks.{i}.{part}" for i in range(model.config.n_layers) for part in config.after]
    found = stored.read_tensors(directory, {f"{place}.{key}": own[key] for place in places for key in own})
    report = attach(model, config, name)
    with torch.no_grad():
        for key, tensor in _tensors(model, name).items():
            tensor.copy_(found[key])
    return report


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
