"""Prefix-tuning (Li & Liang 2021) and P-tuning v2 (Liu et al. 2022): keys and values before every layer's own.

Shapes: P virtual tokens, L layers, G key/value heads, e head size, d = G e, m hidden size of the MLP.

    K_l <- [PK_l ; K_l]    V_l <- [PV_l ; V_l]              PK_l = F[:, 2l]   PV_l = F[:, 2l + 1]   F (P, 2L, G, e)
    direct        F learns itself                           P-tuning v2; PEFT without prefix_projection
    with an MLP   F = W2 tanh(W1 E + b1) + b2               prefix-tuning; E (P, d), W1 (m, d), W2 (2L d, m)

Stored are 2 L P d numbers, the MLP is thrown away; with it P d + d m + m + 2 L d m + 2 L d learn.

    prefix.attach(model, prefix.PrefixConfig(length=20, hidden=512))     the base is frozen, `model` is used as before
    with prefix.rows(model, ["default", None]): ...                      a prefix a row, or none

Traps. A prefix of zeros changes the model: its keys score 0 and take their share e^0 of every softmax. Keys carry no
rotation: in a rotary model they are added after it, as PEFT does. The base's own dropout is on in training mode:
`model.eval()` turns it off, and a prefix's with it. F has four dimensions, so that optimizer.py does not decay it;
E, W1 and W2 are matrices, and would decay: give weight_decay=0 with an MLP.
Beside LoRA or adapters it learns as they do: attach one after the other, in any order.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.errors import Error, nearest
from minigpt.model import GPT
from minigpt.tuning import learning, prefix_files
from minigpt.tuning.past import Entrance, keys_and_values
from minigpt.tuning.report import Report


@dataclass(frozen=True)
class PrefixConfig:
    """What a prefix is made of.

    shift=True is PEFT's: the text stands after the prefix, at positions P, P + 1, ..., and P fewer tokens fit.
    shift=False leaves the text at 0, 1, ..., where the base has learned to read, and takes nothing of the context.

    >>> PrefixConfig.p_tuning_v2(length=8)
    PrefixConfig(length=8, hidden=None, dropout=0.1, shift=True, tokens=None)
    """

    length: int | None = None  # P; 10 unless `tokens` say it
    hidden: int | None = None  # m of the MLP, 512 in the paper; None: direct
    dropout: float = 0.0  # of the prefix's numbers, in training mode; each row of a batch its own
    shift: bool = True
    tokens: tuple[int, ...] | None = None  # begin as the keys and values of this text: the paper's best; direct only

    def __post_init__(self):
        if self.tokens is not None:
            object.__setattr__(self, "tokens", tuple(self.tokens))
            if self.hidden is not None:
                raise Error("PrefixConfig: an MLP cannot begin as given tokens: leave out hidden or tokens")
            if self.length not in (None, len(self.tokens)):
                raise Error(f"PrefixConfig: length is {self.length}, tokens are {len(self.tokens)}: leave out length")
        if self.length is None:
            object.__setattr__(self, "length", 10 if self.tokens is None else len(self.tokens))
        for name in ("length", "hidden"):
            value = getattr(self, name)
            if (type(value) is not int or value < 1) and not (name == "hidden" and value is None):
                raise Error(f"PrefixConfig.{name} is {value!r}: give a whole number of at least 1")
        if not isinstance(self.dropout, int | float) or not 0.0 <= self.dropout < 1.0:
            raise Error(f"PrefixConfig.dropout is {self.dropout!r}: give a probability in [0, 1)")
        if not isinstance(self.shift, bool):
            raise Error(f"PrefixConfig.shift is {self.shift!r}: give True or False")

    @classmethod
    def p_tuning_v2(cls, length: int = 8, dropout: float = 0.1, **more) -> "PrefixConfig":
        """Without an MLP and with dropout, as in that paper, whose lengths are 8 to 224; its task head is heads.py."""
        return cls(length=length, dropout=dropout, **more)


Config = PrefixConfig  # as every method calls it


class Prefix(nn.Module):
    """What is learned: F itself, or E and the MLP that makes it. Both begin at N(0, 1), the MLP as nn.Linear does."""

    def __init__(self, config: PrefixConfig, gpt: GPTConfig):
        super().__init__()
        self.config, self.length, self.shift = config, config.length, config.shift
        self.size = config.length, 2 * gpt.n_layers, gpt.n_kv_heads, gpt.d_head
        width = gpt.n_kv_heads * gpt.d_head
        if config.hidden is None:
            self.table = nn.Parameter(torch.randn(self.size))
        else:
            self.embedding = nn.Parameter(torch.randn(config.length, width))
            last = nn.Linear(config.hidden, 2 * gpt.n_layers * width)
            self.transform = nn.Sequential(nn.Linear(width, config.hidden), nn.Tanh(), last)

    def forward(self) -> Tensor:
        """F, (P, 2L, G, e)."""
        return self.table if self.config.hidden is None else self.transform(self.embedding).view(self.size)


class Prefixes(nn.Module):
    """The prefixes of a model, by name: `model.prefixes`."""

    learned_in = "held"

    def __init__(self):
        super().__init__()
        self.held = nn.ModuleDict()
        self.active: str | None = None  # for every row, unless
        self.rows: tuple[str | None, ...] | None = None  # names one for each; generation/reader.py knows the word

    def working(self) -> list[Prefix]:
        names = dict.fromkeys((self.active,) if self.rows is None else self.rows)
        return [self.held[name] for name in names if name is not None]

    def chosen(self, batch: int) -> list[Prefix | None]:
        names = (self.active,) * batch if self.rows is None else self.rows
        if len(names) != batch:
            raise Error(f"prefix.rows names {len(names)} rows, the batch has {batch}: name a prefix or None for each")
        return [None if name is None else self.held[name] for name in names]

    def sizes(self, batch: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Entries that a row's prefix has, and positions that it takes: (B or 1, 1) each."""
        rows = [(each.length, each.length * each.shift) if each else (0, 0) for each in self.chosen(batch)]
        rows = rows[:1] if len(set(rows)) == 1 else rows
        return torch.tensor(rows, device=device).split(1, dim=1)

    def joined(self, batch: int) -> tuple[list[Tensor], list[Tensor], Tensor | None]:
        """Keys and values of each layer (B, G, P, e), shorter prefixes padded in front; `keep` (B, P) if any is."""
        chosen = self.chosen(batch)
        tables = {each: each() for each in self.working()}
        longest = max(map(len, tables.values()))
        none = next(iter(tables.values()))[:0]
        alike = len(set(chosen)) == 1 and not (chosen[0].training and chosen[0].config.dropout)
        rows = []
        for each in chosen[:1] if alike else chosen:
            table = none if each is None else F.dropout(tables[each], each.config.dropout, each.training)
            rows.append(F.pad(table, (0, 0, 0, 0, 0, 0, longest - len(table), 0)))
        together = torch.stack(rows).expand(batch, -1, -1, -1, -1)
        layers = rearrange(together, "b p (l two) g e -> two l b g p e", two=2)
        gaps, keep = [longest - (each.length if each else 0) for each in chosen], None
        if any(gaps):
            places = torch.arange(longest, device=together.device)
            keep = places >= torch.tensor(gaps, device=together.device)[:, None]
        return list(layers[0]), list(layers[1]), keep


def attach(model: GPT, config: PrefixConfig, name: str = "default") -> Report:
    """A new prefix, at work from now on; everything of the base stays as it is.

    >>> from minigpt import GPT, GPTConfig
    >>> model = GPT(GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> print(attach(model, PrefixConfig(length=4)))
    trains 512 of 29,696 (1.7241 %), stores 2,048 bytes
    """
    weight = next(model.parameters())
    made = Prefix(config, model.config).to(weight.device, torch.promote_types(weight.dtype, torch.float32))
    if config.tokens is not None:
        made.table.data.copy_(keys_and_values(model, config.tokens, config.shift))
    return _hold(model, made.train(model.training), name)


def _hold(model: GPT, made: Prefix, name: str) -> Report:
    if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict, name):
        raise Error(f"prefix: {name!r} cannot be a name: give another word without a dot")
    if not hasattr(model, "prefixes"):
        model.prefixes = Prefixes().train(model.training)
        model.hidden = Entrance(model)
    elif name in model.prefixes.held:
        raise Error(f"prefix: {name!r} is attached already: detach it first, or give another name")
    model.prefixes.held[name], model.prefixes.active = made, name
    learning.freeze(model)
    return report(model, name)


def report(model: GPT, name: str = "default") -> Report:
    """What learns of a prefix, and what it takes on disk: F, also where an MLP makes it."""
    _known(model, name)
    made = model.prefixes.held[name]
    stored = math.prod(made.size) * next(made.parameters()).itemsize
    return learning.report(model, made.parameters(), stored)


def names(model: GPT) -> list[str]:
    """Of all prefixes held."""
    return list(model.prefixes.held) if hasattr(model, "prefixes") else []


def use(model: GPT, name: str | None = None) -> None:
    """From now on this prefix stands before every row; without a name none does, and the model is its base."""
    _known(model, name)
    model.prefixes.active = name


@contextmanager
def rows(model: GPT, names: list[str | None]) -> Iterator[None]:
    """Inside, row b of every batch has the prefix names[b], or none where it is None; lengths may differ."""
    _known(model, *names)
    before, model.prefixes.rows = model.prefixes.rows, tuple(names)
    try:
        yield
    finally:
        model.prefixes.rows = before


def detach(model: GPT, name: str | None = None) -> None:
    """Take a prefix away, or all of them; with the last one gone the model is as before the first."""
    if name is None and not names(model):
        return
    _known(model, name)
    held = model.prefixes.held
    for each in list(held) if name is None else [name]:
        del held[each]
    if model.prefixes.active not in held:
        model.prefixes.active = None
    if not held:
        del model.prefixes, model.hidden
    learning.thaw(model)


def save(model: GPT, directory: str | Path, name: str = "default", base: str = "") -> None:
    """Write a prefix in PEFT's format, F alone: see prefix_files.py. `base` is what PEFT calls the model's name."""
    _known(model, name)
    made = model.prefixes.held[name]
    with torch.no_grad():
        prefix_files.write(made(), directory, made.shift, made.config.dropout, base)


def load(model: GPT, directory: str | Path, name: str = "default", trainable: bool = False) -> Report:
    """Attach a prefix that was saved, by us or by PEFT; with `trainable` it learns on, as it is, without an MLP."""
    config = model.config
    table, settings = prefix_files.read(directory, config.n_layers, config.n_kv_heads, config.d_head)
    made = Prefix(PrefixConfig(length=len(table), **settings), config)
    weight = next(model.parameters())
    made.to(weight.device, torch.promote_types(weight.dtype, torch.float32)).table.data.copy_(table)
    return _hold(model, made.train(model.training).requires_grad_(trainable), name)


def _known(model: GPT, *names: str | None):
    if not hasattr(model, "prefixes"):
        raise Error("prefix: none is attached to this model: attach or load one first")
    for name in names:
        if name is not None and name not in model.prefixes.held:
            raise Error(f"prefix: there is no {name!r}: {nearest(str(name), model.prefixes.held)}")
