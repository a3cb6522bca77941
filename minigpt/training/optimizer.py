"""The optimizers, over the same three groups of weights, and their memory by parameter name.

    sgd     m = mu m + g + decay w                            w = w - lr m
    adamw   m = b1 m + (1 - b1) g   v = b2 v + (1 - b2) g^2   w = w - lr (m^ / (sqrt(v^) + eps) + decay w)
            m^ and v^ divided by 1 - b^t                      (Loshchilov & Hutter 2019, algorithm 2)
    muon    muon.py for matrices, adamw for the rest

In sgd decay is a penalty: decay w is the gradient of decay / 2 sum w^2. In adamw it is not: it shrinks every weight by
the same share, whereas a penalty, part of the gradient g, is divided by sqrt(v^) too and holds busy weights least.
Penalties can be had beside it, for any of the three:  loss + l1 sum |w| + l2 / 2 sum w^2  over matrices and embeddings.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from minigpt.errors import Error
from minigpt.training.muon import Muon
from minigpt.training.options import OptimizerConfig


def make_optimizer(
    model: nn.Module, config: OptimizerConfig, head: Sequence[Tensor] = (), head_scale: float = 1.0
) -> torch.optim.Optimizer:
    """The optimizer of what learns in `model`, at rate 0: the loop sets it, times the `lr_scale` of each group.

    `head` are the weights of a task's head, which may learn faster or slower. The fused kernels are one pass over
    memory instead of a dozen; every device of today has them.

    >>> model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
    >>> [group["name"] for group in make_optimizer(model, OptimizerConfig()).param_groups]
    ['embeddings', 'matrices', 'vectors']
    """
    groups, betas = make_groups(model, config, head, head_scale), (config.beta1, config.beta2)
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, lr=0.0, momentum=config.momentum, fused=True)
    elif config.optimizer == "adamw":
        optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8, fused=True)
    else:
        optimizer = Muon(groups, momentum=config.momentum, betas=betas)
    if config.l1 or config.l2:
        optimizer.register_step_pre_hook(lambda optimizer, *_: add_penalties(optimizer, config.l1, config.l2))
    return optimizer


def make_groups(
    model: nn.Module, config: OptimizerConfig, head: Sequence[Tensor] = (), head_scale: float = 1.0
) -> list[dict]:
    """What learns, each weight once: embeddings with the head, other matrices, and vectors, which do not decay.

    Virtual tokens and prefixes of a tuning method are vectors, however they are stored, and so is what makes them.
    """
    config = config.decided(new=True)
    ends = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    ends |= {id(weight) for name, weight in model.named_parameters() if name == "head.weight"}
    own = {id(weight) for weight in head}
    weights = {"embeddings": [], "matrices": [], "vectors": [], "head": [], "head's vectors": []}
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            virtual = not {"prefixes", "prompts"}.isdisjoint(name.split("."))
            matrix = weight.ndim == 2 and not virtual
            kind = "embeddings" if id(weight) in ends else "matrices" if matrix else "vectors"
            if id(weight) in own:
                kind = "head's vectors" if kind == "vectors" else "head"
            weights[kind].append(weight)
    groups = [
        {"name": "embeddings", "lr_scale": config.embed_lr, "weight_decay": config.weight_decay},
        {"name": "matrices", "lr_scale": 1.0, "weight_decay": config.weight_decay},
        {"name": "vectors", "lr_scale": 1.0, "weight_decay": 0.0},
        {"name": "head", "lr_scale": head_scale, "weight_decay": config.weight_decay},
        {"name": "head's vectors", "lr_scale": head_scale, "weight_decay": 0.0},
    ]
    return [group | {"params": weights[group["name"]]} for group in groups if weights[group["name"]]]


@torch.no_grad()
def add_penalties(optimizer: torch.optim.Optimizer, l1: float, l2: float):
    """g = g + l1 sign(w) + l2 w, the gradient of the penalties, just before the step and so after clipping."""
    for group in optimizer.param_groups:
        for weight in group["params"] if not group["name"].endswith("vectors") else []:
            if weight.grad is not None:
                weight.grad.add_(weight.sign(), alpha=l1).add_(weight, alpha=l2)


def state_by_name(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer remembers, as flat names for a file: "blocks.0.attn.q_proj.weight/exp_avg"."""
    names = {weight: name for name, weight in model.named_parameters()}
    return {
        f"{names[weight]}/{key}": value
        for weight, state in optimizer.state.items()
        for key, value in sorted(state.items())
        if value is not None  # sgd without momentum
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
