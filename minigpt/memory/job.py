"""What is to be run: the method, the numbers' width, how much at a time, on how many processes."""

import re
from dataclasses import dataclass

from minigpt.errors import Error, nearest

METHODS = ("full", "lora", "qlora", "prompt", "prefix")
OPTIMIZERS = ("adamw", "momentum", "sgd", "muon")
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
ALL_LINEAR = "all-linear"
UNITS = {"": 1, "B": 1, "KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
UNITS |= {"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Job:
    """Work: what the model is to do."""

    method: str = "full"  # full, lora, qlora, prompt (virtual tokens before the text) or prefix (before every layer)
    r: int = 8  # rank of lora and qlora
    targets: tuple[str, ...] = ("q_proj", "v_proj")  # layers with an adapter; repeat it, or give all-linear
    adapter_dropout: float = 0.0  # of the input of A
    virtual: int = 20  # virtual tokens of prompt and prefix
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
        }
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise Error(f"--{name} is {value!r}: {nearest(str(value), known)}")
        for name in ("r", "virtual", "batch", "length", "accumulate", "ranks"):
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
    def weight_bytes(self) -> int:
        """Of a stored weight: 2 in pure 16-bit, and under frozen 4-bit matrices; else 4."""
        return 2 if self.dtype == "bf16" or self.method == "qlora" else 4

    @property
    def learned_bytes(self) -> int:
        """Of a number that learns. Adapters keep 32 bits: 16 cannot hold what a small step adds."""
        return 4 if self.adapted else self.weight_bytes

    @property
    def autocast(self) -> bool:
        """Whether the matrices are kept in 32 bits and multiplied in 16."""
        return self.dtype == "mixed" and self.method != "qlora"

    @property
    def compute_bytes(self) -> int:
        return 2 if self.dtype != "fp32" or self.method == "qlora" else 4


def parse_size(text: str) -> int:
    """Bytes: 8GiB is 8 x 2^30, 8GB is 8 x 10^9.

    >>> parse_size("1.5KiB"), parse_size("2 GB")
    (1536, 2000000000)
    """
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([A-Za-z]*)\s*", text)
    if not found or found[2].upper() not in UNITS:
        raise Error(f"{text!r} is no size: give a number and a unit, such as 8GiB, 800MiB or 24GB")
    return int(float(found[1]) * UNITS[found[2].upper()])
