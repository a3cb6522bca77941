"""How a step is computed, apart from what it computes: precision, compiled or not, timed, traced, blamed.

The loop asks a `Compute` for the loss of a batch and hands it the gradient's fate; the model knows nothing of it.
"""

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from minigpt.training import blame, checkpointing, compiling
from minigpt.training.objective import LanguageModel
from minigpt.training.options import ComputeConfig
from minigpt.training.precision import Precision, choose
from minigpt.training.profile import Profile
from minigpt.training.ranks import ALONE, Alone
from minigpt.training.throughput import Clock, flops_per_token, measure_peak

PLAIN = ComputeConfig(precision="fp32", compile="off")


class Compute:
    """The model's compute, as `config` wants it; plain float32 by default, which is what the tests' formulas mean."""

    def __init__(
        self,
        model: nn.Module,
        config: ComputeConfig = PLAIN,
        run: Path | None = None,
        ranks: Alone = ALONE,
        objective=None,
    ):
        self.model, self.device, self.ranks = model, next(model.parameters()).device, ranks
        self.objective = objective or LanguageModel(model)
        self.module = self.objective.module  # what learns: the model, or a task that holds it
        self.precision = Precision(choose(config.precision, self.device), self.device)
        self.part = Clock(self.device)
        self.profile = Profile(run) if config.profile and run is not None else None
        self.compiled = compiling.wanted(config.compile, self.device)
        self.flops = self.peak = None
        self.notices: list[str] = []
        if config.checkpointing:
            model.through = checkpointing.through
        if self.compiled:
            compiling.compile_blocks(model)

    def measure(self, context: int):
        """Count the model's FLOPs and time the machine's peak, for the utilisation in the records; 0.3 seconds."""
        try:
            self.flops = flops_per_token(self.model, context)
        except (RuntimeError, NotImplementedError):  # a layer of someone else's that cannot be traced without its data
            self.flops = None
        self.peak = measure_peak(self.device, self.precision.dtype)

    def count(self, batches) -> list[int]:
        """What the parts of the loss are means over, and how many tokens that is."""
        counts = [(*self.objective.counts(batch), self.objective.tokens(batch)) for batch in batches]
        return [sum(column) for column in zip(*counts, strict=True)]

    def loss(self, batch, counts: Sequence[int] | None = None) -> Tensor:
        """The batch's part of the loss of a step with these counts; without them the sum of its losses, in nats."""
        weights = self.objective.weights
        with self.precision.autocast():
            sums = self.objective.sums(batch)
        parts = zip(weights, sums, counts or [1] * len(weights), strict=True)
        return sum(weight * total / max(1, count) for weight, total, count in parts)

    def without_compiling(self, problem: Exception):
        """After a step failed: if it was compiled, go on without from here, else the failure is the step's own."""
        if not self.compiled:
            raise problem
        compiling.forget(self.model)
        self.compiled = False
        self.module.zero_grad(set_to_none=True)
        self.notices.append(f"--compile: not possible here, going on without ({compiling.reason(problem)})")

    @contextmanager
    def evaluating(self):
        """For evaluations: the run's precision; uncompiled, because one pass does not earn a compilation."""
        with self.sampling(), self.precision.autocast():
            yield

    @contextmanager
    def sampling(self):
        """For samples: as written."""
        with compiling.uncompiled():
            yield

    def stop(self, step: int, batches, first: int, loss_of, n: int, loss: float, norm: float) -> blame.NotFinite:
        """The exception for a step whose loss or gradient is not finite, found by making its n losses again.

        Not among several processes: the one that finds it would leave the others waiting.
        """
        bad = blame.bad_weights(self.module)
        sound = not self.ranks.most(len(bad))
        self.module.zero_grad(set_to_none=True)
        what, k, rows, where = "to be seen in a single process", None, None, ""
        if self.ranks.count == 1:
            with self.sampling():
                what, k, rows = blame.find(self.module, loss_of, self.precision.backward, n)
        if k is not None:
            where = f" in micro-batch {k + 1} of {n}: {blame.describe_rows(batches, first + k, rows)}"
        if not sound:
            name = bad[0] if bad else "of another process"
            weights = f"the weight {name} was not finite before: resume from an earlier checkpoint"
        else:
            weights = "the weights were not changed and are kept as a checkpoint; resume"
        scale = f", at loss scale {self.precision.scaler.get_scale():g}" if self.precision.scaler is not None else ""
        return blame.NotFinite(
            f"step {step + 1}: the loss is {loss} and the gradient's length {norm}{scale}; first not finite: {what}"
            f"{where}; {weights} with a lower --lr or a longer --warmup",
            sound=sound,
        )

    def record(self, tokens_per_second: float) -> dict[str, float]:
        """This step's part of metrics.jsonl."""
        values = {f"{part}_seconds": round(seconds, 6) for part, seconds in self.part.read().items()}
        if self.flops and self.peak:
            values["utilisation"] = self.flops * tokens_per_second / self.peak
        return values | self.precision.record()

    def after_step(self, last: bool) -> list[str]:
        """Lines to say after a step."""
        if self.profile is not None and (line := self.profile.after_step(last)):
            self.notices.append(line)
        lines, self.notices = self.notices, []
        return lines

    def describe(self) -> str:
        """The line a run begins with."""
        words = [self.precision.name, "compiled" if self.compiled else "not compiled"]
        if self.model.through is checkpointing.through:
            words.append("activations of one block at a time")
        if self.flops and self.peak:
            words.append(f"{self.flops:,.0f} FLOPs a token, peak {self.peak / 1e9:,.0f} GFLOP/s measured")
        return "compute     " + ", ".join(words)
