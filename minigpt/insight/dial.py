"""How the next token moves with the strength of a LoRA adapter.

    h = W0 x + s (alpha / r) B A x,   s from 0 (the base) through 1 (as it was trained) to 2

Nothing is trained or merged for it: s is a number that the adapter's scale is multiplied by, for one reading each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from minigpt.errors import Error
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
    """Read `ids` once for each scale of the adapter `name`, which is at work, and once without any.

    `lora` is that library. At s = 0 a plain adapter is the base, to the bit; DoRA's lengths of the rows, learned biases
    and modules are left, which no scale is in.

    >>> import lora
    >>> from minigpt import GPTConfig
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> report = lora.attach(model, lora.Config(r=2))
    >>> dial(model, lora, "default", [1, 2], (0, 1, 2)).kl.tolist()  # zeros: B has not learned yet
    [0.0, 0.0, 0.0]
    """
    rows = [chances_at(model, lora, name, ids, scale) for scale in scales]
    with lora.disabled(model):
        base = log_chances(model, ids)
    return compare(base, scales, rows, top)


def chances_at(model: GPT, lora: ModuleType, name: str, ids: list[int], scale: float) -> Tensor:
    """log P(v | ids) with the adapter `scale` times as strong, (V,): one place of the dial."""
    with lora.scaled(model, name, scale):
        layers = lora.layers_of(model).values()
        if not any(name in layer.active or name in (layer.rows or ()) for layer in layers):
            raise Error(
                f"{name!r} is not at work, so its strength changes nothing: call lora.use(model, {name!r}) first"
            )
        return log_chances(model, ids)


def compare(base: Tensor, scales: Sequence[float], rows: Sequence[Tensor], top: int) -> Dial:
    """log-probabilities at each scale, a row (V,) each, beside those of the base.

    >>> table = compare(torch.tensor([0.5, 0.5]).log(), [1], [torch.tensor([1.0, 0.0]).log()], top=1)
    >>> table.tokens, table.probabilities.tolist(), table.kl.exp().tolist()
    ((0,), [[1.0]], [2.0])
    """
    logs = torch.stack(list(rows))
    chances = logs.exp()
    tokens = chances.amax(0).topk(min(top, chances.shape[1])).indices
    kl = torch.where(chances > 0, chances * (logs - base), 0.0).sum(1).clamp(min=0)  # 0 ln 0 = 0
    shown = chances[:, tokens]
    return Dial(tuple(scales), tuple(tokens.tolist()), shown, (1 - shown.sum(1)).clamp(min=0), kl)
