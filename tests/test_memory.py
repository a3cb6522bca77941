"""Predicted bytes against what PyTorch holds: saved tensors, parameters, gradients, optimizer states, caches."""

import contextlib
import itertools

import pytest
import torch
from torch import nn

import lora
from minigpt import GPT, GPTConfig, attention, presets
from minigpt.cache import Cache
from minigpt.errors import Error
from minigpt.loss import cross_entropy
from minigpt.memory import Job, Plan, largest_batch, predict

SIZES = {"vocab_size": 50, "context": 16, "n_layers": 2, "n_heads": 4, "d_model": 24, "d_ff": 40}
LLAMA = {"norm": "rmsnorm", "gated": True, "activation": "silu", "positions": "rotary", "bias": False}
DROPOUT = {"embed_dropout": 0.1, "attn_dropout": 0.1, "resid_dropout": 0.1}
B, T = 3, 16


def build(job: Job, **shape) -> GPT:
    model = GPT(GPTConfig(**SIZES | shape))
    if job.dtype == "bf16":
        model.to(torch.bfloat16)
    if job.adapted:
        targets = "all-linear" if "all-linear" in job.targets else job.targets
        lora.attach(model, lora.Config(r=job.r, targets=targets, dropout=job.adapter_dropout))
    if job.attention == "plain":
        for block in model.blocks:
            block.attn.attend = attention.plain
    return model.train()


@contextlib.contextmanager
def counting(model: nn.Module):
    """Bytes of the storages that autograd saves, each once and parameters not: {address: bytes}."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes, alive = {}, []  # alive: an address that is freed would be given to another

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def saved_by_autograd(model: GPT, job: Job, **inputs) -> tuple[int, int]:
    """(activations, what the loss keeps) of one forward pass."""
    tokens = torch.randint(model.config.vocab_size, (job.batch, T + 1))
    text = {"tokens": tokens[:, :-1].contiguous()} if "embeds" not in inputs else {}
    autocast = torch.autocast("cpu", torch.bfloat16) if job.autocast else contextlib.nullcontext()
    with counting(model) as sizes, autocast:
        hidden = model.hidden(**text, **inputs)
        activations = sum(sizes.values())
        cross_entropy(hidden[:, -T:], model.head, tokens[:, 1:].contiguous(), "sum")
    return activations, sum(sizes.values()) - activations


def check(job: Job, **shape):
    model = build(job, **shape)
    found, loss = saved_by_autograd(model, job)
    for predicted in (predict(model.config, job), predict(model.config, job, Plan.of_model(model))):
        assert predicted.activations == found, (shape, job, predicted.saved)
        assert predicted.loss == loss


FAMILIES = {"gpt2": {}, "post": {"norm_place": "post"}, "llama": LLAMA, "post llama": LLAMA | {"norm_place": "post"}}
EXTRAS = {
    "": {},
    "grouped": {"n_kv_heads": 2},
    "dropout": DROPOUT,
    "window": {"window": 4, "banded_layers": (1,)},
    "grouped, dropout, window": {"n_kv_heads": 1, "window": 4, "banded_layers": (0,)} | DROPOUT,
    "wide heads, untied": {"d_head": 10, "tied": False},
}
JOBS = {
    "full": Job(batch=B),
    "full, plain": Job(batch=B, attention="plain"),
    "lora q v": Job(batch=B, method="lora", r=3),
    "lora all": Job(batch=B, method="lora", r=3, targets=("all-linear",), adapter_dropout=0.1),
    "lora down, plain": Job(batch=B, method="lora", r=3, targets=("down_proj",), attention="plain"),
    "bf16": Job(batch=B, dtype="bf16"),
    "bf16 lora all": Job(batch=B, dtype="bf16", method="lora", r=3, targets=("all-linear",)),
    "mixed": Job(batch=B, dtype="mixed"),
    "mixed lora all": Job(batch=B, dtype="mixed", method="lora", r=3, targets=("all-linear",)),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_what_autograd_saves_byte_for_byte(family, job):
    for extra in EXTRAS.values():
        check(job, **FAMILIES[family] | extra)
