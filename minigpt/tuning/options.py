"""What the user of train.py can choose about what learns, one record a kind of method. Nothing here needs torch."""

from dataclasses import dataclass, fields

from minigpt.errors import Error, nearest

WHOLE = ("full", "top", "gradual", "head")  # a run keeps a whole model
BESIDE = ("adapter", "prompt", "ptuning", "prefix", "ptuning2")  # a run keeps what stands beside the model of --init
VIRTUAL = ("prompt", "ptuning", "prefix", "ptuning2")  # something stands before the text
# Peak learning rates that did well in short trials (docs/tasks.md).
RATES = {
    "full": 2e-3, "top": 5e-3, "gradual": 5e-3, "head": 1e-2, "adapter": 1e-2, "prompt": 0.1, "ptuning": 1e-2,
    "prefix": 5e-3, "ptuning2": 0.1, "lora": 1e-2, "qlora": 1e-2,
}  # fmt: skip
# The same where a task's head learns to answer: gentler, for what the head reads must last (docs/tasks.md).
ANSWERING = RATES | {
    "full": 5e-4, "top": 1e-3, "gradual": 1e-3, "head": 3e-3, "adapter": 5e-3, "ptuning": 3e-3, "prefix": 1e-3,
    "lora": 4e-3, "qlora": 2e-3,
}  # fmt: skip
NEW = 4e-3  # of a model that has learned nothing yet
HEAD = 4e-3  # of a task's head beside virtual tokens
LENGTHS = {"prompt": 20, "ptuning": 9, "prefix": 10, "ptuning2": 8}


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Method: what learns.

    full, top, gradual and head change the model and keep a whole one; the others leave the model of --init as it is,
    bit for bit, and keep what stands beside it. Where --lr is not given it is 2e-3 (full), 5e-3 (top, gradual, prefix),
    1e-2 (head, adapter, ptuning, lora, qlora) or 0.1 (prompt, ptuning2); for a --task with a head of its own 5e-4
    (full), 1e-3 (top, gradual, prefix), 2e-3 (qlora), 3e-3 (head, ptuning), 4e-3 (lora), 5e-3 (adapter) or 0.1
    (prompt, ptuning2). That is good for a small model; take less for a large one.
    """

    method: str = "full"  # full, top, gradual, head, adapter, prompt, ptuning, prefix, ptuning2, lora or qlora

    def __post_init__(self):
        if self.method not in RATES:
            raise Error(f"--method is {self.method!r}: {nearest(self.method, RATES)}")

    def rate(self, new: bool, answers: bool = False) -> float:
        """The learning rate where none is given; `answers`: a task's head learns."""
        return NEW if new else (ANSWERING if answers else RATES)[self.method]

    def head_rate(self, lr: float) -> float:
        """The learning rate of a task's head where none is given: that of virtual tokens would be far too high."""
        return HEAD if self.method in VIRTUAL else lr


@dataclass(frozen=True, kw_only=True)
class PartConfig:
    """Methods top and gradual: which blocks learn."""

    top: int = 2  # top: the highest so many, and the final norm
    every: int = 100  # gradual: steps until one block more learns
    direction: str = "up"  # gradual: up, from the lowest block, or down, from the highest

    def __post_init__(self):
        if self.direction not in ("up", "down"):
            raise Error(f"--direction is {self.direction!r}: give up or down")
        for name in ("top", "every"):
            if getattr(self, name) < 1:
                raise Error(f"--{name} is {getattr(self, name)}: give at least 1")


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig:
    """Method adapter: small layers behind the sub-layers of every block."""

    bottleneck: int = 64  # their width
    after: tuple[str, ...] = ("attn", "mlp")  # behind which sub-layers: attn, mlp; repeat it for both
    exact: bool = False  # begin as exactly the base, not nearly


@dataclass(frozen=True, kw_only=True)
class VirtualConfig:
    """Methods prompt, ptuning, prefix and ptuning2: what learns stands before the text."""

    length: int | None = None  # virtual tokens; by default 20 (prompt), 9 (ptuning), 10 (prefix) or 8 (ptuning2)
    start: str = "vocabulary"  # prompt: begins as tokens of the vocabulary, or uniform: as small random numbers
    start_text: str | None = None  # prompt: begins as this text; ptuning2: as the keys and values of this text
    shift: bool = True  # the text's positions begin behind the virtual tokens, as in PEFT; --no-shift: at 0
    encoder: str = "lstm"  # ptuning: what makes the virtual tokens while they learn: lstm or mlp
    hidden: int | None = None  # width of that encoder, by default the model's (half of it: lstm); of prefix's MLP: 512

    def __post_init__(self):
        if self.start not in ("vocabulary", "uniform"):
            raise Error(f"--start is {self.start!r}: give vocabulary or uniform, or a text with --start-text")
        if self.start != "vocabulary" and self.start_text is not None:
            raise Error("--start and --start-text both say how the prompt begins: give one")


# Which options belong to which methods; any other method refuses them.
OWN = {
    **dict.fromkeys(("top",), ("top",)),
    **dict.fromkeys(("every", "direction"), ("gradual",)),
    **dict.fromkeys(("bottleneck", "after", "exact"), ("adapter",)),
    "length": VIRTUAL,
    "start": ("prompt",),
    "start_text": ("prompt", "ptuning2"),
    "shift": VIRTUAL,
    "encoder": ("ptuning",),
    "hidden": ("ptuning", "prefix"),
}


def check_own(method: str, records: tuple, own: dict[str, tuple[str, ...]] = OWN, what: str = "--method"):
    """`Error` for an option that was given, in one of these records, to a method (or `what`) it does not belong to.

    >>> check_own("lora", (PartConfig(top=3),))
    Traceback (most recent call last):
    minigpt.errors.Error: --top is of --method top, not of lora: leave it out
    """
    for record in records:
        for each in fields(record):
            owners = own.get(each.name, (method,))
            if method not in owners and getattr(record, each.name) != each.default:
                option = "--" + each.name.replace("_", "-")
                raise Error(f"{option} is of {what} {' and '.join(owners)}, not of {method}: leave it out")
