"""Which parameters there are, how large they are, and which of them learn."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from minigpt.config import GPTConfig
from minigpt.errors import Error
from minigpt.memory.job import ALL_LINEAR, LINEAR, Job
from minigpt.model import GPT

# NF4 (Dettmers et al. 2023, section 3): 4 bits, 8 for the scale of a block of 64, 32 for that of 256 such scales.
NF4_BLOCK, SCALE_BLOCK = 64, 256


@dataclass(frozen=True)
class Tensor:
    """One parameter: its shape, its bytes, whether it learns."""

    shape: tuple[int, ...]
    nbytes: int
    learns: bool
    itemsize: int

    @property
    def numel(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Plan:
    """Parameters by name, as in the model without adapters; what adapters and virtual tokens add.

    ranks: path of a layer -> rank of its adapters together. A tied head is one parameter, with the embedding's name.
    """

    weights: dict[str, Tensor]
    added: tuple[Tensor, ...] = ()
    ranks: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_config(cls, config: GPTConfig, job: Job) -> "Plan":
        """The parameters of a model that nobody has built yet.

        >>> plan = Plan.of_config(GPTConfig(n_layers=1), Job(method="lora", r=8))
        >>> sum(t.numel for t in plan.learning()) == 2 * 8 * (768 + 768)
        True
        """
        with torch.device("meta"):
            shapes = {name: tuple(weight.shape) for name, weight in GPT(config).named_parameters()}
        learns, size = job.method == "full", job.weight_bytes
        weights = {name: _tensor(shape, size, learns) for name, shape in shapes.items()}
        if job.method == "qlora":
            weights |= {name: _nf4(shapes[name]) for name in shapes if name.endswith(_ends(LINEAR))}
        if not job.adapted:
            return cls(weights, _virtual(config, job))
        added, ranks = [], {}
        everything = ALL_LINEAR in job.targets
        for target in LINEAR if everything else job.targets:
            names = [name for name in shapes if name.endswith(_ends((target,)))]
            if not names and not everything:
                raise Error(f"--targets {target!r}: this model has no such layer; a gate_proj is in gated models only")
            for name in names:
                n_out, n_in = shapes[name]
                added += [_tensor((job.r, n_in), 4, True), _tensor((n_out, job.r), 4, True)]
                ranks[name.removesuffix(".weight")] = job.r
        return cls(weights, tuple(added), ranks)

    @classmethod
    def of_model(cls, model: GPT) -> "Plan":
        """The parameters of a model as it stands, frozen or not, with its LoRA adapters if it has some.

        >>> model = GPT(GPTConfig(n_layers=1, vocab_size=64, d_model=32, n_heads=2, context=8))
        >>> Plan.of_model(model) == Plan.of_config(model.config, Job())
        True
        """
        weights, added, ranks = {}, [], {}
        for name, weight in model.named_parameters():
            tensor = _tensor(tuple(weight.shape), weight.element_size(), weight.requires_grad)
            path, adapter, _ = name.partition(".adapters.")
            if not adapter:
                weights[name.replace(".base.", ".")] = tensor
                continue
            added.append(tensor)
            if name.endswith(".A"):
                ranks[path] = ranks.get(path, 0) + tensor.shape[0]
        return cls(weights, tuple(added), ranks)

    def all(self) -> tuple[Tensor, ...]:
        return (*self.weights.values(), *self.added)

    def learning(self) -> list[Tensor]:
        return [tensor for tensor in self.all() if tensor.learns]

    def named_learning(self) -> list[tuple[str, Tensor]]:
        """What was added has no name of its own; it is in a block, where optimizers ask."""
        named = (*self.weights.items(), *(("blocks.added", tensor) for tensor in self.added))
        return [(name, tensor) for name, tensor in named if tensor.learns]

    def learns(self, name: str) -> bool:
        """Whether a parameter is there and learns; the head's may be the embedding's."""
        if name == "head.weight" and name not in self.weights:
            name = "token_embedding.weight"
        return name in self.weights and self.weights[name].learns


def _tensor(shape: tuple[int, ...], itemsize: int, learns: bool) -> Tensor:
    tensor = Tensor(shape, 0, learns, itemsize)
    return Tensor(shape, tensor.numel * itemsize, learns, itemsize)


def _nf4(shape: tuple[int, ...]) -> Tensor:
    """4 + 8/64 + 32/(64 x 256) = 4.127 bits a weight, what is left over at the end of a block rounded up."""
    numel = _tensor(shape, 1, False).numel
    scales = -(-numel // NF4_BLOCK)
    return Tensor(shape, -(-numel // 2) + scales + 4 * -(-scales // SCALE_BLOCK), False, 2)


def _virtual(config: GPTConfig, job: Job) -> tuple[Tensor, ...]:
    """What learns before the text: vectors (n, C), or keys and values of every layer (2, L, G, n, D)."""
    if job.method == "prompt":
        return (_tensor((job.virtual, config.d_model), job.weight_bytes, True),)
    if job.method == "prefix":
        shape = (2, config.n_layers, config.n_kv_heads, job.virtual, config.d_head)
        return (_tensor(shape, job.weight_bytes, True),)
    return ()


def _ends(targets: Iterable[str]) -> tuple[str, ...]:
    return tuple(f".{name}.weight" for name in targets)
