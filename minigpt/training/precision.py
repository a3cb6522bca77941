"""How many bits a product has. The weights, their gradients and the optimizer stay float32 ("master weights").

    fp32   24 significant bits, up to 3e38
    bf16    8 significant bits, up to 3e38: rounds to 1 part in 256, never overflows where fp32 does not
    fp16   11 significant bits, up to 65504: gradients below 6e-8 vanish, so the loss is multiplied by a scale S
           before backward and the gradient divided by S after it (Micikevicius et al. 2018, section 3.2)

S starts at 65536. A step whose gradient overflows is skipped and halves S; 2000 sound ones in a row double it.
Autocast gives the matrix products the few bits and leaves softmax, norms, sums and the residual stream in float32.
"""

import math
from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose(precision: str, device: torch.device) -> str:
    """What "auto" means on this device: bf16 where it has units for it, else fp32.

    A CPU without them takes far longer for a bf16 product than for one in fp32. With them a whole step of the small
    sizes takes two thirds of its time (docs/precision.md).
    """
    if precision != "auto":
        return precision
    return "bf16" if has_bf16_units(device) else "fp32"


@cache
def has_bf16_units(device: torch.device) -> bool:
    """Whether bf16 products are faster than fp32 ones here: a GPU since Ampere, a CPU with AVX-512 BF16 or AMX.

    PyTorch's probes of the CPU have underscores; where one is missing the answer is no.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probes = (getattr(torch.cpu, name, bool) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return device.type == "cpu" and any(probe() for probe in probes)


class Precision:
    """One run's precision: `autocast()` around the forward, `backward` for the loss, `unscale` before clipping.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> sgd, fp16 = torch.optim.SGD([weight]), Precision("fp16", torch.device("cpu"))
    >>> fp16.backward((weight * 1e-9).sum())
    >>> scaled = weight.grad.clone()
    >>> fp16.unscale(sgd)
    >>> torch.equal(scaled, 65536 * weight.grad)
    True
    """

    def __init__(self, name: str, device: torch.device):
        self.name, self.dtype, self.device = name, DTYPES[name], device
        self.scaler = torch.amp.GradScaler(device.type) if name == "fp16" else None
        self.skipped = 0  # steps

    def autocast(self):
        """The context in which products are rounded; also of evaluation."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def backward(self, loss: Tensor):
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def unscale(self, optimizer):
        """Gradients / S, in place."""
        if self.scaler is not None:
            self.scaler.unscale_(optimizer)

    def overflowed(self, loss: float, norm: float) -> bool:
        """Is this step one to skip?  Its loss is sound, its gradient too large for fp16, and S can still shrink.

        Counts it. A loss that is not finite no scale can mend, nor a gradient that overflows unscaled.
        """
        if self.scaler is None or not math.isfinite(loss) or math.isfinite(norm) or self.scaler.get_scale() <= 1.0:
            return False
        self.skipped += 1
        return True

    def update(self):
        """After a step made or skipped: the next S."""
        if self.scaler is not None:
            self.scaler.update()

    def state(self) -> dict:
        """What resuming needs; empty but for fp16."""
        return {} if self.scaler is None else {"skipped": self.skipped, **self.scaler.state_dict()}

    def load(self, state: dict):
        if self.scaler is not None and state:
            state = dict(state)
            self.skipped = state.pop("skipped")
            self.scaler.load_state_dict(state)

    def record(self) -> dict:
        """For metrics.jsonl."""
        return {} if self.scaler is None else {"loss_scale": self.scaler.get_scale(), "skipped": self.skipped}
