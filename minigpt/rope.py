"""How rotary positions are stretched past the length a model was trained at: one small record a method.

    kind      frequencies f_i = theta^(-2i/D) become                               paper
    linear    f_i / s                                                              Chen et al. 2023 (PI)
    dynamic   those of theta ((s n / T) - (s - 1))^(D/(D-2)), n >= T tokens read   "dynamic NTK"
    yarn      f_i where a pair turns often within T, f_i / s where seldom          Peng et al. 2023 (YaRN)
    llama3    the same idea, with other borders                                    Dubey et al. 2024 (Llama 3.1)

s is `factor`, T is `original`, the context before. NTK-aware scaling needs no record: it is another theta (see
`ntk_theta`). The formulas are in positions.py, spelling and defaults are those of transformers. No torch here.
"""

import math
from dataclasses import asdict, dataclass
from dataclasses import fields as fields_of
from typing import ClassVar

from minigpt.errors import Error, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Position interpolation: position p is read as p / factor. Needs some tuning, at every length."""

    kind: ClassVar[str] = "linear"
    factor: float

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dynamic:
    """NTK-aware, stretched no more than the text at hand needs: up to `original` tokens nothing changes."""

    kind: ClassVar[str] = "dynamic"
    factor: float
    original: int

    def __post_init__(self):
        _check(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Yarn:
    """YaRN: pairs that turn more than `beta_fast` times in `original` tokens stay, fewer than `beta_slow`: / factor.

    Between the two a ramp, whose ends are whole dimensions if `truncate`. cos and sin are multiplied by the attention
    factor, 0.1 ln(factor) + 1 if None: scores get sharper by its square.
    """

    kind: ClassVar[str] = "yarn"
    factor: float
    original: int
    attention_factor: float | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True

    def __post_init__(self):
        _check(self)
        if self.beta_fast < self.beta_slow:
            raise Error(f"rope_scaling: beta_fast is {self.beta_fast}, below beta_slow {self.beta_slow}: swap them")

    @property
    def scale(self) -> float:
        """What cos and sin are multiplied by.

        >>> Yarn(factor=2.0, original=1024).scale
        1.0693147180559945
        """
        return stretch(self.factor) if self.attention_factor is None else self.attention_factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3:
    """Llama 3.1's: wavelengths below original / high_freq_factor stay, above original / low_freq_factor: / factor."""

    kind: ClassVar[str] = "llama3"
    factor: float
    original: int
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0

    def __post_init__(self):
        _check(self)
        if self.high_freq_factor <= self.low_freq_factor:
            raise Error(
                f"rope_scaling: high_freq_factor is {self.high_freq_factor}, not above low_freq_factor "
                f"{self.low_freq_factor}: Llama 3.1 has 4 and 1"
            )


Scaling = Linear | Dynamic | Yarn | Llama3
KINDS = {record.kind: record for record in (Linear, Dynamic, Yarn, Llama3)}
THEIRS = {"original": "original_max_position_embeddings"}  # the rest is spelt alike


def stretch(factor: float, weight: float = 1.0) -> float:
    """YaRN's attention factor, equation 22 of the paper: 0.1 ln(s) + 1."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def ntk_theta(theta: float, factor: float, d_head: int) -> float:
    """NTK-aware scaling: theta s^(D/(D-2)). The slowest pair turns s times slower, the fastest as before.

    >>> slowest = lambda theta: theta ** (-62 / 64)
    >>> round(slowest(1e4) / slowest(ntk_theta(1e4, 4.0, 64)), 6)
    4.0
    """
    if d_head < 4:
        raise Error(f"NTK-aware scaling keeps one pair and slows the others, but d_head is {d_head}: use linear")
    return theta * factor ** (d_head / (d_head - 2))


def to_json(scaling: Scaling) -> dict:
    """As transformers spells it.

    >>> to_json(Yarn(factor=2.0, original=1024))["rope_type"], from_json(to_json(Linear(factor=2.0)))
    ('yarn', Linear(factor=2.0))
    """
    values = {THEIRS.get(name, name): value for name, value in asdict(scaling).items() if value is not None}
    if values.get("truncate", False):
        del values["truncate"]  # older ones do not know it; True is what they do
    return {"rope_type": scaling.kind} | values


def from_json(values: dict) -> Scaling | None:
    """The record of such a dictionary; None for "default". What a kind does not know raises `Error`."""
    kind = values.get("rope_type", values.get("type", "default"))
    if kind == "default":
        return None
    if kind not in KINDS:
        raise Error(f"rope_type is {kind!r}, which cannot be represented: {nearest(str(kind), ['default', *KINDS])}")
    if values.get("partial_rotary_factor", 1.0) != 1.0:
        raise Error(f"partial_rotary_factor is {values['partial_rotary_factor']}: GPTConfig turns whole heads only")
    ours = {theirs: name for name, theirs in THEIRS.items()}
    beside = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "mscale", "mscale_all_dim"}
    fields = {ours.get(name, name): value for name, value in values.items() if name not in beside and value is not None}
    known = {field.name for field in fields_of(KINDS[kind])}
    for name in fields.keys() - known:
        raise Error(f"rope_scaling of {kind!r} has no {name!r}: {nearest(name, known)}")
    for name in ("factor", "original"):
        if name in known and name not in fields:
            raise Error(f"rope_scaling of {kind!r} lacks {THEIRS.get(name, name)!r}: give it")
    both = values.get("mscale"), values.get("mscale_all_dim")
    if kind == "yarn" and "attention_factor" not in fields and all(both):  # DeepSeek's spelling of it
        fields["attention_factor"] = stretch(fields["factor"], both[0]) / stretch(fields["factor"], both[1])
    return KINDS[kind](**fields)


def from_config(config: dict, room: int) -> tuple[float, Scaling | None, int]:
    """theta, scaling and context of a transformers config.json whose max_position_embeddings is `room`.

    `rope_parameters` is the spelling since transformers 5, `rope_scaling` and `rope_theta` the one before. For
    "dynamic" `room` is the context before, and the one after is ours, beside it.
    """
    now, before = (config.get(name) or {} for name in ("rope_parameters", "rope_scaling"))
    values = next((v for v in (before, now) if v.get("rope_type", v.get("type", "default")) != "default"), now)
    theta = float(now.get("rope_theta", before.get("rope_theta", config.get("rope_theta", 10000.0))))
    kind, original = values.get("rope_type", values.get("type")), THEIRS["original"]
    if kind == "dynamic":
        values = values | {original: room}
    elif kind in ("yarn", "llama3"):
        values = values | {original: config.get(original) or values.get(original) or room}
    if kind == "yarn" and not values.get("factor"):
        values = values | {"factor": room / values[original]}
    try:
        scaling = from_json(values)
    except Error as problem:
        raise Error(f"config.json: {problem}") from None
    stretched = config.get("context", int(room * scaling.factor)) if kind == "dynamic" else room
    return theta, scaling, stretched


def to_config(context: int, theta: float, scaling: Scaling | None) -> dict:
    """What `from_config` reads, in both spellings: the second is for transformers before version 5."""
    written = {"max_position_embeddings": context, "rope_theta": theta}
    if scaling is None:
        return written | {"rope_parameters": {"rope_type": "default", "rope_theta": theta}}
    values = to_json(scaling)
    if isinstance(scaling, Dynamic):
        written |= {"max_position_embeddings": values.pop(THEIRS["original"]), "context": context}
    return written | {"rope_parameters": values | {"rope_theta": theta}, "rope_scaling": values}


def _check(scaling):
    """Every number is one, and in its range; a factor below 1 would be a shorter context."""
    for name, value in asdict(scaling).items():
        if name == "truncate":
            if not isinstance(value, bool):
                raise Error(f"rope_scaling: truncate is {value!r}: give True or False")
            continue
        if value is None and name == "attention_factor":
            continue
        least = 1 if name in ("factor", "original") else 0
        whole = type(value) is int if name == "original" else type(value) in (int, float)
        if not whole or not least <= value < math.inf or (not least and not value):
            what = "a whole number of tokens, the context before" if name == "original" else "a number"
            raise Error(f"rope_scaling: {name} is {value!r}: give {what}, {'at least 1' if least else 'above 0'}")
