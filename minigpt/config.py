"""What a GPT is made of: one frozen record, checked when it is built.

Symbols as in the GPT-3 paper (Brown et al. 2020, table 2.1): n_layers, d_model, n_heads, d_head, d_ff.
"""

import math
from dataclasses import asdict, dataclass, fields, replace

from minigpt import rope
from minigpt.errors import Error, nearest

MOST = {"n_layers": 10_000, "n_heads": 100_000, "n_kv_heads": 100_000}  # a damaged file may ask for any number
ACTIVATIONS = ("gelu_tanh", "gelu", "relu", "relu2", "silu")


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig:
    """The shape of a decoder. The defaults are GPT-2 small (Radford et al. 2019), 124,439,808 parameters.

    Sizes left at None are derived: `d_head = d_model / n_heads`, `n_kv_heads = n_heads`, `d_ff = 4 d_model`.
    Two axes tell the families apart: GPT-1 is `norm_place="post"`; the Llama shape is `norm="rmsnorm"`,
    `gated=True`, `activation="silu"`, `positions="rotary"`, `bias=False`. GPT-3 adds `window` and `banded_layers`.
    A size that cannot work raises `Error` with the fix.

    >>> GPTConfig(n_layers=2, n_heads=2, d_model=64, vocab_size=512, context=128).d_ff
    256
    """

    vocab_size: int = 50257  # V: rows of the token embedding and of the head
    context: int = 1024  # longest sequence, in tokens
    n_layers: int = 12
    n_heads: int = 12
    d_model: int = 768  # C: width of the residual stream
    d_head: int | None = None  # D: free of d_model / n_heads, as GPT-3 XL and 13B need
    n_kv_heads: int | None = None  # fewer than n_heads: grouped keys and values
    d_ff: int | None = None
    norm: str = "layernorm"  # or "rmsnorm"
    norm_place: str = "pre"  # or "post" (GPT-1: the norm follows the sum, and there is no final norm)
    norm_eps: float = 1e-5
    activation: str = "gelu_tanh"  # GPT-2's GELU; "gelu" is the exact one, and not the same function
    gated: bool = False  # feed-forward down(act(gate(x)) * up(x)); with silu this is SwiGLU
    positions: str = "learned"  # or "rotary"
    rope_theta: float = 10000.0
    rope_scaling: rope.Scaling | None = None  # rotary positions stretched past the trained context (see rope.py)
    bias: bool = True  # in every linear layer and layer norm
    tied: bool = True  # the head is the token embedding, transposed
    window: int | None = None  # keys a banded layer sees, the token itself included
    banded_layers: tuple[int, ...] = ()  # which layers are banded; GPT-3 alternates dense and banded
    pattern: str = "local"  # what a banded layer sees: the last `window` keys; or "strided" or "fixed" (see masks.py)
    sinks: int = 0  # first tokens that banded layers see however far back they are (StreamingLLM)
    embed_dropout: float = 0.0
    attn_dropout: float = 0.0
    resid_dropout: float = 0.0
    init_std: float = 0.02

    def __post_init__(self):
        self._check_sizes()
        self._derive()
        self._check_choices()
        self._check_numbers()
        self._check_window()
        self._check_rope()

    def _check_sizes(self):
        sizes = ("vocab_size", "context", "n_layers", "n_heads", "d_model", "d_head", "n_kv_heads", "d_ff", "window")
        may_be_none = ("d_head", "n_kv_heads", "d_ff", "window")
        for name in sizes:
            value = getattr(self, name)
            if value is None and name in may_be_none:
                continue
            if type(value) is not int or value < 1:  # not isinstance: True is an int
                raise Error(f"GPTConfig.{name} is {value!r}: give a whole number of at least 1")
            if value > (most := MOST.get(name, 2**62)):
                raise Error(f"GPTConfig.{name} is {value:.3g}, more than any model has: give at most {most}")

    def _derive(self):
        if self.d_head is None:
            if self.d_model % self.n_heads:
                down = self.d_model - self.d_model % self.n_heads
                raise Error(
                    f"GPTConfig: d_model {self.d_model} does not divide into {self.n_heads} heads: "
                    f"take d_model {down or self.n_heads} or {down + self.n_heads}, or set d_head yourself"
                )
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        if self.n_kv_heads is None:
            object.__setattr__(self, "n_kv_heads", self.n_heads)
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", 4 * self.d_model)

    def _check_choices(self):
        choices = {
            "norm": ("layernorm", "rmsnorm"),
            "norm_place": ("pre", "post"),
            "activation": ACTIVATIONS,
            "positions": ("learned", "rotary"),
            "pattern": ("local", "strided", "fixed"),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise Error(f"GPTConfig.{name} is {value!r}: {nearest(str(value), known)}")
        if self.n_heads % self.n_kv_heads:
            fits = [k for k in range(1, self.n_heads + 1) if self.n_heads % k == 0]
            raise Error(
                f"GPTConfig: {self.n_kv_heads} key/value heads do not divide {self.n_heads} heads: take one of {fits}"
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise Error(f"GPTConfig: rotary positions turn pairs, but d_head is {self.d_head}: make it even")
        for name in ("gated", "bias", "tied"):
            if not isinstance(value := getattr(self, name), bool):
                raise Error(f"GPTConfig.{name} is {value!r}: give True or False")

    def _check_numbers(self):
        for name in ("embed_dropout", "attn_dropout", "resid_dropout"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise Error(f"GPTConfig.{name} is {value!r}: give a probability in [0, 1)")
        for name in ("norm_eps", "rope_theta", "init_std"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 < value < math.inf:
                raise Error(f"GPTConfig.{name} is {value!r}: give a number above 0")

    def _check_window(self):
        if not isinstance(self.banded_layers, list | tuple | range):
            raise Error(f"GPTConfig.banded_layers is {self.banded_layers!r}: give a list of layer numbers")
        object.__setattr__(self, "banded_layers", tuple(self.banded_layers))
        if bool(self.banded_layers) != (self.window is not None):
            raise Error(
                f"GPTConfig: window is {self.window} and banded_layers is {self.banded_layers}: "
                "a banded layer needs both (say window=256, banded_layers=(1, 3, 5)), a dense model neither"
            )
        for layer in self.banded_layers:
            if type(layer) is not int or not 0 <= layer < self.n_layers:
                raise Error(f"GPTConfig.banded_layers names layer {layer!r}: layers are 0 to {self.n_layers - 1}")
        if len(set(self.banded_layers)) != len(self.banded_layers):
            raise Error(f"GPTConfig.banded_layers {self.banded_layers} names a layer twice: name each once")
        if self.pattern != "local" and not self.banded_layers:
            raise Error(f"GPTConfig.pattern is {self.pattern!r}, but no layer is banded: give window and banded_layers")
        if type(self.sinks) is not int or self.sinks < 0:
            raise Error(f"GPTConfig.sinks is {self.sinks!r}: give 0, or how many first tokens stay visible, such as 4")
        if self.sinks and (self.positions, self.pattern, bool(self.banded_layers)) != ("rotary", "local", True):
            raise Error(
                "GPTConfig.sinks keeps the first tokens in sight of banded layers, as near as the window is long: "
                "it needs positions='rotary', pattern='local', window and banded_layers"
            )

    def _check_rope(self):
        if isinstance(self.rope_scaling, dict):
            object.__setattr__(self, "rope_scaling", rope.from_json(self.rope_scaling))
        if self.rope_scaling is None:
            return
        if type(self.rope_scaling) not in rope.KINDS.values():
            known = ", ".join(record.__name__ for record in rope.KINDS.values())
            raise Error(f"GPTConfig.rope_scaling is {self.rope_scaling!r}: give one of minigpt.rope: {known}")
        if self.positions != "rotary":
            raise Error("GPTConfig.rope_scaling stretches rotary positions, but positions is 'learned': leave it out")
        if self.d_head < 4:
            raise Error(f"GPTConfig.rope_scaling needs slow and quick pairs, d_head is {self.d_head}: give at least 4")

    def layer_window(self, layer: int) -> int | None:
        """The window of one layer; None where it is dense."""
        return self.window if layer in self.banded_layers else None

    def kept_window(self, layer: int) -> int | None:
        """How far back a decoder must remember in one layer; None: all of it."""
        return self.layer_window(layer) if self.pattern == "local" else None

    @property
    def endless(self) -> bool:
        """Whether a text may go on for ever: every layer forgets, and the first tokens stay (StreamingLLM)."""
        return self.sinks > 0 and len(self.banded_layers) == self.n_layers

    def dense(self) -> "GPTConfig":
        """The same with no layer banded, as a cache that keeps everything wants it."""
        return replace(self, window=None, banded_layers=(), pattern="local", sinks=0)

    def to_dict(self) -> dict:
        """Plain values, ready for JSON.

        >>> GPTConfig.from_dict(GPTConfig().to_dict()) == GPTConfig()
        True
        """
        scaling = None if self.rope_scaling is None else rope.to_json(self.rope_scaling)
        return asdict(self) | {"banded_layers": list(self.banded_layers), "rope_scaling": scaling}

    @classmethod
    def from_dict(cls, values: dict) -> "GPTConfig":
        """The config with these fields; an unknown name raises `Error` with the nearest known one."""
        known = {field.name for field in fields(cls)}
        for name in values:
            if name not in known:
                raise Error(f"GPTConfig has no field {name!r}: {nearest(name, known)}")
        return cls(**values)
