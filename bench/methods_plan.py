"""What bench/methods.py runs: the steps and the cut of a set, the rate and the options of a method.

Rates and options were chosen on a part of the training texts (--choose), nothing on the texts that judge.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """What every method gets on a set: steps of 8 texts, cut to so many tokens."""

    steps: int
    context: int


BUDGETS = {
    "headers": Budget(350, 48),
    "abstracts": Budget(440, 256),
    "roles": Budget(250, 64),
    "departments": Budget(250, 48),
    "notes": Budget(250, 96),
}
# The peak learning rates that --choose tries, and of them the one with most right answers on `headers`.
TRIED = {
    "full": (3e-4, 1e-3, 3e-3), "top": (3e-4, 1e-3, 3e-3), "gradual": (3e-4, 1e-3, 3e-3), "head": (3e-3, 1e-2, 3e-2),
    "adapter": (6e-4, 2e-3, 6e-3), "prompt": (0.09, 0.3, 0.9), "ptuning": (9e-4, 3e-3, 9e-3),
    "prefix": (3e-4, 1e-3, 3e-3), "ptuning2": (9e-3, 0.03, 0.09), "lora": (6e-4, 2e-3, 6e-3),
    "qlora": (6e-4, 2e-3, 6e-3),
}  # fmt: skip
RATES = {
    "full": 3e-4, "top": 1e-3, "gradual": 1e-3, "head": 3e-3, "adapter": 6e-3, "prompt": 0.9, "ptuning": 9e-4,
    "prefix": 1e-3, "ptuning2": 0.09, "lora": 2e-3, "qlora": 2e-3,
}  # fmt: skip
# (set, method) -> its rate where it has one of its own there.
OWN_RATES = {
    ("abstracts", "full"): 5e-4, ("abstracts", "lora"): 1e-3, ("abstracts", "qlora"): 1e-3,
    ("notes", "full"): 1e-3,
}  # fmt: skip
OPTIONS = {"lora": ("--lora-targets=all-linear",)}  # of a method, beside its rate


def rate(name: str, method: str) -> float:
    """The peak learning rate of a method on a set."""
    return OWN_RATES.get((name, method), RATES[method])
