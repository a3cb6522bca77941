"""What bench/methods.py runs: the steps and the cut of a set, the rate and the options of a method.

Every number here was chosen on a part of the training texts (--choose), none on the texts that judge.
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
# Peak learning rates; what --choose tries is these, 0.3 and 3 times them.
RATES = {
    "full": 3e-4, "top": 1e-3, "gradual": 1e-3, "head": 3e-3, "adapter": 6e-3, "prompt": 0.9, "ptuning": 9e-4,
    "prefix": 1e-3, "ptuning2": 0.09, "lora": 2e-3, "qlora": 2e-3,
}  # fmt: skip
# (set, method) -> its rate where another is better there.
OWN_RATES = {("abstracts", "full"): 5e-4, ("abstracts", "lora"): 1e-3, ("abstracts", "qlora"): 1e-3}
OPTIONS = {"lora": ("--lora-targets=all-linear",)}  # of a method, beside its rate


def rate(name: str, method: str) -> float:
    """The peak learning rate of a method on a set."""
    return OWN_RATES.get((name, method), RATES[method])


def tried(name: str, method: str) -> tuple[float, ...]:
    """The rates that --choose tries."""
    middle = rate(name, method)
    return (0.3 * middle, middle, 3 * middle)
