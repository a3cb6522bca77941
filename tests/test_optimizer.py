"""Optimizers and penalties against torch's own, and Muon against singular values worked out one by one."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from minigpt import GPT, Error, GPTConfig
from minigpt.corpus.batches import Batches
from minigpt.training import muon
from minigpt.training.loop import train_step
from minigpt.training.muon import COEFFICIENTS, Muon, orthogonalize, plain
from minigpt.training.optimizer import load_state_by_name, make_groups, make_optimizer, state_by_name
from minigpt.training.options import LoopConfig, OptimizerConfig
from minigpt.tuning import prefix, prompt


@pytest.fixture(autouse=True)
def in_full_precision(monkeypatch):
    """Muon as it is on a processor without bf16 units; what it is with them has a test of its own."""
    monkeypatch.setattr(muon, "has_bf16_units", lambda device: False)


def tiny(**changes) -> GPT:
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab_size=50, context=16, n_layers=2, n_heads=2, d_model=16, **changes))


def some_batches() -> Batches:
    return Batches(np.random.default_rng(0).integers(0, 50, 700).astype(np.uint16), 16, 4, seed=0)


def twenty_steps(model, optimizer, penalty=None):
    """The plain loop, as in any textbook; `penalty` is added to the loss."""
    batches = some_batches()
    for step in range(20):
        batch = batches[step]
        loss = torch.nn.functional.cross_entropy(model(batch.tokens).flatten(0, 1), batch.targets.flatten())
        (loss if penalty is None else loss + penalty(model)).backward()
        optimizer.step()
        optimizer.zero_grad()


def our_twenty_steps(model, config: OptimizerConfig, rate: float):
    optimizer, batches = make_optimizer(model, config), some_batches()
    for step in range(20):
        train_step(model, optimizer, batches, LoopConfig(), step, rate, 0.0)


def assert_equal(ours, theirs, atol):
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, atol=atol), name


def split(model):
    matrices = [w for w in model.parameters() if w.ndim >= 2]
    return matrices, [w for w in model.parameters() if w.ndim < 2]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_is_torchs(momentum):
    model = tiny().double()
    twin = copy.deepcopy(model)
    matrices, vectors = split(twin)
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors}]
    twenty_steps(twin, torch.optim.SGD(groups, lr=0.1, momentum=momentum, foreach=False, fused=False))
    our_twenty_steps(model, OptimizerConfig(optimizer="sgd", momentum=momentum), 0.1)
    assert_equal(model, twin, 1e-10)


@pytest.mark.parametrize("name", ["adamw", "sgd", "muon"])
def test_penalties_are_part_of_the_loss(name):
    """Against the penalty written out and differentiated, with an optimizer whose own decay is off."""
    model = tiny().double()
    twin = copy.deepcopy(model)

    def penalty(m):
        matrices, _ = split(m)
        return 0.01 * sum(w.abs().sum() for w in matrices) + 0.03 / 2 * sum(w.square().sum() for w in matrices)

    config = OptimizerConfig(optimizer=name, weight_decay=0.0, momentum=0.9, embed_lr=1.0)
    reference = make_optimizer(twin, config)
    for group in reference.param_groups:
        group["lr"] = 1e-2
    twenty_steps(twin, reference, penalty)
    our_twenty_steps(model, replace(config, l1=0.01, l2=0.03), 1e-2)
    assert_equal(model, twin, 1e-9)


def test_decay_is_not_a_penalty_under_adam_and_is_one_under_sgd():
    ends = {}
    for name in ("adamw", "sgd"):
        for way in ({"weight_decay": 0.1}, {"weight_decay": 0.0, "l2": 0.1}):
            model = tiny().double()
            our_twenty_steps(model, OptimizerConfig(optimizer=name, **way), 1e-2)
            ends[name, len(way)] = model.blocks[0].mlp.up_proj.weight
    assert torch.allclose(ends["sgd", 1], ends["sgd", 2], atol=1e-12)
    assert not torch.allclose(ends["adamw", 1], ends["adamw", 2], atol=1e-3)


def test_l1_leaves_more_weights_near_zero():
    shares = []
    for l1 in (0.0, 1e-3):
        model = tiny()
        our_twenty_steps(model, OptimizerConfig(optimizer="sgd", weight_decay=0.0, l1=l1, momentum=0.9), 0.3)
        shares.append((model.blocks[0].mlp.up_proj.weight.abs() < 2e-3).double().mean())
    assert shares[1] > 2 * shares[0]


# Muon


def by_singular_values(update: torch.Tensor) -> torch.Tensor:
    """The iteration acts on each singular value alone: s -> a s + b s^3 + c s^5, thrice, from s / |s|."""
    x, s, y = torch.linalg.svd(update.double(), full_matrices=False)
    s = s / s.norm()
    for a, b, c in COEFFICIENTS:
        s = a * s + b * s**3 + c * s**5
    return (x * s) @ y


@pytest.mark.parametrize("shape", [(8, 8), (6, 20), (20, 6), (1, 7), (128, 96)])
def test_orthogonalize_is_the_polynomial_of_each_singular_value(shape):
    update = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(update)
    assert torch.allclose(found.double(), by_singular_values(update), atol=1e-4)
    s = torch.linalg.svdvals(found)
    if torch.linalg.svdvals(update / update.norm()).min() >= 0.01:
        assert s.min() > 0.73 and s.max() < 1.27
        assert torch.linalg.matrix_norm(plain(update) - found, 2) < 0.27
    assert torch.isfinite(orthogonalize(torch.zeros(shape))).all()


def test_in_bfloat16_singular_values_are_as_near_to_one(monkeypatch):
    monkeypatch.setattr(muon, "has_bf16_units", lambda device: True)
    update = torch.randn(96, 128, generator=torch.Generator().manual_seed(0))
    found = orthogonalize(update)
    assert found.dtype == torch.float32 and torch.equal(found, found.bfloat16().float())
    s = torch.linalg.svdvals(found)
    assert s.min() > 0.7 and s.max() < 1.3
    assert (found - by_singular_values(update)).norm() < 0.02 * found.norm()


def test_each_round_is_the_polynomial_nearest_to_one_over_what_it_is_given():
    """Chebyshev: p with three coefficients is nearest where its error swings four times between the same heights."""
    low, high = 0.01, 1.0
    for a, b, c in COEFFICIENTS:
        turns = np.sqrt(np.sort(np.roots([5 * c, 3 * b, a]).real))  # where p' = 0, as a polynomial in s^2
        assert low < turns[0] < turns[1] < high
        s = np.array([low, *turns, high])
        error = a * s + b * s**3 + c * s**5 - 1
        assert np.allclose(error * [-1, 1, -1, 1], abs(error).mean(), atol=2e-3)
        low, high = 1 - abs(error).max(), 1 + abs(error).max()
    assert low == pytest.approx(0.73, abs=2e-3)


@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_muon_is_its_formula(shape):
    generator = torch.Generator().manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(shape, generator=generator))
    w, m = weight.detach().double(), torch.zeros(shape, dtype=torch.float64)
    optimizer = Muon([{"name": "matrices", "params": [weight]}], lr=0.02, weight_decay=0.3, momentum=0.8)
    for _ in range(5):
        weight.grad = torch.randn(shape, generator=generator)
        m = 0.8 * m + weight.grad.double()
        w = w - 0.02 * (0.2 * math.sqrt(24) * by_singular_values(weight.grad.double() + 0.8 * m) + 0.3 * w)
        optimizer.step()
    assert torch.allclose(weight.double(), w, atol=1e-5)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_muon_goes_where_torchs_goes():
    """torch's takes five rounds of another polynomial, in bfloat16: as near to 1, not at the same numbers."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(24, 16, generator=generator)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    first = Muon([{"name": "matrices", "params": [ours]}], lr=0.02, weight_decay=0.1)
    second = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for _ in range(20):
        ours.grad = torch.randn(24, 16, generator=generator)
        theirs.grad = ours.grad.clone()
        first.step(), second.step()
    assert (ours - theirs).norm() < 0.15 * (theirs - start).norm()


def test_muon_leaves_embeddings_and_vectors_to_adamw():
    """What Muon does not turn goes the way of torch's AdamW over the same gradients, bit for bit."""
    model = tiny()
    both = make_optimizer(model, OptimizerConfig(optimizer="muon"))
    rest = [
        group
        for group in make_groups(copy.deepcopy(model), OptimizerConfig(optimizer="adamw"))
        if group["name"] != "matrices"
    ]
    adamw = torch.optim.AdamW(rest, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, fused=True)
    for group in both.param_groups:
        group["lr"] = 1e-2
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        for weight in model.parameters():
            weight.grad = torch.randn(weight.shape, generator=generator)
        pairs = [
            (ours, theirs)
            for name in ("embeddings", "vectors")
            for ours, theirs in zip(*(_group(o, name) for o in (both, adamw)), strict=True)
        ]
        for ours, theirs in pairs:
            theirs.grad = ours.grad.clone()
        both.step(), adamw.step()
    assert len(pairs) > 10 and all(torch.equal(a, b) for a, b in pairs)
    assert all(set(both.state[w]) == {"momentum"} for w in _group(both, "matrices"))


def _group(optimizer, name):
    return next(group["params"] for group in optimizer.param_groups if group["name"] == name)


# Groups, memory, refusals


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_head_learn_at_a_rate_of_their_own(tied):
    model = tiny(tied=tied)
    groups = {group["name"]: group for group in make_groups(model, OptimizerConfig(embed_lr=3.0))}
    ends = {id(model.token_embedding.weight), id(model.position_embedding.weight), id(model.head.weight)}
    assert {id(w) for w in groups["embeddings"]["params"]} == ends and len(ends) == (2 if tied else 3)
    before = copy.deepcopy(model)
    optimizer = make_optimizer(model, OptimizerConfig(optimizer="adamw", embed_lr=3.0, weight_decay=0.0))
    train_step(model, optimizer, some_batches(), LoopConfig(), 0, 1e-3, 0.0)
    moved = {  # Adam's first step is the rate itself, wherever the gradient is not 0
        name: (new - old).abs().amax().item()
        for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True)
    }
    assert moved["token_embedding.weight"] == pytest.approx(3e-3, rel=1e-3)
    assert moved["blocks.0.mlp.up_proj.weight"] == pytest.approx(1e-3, rel=1e-3)


def test_auto_is_muon_for_a_new_model_and_adamw_for_one_that_has_learned():
    auto = OptimizerConfig(weight_decay=0.2)
    assert [auto.decided(new).optimizer for new in (True, False)] == ["muon", "adamw"]
    assert auto.decided(True).weight_decay == 0.2 and OptimizerConfig(optimizer="sgd").decided(True).optimizer == "sgd"


@pytest.mark.parametrize(
    ("optimizer", "new", "given", "factor"),
    [("auto", True, None, 3.0), ("muon", True, None, 3.0), ("auto", True, 1.5, 1.5), ("auto", False, None, 1.0),
     ("muon", False, None, 1.0), ("adamw", True, None, 1.0), ("sgd", True, None, 1.0), ("adamw", False, 2.0, 2.0)],
)  # fmt: skip
def test_embeddings_of_a_new_model_learn_faster_beside_muon_only(optimizer, new, given, factor):
    decided = OptimizerConfig(optimizer=optimizer, embed_lr=given).decided(new)
    assert decided.embed_lr == factor and decided.decided(True) == decided
    given = OptimizerConfig(optimizer=optimizer, embed_lr=given) if new else decided  # undecided is for a new model
    scales = {group["name"]: group["lr_scale"] for group in make_optimizer(tiny(), given).param_groups}
    assert scales == {"embeddings": factor, "matrices": 1.0, "vectors": 1.0}


@pytest.mark.parametrize("method", ["prompt", "prefix"])
def test_virtual_tokens_and_prefixes_do_not_decay(method):
    model = tiny()
    if method == "prompt":
        prompt.attach(model, prompt.PromptConfig(length=3))
    else:
        prefix.attach(model, prefix.PrefixConfig(length=3, hidden=4))
    groups = make_groups(model, OptimizerConfig(weight_decay=0.5))
    assert [group["name"] for group in groups] == ["vectors"] and groups[0]["weight_decay"] == 0.0
    assert len(groups[0]["params"]) == sum(weight.requires_grad for weight in model.parameters())


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd"])
def test_what_an_optimizer_remembers_survives_a_file(name):
    config = OptimizerConfig(optimizer=name)
    model, batches = tiny(), some_batches()
    optimizer = make_optimizer(model, config)
    train_step(model, optimizer, batches, LoopConfig(), 0, 1e-2, 1.0)
    twin = copy.deepcopy(model)
    second = make_optimizer(twin, config)
    load_state_by_name(twin, second, {key: value.clone() for key, value in state_by_name(model, optimizer).items()})
    for m, o in ((model, optimizer), (twin, second)):
        train_step(m, o, batches, LoopConfig(), 1, 1e-2, 1.0)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


@pytest.mark.parametrize(
    "given, says",
    [
        ({"optimizer": "adam"}, "adamw"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"beta2": -0.1}, "beta2 is -0.1"),
        ({"l1": -1.0}, "l1 is -1.0"),
        ({"l2": math.nan}, "l2 is nan"),
        ({"embed_lr": 0.0}, "embed_lr is 0.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(given, says):
    with pytest.raises(Error, match=says):
        OptimizerConfig(**given)
