"""What a step costs, in time and in products; traces; and who is to blame when a number is not finite."""

import json
import math
import time

import numpy as np
import pytest
import torch

import lora
from minigpt import GPT, presets
from minigpt.corpus.batches import Batches
from minigpt.training.blame import NotFinite, describe_rows
from minigpt.training.checkpoint import list_checkpoints, load_checkpoint, save_checkpoint
from minigpt.training.compute import Compute
from minigpt.training.loop import train_step
from minigpt.training.optimizer import make_optimizer
from minigpt.training.options import ComputeConfig, LoopConfig, OptimizerConfig
from minigpt.training.throughput import PARTS, Clock, flops_per_token, measure_peak, table
from minigpt.training.weights import WholeModel
from tests.helpers import KINDS, model
from tests.test_precision import some_batches, train

CPU = torch.device("cpu")
FP32 = ComputeConfig(precision="fp32", compile="off")


def matrices(net) -> int:
    """N of 6 N: what a token is multiplied by; the embeddings are looked up, a tied one is the head."""
    looked_up = ["position_embedding"] + ([] if net.config.tied else ["token_embedding"])
    return sum(w.numel() for n, w in net.named_parameters() if w.ndim == 2 and not n.startswith(tuple(looked_up)))


@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_6_n_and_12_l_h_d_t(kind):
    net = model(kind)
    c, t = net.config, 24
    # A banded layer's products are full squares here too: the mask hides what the kernel has multiplied.
    assert flops_per_token(net, t) == 6 * matrices(net) + 12 * c.n_layers * c.n_heads * c.d_head * t
    assert all(weight.device == CPU and weight.grad is None for weight in net.parameters())


def test_flops_of_gpt2_small_are_those_of_the_palm_formula():
    with torch.device("meta"):
        net = GPT(presets.gpt2("small"))
    n = 12 * 12 * 768**2 + 50257 * 768  # twelve blocks of 12 C^2, and the head
    assert flops_per_token(net, 1024) == 6 * n + 12 * 12 * 768 * 1024


def test_frozen_weights_cost_no_gradient_of_their_own():
    net = model("llama")
    c, t = net.config, 24
    attention = 12 * c.n_layers * c.n_heads * c.d_head * t
    lora.attach(net, lora.Config(r=2, alpha=4, targets=["q_proj", "v_proj"]))
    adapters = {n: w for n, w in net.named_parameters() if ".adapters." in n}
    base = sum(w.numel() for n, w in net.named_parameters() if w.ndim == 2 and n not in adapters)
    base -= net.token_embedding.weight.numel()
    # Forward all, backward to inputs all but the first layer's q, k, v and its adapters' A: nothing learns below.
    first = sum(w.numel() for n, w in net.named_parameters()
                if n.startswith("blocks.0.") and any(p in n for p in ("q_proj", "k_proj", "v_proj"))
                and w.ndim == 2 and w.shape[1] == c.d_model)  # fmt: skip
    all_adapters = sum(w.numel() for w in adapters.values())
    wanted = 2 * (base + all_adapters) + 2 * (base + all_adapters - first) + 2 * all_adapters + attention
    # Nor does anything learn that made the first layer's keys: their gradient is one product of attention's six.
    assert flops_per_token(net, t) == wanted - 2 * c.n_heads * c.d_head * t
    net.requires_grad_(False)
    assert flops_per_token(net, t) == 2 * (base + all_adapters) + attention / 3


def test_the_peak_is_what_the_machine_reaches():
    began = time.perf_counter()
    peak = measure_peak(CPU, torch.float32, seconds=0.05)
    assert time.perf_counter() - began < 3.0
    a = torch.randn(256, 256)
    began = time.perf_counter()
    a @ a
    assert peak > 0.2 * 2 * 256**3 / (time.perf_counter() - began)


def test_the_parts_of_a_step_are_measured_and_add_up_to_it():
    net, clock = model("gpt2"), Clock(CPU)
    for pause, part in ((0.01, "data"), (0.02, "forward"), (0.02, "forward"), (0.005, "optimizer")):
        with clock(part):
            time.sleep(pause)
    found = clock.read()
    assert found["forward"] >= 0.04 > found["data"] >= 0.01 > found["optimizer"] >= 0.005 and found["backward"] == 0.0
    assert set(clock.read().values()) == {0.0}
    log, _ = train(net, FP32)
    for _, _, values in (record for record in log.records if record[0] == "train"):
        step = values["tokens"] / values["tokens_per_second"]
        parts = [values[f"{part}_seconds"] for part in PARTS]
        assert all(part > 0 for part in parts) and 0.5 * step < sum(parts) <= step


def test_utilisation_is_flops_times_speed_over_peak_and_reaches_the_report():
    net = model("gpt2")
    compute = Compute(net)
    compute.flops, compute.peak = 1000.0, 1e6
    values = compute.record(250.0)
    assert values["utilisation"] == 0.25
    records = [{"kind": "train", "step": s, "tokens_per_second": 250.0, **values} for s in (1, 2)]
    assert table(records, 1000.0, 1e6)["model FLOPs utilisation"] == "25.0 %"
    assert table([], None, None) == {}


def test_a_profile_is_a_trace_of_three_steps_that_viewers_read(tmp_path):
    net, batches = model("gpt2"), some_batches()
    compute = Compute(net, ComputeConfig(precision="fp32", compile="off", profile=True), tmp_path)
    optimizer, said = make_optimizer(net, OptimizerConfig()), []
    for step in range(5):
        train_step(net, optimizer, batches, LoopConfig(accumulate=2), step, 1e-3, 1.0, compute)
        said += compute.after_step(step == 4)
    (line,) = said
    assert "trace.json: the trace of 3 steps" in line and "ui.perfetto.dev" in line
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    names = [event.get("name") for event in events if event.get("cat") == "user_annotation"]
    assert names.count("forward") == names.count("backward") == 6 and names.count("optimizer") == 3
    assert not list(tmp_path.glob("*.tmp-*"))


def test_a_run_too_short_for_three_steps_writes_what_it_has(tmp_path):
    compute = Compute(model(), ComputeConfig(profile=True), tmp_path)
    assert compute.after_step(False) == []
    (line,) = compute.after_step(True)
    assert "of 1 steps" in line


def failing(net, computing=FP32) -> tuple[NotFinite, list]:
    saved = []
    with pytest.raises(NotFinite) as caught:
        train(net, computing, save=saved.append)
    return caught.value, saved


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_infinite_weight_is_named_with_the_first_output_it_spoils(checkpointing):
    net = model("llama", std=0.1, n_layers=3)
    with torch.no_grad():
        net.blocks[2].mlp.down_proj.weight[3, 5] = math.inf
    problem, saved = failing(net, computing=ComputeConfig(precision="fp32", compile="off", checkpointing=checkpointing))
    assert "step 1: " in str(problem) and "first not finite: blocks.2.mlp.down_proj output" in str(problem)
    assert "micro-batch 1 of 2: batch 0, row 0 (tokens " in str(problem)
    assert "the weight blocks.2.mlp.down_proj.weight was not finite before" in str(problem)
    assert not saved, "a state that is not sound must not become the latest checkpoint"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gradient_that_is_not_finite_is_named_with_its_micro_batch_and_row(precision, tmp_path):
    net = model("gpt2", std=0.1)
    poison = some_batches()[3].tokens  # step 2, micro-batch 2

    def spoil(module, inputs, output):
        if torch.equal(inputs[0], poison):
            net.poisoned = True

    def plant(module, inputs, output):
        if getattr(net, "poisoned", False):
            net.poisoned = False
            mask = torch.ones_like(output)
            mask[2] = math.nan
            output.register_hook(lambda gradient: gradient * mask)

    net.token_embedding.register_forward_hook(spoil)
    net.blocks[1].mlp.up_proj.register_forward_hook(plant)
    optimizer = make_optimizer(net, OptimizerConfig())
    before = []

    def save(progress):
        before.append({name: value.clone() for name, value in net.state_dict().items()})
        save_checkpoint(tmp_path, WholeModel(net), net, optimizer, progress)

    computing = ComputeConfig(precision=precision, compile="off")
    if precision == "fp16":  # first it is taken for an overflow: let the scale be at its end
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.amp.GradScaler, "get_scale", lambda self: 1.0)
            with pytest.raises(NotFinite) as caught:
                train(net, computing, save=save, optimizer=optimizer)
    else:
        with pytest.raises(NotFinite) as caught:
            train(net, computing, save=save, optimizer=optimizer)
    text = str(caught.value)
    assert "step 2: " in text and "the gradient of blocks.1.mlp.up_proj output" in text
    assert "micro-batch 2 of 2: batch 3, row 2 (tokens " in text and "row 3" not in text
    (checkpoint,) = list_checkpoints(tmp_path)
    assert checkpoint.name == "step-00000001"
    kept = model("gpt2")
    assert load_checkpoint(tmp_path, WholeModel(kept), kept, make_optimizer(kept, OptimizerConfig())).step == 1
    assert all(torch.equal(kept.state_dict()[name], value) for name, value in before[0].items())
    assert all(weight.grad is None for weight in net.parameters())
    assert not any(
        m._forward_hooks for n, m in net.named_modules() if n not in ("token_embedding", "blocks.1.mlp.up_proj")
    )


def test_a_failure_that_does_not_come_back_is_called_that():
    net, once = model("gpt2", std=0.1), [True]

    def flip(module, inputs, output):
        return output * math.nan if once and once.pop() else output

    net.blocks[0].register_forward_hook(flip)
    problem, saved = failing(net)
    assert "nothing when the step was made again" in str(problem) and [p.step for p in saved] == [0]


def test_rows_are_found_in_the_text_with_their_documents():
    ids = np.array([0, 5, 5, 0, 5, 5, 5, 5, 0, 5, 0, 5, 5], dtype=np.uint16)
    batches = Batches(ids, context=4, batch_size=3, seed=0, eot=0, shuffle=False)
    assert describe_rows(batches, 0, [0]) == "batch 0, row 0 (tokens 0 to 4, documents 0 to 1)"
    assert describe_rows(batches, 0, [1, 2]) == (
        "batch 0, row 1 (tokens 4 to 8, documents 1 to 2), row 2 (tokens 8 to 12, documents 2 to 3)"
    )
    assert describe_rows({0: "no rows known"}, 7, [1]) == "batch 7"
