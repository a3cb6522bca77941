"""What is to be run: the method, the numbers' width, how much at a time, on how many processes."""

import re
from dataclasses import dataclass

from minigpt.errors import Error, nearest

METHODS = ("full", "top", "lora", "qlora", "adapter", "prompt", "ptuning", "prefix", "ptuning2")
LENGTHS = {"prompt": 20, "ptuning": 9, "prefix": 10, "ptuning2": 8}  # virtual tokens, as in minigpt/tuning/
OPTIMIZERS = ("adamw", "momentum", "sgd", "muon")
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work: what the model is to do.

    full, top (the highest blocks), lora, qlora (frozen matrices in 4 bits), adapter (bottlenecks after sub-layers),
    prompt and ptuning (virtual tokens before the text; ptuning has an encoder that makes them), prefix and ptuning2
    (keys and values before every layer's own; prefix has an MLP that makes them).
    """

    method: str = "full"  # what learns: full, top, lora, qlora, adapter, prompt, ptuning, prefix or ptuning2
    r: int = 8  # rank of lora and qlora
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # layers with an adapter; repeat it, or give all-linear
    adapter_dropout: float = 0.0  # of the input of A; of the numbers of a prefix
    top: int = 2  # blocks that learn with top, and the final norm
    bottleneck: int = 64  # width of adapter
    virtual: int | None = None  # virtual tokens; by default 20 (prompt), 9 (ptuning), 10 (prefix), 8 (ptuning2)
    encoder: str = "lstm"  # of ptuning: lstm or mlp
    hidden: int | None = None  # width of that encoder (by default the model's, or half of it) and of prefix's MLP (512)
    optimizer: str = "adamw"  # adamw, momentum (SGD with it), sgd (without) or muon (matrices; AdamW for the rest)
    dtype: str = "fp32"  # fp32, bf16 (everything, pure) or mixed (computes in 16 bits, keeps 32)
    batch: int = 8  # rows of a micro-batch
    length: int | None = None  # tokens a row; by default the model's context
    accumulate: int = 1  # micro-batches a step
    documents: bool = False  # packed documents that do not see each other: a mask for every row
    checkpointing: bool = False  # keep a block's input alone, and compute the block again in backward
    attention: str = "fast"  # fast (the kernel) or plain (the formula)
    device: str = "cpu"  # cpu or cuda: their kernels keep different tensors
    ranks: int = 1  # processes
    parallel: str = "ddp"  # ddp (everything on every rank) or fsdp (weights, gradients, optimizer shared out)

    def __post_init__(self):
        choices = {
            "method": METHODS,
            "optimizer": OPTIMIZERS,
            "dtype": ("fp32", "bf16", "mixed"),
            "attention": ("fast", "plain"),
            "device": ("cpu", "cuda"),
            "parallel": ("ddp", "fsdp"),
            "encoder": ("lstm", "mlp"),
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise Error(f"--{name} is {value!r}: {nearest(str(value), known)}")
        for name in ("r", "top", "bottleneck", "virtual", "hidden", "batch", "length", "accumulate", "ranks"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise Error(f"--{name} is {value}: give at least 1")
        if not 0 <= self.adapter_dropout < 1:
            raise Error(f"--adapter-dropout is {self.adapter_dropout}: give a probability in [0, 1)")
        object.__setattr__(self, "targets", tuple(self.targets))
        for name in self.targets:
            if name not in (*LINEAR, ALL_LINEAR):
                raise Error(f"--targets {name!r} is no layer of a block: {nearest(name, (*LINEAR, ALL_LINEAR))}")

    @property
    def adapted(self) -> bool:
        return self.method in ("lora", "qlora")

    @property
    def n_virtual(self) -> int:
        """Virtual tokens of a row."""
        return (self.virtual or LENGTHS[self.method]) if self.method in LENGTHS else 0

    @property
    def weight_bytes(self) -> int:
        """Of a stored weight. What learns beside the weights has 4: 16 bits cannot hold what a small step adds."""
        return 2 if self.dtype == "bf16" else 4

    @property
    def autocast(self) -> bool:
        """Whether the weights are kept in 32 bits and multiplied in 16."""
        return self.dtype == "mixed"

    @property
    def compute_bytes(self) -> int:
        return 4 if self.dtype == "fp32" else 2


def parse_size(text: str) -> int:
    """Bytes: 8GiB is 8 x 2^30, 8GB is 8 x 10^9.

    >>> parse_size("1.5KiB"), parse_size("2 GB")
    (1536, 2000000000)
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].upper() not in UNITS:
        raise Error(f"{text!r} is no size: give a number and a unit, such as 8GiB, 800MiB or 24GB")
    return int(float(found[1]) * UNITS[found[2].upper()])
