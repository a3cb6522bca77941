"""What to adapt, and how strongly: one frozen record, and the rules by which it names layers."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lora.errors import Error

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Config:
    """h = W0 x + scale B A x,  scale = alpha / r  (Hu et al. 2021, section 4.1), or alpha / sqrt(r) with rslora.

    targets         names of modules ("q_proj" means every module of that name), one regular expression for the whole
                    path, or "all-linear": every linear layer but the output head
    exclude         names or a regular expression of modules to leave out
    dropout         of the input of A, in training
    init            of A: "gaussian" (the paper's; std 1/r) or "kaiming" (loralib's and peft's); B is zero
    rank_pattern    other ranks where the key, a regular expression, ends the path: {"mlp.up_proj": 4, r"blocks.0.*": 2}
    alpha_pattern   other alphas likewise; of several keys that fit, the first counts
    layers          only in these layers, counted from 0: the first number in the path
    slices          parts of a fused layer: {"c_attn": (True, False, True)} adapts q and v of q, k, v;
                    unequal parts give their sizes, {"qkv_proj": ((512, True), (128, False), (128, True))}
    dora            weight-decomposed: direction by A and B, length by a learned vector (Liu et al. 2024)
    bias            "none"; "lora_only": learn the biases of adapted layers; "all": of every layer
    modules_to_save modules learned whole, such as a new head
    tied            what to do when a target shares its weight with another module: "refuse"; "untie": the target
                    alone changes; "tie": both do, by the same update

    >>> Config(r=8, alpha=16).scale("blocks.0.attn.q_proj")
    2.0
    """

    r: int = 8
    alpha: float = 16
    targets: str | Sequence[str] = ("q_proj", "v_proj")
    exclude: str | Sequence[str] = ()
    rslora: bool = False
    dropout: float = 0.0
    init: str = "gaussian"
    rank_pattern: dict[str, int] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    layers: int | Sequence[int] | None = None
    slices: dict[str, tuple] = field(default_factory=dict)
    dora: bool = False
    bias: str = "none"
    modules_to_save: str | Sequence[str] = ()
    tied: str = "refuse"

    def __post_init__(self):
        for name in ("targets", "exclude"):
            if not isinstance(value := getattr(self, name), str):
                object.__setattr__(self, name, tuple(value))
        for name in ("modules_to_save", "layers"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, (value,) if isinstance(value, (int, str)) else tuple(value))
        choices = {
            "init": ("gaussian", "kaiming"),
            "bias": ("none", "lora_only", "all"),
            "tied": ("refuse", "untie", "tie"),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise Error(f"lora.Config: {name} is {getattr(self, name)!r}: choose from {', '.join(known)}")
        if not self.targets and not self.modules_to_save:
            raise Error('lora.Config: targets is empty: name the layers to adapt, or give "all-linear"')
        if not 0 <= self.dropout < 1:
            raise Error(f"lora.Config: dropout is {self.dropout}: give a probability from 0 to below 1")
        for rank in (self.r, *self.rank_pattern.values()):
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise Error(f"lora.Config: a rank is {rank!r}: give a whole number of at least 1")
        for alpha in (self.alpha, *self.alpha_pattern.values()):
            if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
                raise Error(f"lora.Config: an alpha is {alpha!r}: give a number above 0")

    def rank(self, path: str) -> int:
        return self._pattern(self.rank_pattern, path, self.r)

    def scale(self, path: str) -> float:
        """What the update at `path` is multiplied by."""
        alpha, r = self._pattern(self.alpha_pattern, path, self.alpha), self.rank(path)
        return alpha / (math.sqrt(r) if self.rslora else r)

    @staticmethod
    def _pattern(patterns: dict, path: str, default):
        return next((value for key, value in patterns.items() if ends_path(key, path)), default)

    def wants(self, path: str) -> bool:
        """Whether the targets name this path ("all-linear" names all; the caller knows which are linear)."""
        return (
            (self.targets == ALL_LINEAR or named(self.targets, path))
            and not named(self.exclude, path)
            and not any(ends_path(name, path) or f".{name}." in f".{path}" for name in self.modules_to_save)
            and (self.layers is None or layer_of(path) in self.layers)
        )


def named(names: str | tuple[str, ...], path: str) -> bool:
    """A regular expression fits the whole path; a name is the path, or its end after a dot.

    >>> named(("q_proj",), "h.0.q_proj"), named(("proj",), "h.0.q_proj"), named(r".*\\.[qv]_proj", "h.0.q_proj")
    (True, False, True)
    """
    if isinstance(names, str):
        return bool(names) and _compiled(names).fullmatch(path) is not None
    return any(path == name or path.endswith(f".{name}") for name in names)


def ends_path(pattern: str, path: str) -> bool:
    """The rule for pattern keys: the regular expression fits the path, or its end after a dot."""
    return _compiled(rf"(.*\.)?({pattern})").fullmatch(path) is not None


def _compiled(pattern: str) -> re.Pattern:
    try:
        return re.compile(pattern)
    except re.error as problem:
        raise Error(f"lora.Config: {pattern!r} is not a regular expression ({problem})") from None


def layer_of(path: str) -> int | None:
    """The first number in a path, "blocks.3.attn.q_proj" -> 3; None without one."""
    found = re.match(r".*?\.(\d+)\.", f".{path}")
    return int(found.group(1)) if found else None
