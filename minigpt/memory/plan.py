"""Which parameters there are, how large they are, and which of them learn."""

import math
from dataclasses import dataclass, field

from minigpt.model import GPT

# NF4 (Dettmers et al. 2023, section 3): 4 bits, 8 for the scale of a block of 64, 32 for that of 256 such scales, and
# 32 for a matrix's mean.
NF4_BLOCK, SCALE_BLOCK = 64, 256


@dataclass(frozen=True)
class Tensor:
    """One parameter: its shape, its bytes, whether it learns."""

    shape: tuple[int, ...]
    nbytes: int
    learns: bool

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def packed(self) -> bool:
        """In 4 bits: frozen, and unpacked for every product anew."""
        return self.nbytes < self.numel


@dataclass(frozen=True)
class Virtual:
    """Learned tokens before the text: vectors, or keys and values of every layer (`layers`); and what makes them.

    widths  of the MLP that makes them, from its input on; () if they are themselves what learns
    lstm    hidden size of the LSTM before it, 0 if there is none
    """

    length: int = 0
    layers: bool = False
    widths: tuple[int, ...] = ()
    lstm: int = 0
    dropout: float = 0.0

    @property
    def tokens(self) -> int:
        """That go through the blocks with the text."""
        return 0 if self.layers else self.length

    @property
    def past(self) -> int:
        """Keys and values that every token of the text sees."""
        return self.length if self.layers else 0


@dataclass(frozen=True)
class Plan:
    """Parameters by name, as in the model without adapters; what a method adds, by its name there.

    ranks        path of a layer -> rank of its LoRA adapters together
    bottlenecks  path of a sub-layer -> width of the adapter after it
    A tied head is one parameter, with the embedding's name.
    """

    weights: dict[str, Tensor]
    added: dict[str, Tensor] = field(default_factory=dict)
    ranks: dict[str, int] = field(default_factory=dict)
    bottlenecks: dict[str, int] = field(default_factory=dict)
    virtual: Virtual = Virtual()

    @classmethod
    def of_model(cls, model: GPT) -> "Plan":
        """The parameters of a model as it stands: frozen or not, in four bits or not, whatever tunes it.

        >>> from minigpt import GPTConfig
        >>> model = GPT(GPTConfig(n_layers=1, vocab_size=64, d_model=32, n_heads=2, context=8))
        >>> sum(t.numel for t in Plan.of_model(model).learning()) == sum(p.numel() for p in model.parameters())
        True
        """
        weights, added, ranks, bottlenecks = {}, {}, {}, {}
        for name, module in model.named_modules():
            if hasattr(module, "packed"):  # a layer in four bits: its weight is no parameter
                weights[_inner(f"{name}.weight")] = Tensor(tuple(module.packed.shape), module.packed.nbytes, False)
        for name, weight in model.named_parameters():
            place = Tensor(tuple(weight.shape), weight.nbytes, weight.requires_grad)
            path, adapter, _ = name.partition(".adapters.")
            if not adapter and ".prompts." not in name and not name.startswith("prefixes."):
                weights[_inner(name)] = place
                continue
            added[name] = place
            if name.endswith(".A"):
                ranks[path] = ranks.get(path, 0) + place.shape[0]
            elif path.endswith(".dropout") and name.endswith(".down.weight"):
                bottlenecks[path.removesuffix(".dropout")] = place.shape[0]
        return cls(weights, added, ranks, bottlenecks, _virtual_of(model))

    def all(self) -> dict[str, Tensor]:
        return self.weights | self.added

    def learning(self) -> list[Tensor]:
        return [tensor for tensor in self.all().values() if tensor.learns]

    def learns(self, name: str) -> bool:
        """Whether a parameter is there and learns; the head's may be the embedding's."""
        if name == "head.weight" and name not in self.weights:
            name = "token_embedding.weight"
        return name in self.weights and self.weights[name].learns

    def packed(self, name: str) -> bool:
        return name in self.weights and self.weights[name].packed


def tensor(shape: tuple[int, ...], itemsize: int, learns: bool) -> Tensor:
    """A parameter of numbers of `itemsize` bytes."""
    return Tensor(shape, math.prod(shape) * itemsize, learns)


def nf4(shape: tuple[int, ...]) -> Tensor:
    """4 + 8/64 + 32/(64 x 256) = 4.127 bits a weight, what is left over at the end of a block rounded up.

    >>> nf4((512, 512)).nbytes * 8 / 512**2
    4.1270751953125
    """
    numel = math.prod(shape)
    scales = -(-numel // NF4_BLOCK)
    return Tensor(shape, -(-numel // 2) + scales + 4 * -(-scales // SCALE_BLOCK) + 4, False)


def _inner(name: str) -> str:
    return name.replace(".base.", ".")


def _virtual_of(model: GPT) -> Virtual:
    """The prefix at work, or else the longest prompt that learns."""
    prefixes, prompts = getattr(model, "prefixes", None), getattr(model.token_embedding, "prompts", {})
    if prefixes is not None and prefixes.working():
        made = max(prefixes.working(), key=_length)
        widths = _widths(made.transform) if made.config.hidden else ()
        return Virtual(made.length, True, widths, dropout=made.config.dropout)
    learning = [made for made in prompts.values() if made.table.requires_grad]
    if not learning:
        return Virtual()
    made = max(learning, key=_length)
    lstm = getattr(made, "lstm", None)
    return Virtual(_length(made), False, _widths(getattr(made, "mlp", ())), lstm.hidden_size if lstm else 0)


def _length(made) -> int:
    return made.length if hasattr(made, "length") else len(made.table)


def _widths(layers) -> tuple[int, ...]:
    linear = [layer for layer in layers if hasattr(layer, "in_features")]
    return tuple([layer.in_features for layer in linear] + [layer.out_features for layer in linear[-1:]])
