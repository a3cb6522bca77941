"""AdamW (Loshchilov & Hutter 2019), with decay on matrices only, and its state by parameter name.

m = b1 m + (1 - b1) g      v = b2 v + (1 - b2) g^2
w = w - lr (m^ / (sqrt(v^) + eps) + decay w),    m^ and v^ divided by 1 - b^t
"""

import torch
from torch import Tensor, nn

from minigpt.errors import Error
from minigpt.training.options import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW in two groups, tensors of two or more dimensions with decay, the rest without; frozen ones in neither.

    The fused kernel is one pass over memory instead of a dozen; every device of today has it.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2), eps=1e-8, fused=True)


def state_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers, as flat names for a file: "blocks.0.attn.q_proj.weight/exp_avg"."""
    names = {weight: name for name, weight in model.named_parameters()}
    return {
        f"{names[weight]}/{key}": value
        for weight, state in optimizer.state.items()
        for key, value in sorted(state.items())
    }


def load_state_by_name(model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Tensor]):
    """The inverse of `state_by_name`; a parameter it has no memory of, or a memory too many, is an error."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    found = {key.rsplit("/", 1)[0] for key in state}
    if found and found != set(weights):
        odd = min(found ^ set(weights))
        raise Error(f"optimizer state and model differ at {odd!r}: resume with the model the run was started with")
    for key, value in state.items():
        name, field = key.rsplit("/", 1)
        if value.ndim and value.shape != weights[name].shape:
            raise Error(f"optimizer state {key!r} is {tuple(value.shape)}, its weight {tuple(weights[name].shape)}")
        optimizer.state[weights[name]][field] = value.to(weights[name].device) if value.ndim else value
