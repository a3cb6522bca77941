"""The learning rate as a pure function of the step.

Symbols: t the step about to be made (from 0), n all steps, w warm-up steps, lr the peak, f the final fraction.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from minigpt.errors import Error, nearest


@dataclass(frozen=True, kw_only=True)
class ScheduleConfig:
    """Learning rate: over the run."""

    lr: float | None = None  # peak learning rate; by default 4e-3 for a new model, else what suits the --method
    schedule: str = "linear"  # linear, cosine, wsd (warm-up, stable, decay) or constant
    warmup: float = 0.05  # steps of linear warm-up; below 1, a share of all steps
    final_lr: float = 0.0  # learning rate of the last step, as a fraction of the peak
    decay: float = 0.2  # wsd: which fraction of the run the decay takes

    def __post_init__(self):
        if self.schedule not in SCHEDULES:
            raise Error(f"schedule is {self.schedule!r}: {nearest(self.schedule, SCHEDULES)}")
        if self.lr is not None and not self.lr > 0:
            raise Error(f"lr is {self.lr}: give a learning rate above 0, say 1e-3")
        if not 0 <= self.final_lr <= 1 or not 0 < self.decay <= 1 or self.warmup < 0:
            raise Error(
                f"schedule: final_lr {self.final_lr} must lie in [0, 1], decay {self.decay} in (0, 1], "
                f"warmup {self.warmup} be at least 0"
            )

    def decided(self, lr: float) -> "ScheduleConfig":
        """With this rate where none was given."""
        return replace(self, lr=lr) if self.lr is None else self


def constant(progress: float, config: ScheduleConfig) -> float:
    """1 throughout."""
    return 1.0


def linear(progress: float, config: ScheduleConfig) -> float:
    """1 - (1 - f) p, p from 0 after warm-up to 1 at the end."""
    return 1 - (1 - config.final_lr) * progress


def cosine(progress: float, config: ScheduleConfig) -> float:
    """f + (1 - f) (1 + cos(pi p)) / 2 (GPT-3, appendix B)."""
    return config.final_lr + (1 - config.final_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def wsd(progress: float, config: ScheduleConfig) -> float:
    """1, then linearly down to f over the last part of the run: warm-up, stable, decay (Hu et al. 2024)."""
    return 1 - (1 - config.final_lr) * max(0.0, (progress - (1 - config.decay)) / config.decay)


SCHEDULES: dict[str, Callable] = {"linear": linear, "cosine": cosine, "wsd": wsd, "constant": constant}


def learning_rate(step: int, steps: int, config: ScheduleConfig) -> float:
    """lr (t + 1) / w during warm-up, then the schedule of p = (t - w) / (n - 1 - w).

    The first step already learns, and the last one stands at f lr.

    >>> config = ScheduleConfig(lr=1.0, schedule="cosine", warmup=2, final_lr=0.1)
    >>> [round(learning_rate(t, 5, config), 3) for t in range(5)]
    [0.5, 1.0, 1.0, 0.55, 0.1]
    """
    warmup = config.warmup if config.warmup >= 1 else round(config.warmup * steps)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return config.lr * SCHEDULES[config.schedule](min(1.0, progress), config)
