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
    "abstracts": Budget(550, 256),
    "roles": Budget(350, 64),
    "departments": Budget(350, 48),
    "notes": Budget(350, 96),
}
# Peak learning rates; what --choose tries is these, a third of them and three times them.
RATES = {
    "full": 1e-3, "top": 1e-3, "gradual": 1e-3, "head": 1e-2, "adapter": 2e-3, "prompt": 0.3, "ptuning": 3e-3,
    "prefix": 1e-3, "ptuning2": 3e-2, "lora": 4e-3, "qlora": 4e-3,
}  # fmt: skip
OWN_RATES: dict[tuple[str, str], float] = {}  # (set, method) -> its rate where another is better there
OPTIONS: dict[str, tuple[str, ...]] = {}  # of a method, beside its rate


def rate(name: str, method: str) -> float:
    """The peak learning rate of a method on a set."""
    return OWN_RATES.get((name, method), RATES[method])


def tried(name: str, method: str) -> tuple[float, ...]:
    """The rates that --choose tries."""
    middle = rate(name, method)
    return (middle / 3, middle, middle * 3)
