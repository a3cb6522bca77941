"""The rules of thumb for memory, each beside what it comes to, and where it fails.

A rule counts bytes for each parameter and forgets what grows with the batch: activations and logits. In units of the
weights, fine-tuning holds  weights 1 + gradients 1 + optimizer (AdamW 2, SGD with momentum 1, SGD 0).
"""

from dataclasses import dataclass, replace

from minigpt.config import GPTConfig
from minigpt.memory.job import Job
from minigpt.memory.predict import predict


@dataclass(frozen=True)
class Rule:
    """A rule, what it says in bytes, what it is here, and what to remember."""

    name: str
    claimed: int
    exact: int
    but: str


def folk_rules(config: GPTConfig, job: Job) -> list[Rule]:
    """The rules for full fine-tuning of this model, with the batch and length of `job`, on one process.

    >>> disk, inference, *_ = folk_rules(GPTConfig(), Job(batch=1))
    >>> disk.claimed == 2 * 124_439_808, disk.claimed == disk.exact
    (True, True)
    """
    plain = replace(job, method="full", ranks=1, dtype="bf16", optimizer="adamw")
    half = predict(config, plain)
    mixed = predict(config, replace(plain, dtype="mixed"))
    n = half.parameters
    factors = {"AdamW": ("adamw", 4), "SGD with momentum": ("momentum", 3), "SGD": ("sgd", 2)}
    cache = f"the cache of {job.batch} x {job.length or config.context} tokens is extra"
    rules = [
        Rule("16-bit on disk: 2 bytes a parameter", 2 * n, half.weights, "a tied head is stored once"),
        Rule("16-bit inference: about the same", 2 * n, half.inference, cache),
    ]
    for name, (optimizer, factor) in factors.items():
        found = predict(config, replace(plain, optimizer=optimizer))
        exact = found.weights + found.gradients + found.optimizer
        with_batch = f"with this batch {found.peak / found.weights:.1f}x at the peak"
        but = with_batch if optimizer == "adamw" else "momentum is the 1x of SGD" if factor == 3 else "not 3x"
        rules.append(Rule(f"pure 16-bit, {name}: {factor}x the weights", factor * 2 * n, exact, but))
    exact = mixed.weights + mixed.gradients + mixed.optimizer
    copies = mixed.by_kind().get("16-bit weights", 0)
    but = f"the 16-bit copies that are multiplied ({copies / n:.1f} more) and the batch are extra"
    rules.append(Rule("mixed precision, AdamW: 16 bytes a parameter", 16 * n, exact, but))
    return [*rules, _frozen(config, plain, n)]


def _frozen(config: GPTConfig, plain: Job, n: int) -> Rule:
    """Prompt tuning, as an example of all that freezes the model: weights without gradients and moments, 4x to 1x."""
    full, found = (predict(config, replace(plain, method=method, virtual=1)) for method in ("full", "prompt"))
    exact = found.weights + found.gradients + found.optimizer
    but = f"activations go down to {found.activations / full.activations:.0%} only"
    return Rule("frozen, a prompt learns: 1x the weights", 2 * n, exact, but)
