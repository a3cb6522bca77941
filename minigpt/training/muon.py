"""Muon: momentum, orthogonalised, for matrices; AdamW for everything else (Jordan et al. 2024).

Shapes: W (R, C) a weight matrix, its gradient G and its momentum M the same.

    M = mu M + G          U = G + mu M                        Nesterov's look ahead
    O = U (U^T U)^(-1/2)                                      every singular value of U becomes 1
    W = W - lr (0.2 sqrt(max(R, C)) O + decay W)

AdamW makes every number's step about as long; Muon every direction's. A gradient has few strong directions, those
that many tokens agree on; rare ones, a drug named twice, sit in the weak ones, and here they learn as fast.
The factor 0.2 sqrt(max(R, C)) gives O the size of AdamW's step (Liu et al. 2025, section 2.2), so both share one
learning rate. O costs nine products a matrix, whatever the batch: little for large batches, much for small ones.
"""

import math

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from minigpt.linear import fast
from minigpt.training.precision import has_bf16_units

# Rounds of p(s) = a s + b s^3 + c s^5. Of all such p the first is the nearest to 1 over [0.01, 1], and takes it to
# [0.06, 1.94]; the second is the nearest over that, and takes it to [0.26, 1.74]; the third to [0.73, 1.27].
COEFFICIENTS = ((8.0934, -23.6204, 17.4462), (3.6366, -2.7219, 0.5365), (2.6613, -1.9772, 0.4526))


def plain(update: Tensor) -> Tensor:
    """U (U^T U)^(-1/2) by its singular values: with U = X S Y^T it is X Y^T. (R, C) -> (R, C).

    >>> plain(torch.diag(torch.tensor([3.0, 0.5])))
    tensor([[1., 0.],
            [0., 1.]])
    """
    x, _, y = torch.linalg.svd(update, full_matrices=False)
    return x @ y


def orthogonalize(update: Tensor) -> Tensor:
    """`plain`, nearly: X = a X + b (X X^T) X + c (X X^T)^2 X for each round, from U / |U|. Products only.

    That is p of every singular value. Jordan et al. take five rounds of one p that is steep at 0; the nearest p for
    what each round is given (Amsel et al. 2025) comes as near in three. Near 1, not at 1, is good enough to learn by.
    In bfloat16 where there are units for it.
    """
    x = update.bfloat16() if update.dtype == torch.float32 and has_bf16_units(update.device) else update
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=1e-7)
    for a, b, c in COEFFICIENTS:
        gram = fast(x, x)  # X X^T, symmetric, and so what follows
        x = a * x + fast(b * gram + c * fast(gram, gram), x.T)
    return (x.T if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """The group named "matrices" by Muon, the others by AdamW; both with their decay apart from the gradient.

    >>> weight = torch.nn.Parameter(torch.ones(2, 2))
    >>> optimizer = Muon([{"name": "matrices", "params": [weight]}], lr=0.1, weight_decay=0.0)
    >>> (weight * torch.eye(2)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(self, groups, lr=0.0, weight_decay=0.1, momentum=0.95, betas=(0.9, 0.95), eps=1e-8):
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "betas": betas, "eps": eps}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            learning = [weight for weight in group["params"] if weight.grad is not None]
            if group["name"] == "matrices":
                for weight in learning:
                    self._turn(weight, group)
            elif learning:
                self._adamw(learning, group)

    def _turn(self, weight: Tensor, group: dict):
        state, mu = self.state[weight], group["momentum"]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        momentum = state["momentum"].mul_(mu).add_(weight.grad)
        step = _whole(orthogonalize)(weight.grad + mu * momentum)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.add_(step, alpha=-group["lr"] * 0.2 * math.sqrt(max(weight.shape)))

    def _adamw(self, weights: list[Tensor], group: dict):
        for weight in weights:
            if not self.state[weight]:
                zeros = {name: torch.zeros_like(weight) for name in ("exp_avg", "exp_avg_sq")}
                # A number on the weight's own device, as torch's fused kernel wants it.
                self.state[weight] |= zeros | {"step": torch.zeros((), device=weight.device)}
        states = [self.state[weight] for weight in weights]
        means, squares, steps = ([state[name] for state in states] for name in ("exp_avg", "exp_avg_sq", "step"))
        beta1, beta2 = group["betas"]
        adamw(
            weights, [w.grad for w in weights], means, squares, [], steps, fused=True, amsgrad=False, beta1=beta1,
            beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"], eps=group["eps"], maximize=False,
        )  # fmt: skip


def _whole(function):
    """`function` of a matrix whose parts may lie on many processes (FSDP): put together, and cut again as it was."""

    def on_whole(matrix: Tensor) -> Tensor:
        if not hasattr(matrix, "full_tensor"):
            return function(matrix)
        from torch.distributed.tensor import distribute_tensor

        whole = function(matrix.full_tensor())
        return distribute_tensor(whole, matrix.device_mesh, matrix.placements, src_data_rank=None)

    return on_whole
