"""The bottleneck behind a sub-layer, and which of several acts on which row (Houlsby et al. 2019; see adapter.py).

Shapes: B batch, T time, C channels (d_model), M bottleneck.

    A(h) = h + W_up act(W_down h + b_down) + b_up          W_down (M, C), W_up (C, M)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.config import ACTIVATIONS
from minigpt.errors import Error, nearest
from minigpt.linear import Linear
from minigpt.model import activate

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

    learned_in = "adapters"

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
