"""Where the time of a step goes, and how much of the machine it uses.

model FLOPs per token   products of the model: forward 2 a weight and token, backward 2 for the input's gradient and 2
                        for the weight's, where those are wanted; attention 4 H D T forward, 8 H D T backward a layer,
                        all T keys counted (Chowdhery et al. 2022, PaLM, appendix B): in all 6 N + 12 L H D T
utilisation             model FLOPs per token x tokens a second / what the machine reaches in one large product

What is done twice (a checkpointed block, attention's scores in backward) is not counted twice: it is not the model's.
"""

import copy
import statistics
import time
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minigpt import linear
from minigpt.loss import plain
from minigpt.model import straight

PARTS = ("data", "forward", "backward", "optimizer")


def flops_per_token(model: nn.Module, context: int) -> float:
    """Model FLOPs of a training step per token, in rows of `context`: counted on a copy without memory.

    The copy's tensors are on the meta device, so nothing is computed; what is frozen costs no weight gradient, and
    below the first weight that learns there is no backward at all.

    >>> from minigpt import GPT, GPTConfig
    >>> config = GPTConfig(n_layers=2, n_heads=2, d_model=32, vocab_size=100, context=16)
    >>> n = 2 * 12 * 32**2 + 100 * 32  # matrices of two blocks, and the head
    >>> flops_per_token(GPT(config), 16) == 6 * n + 12 * 2 * 32 * 16
    True
    """
    copies = {}
    for tensor in (*model.parameters(), *model.buffers()):
        empty = torch.empty_like(tensor, device="meta")
        is_weight = isinstance(tensor, nn.Parameter)
        copies[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_weight else empty
    twin = copy.deepcopy(model, copies).train()
    twin.through = straight
    tokens = torch.zeros(1, context, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter, torch.compiler.set_stance("force_eager"):
        loss = plain(twin.hidden(tokens), twin.head, tokens)
        if loss.requires_grad:
            loss.backward()
    return counter.get_total_flops() / context


def measure_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.2) -> float:
    """FLOPs a second of one large square product in this dtype, the best of what fits into `seconds`."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while best == float("inf") or time.perf_counter() < end:
        began = time.perf_counter()
        linear.fast(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


class Clock:
    """Seconds of each part of a step; `with clock("forward"): ...` may stand several times a step.

    A GPU works on after the call returns, so there marks go into its own stream, and are read when the step's loss
    has arrived anyway: nothing waits for them.
    """

    def __init__(self, device: torch.device):
        self.cuda = device.type == "cuda"
        self.spans: list[tuple] = []

    def _now(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    @contextmanager
    def __call__(self, part: str):
        began = self._now()
        # A named bar in a trace of --profile; without one it costs a microsecond.
        with torch.profiler.record_function(part):
            yield
        self.spans.append((part, began, self._now()))

    def read(self) -> dict[str, float]:
        """Seconds by part since the last reading."""
        seconds = dict.fromkeys(PARTS, 0.0)
        for part, began, ended in self.spans:
            if self.cuda:
                ended.synchronize()
            seconds[part] += began.elapsed_time(ended) / 1e3 if self.cuda else ended - began
        self.spans.clear()
        return seconds


def table(records: list[dict], flops: float | None, peak: float | None) -> dict[str, str]:
    """Rows for the report: medians over the steps of metrics.jsonl, the first step left out, which also warms up.

    >>> table([{"kind": "train", "forward_seconds": 0.25, "tokens_per_second": 400.0}], 5e6, 1e10)["forward"]
    '250.0 ms a step, 100 %'
    """
    steps = [record for record in records if record["kind"] == "train" and "forward_seconds" in record]
    steps = steps[1:] or steps
    if not steps:
        return {}
    seconds = {part: statistics.median(step.get(f"{part}_seconds", 0.0) for step in steps) for part in PARTS}
    whole = max(sum(seconds.values()), 1e-12)
    rows = {part: f"{1e3 * value:.1f} ms a step, {100 * value / whole:.0f} %" for part, value in seconds.items()}
    speed = statistics.median(step["tokens_per_second"] for step in steps)
    rows["tokens a second"] = f"{speed:,.0f}"
    if flops and peak:
        rows["model FLOPs per token"] = f"{flops:,.0f}"
        rows["peak of this machine, measured"] = f"{peak / 1e9:,.0f} GFLOP/s"
        rows["model FLOPs utilisation"] = f"{100 * flops * speed / peak:.1f} %"
    return rows
