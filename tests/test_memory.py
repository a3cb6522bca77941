"""Predicted bytes against what PyTorch holds: saved tensors, parameters, gradients, optimizer states, caches."""

import contextlib
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import lora
from minigpt import GPT, GPTConfig, attention, presets
from minigpt.cache import Cache
from minigpt.corpus.batches import Batch
from minigpt.errors import Error
from minigpt.loss import cross_entropy
from minigpt.memory import Job, Plan, largest_batch, predict
from minigpt.memory.__main__ import main
from minigpt.memory.methods import plan_of
from minigpt.memory.rules import folk_rules
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import OptimizerConfig
from minigpt.tuning import adapter, prefix, prompt, ptuning
from minigpt.tuning.freeze import freeze

SIZES = {"vocab_size": 50, "context": 16, "n_layers": 2, "n_heads": 4, "d_model": 24, "d_ff": 40}
LLAMA = {"norm": "rmsnorm", "gated": True, "activation": "silu", "positions": "rotary", "bias": False}
DROPOUT = {"embed_dropout": 0.1, "attn_dropout": 0.1, "resid_dropout": 0.1}
B, T = 3, 16


def build(job: Job, **shape) -> GPT:
    """The model of the job as the libraries make it: no part of it knows minigpt.memory."""
    model = GPT(GPTConfig(**SIZES | shape))
    if job.dtype == "bf16":
        model.to(torch.bfloat16)
    if job.attention == "plain":
        for block in model.blocks:
            block.attn.attend = attention.plain
    if job.method != "full":
        ATTACH[job.method](model, job)
    return model.train()


def attach_lora(model: GPT, job: Job):
    if job.method == "qlora":
        lora.quantize(model)
    targets = "all-linear" if "all-linear" in job.targets else job.targets
    lora.attach(model, lora.Config(r=job.r, targets=targets, dropout=job.adapter_dropout))


def attach_prefix(model: GPT, job: Job):
    hidden = None if job.method == "ptuning2" else job.hidden or 512
    prefix.attach(model, prefix.PrefixConfig(job.n_virtual, hidden, job.adapter_dropout))


ATTACH = {
    "lora": attach_lora,
    "qlora": attach_lora,
    "prefix": attach_prefix,
    "ptuning2": attach_prefix,
    "top": lambda model, job: freeze(model, f"top:{job.top}"),
    "adapter": lambda model, job: adapter.attach(model, adapter.AdapterConfig(bottleneck=job.bottleneck)),
    "prompt": lambda model, job: prompt.attach(model, prompt.PromptConfig(length=job.n_virtual)),
    "ptuning": lambda model, job: ptuning.attach(model, ptuning.PTuningConfig(job.n_virtual, job.encoder, job.hidden)),
}


@contextlib.contextmanager
def counting(model: nn.Module):
    """Bytes of the storages that autograd saves, each once and weights not: {address: bytes}."""
    own = {weight.untyped_storage().data_ptr() for weight in (*model.parameters(), *model.buffers())}
    sizes, alive = {}, []  # alive: an address that is freed would be given to another

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def saved_by_autograd(model: GPT, job: Job, length: int = T, **inputs) -> tuple[int, int]:
    """(activations, what the loss keeps) of one forward pass."""
    tokens = torch.randint(model.config.vocab_size, (job.batch, length + 1))
    batch = Batch(tokens[:, :-1].clone(), tokens[:, 1:].clone(), None, None, job.batch * length)
    if job.method in ("prompt", "ptuning"):
        batch = prompt.prepend(model, batch)
    autocast = torch.autocast("cpu", torch.bfloat16) if job.autocast else contextlib.nullcontext()
    with counting(model) as sizes, autocast:
        hidden = model.hidden(batch.tokens, **inputs)
        activations = sum(sizes.values())
        cross_entropy(hidden, model.head, batch.targets, "sum")
    return activations, sum(sizes.values()) - activations


def check(job: Job, **shape):
    model = build(job, **shape)
    found, loss = saved_by_autograd(model, job, job.length or T)
    assert plan_of(model.config, job) == Plan.of_model(model)
    predicted = predict(model.config, job)
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


VIRTUAL = {
    "prompt": {"method": "prompt", "virtual": 5},
    "ptuning": {"method": "ptuning", "virtual": 5, "encoder": "mlp", "hidden": 10},
    "prefix": {"method": "prefix", "virtual": 5, "hidden": 10},
    "ptuning2": {"method": "ptuning2", "virtual": 5},
    "ptuning2, dropout": {"method": "ptuning2", "virtual": 5, "adapter_dropout": 0.1},
}
BESIDE = VIRTUAL | {
    "top": {"method": "top", "top": 1},
    "adapter": {"method": "adapter", "bottleneck": 6},
    "qlora q v": {"method": "qlora", "r": 3},
    "qlora all": {"method": "qlora", "r": 3, "targets": ("all-linear",)},
}


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "mixed"])
@pytest.mark.parametrize("method", BESIDE)
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_of_every_other_method(family, method, dtype):
    """The real objects of minigpt/tuning/ and lora/: their parameters by name, and what a forward pass keeps."""
    job = Job(batch=B, length=T, dtype=dtype, **BESIDE[method])
    for extra in ("", "grouped", "dropout", "window"):
        check(job, context=32, **FAMILIES[family] | EXTRAS[extra])


@pytest.mark.parametrize("method", ["prefix", "ptuning2"])
def test_prefixes_before_the_formula(method):
    check(Job(batch=B, length=T, attention="plain", **VIRTUAL[method]), context=32, n_kv_heads=2)


def test_an_lstm_keeps_what_is_guessed_and_a_workspace():
    """PyTorch gives it to oneDNN, whose workspace is a secret: the only activations that are not exact."""
    job = Job(batch=B, length=T, method="ptuning", virtual=5, hidden=10)
    model = build(job, context=32)
    assert plan_of(model.config, job) == Plan.of_model(model)
    found, loss = saved_by_autograd(model, job)
    predicted = predict(model.config, job)
    assert predicted.loss == loss and predicted.activations < found < predicted.activations + (1 << 18)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_checkpointed_blocks_keep_their_inputs_and_one_block(family, method):
    """While the blocks go forward their inputs are kept; in backward one block at a time is there besides."""
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


def muon_and_adamw(model):
    matrices = [w for name, w in model.named_parameters() if name.startswith("blocks.") and w.ndim == 2]
    known = {id(w) for w in matrices}
    return torch.optim.Muon(matrices), torch.optim.AdamW([w for w in model.parameters() if id(w) not in known])


OPTIMIZERS = {
    "adamw": lambda model: (torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], fused=True),),
    "momentum": lambda model: (torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),),
    "sgd": lambda model: (torch.optim.SGD(model.parameters(), lr=0.1),),
    "muon": muon_and_adamw,
}


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "mixed"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_gradients_and_states_are_the_real_ones(optimizer, dtype, method):
    if method == "lora" and optimizer == "muon":
        pytest.skip("adapters are made of matrices alone: AdamW would be left with none")
    for shape in ({}, LLAMA | {"tied": False}):
        job = Job(batch=B, dtype=dtype, method=method, optimizer=optimizer)
        model = build(job, **shape)
        optimizers = OPTIMIZERS[optimizer](model)
        model.hidden(torch.randint(50, (B, T))).float().sum().backward()
        if model.head.weight.grad is None and method == "full":
            model.head.weight.grad = torch.zeros_like(model.head.weight)
        for each in optimizers:
            each.step()
        states = [value for each in optimizers for state in each.state.values() for value in state.values()]
        predicted = predict(model.config, job)
        assert predicted.weights == sum(w.nbytes for w in model.parameters())
        assert predicted.gradients == sum(w.grad.nbytes for w in model.parameters() if w.grad is not None)
        assert predicted.optimizer == sum(value.nbytes for value in states if isinstance(value, torch.Tensor))
        assert (predicted.parameters, predicted.learning) == (
            sum(w.numel() for w in model.parameters()),
            sum(w.numel() for w in model.parameters() if w.requires_grad),
        )


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("method", BESIDE)
def test_weights_gradients_and_states_of_every_other_method(method, optimizer):
    """The optimizer is train.py's own, which makes its groups by the names of what learns."""
    for dtype in ("fp32", "bf16"):
        job = Job(batch=B, dtype=dtype, optimizer=optimizer, **BESIDE[method])
        model = build(job, context=32, d_ff=70)  # a matrix that does not come out even in blocks of 64
        steps = make_optimizer(model, OptimizerConfig(optimizer=optimizer, momentum=0.0 if optimizer == "sgd" else 0.9))
        batch = Batch(torch.randint(50, (B, T)), torch.randint(50, (B, T)), None, None, B * T)
        if job.method in ("prompt", "ptuning"):
            batch = prompt.prepend(model, batch)
        model.hidden(batch.tokens).float().sum().backward()
        steps.step()
        held = [value for state in steps.state.values() for value in state.values() if value is not None]
        predicted = predict(model.config, job)
        assert predicted.weights == sum(w.nbytes for w in (*model.parameters(), *model.buffers()))
        assert predicted.gradients == sum(w.grad.nbytes for w in model.parameters() if w.grad is not None)
        assert predicted.optimizer == sum(value.nbytes for value in held)
        assert predicted.learning == sum(w.numel() for w in model.parameters() if w.requires_grad)


@pytest.mark.parametrize("shape", [{}, {"n_kv_heads": 2}, {"d_head": 10}, {"window": 2, "banded_layers": (1,)}])
def test_the_cache_is_the_real_one(shape):
    config = GPTConfig(**SIZES | {"context": 128} | shape)
    for dtype, name in ((torch.float32, "fp32"), (torch.bfloat16, "bf16"), (torch.bfloat16, "mixed")):
        cache = Cache(config, batch=3, capacity=100, dtype=dtype)
        assert predict(config, Job(batch=3, length=100, dtype=name)).cache == cache.nbytes


def test_the_folk_rules():
    """Pure 16-bit: AdamW 4 times the weights, momentum 3, plain SGD 2; 7 B parameters are 14, 14 and 56 GB."""
    config = presets.gpt2("xl")
    tensors = len(plan_of(config, Job()).weights)
    for optimizer, times in (("adamw", 4), ("momentum", 3), ("sgd", 2)):
        found = predict(config, Job(dtype="bf16", optimizer=optimizer, batch=1))
        counters = 4 * tensors if optimizer == "adamw" else 0
        assert found.weights + found.gradients + found.optimizer - counters == times * found.weights
    seven = predict(presets.gpt3("6.7B"), Job(dtype="bf16", batch=1))
    held = seven.weights + seven.gradients + seven.optimizer
    assert seven.weights / 2 == seven.parameters and held / 8 == pytest.approx(seven.parameters, rel=1e-6)
    mixed = predict(config, Job(dtype="mixed", batch=1))
    held = mixed.weights + mixed.gradients + mixed.optimizer
    assert held - 4 * tensors == 16 * mixed.parameters
    copies = mixed.by_kind()["16-bit weights"]
    assert 1.8 < copies / mixed.parameters < 2, "autocast multiplies copies in 16 bits: nearly 18 bytes in all"


def test_freezing_leaves_the_weights_and_ten_of_sixteen_widths():
    """GPT-2 keeps 16 widths of the model a token and layer: 4 of norms, 4 of attention, 8 of the feed-forward. Frozen,
    matrices need not know what they read: 2 of norms and the 4 behind the activation go."""
    config, job = GPTConfig(**SIZES | {"d_ff": 96, "n_layers": 50}), Job(batch=B, length=T)
    prompted = replace(job, method="prompt", virtual=1, length=T - 1)  # so that as many tokens pass
    per_token = [predict(config, each).activations / (4 * B * T * 24 * 50) for each in (job, prompted)]
    assert per_token == pytest.approx([16, 10], abs=0.4)  # and the statistics of norms and softmax
    frozen = folk_rules(config, Job(batch=B))[-1]
    assert frozen.claimed == 2 * predict(config, job).parameters < frozen.exact < 1.01 * frozen.claimed


def test_a_quantised_base_takes_4_127_bits():
    config = presets.gpt3("6.7B")
    job = Job(method="qlora", targets=("all-linear",), r=64, batch=1)
    plan, shapes = plan_of(config, job), plan_of(config, Job(dtype="bf16"))
    small = [name for name in plan.weights if plan.weights[name].nbytes < shapes.weights[name].nbytes]
    assert {name.split(".")[-2] for name in small} == {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    bits = 8 * sum(plan.weights[name].nbytes for name in small) / sum(plan.weights[name].numel for name in small)
    assert bits == pytest.approx(4 + 8 / 64 + 32 / (64 * 256), abs=1e-5)


FITTED = [
    Job(),
    Job(dtype="mixed", checkpointing=True),
    Job(method="lora", accumulate=4),
    Job(method="qlora", dtype="bf16"),
    Job(method="ptuning2", virtual=3, adapter_dropout=0.1),
]


@pytest.mark.parametrize("job", FITTED)
def test_the_largest_batch_fits_and_the_next_does_not(job):
    config = GPTConfig(**SIZES)
    for batch in (1, 2, 7, 64):
        peak = predict(config, replace(job, batch=batch)).peak
        assert largest_batch(config, job, peak) == batch
        assert largest_batch(config, job, peak - 1) == batch - 1


def test_ranks_share_what_fsdp_shards_and_ddp_does_not():
    config = GPTConfig(**SIZES)
    one, ddp, fsdp = (
        predict(config, Job(ranks=ranks, parallel=kind)) for ranks, kind in ((1, "ddp"), (4, "ddp"), (4, "fsdp"))
    )
    assert one == ddp
    for part in ("weights", "gradients"):
        assert getattr(fsdp, part) == getattr(one, part) / 4
    assert fsdp.activations == one.activations and fsdp.gathered > 0


@pytest.mark.parametrize(
    "wrong, hint",
    [
        ({"method": "lore"}, "did you mean 'lora'"),
        ({"batch": 0}, "at least 1"),
        ({"targets": ("c_attn",)}, "no layer of a block"),
    ],
)
def test_wrong_jobs(wrong, hint):
    with pytest.raises(Error, match=hint):
        Job(**wrong)


def test_what_does_not_fit_the_model():
    with pytest.raises(Error, match="no such layer"):
        predict(GPTConfig(**SIZES), Job(method="lora", targets=("gate_proj",)))
    with pytest.raises(Error, match="do not fit the context"):
        predict(GPTConfig(**SIZES), Job(length=16, method="prompt", virtual=1))


def test_the_command(tmp_path, monkeypatch, capsys):
    def command(*words):
        monkeypatch.setattr("sys.argv", ["memory", *words])
        assert main() == 0
        return capsys.readouterr().out

    config = GPTConfig(**SIZES)
    GPT(config).save_pretrained(tmp_path)
    found = json.loads(command(str(tmp_path), "--batch", "2", "--fit", "1MiB", "--json"))
    expected = predict(config, Job(batch=2))
    assert (found["peak"], found["activations"]) == (expected.peak, expected.activations)
    assert found["largest_batch"] == largest_batch(config, Job(), 1 << 20) > 0
    assert sum(part["bytes"] for part in found["saved"]) == expected.activations
    text = command("gpt2", "--n-layers", "1", "--fit", "1KiB", "--layers")
    assert "not even one row fits 1.0 KiB" in text and "block 0" in text and "4x the weights" in text
    with pytest.raises(Error, match="no preset: did you mean 'gpt2'"):
        command("gptt2")


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "mixed"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_peak_on_a_gpu_within_5_percent(family, method, dtype):
    config = {"vocab_size": 8192, "context": 512, "n_layers": 8, "n_heads": 8, "d_model": 512, "d_ff": 2048}
    job = Job(method=method, dtype=dtype, batch=16, device="cuda")
    model = build(job, **config | FAMILIES[family]).cuda()
    optimizer = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], fused=True)
    tokens = torch.randint(8192, (16, 513), device="cuda")
    for _ in range(2):  # the first step makes the states, and cuBLAS its workspace
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16, enabled=job.autocast):
            loss = cross_entropy(model.hidden(tokens[:, :-1].clone()), model.head, tokens[:, 1:].clone())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    assert torch.cuda.max_memory_allocated() == pytest.approx(predict(model.config, job).peak, rel=0.05)
