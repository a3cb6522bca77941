"""The training loop, whole and visible.

    for each step:
        gradient of  sum of losses / supervised tokens of the whole step     over its micro-batches
                     (and so for every part of a loss that has several: objective.py)
        clip, step, forget
        now and then: log, evaluate, sample, save

Dividing by the tokens of the step, not by each micro-batch's and then by their number, makes 2 x 4 rows the same
step as 8 rows, also where targets are masked or the last batch of an epoch is short.
"""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from minigpt.training.blame import NotFinite
from minigpt.training.checkpoint import Progress
from minigpt.training.compute import Compute
from minigpt.training.log import Log
from minigpt.training.options import LoopConfig
from minigpt.training.streams import stream_seed


def by_loss(found: dict) -> tuple:
    """Order of evaluations."""
    return (found["loss"],)


def in_bits(found: dict) -> str:
    """An evaluation of a language model in words."""
    return f"loss {found['loss']:.3f}, perplexity {found['perplexity']:.1f}, {found['bits_per_byte']:.3f} bits per byte"


def nothing(step: int):
    """Before most steps."""


@dataclass(frozen=True)
class Hooks:
    """What happens beside learning: each is called with what it needs and must not touch the model's weights."""

    learning_rate: Callable[[int], float]  # step -> rate
    evaluate: Callable[[], dict]  # -> record with loss, and what else is known
    sample: Callable[[int], str]  # step -> text; "": nothing to show
    improved: Callable[[], None]  # validation has never been better
    save: Callable[[Progress], None]
    score: Callable[[dict], tuple] = by_loss  # of such a record: the lower the better
    say: Callable[[dict], str] = in_bits  # such a record in words
    before_step: Callable[[int], None] = nothing  # what must be so before this step, such as which weights learn


def fit(
    model: nn.Module,
    optimizer,
    batches,
    config: LoopConfig,
    hooks: Hooks,
    log: Log,
    progress: Progress,
    clip: float = 0.0,
    compute: Compute | None = None,
) -> tuple[Progress, int]:
    """Train from `progress` to `config.steps`; returns how far it came, and the signal that stopped it or 0."""
    model.train()
    compute = compute or Compute(model)
    compute.precision.load(progress.scaler)
    last, stopped = progress.step >= config.steps, 0
    with StopRequest() as stop:
        while not last:
            progress, values = _timed_step(model, optimizer, batches, config, hooks, progress, clip, compute)
            log.advance(values["loss"], values["tokens_per_second"])
            stopped = compute.ranks.most(stop.signal)  # asked once: it may change at any moment
            last = progress.step == config.steps or bool(stopped)
            for line in compute.after_step(last):
                log.say(line)
            _now_and_then(config, hooks, log, progress, values, last)
        hooks.save(progress)
    if progress.step >= config.steps:
        return progress, 0
    log.say(f"stopped by {signal.Signals(stopped).name} after step {progress.step}")
    return progress, stopped


def _timed_step(model, optimizer, batches, config, hooks: Hooks, before: Progress, clip: float, compute: Compute):
    """One step, and what the log records of it. Where it is not finite the weights from before it are saved first."""
    began, rate = time.perf_counter(), hooks.learning_rate(before.step)
    hooks.before_step(before.step)
    try:
        loss, norm, tokens = train_step(model, optimizer, batches, config, before.step, rate, clip, compute)
    except NotFinite as problem:
        if problem.sound:
            hooks.save(before)
        raise
    seconds = time.perf_counter() - began
    progress = Progress(
        step=before.step + 1,
        tokens=before.tokens + tokens,
        seconds=before.seconds + seconds,
        scaler=compute.precision.state(),
    )
    values = {"loss": loss, "lr": rate, "grad_norm": norm, "tokens": tokens, "tokens_per_second": tokens / seconds}
    if norm is None:
        del values["grad_norm"]  # a step that fp16 skipped
    return progress, values | compute.record(tokens / seconds)


def train_step(
    model, optimizer, batches, config, step: int, rate: float, clip: float, compute: Compute | None = None
) -> tuple[float, float | None, int]:
    """One optimizer step; returns its mean loss in nats, the gradient's length before clipping, and its tokens.

    The length is None where fp16's gradient overflowed and the step was skipped.
    """
    compute = compute or Compute(model)
    first, ranks = step * config.accumulate, compute.ranks
    with compute.part("data"):
        numbers = range(first, first + config.accumulate)
        micro_batches = {k: batch.to(compute.device) for k, batch in ranks.deal(batches, numbers)}
        *counts, n_tokens = ranks.sum(*compute.count(micro_batches.values()))

    def loss_of(k: int) -> Tensor:
        torch.manual_seed(stream_seed(config.seed, "dropout", step, k))
        return compute.loss(micro_batches[k], counts)

    try:
        loss = add_gradients(loss_of, list(micro_batches), compute)
    except Exception as problem:
        compute.without_compiling(problem)
        loss = add_gradients(loss_of, list(micro_batches), compute)
    with compute.part("optimizer"):
        compute.precision.unscale(optimizer)
        norm = clip_gradients(model, clip).item()
        skipped = compute.precision.overflowed(loss, norm)
        if not skipped and not math.isfinite(norm + loss):
            raise compute.stop(step, batches, first, loss_of, config.accumulate, loss, norm)
        for group in optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        if not skipped:
            optimizer.step()
        compute.precision.update()
        optimizer.zero_grad(set_to_none=True)
    return loss, None if skipped else norm, n_tokens


def add_gradients(loss_of: Callable[[int], Tensor], micro_batches: list[int], compute: Compute) -> float:
    """Leave the gradients of all micro-batches, of all processes, in the weights; returns the sum of their losses."""
    total = torch.zeros((), device=compute.device)
    for k in micro_batches:
        compute.ranks.expect(compute.module, last=k == micro_batches[-1])
        with compute.part("forward"):
            loss = loss_of(k)
        with compute.part("backward"):
            compute.precision.backward(loss)
        total += loss.detach()
    compute.ranks.add_gradients(compute.module)
    return compute.ranks.total(total).item()


def clip_gradients(model: nn.Module, longest: float) -> Tensor:
    """g min(1, longest / |g|), |g| over all parameters together (Pascanu et al. 2013); 0 only measures it."""
    weights = [weight for weight in model.parameters() if weight.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(weights, longest or math.inf)
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm  # of weights that lie in parts on many ranks


def _now_and_then(config: LoopConfig, hooks: Hooks, log: Log, progress: Progress, values: dict, last: bool):
    step = progress.step
    if step % config.log_every == 0 or last:
        log.record("train", step, **values)
    if last or (config.eval_every and step % config.eval_every == 0):
        found = hooks.evaluate()
        if not config.eval_every or hooks.score(found) < log.best(hooks.score):  # judged only once, the last is kept
            hooks.improved()
        log.record("eval", step, **found)
        log.say(f"step {step}: validation {hooks.say(found)}")
    if config.sample_every and step % config.sample_every == 0 and not last and (text := hooks.sample(step)):
        log.record("sample", step, text=text)
        log.say(f"--- sample after step {step}\n{text}\n---")
    if config.save_every and step % config.save_every == 0 and not last:
        hooks.save(progress)


class StopRequest:
    """Remembers Ctrl-C or SIGTERM until the step is done; a second Ctrl-C stops at once."""

    def __enter__(self):
        self.signal = 0
        self._before = {}
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._remember)
            except ValueError:  # not the main thread, where Python delivers no signals
                break
        return self

    def _remember(self, number, frame):
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number

    def __exit__(self, *problem):
        for number, handler in self._before.items():
            signal.signal(number, handler)
