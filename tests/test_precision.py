"""Fewer bits, compiled, checkpointed: the same step, and what happens where it cannot be."""

import copy
import math

import numpy as np
import pytest
import torch

import lora
from minigpt import GPT, Error
from minigpt.corpus.batches import Batches
from minigpt.loss import IGNORE, cross_entropy, plain
from minigpt.training import checkpointing, compiling
from minigpt.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from minigpt.training.compute import Compute
from minigpt.training.loop import Hooks, fit, train_step
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import ComputeConfig, LoopConfig, OptimizerConfig
from minigpt.training.precision import Precision, choose, has_bf16_units
from minigpt.training.weights import WholeModel
from tests.helpers import KINDS, model, tokens

CPU = torch.device("cpu")


class SilentLog:
    def __init__(self):
        self.records, self.lines = [], []

    def record(self, kind, step, **values):
        self.records.append((kind, step, values))

    def best(self, score):
        return (math.inf,)

    def advance(self, loss, speed): ...

    def say(self, text):
        self.lines.append(text)


def some_batches(batch_size=4, document_mask=False) -> Batches:
    ids = np.random.default_rng(0).integers(0, 61, 700).astype(np.uint16)
    return Batches(ids, context=24, batch_size=batch_size, seed=0, eot=0, document_mask=document_mask)


def train(net, computing: ComputeConfig, steps=3, save=None, progress=None, optimizer=None, rate=1e-2):
    log, optimizer = SilentLog(), optimizer or make_optimizer(net, OptimizerConfig())
    hooks = Hooks(lambda step: rate, lambda: {"loss": 0.0, "perplexity": 1.0, "bits_per_byte": 0.0},
                  lambda step: "", lambda: None, save or (lambda progress: None))  # fmt: skip
    compute = Compute(net, computing)
    progress = progress or Progress()
    fit(net, optimizer, some_batches(), LoopConfig(steps=steps, accumulate=2), hooks, log, progress, 1.0, compute)
    return log, compute


def gradients(net, compute, batch) -> dict[str, torch.Tensor]:
    net.zero_grad(set_to_none=True)
    torch.manual_seed(7)
    compute.precision.backward(compute.loss(batch) / batch.n_targets)
    return {name: weight.grad.clone() for name, weight in net.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_few_bits_give_nearly_the_same_loss_and_gradient_in_float32(kind, precision):
    net, batch = model(kind, std=0.1).train(), some_batches(document_mask=True)[0]
    sound, narrow = Compute(net), Compute(net, ComputeConfig(precision=precision, compile="off"))
    assert narrow.loss(batch).item() == pytest.approx(sound.loss(batch).item(), rel=2e-3)
    wanted, found = gradients(net, sound, batch), gradients(net, narrow, batch)
    narrow.precision.unscale(torch.optim.SGD(net.parameters()))
    found = {name: weight.grad for name, weight in net.named_parameters()}
    whole = sum(gradient.square().sum() for gradient in wanted.values()).sqrt()
    for name in wanted:
        assert found[name].dtype == torch.float32
        # A bias of the keys moves all scores of a query alike: its gradient is 0 but for rounding.
        error = (found[name] - wanted[name]).norm() / (wanted[name].norm() + 1e-3 * whole)
        assert error < 0.05, (name, error)
    assert any(not torch.equal(found[name], wanted[name]) for name in wanted), "autocast was not on"


def test_an_adapted_head_and_body_learn_in_bf16():
    net = model("llama", std=0.1)
    lora.attach(net, lora.Config(r=4, alpha=8, targets=["q_proj", "down_proj", "head"]))
    net.train()
    batch = some_batches()[0]
    wanted = gradients(net, Compute(net), batch)
    found = gradients(net, Compute(net, ComputeConfig(precision="bf16", compile="off")), batch)
    assert set(found) == set(wanted) and all(".adapters." in name for name in found)
    for name in (n for n in wanted if wanted[n].norm() > 0):
        assert (found[name] - wanted[name]).norm() < 0.1 * wanted[name].norm(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_chunked_loss_under_autocast_has_its_softmax_in_float32(dtype, monkeypatch):
    """8192 logits that are all alike: exp-sums in few bits would stop growing at 256 (bf16) or 2048 (fp16)."""
    monkeypatch.setattr("minigpt.loss.CHUNK_BYTES", 1)
    head, hidden = torch.nn.Linear(16, 8192, bias=False), torch.zeros(1, 300, 16, requires_grad=True)
    targets = torch.randint(8192, (1, 300))
    targets[0, :5] = IGNORE
    with torch.autocast("cpu", dtype):
        loss = cross_entropy(hidden, head, targets, "sum")
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(295 * math.log(8192), rel=1e-6)
    (loss * 65536.0).backward()  # a scale that float16 cannot hold
    reference = torch.zeros(1, 300, 16, requires_grad=True)
    plain(reference, head, targets).backward()
    assert torch.allclose(hidden.grad / 65536, reference.grad, rtol=0.02, atol=1e-4)


def test_our_linear_follows_autocast_and_returns_to_float32():
    from minigpt.linear import Linear

    layer, x = Linear(256, 256), torch.randn(64, 256, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        narrow = layer(x)
        assert narrow.dtype == torch.bfloat16
        with torch.autocast("cpu", enabled=False):
            assert layer(x).dtype == torch.float32
    narrow.float().sum().backward()
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32
    assert torch.allclose(x.grad, layer.weight.sum(0).expand(64, 256), rtol=0.02, atol=0.02)


class Spike(torch.autograd.Function):
    """The identity, whose gradient is 1e35 times too large while `Spike.on`."""

    on = False

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return g * (1e37 if Spike.on else 1.0)


def spiky(at: set[int]):
    """A model whose gradient overflows in forward passes number `at`."""
    net, calls = model("gpt2", std=0.1), []

    def hook(module, inputs, output):
        Spike.on = len(calls) in at
        calls.append(1)
        return Spike.apply(output)

    net.final_norm.register_forward_hook(hook)
    return net


def test_fp16_skips_a_step_that_overflows_halves_the_scale_and_counts(monkeypatch):
    net = spiky(at={2})  # two micro-batches a step: the first of step 2
    weights = []
    log, compute = train(net, ComputeConfig(precision="fp16", compile="off"),
                         save=lambda progress: weights.append(progress))  # fmt: skip
    one, two, three = (values for kind, _, values in log.records if kind == "train")
    assert one["loss_scale"] == 65536 and two["loss_scale"] == three["loss_scale"] == 32768
    assert (one["skipped"], two["skipped"], three["skipped"]) == (0, 1, 1)
    assert "grad_norm" not in two and math.isfinite(two["loss"]) and three["grad_norm"] > 0
    assert weights[-1].scaler == compute.precision.state() and weights[-1].scaler["scale"] == 32768


def test_a_skipped_step_changes_no_weight_and_no_moment():
    net = spiky(at={0})
    optimizer, before = make_optimizer(net, OptimizerConfig()), copy.deepcopy(net.state_dict())
    compute = Compute(net, ComputeConfig(precision="fp16", compile="off"))
    _, norm, _ = train_step(net, optimizer, some_batches(), LoopConfig(), 0, 1e-2, 1.0, compute)
    assert norm is None and not optimizer.state
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert all(weight.grad is None for weight in net.parameters())


def test_the_scale_grows_after_enough_sound_steps_and_does_not_shrink_for_ever():
    precision, weight = Precision("fp16", CPU), torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight])
    precision.scaler.set_growth_interval(3)
    for _ in range(3):
        precision.backward((weight * 1.0).sum())
        precision.unscale(optimizer)
        precision.update()
        assert weight.grad.item() == 1.0
        weight.grad = None
    assert precision.scaler.get_scale() == 2 * 65536
    assert not precision.overflowed(math.nan, math.inf), "a loss that is not finite is no matter of scale"
    precision.load({**precision.state(), "scale": 1.0})
    assert not precision.overflowed(1.0, math.inf)


def test_resuming_fp16_is_bit_exact(tmp_path):
    computing, whole = ComputeConfig(precision="fp16", compile="off"), spiky(at={2})
    start = copy.deepcopy(whole.state_dict())
    train(whole, computing, steps=5)
    first = spiky(at={2})
    first.load_state_dict(start)
    optimizer = make_optimizer(first, OptimizerConfig())
    train(first, computing, steps=3, optimizer=optimizer,
          save=lambda p: save_checkpoint(tmp_path, WholeModel(first), first, optimizer, p))  # fmt: skip
    second = model("gpt2")
    optimizer = make_optimizer(second, OptimizerConfig())
    progress = load_checkpoint(tmp_path, WholeModel(second), second, optimizer)
    assert progress.scaler["scale"] == 32768 and progress.scaler["skipped"] == 1
    _, compute = train(second, computing, steps=5, optimizer=optimizer, progress=progress)
    assert compute.precision.state()["_growth_tracker"] == 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_checkpointing_changes_no_bit_of_the_gradient_with_dropout(kind, precision):
    rates = dict.fromkeys(("embed_dropout", "attn_dropout", "resid_dropout"), 0.3)
    net, batch = model(kind, std=0.1, **rates).train(), some_batches(document_mask=True)[0]
    wanted = gradients(net, Compute(net, ComputeConfig(precision=precision, compile="off")), batch)
    compute = Compute(net, ComputeConfig(precision=precision, compile="off", checkpointing=True))
    assert net.through is checkpointing.through
    found = gradients(net, compute, batch)
    assert all(torch.equal(wanted[name], found[name]) for name in wanted)


def saved_bytes(net, batch) -> int:
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes(), tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        hidden = net.hidden(batch.tokens)
    weights = {weight.untyped_storage().data_ptr() for weight in net.parameters()}
    assert hidden.requires_grad
    return sum(size for pointer, (size, _) in sizes.items() if pointer not in weights)


def test_checkpointing_keeps_a_fraction_of_the_activations():
    net, batch = model("llama", n_layers=6).train(), some_batches()[0]
    whole = saved_bytes(net, batch)
    net.through = checkpointing.through
    # Each block's input, B T C floats; the final norm's input and what it divides by; ids and tables.
    inputs = 6 * batch.tokens.numel() * 32 * 4
    assert inputs <= saved_bytes(net, batch) < inputs + 0.1 * whole < 0.25 * whole


def test_checkpointing_leaves_decoding_alone():
    from minigpt.generation import generate

    net = model("llama", std=0.3)
    wanted = generate(net, [[1, 2]], max_new_tokens=6, seed=0)
    net.through = checkpointing.through
    assert generate(net, [[1, 2]], max_new_tokens=6, seed=0) == wanted


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_where_compiling_fails_the_run_goes_on_to_the_same_weights_and_says_why(when, monkeypatch, tmp_path):
    from torch._dynamo.backends.common import aot_autograd

    def broken(graph, inputs):
        raise RuntimeError("no working compiler\nand many more lines")

    def eager(graph, inputs):
        return graph.forward

    backend = aot_autograd(fw_compiler=broken if when == "forward" else eager, bw_compiler=broken)
    compile_blocks = compiling.compile_blocks
    monkeypatch.setattr(compiling, "compile_blocks", lambda net: compile_blocks(net, backend=backend))
    twin, net = model("gpt2", std=0.1), model("gpt2")
    net.load_state_dict(twin.state_dict())
    train(twin, ComputeConfig(precision="fp32", compile="off"))
    log, compute = train(net, ComputeConfig(precision="fp32", compile="on"))
    (line,) = (line for line in log.lines if line.startswith("--compile"))
    assert "not possible here" in line and "no working compiler" in line and "\n" not in line
    assert not compute.compiled
    assert all(torch.equal(a, b) for a, b in zip(twin.parameters(), net.parameters(), strict=True))
    torch._dynamo.reset()


def test_compiled_blocks_keep_their_names_and_their_gradients(monkeypatch, tmp_path):
    compile_blocks = compiling.compile_blocks
    monkeypatch.setattr(compiling, "compile_blocks", lambda net: compile_blocks(net, backend="aot_eager"))
    net, batch = model("llama", std=0.1, n_layers=1).train(), some_batches()[0]
    names, wanted = list(net.state_dict()), gradients(net, Compute(net), batch)
    compute = Compute(net, ComputeConfig(precision="fp32", compile="on"))
    found = gradients(net, compute, batch)
    assert net.blocks[0]._compiled_call_impl is not None and compute.compiled and not compute.notices
    for name in wanted:
        assert torch.allclose(wanted[name], found[name], atol=1e-6), name
    net.save_pretrained(tmp_path)
    assert list(net.state_dict()) == names and not any("_orig_mod" in name for name in names)
    with compute.sampling():
        assert torch.equal(GPT.from_pretrained(tmp_path)(ids := tokens()), net.eval()(ids))
    torch._dynamo.reset()


def test_a_failure_of_the_step_itself_is_not_blamed_on_compiling():
    with pytest.raises(ZeroDivisionError):
        Compute(model()).without_compiling(ZeroDivisionError())


def test_options_that_cannot_work_name_the_fix():
    with pytest.raises(Error, match="--precision is 'fp8'"):
        ComputeConfig(precision="fp8")
    with pytest.raises(Error, match="--compile is 'yes'"):
        ComputeConfig(compile="yes")


@pytest.mark.parametrize("probe", [None, "_is_avx512_bf16_supported", "_is_amx_tile_supported"])
def test_auto_is_bf16_where_the_processor_has_units_for_it(probe, monkeypatch):
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == probe, raising=False)
    has_bf16_units.cache_clear()
    assert choose("auto", CPU) == ("bf16" if probe else "fp32") and choose("fp32", CPU) == "fp32"
    has_bf16_units.cache_clear()
