"""How the next token moves with the strength of a LoRA adapter.

    h = W0 x + s (alpha / r) B A x,   s from 0 (the base) through 1 (as it was trained) to 2

Nothing is trained or merged for it: s is a number that the adapter's scale is multiplied by, for one reading each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from minigpt.insight.chances import log_chances
from minigpt.model import GPT


@dataclass(frozen=True)
class Dial:
    """The distribution at each of S scales, of the K tokens that are likeliest anywhere on the dial.

    probabilities (S, K); rest (S,) is that of all others; kl (S,) = sum_v p_s(v) ln(p_s(v) / p_base(v)), in nats.
    """

    scales: tuple[float, ...]
    tokens: tuple[int, ...]
    probabilities: Tensor
    rest: Tensor
    kl: Tensor


def dial(model: GPT, lora: ModuleType, name: str, ids: list[int], scales: Sequence[float], top: int = 10) -> Dial:
    """Read `ids` once for each scale of the adapter `name`, which is at work. `lora` is that library.

    At s = 0 a plain adapter is the base, to the bit; DoRA's lengths of the rows are left, which no scale is in.
    """
    rows = []
    for scale in scales:
        with lora.scaled(model, name, scale):
            rows.append(log_chances(model, ids))
    with lora.disabled(model):
        base = log_chances(model, ids)
    logs = torch.stack(rows)
    chances = logs.exp()
    tokens = chances.amax(0).topk(min(top, chances.shape[1])).indices
    kl = (chances * (logs - base)).nan_to_num(0.0).sum(1).clamp(min=0)
    shown = chances[:, tokens]
    return Dial(tuple(scales), tuple(tokens.tolist()), shown, (1 - shown.sum(1)).clamp(min=0), kl)
