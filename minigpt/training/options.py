"""What the user of train.py can choose, one record a concern. The learning rate's is in schedule.py.

Nothing here needs torch: --help answers at once.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from minigpt import presets
from minigpt.config import GPTConfig
from minigpt.context.options import ROPES
from minigpt.errors import Error, nearest

EMBEDDED = Path(__file__).parents[2] / "data" / "notes.jsonl"
# name: blocks, heads, width; with 4,096 tokens 0.9, 4.2, 12 and 29 million parameters
SIZES = {"tiny": (2, 2, 128), "small": (4, 4, 256), "medium": (6, 6, 384), "large": (8, 8, 512)}
EMBED_LR = 3.0  # what embeddings of a new model learn faster by than its matrices do with Muon (docs/training.md)
OPTIMIZERS = ("auto", "adamw", "muon", "sgd")
SHAPES = {"llama": presets.llama_like, "gpt2": presets.gpt2, "gpt1": presets.gpt1}


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Data: what to learn from."""

    data: Path | None = None  # folder of .txt, or a .txt, .jsonl, .csv, .parquet, or prepared tokens; else our notes
    field: str | None = None  # name of the text in .jsonl, .csv, .parquet
    where: tuple[str, ...] = ()  # only records with type=radiology, or type!=radiology; repeat it for more conditions
    tokenizer: str | None = None  # gpt2, cl100k_base, o200k_base or a directory; else one is learned from the data
    vocab_size: int = 4096  # of a learned tokenizer
    validation: float = 0.05  # share of the documents kept apart
    on_bad: str = "skip"  # unreadable lines: skip (and count) or refuse

    def source(self) -> tuple[Path, str | None]:
        """Where the text is, and in which field."""
        if self.data is not None:
            return self.data, self.field
        if not EMBEDDED.is_file():
            raise Error(f"{EMBEDDED}: the embedded corpus is not here: name your own with --data")
        return EMBEDDED, "text"


@dataclass(frozen=True, kw_only=True)
class ShapeConfig:
    """Model: its shape, or where to start from."""

    init: str | None = None  # directory of a run or Hugging Face model to go on from; replaces the options below
    extend_context: str | None = None  # let the model of --init read further: 2x, or a number of tokens
    rope: str = "yarn"  # how its rotary positions are stretched: yarn, ntk, dynamic, linear, llama3 or none
    download: bool = False  # let --init fetch a model by its name from the hub
    shape: str = "llama"  # llama (rotary, RMSNorm, SwiGLU), gpt2 or gpt1
    size: str = "auto"  # tiny, small, medium or large; auto is the one that learns most in --minutes, else small
    n_layers: int | None = None  # blocks; this and the next two by default as --size says
    n_heads: int | None = None  # attention heads
    d_model: int | None = None  # width of the model
    n_kv_heads: int | None = None  # fewer than n_heads: grouped keys and values
    d_ff: int | None = None  # feed-forward width; by default 4 d_model, or 8/3 d_model for llama
    context: int = 256  # tokens the model sees at once
    dropout: float = 0.0  # 0.1 where the same notes are read many times
    window: int | None = None  # keys a banded layer sees
    banded_layers: tuple[int, ...] = ()  # which layers are banded, 0,2,4

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise Error(f"shape is {self.shape!r}: {nearest(self.shape, SHAPES)}")
        if self.size not in ("auto", *SIZES):
            raise Error(f"size is {self.size!r}: {nearest(self.size, ('auto', *SIZES))}")
        if self.rope not in ROPES:
            raise Error(f"--rope is {self.rope!r}: {nearest(self.rope, ROPES)}")
        if self.extend_context is not None and self.init is None:
            raise Error("--extend-context stretches a model that is there: name it with --init (a new one: --context)")

    def sized(self, size: str = "small") -> "ShapeConfig":
        """With what is not given as `size` has it, unless --size names another.

        >>> ShapeConfig(d_model=64).sized("tiny").n_layers
        2
        """
        size = size if self.size == "auto" else self.size
        given = (self.n_layers, self.n_heads, self.d_model)
        layers, heads, width = (a if a is not None else b for a, b in zip(given, SIZES[size], strict=True))
        return replace(self, size=size, n_layers=layers, n_heads=heads, d_model=width)

    def model_config(self, vocab_size: int) -> GPTConfig:
        """The GPTConfig these options describe."""
        same = ("n_layers", "n_heads", "n_kv_heads", "d_model", "context", "window", "banded_layers")
        sizes = {name: getattr(self.sized(), name) for name in same} | {"vocab_size": vocab_size, "d_head": None}
        if self.d_ff is not None or self.shape != "llama":
            sizes["d_ff"] = self.d_ff
        return SHAPES[self.shape](**sizes, **self.dropouts())

    def dropouts(self) -> dict[str, float]:
        """One dropout for all three places."""
        return dict.fromkeys(("embed_dropout", "attn_dropout", "resid_dropout"), self.dropout)


@dataclass(frozen=True, kw_only=True)
class BatchConfig:
    """Batches: how much at a time, and for how long."""

    batch_size: int = 8  # rows of a micro-batch, each one context long
    document_mask: bool = False  # packed documents do not see each other, positions restart
    epochs: float | None = None  # instead of --steps: times the data is read
    minutes: float | None = None  # instead of --steps: measure the speed first, then train about this long

    def __post_init__(self):
        if self.epochs is not None and self.minutes is not None:
            raise Error("--epochs and --minutes both say how long to train: give one")
        for name in ("batch_size", "epochs", "minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise Error(f"--{name.replace('_', '-')} is {value}: give a number above 0")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Loop: how often what happens."""

    steps: int = 700  # optimizer steps
    accumulate: int = 1  # micro-batches per step, of all processes together: the step does not depend on their number
    log_every: int = 1  # steps between records of the training loss
    eval_every: int = 100  # steps between evaluations; 0 only at the end
    sample_every: int = 250  # steps between samples; 0 never
    save_every: int = 250  # steps between checkpoints; 0 only at the end
    seed: int = 0  # of weights, data order, dropout and samples

    def __post_init__(self):
        for name in ("steps", "accumulate", "log_every"):
            if getattr(self, name) < 1:
                raise Error(f"{name} is {getattr(self, name)}: give at least 1")
        for name in ("eval_every", "sample_every", "save_every"):
            if getattr(self, name) < 0:
                raise Error(f"{name} is {getattr(self, name)}: give 0 to switch it off, or a number of steps")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Optimizer: how a gradient becomes a step, and what keeps weights small.

    auto is muon for a new model and adamw for one of --init.
    """

    optimizer: str = "auto"  # adamw; muon (for matrices, with AdamW for the rest); sgd, with momentum
    weight_decay: float = 0.1  # on matrices and embeddings; not on biases and norms
    beta1: float = 0.9  # adamw: how long the mean gradient is remembered
    beta2: float = 0.95  # adamw: how long its square is, 0.95 as GPT-3; 0.999 is torch's default, slower to forget
    momentum: float = 0.95  # muon and sgd: how long the gradient is remembered
    embed_lr: float | None = None  # of embeddings and head, in multiples of --lr; new models by muon: 3, others 1
    l1: float = 0.0  # adds l1 times the sum of |w| over the matrices to the loss: many weights end near 0
    l2: float = 0.0  # adds l2 / 2 times the sum of w^2: with adamw not the same as weight decay
    clip: float = 1.0  # longest gradient, all parameters taken together; 0 switches clipping off

    def __post_init__(self):
        if self.optimizer not in OPTIMIZERS:
            raise Error(f"optimizer is {self.optimizer!r}: {nearest(self.optimizer, OPTIMIZERS)}")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise Error(f"{name} is {getattr(self, name)}: give a number from 0 up to, but not, 1")
        for name in ("weight_decay", "l1", "l2", "clip"):
            if not getattr(self, name) >= 0:
                raise Error(f"{name} is {getattr(self, name)}: give 0 to switch it off, or a number above")
        if self.embed_lr is not None and not self.embed_lr > 0:
            raise Error(f"embed_lr is {self.embed_lr}: give a number above 0, 1 for the same rate everywhere")

    def decided(self, new: bool) -> "OptimizerConfig":
        """With auto and None replaced by what they mean for a new model, or for one that has learned."""
        optimizer = {True: "muon", False: "adamw"}[new] if self.optimizer == "auto" else self.optimizer
        usual = EMBED_LR if new and optimizer == "muon" else 1.0
        return replace(self, optimizer=optimizer, embed_lr=usual if self.embed_lr is None else self.embed_lr)


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """Computing: the same step in fewer bits, fused, or with less memory (docs/precision.md)."""

    precision: str = "auto"  # of products: fp32, bf16, fp16; auto: bf16 where the processor has units for it
    compile: str = "auto"  # torch.compile the blocks: on, off; auto: on a GPU; where it fails the run goes on without
    checkpointing: bool = False  # keep only the blocks' inputs and compute the rest again: a third slower, less memory
    profile: bool = False  # write the trace of three steps, for ui.perfetto.dev

    def __post_init__(self):
        for name, known in (("precision", ("auto", "fp32", "bf16", "fp16")), ("compile", ("auto", "on", "off"))):
            if (value := getattr(self, name)) not in known:
                raise Error(f"--{name} is {value!r}: {nearest(value, known)}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Run: where results go, and what is shown on the way."""

    out: Path = Path("runs/notes")  # directory of the run
    resume: bool = False  # go on from the last checkpoint in --out, with its options
    overwrite: bool = False  # begin again where a run already is
    keep: int = 2  # checkpoints kept
    eval_batches: int = 20  # batches of an evaluation during training; the last one takes all
    prompt: str = ""  # how samples begin; empty, a new note
    sample_tokens: int = 200  # length of a sample
    memorised: str = "auto"  # afterwards, does it repeat its training text: on, off; auto: on for text of --data
    tensorboard: bool = False  # write TensorBoard files too
    threads: int | None = None  # CPU threads; PyTorch's choice by default
    device: str = "auto"  # cuda where there is one, else cpu
    parallel: str = "ddp"  # under torchrun: ddp, each process holds the model, or fsdp, each a part of every weight

    def __post_init__(self):
        for name in ("keep", "eval_batches", "sample_tokens", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise Error(f"--{name.replace('_', '-')} is {value}: give at least 1")

        if self.memorised not in ("auto", "on", "off"):
            raise Error(f"--memorised is {self.memorised!r}: give on, off or auto")
        if self.parallel not in ("ddp", "fsdp"):
            raise Error(f"--parallel is {self.parallel!r}: give ddp or fsdp")

    def check_free(self):
        """An earlier run is not written over by mistake, and a file in the way is seen before any work."""
        for place in (self.out, *self.out.parents):
            if place.exists() and not place.is_dir():
                raise Error(f"--out {self.out}: {place} is a file, and a run is a folder: choose another name")
        if (self.out / "checkpoints").is_dir() and not self.overwrite:
            raise Error(f"{self.out} already holds a run: add --resume to go on, --overwrite to begin again")
