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
    text = {"tokens": tokens[:, :-1].clone()} if "embeds" not in inputs else {}
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


def test_large_products_save_the_same_by_whichever_library():
    job = Job(batch=4)
    check(job, d_model=256, d_ff=512, vocab_size=300, n_layers=1)  # large enough for oneDNN, where that is quicker
    check(Job(batch=4, method="lora", targets=("all-linear",)), **LLAMA, d_model=256, d_ff=512, n_layers=1)


@pytest.mark.parametrize("activation", ["gelu", "gelu_tanh", "relu", "relu2", "silu"])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_activations_of_every_nonlinearity(activation, gated, method):
    for targets in (("q_proj",), ("up_proj", "k_proj")):
        check(Job(batch=1, method=method, targets=targets), activation=activation, gated=gated)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "mixed"])
@pytest.mark.parametrize("kernel", ["fast", "plain"])
def test_packed_documents_keep_masks_and_positions_of_every_row(dtype, kernel):
    job = Job(batch=B, documents=True, dtype=dtype, attention=kernel)
    documents = torch.arange(T).expand(B, T) // 5
    positions = torch.arange(T).expand(B, T) % 5
    for shape in (LLAMA, {}, {"window": 4, "banded_layers": (0,)}):
        model = build(job, **shape)
        found, _ = saved_by_autograd(model, job, documents=documents, positions=positions.contiguous())
        assert predict(model.config, job).activations == found


def frozen(job: Job, **shape) -> GPT:
    return build(job, **shape).requires_grad_(False)


@pytest.mark.parametrize("family", FAMILIES)
def test_virtual_tokens_in_the_prompt(family):
    job = Job(batch=B, method="prompt", virtual=5, length=T)
    model = frozen(job, context=32, **FAMILIES[family])
    prompt = nn.Parameter(torch.randn(5, 24))
    text = model.token_embedding(torch.randint(50, (B, T)))
    embeds = torch.cat([prompt.expand(B, -1, -1), text], dim=1)
    found, loss = saved_by_autograd(model, job, embeds=embeds)
    predicted = predict(model.config, job)
    assert predicted.activations == found
    # The head sees the text alone; its slope is as long as what it was given.
    assert predicted.loss == loss
    assert predicted.gradients == prompt.nbytes and predicted.optimizer == 2 * prompt.nbytes + 4


class Prefix:
    """Trainable keys and values before those of the text: what a model asks of a cache, and no more."""

    def __init__(self, config: GPTConfig, length: int):
        shape = (2, config.n_layers, config.n_kv_heads, length, config.d_head)
        self.entries, self.length = nn.Parameter(torch.randn(shape)), length

    def extend_keep(self, keep, batch, time):
        return None

    def update(self, layer, k, v):
        before = (part.expand(len(k), -1, -1, -1) for part in self.entries[:, layer])
        return tuple(torch.cat(pair, dim=2) for pair in zip(before, (k, v), strict=True))

    def advance(self, time):
        pass


@pytest.mark.parametrize("kernel", ["fast", "plain"])
@pytest.mark.parametrize("family", FAMILIES)
def test_virtual_tokens_before_every_layer(family, kernel):
    job = Job(batch=B, method="prefix", virtual=5, length=T, attention=kernel)
    for extra in ({}, {"n_kv_heads": 2}, {"window": 4, "banded_layers": (1,)}):
        model = frozen(job, context=32, **FAMILIES[family] | extra)
        prefix = Prefix(model.config, 5)
        found, _ = saved_by_autograd(model, job, cache=prefix)
        predicted = predict(model.config, job)
        assert predicted.activations == found
        assert predicted.gradients == prefix.entries.nbytes


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpointed_blocks_keep_their_inputs_and_one_block(family, method):
    """While the blocks go forward their inputs are kept; in backward one block at a time is there besides."""
    from torch.utils.checkpoint import checkpoint

    for extra in ({}, {"window": 4, "banded_layers": (1,)}):
        job = Job(batch=B, method=method)
        whole = predict(GPTConfig(**SIZES | FAMILIES[family] | extra), job)
        model = build(job, **FAMILIES[family] | extra)
        for block in model.blocks:
            inner = block.forward
            block.forward = lambda *args, inner=inner: checkpoint(inner, *args, use_reentrant=False)
        found, _ = saved_by_autograd(model, job)
        predicted = predict(model.config, Job(batch=B, method=method, checkpointing=True))
        inputs = 2 * B * T * 24 * 4
        inner = {layer: size for layer, size in predicted.by_layer().items() if layer is not None}
        assert sum(size for (_, kind), size in predicted.saved.items() if kind == "block input") == inputs
        block = sum(inner.values()) - inputs
        # The angles come in a tuple: held by the checkpoint, not saved by autograd.
        angles = sum(size for (_, kind), size in predicted.saved.items() if kind == "angles")
        assert predicted.activations < whole.activations
        assert found == predicted.activations - block - angles
