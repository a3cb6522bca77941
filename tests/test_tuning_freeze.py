"""Partial fine-tuning: what is promised changes, the rest keeps its bits, and nothing is stored for frozen layers."""

import pytest
import torch
from helpers import model, tokens

from minigpt import Error
from minigpt.loss import cross_entropy
from minigpt.training.optimizer import make_optimizer, state_by_name
from minigpt.training.options import OptimizerConfig
from minigpt.tuning.freeze import Gradual, freeze, gradual


def learn(gpt, optimizer):
    x = tokens()
    cross_entropy(gpt.hidden(x), gpt.head, x).backward()
    for group in optimizer.param_groups:
        group["lr"] = 0.01
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def changed(gpt, before):
    return {name for name, weight in gpt.named_parameters() if not torch.equal(weight, before[name])}


def everything(gpt):
    return {name: weight.detach().clone() for name, weight in gpt.named_parameters()}


def of_blocks(gpt, *layers):
    return {name for name, _ in gpt.named_parameters() if name.startswith(tuple(f"blocks.{i}." for i in layers))}


@pytest.mark.parametrize(
    "kind, optimizer", [("gpt2", "all parameters"), ("gpt2", "muon"), ("gpt1", "adamw"), ("llama", "all parameters")]
)
def test_exactly_what_is_promised_changes(kind, optimizer):
    """Two steps with weight decay. "all parameters": torch's AdamW that was given the frozen ones too."""
    final = {"final_norm.weight", "final_norm.bias"}
    for what, promised in {
        "top:1": lambda gpt: of_blocks(gpt, 2) | final,
        "freeze:1": lambda gpt: of_blocks(gpt, 1, 2) | final,
        "bottom:2": lambda gpt: of_blocks(gpt, 0, 1),
        "top:1,bottom:1": lambda gpt: of_blocks(gpt, 0, 2) | final,
        "norms": lambda gpt: {name for name, _ in gpt.named_parameters() if "norm." in name},
        "positions,biases": lambda gpt: {n for n, _ in gpt.named_parameters() if n[-4:] == "bias" or "position" in n},
        "head,embeddings": lambda gpt: {n for n, _ in gpt.named_parameters() if "embedding" in n or "head" in n},
        "all": lambda gpt: set(everything(gpt)),
    }.items():
        if kind == "llama" and "biases" in what:
            continue
        gpt = model(kind, std=0.2, n_layers=3)
        before, truth = everything(gpt), promised(gpt) & set(everything(gpt))
        report = freeze(gpt, what)
        if optimizer == "all parameters":
            made = torch.optim.AdamW(gpt.parameters(), weight_decay=0.1)
        else:
            made = make_optimizer(gpt, OptimizerConfig(optimizer=optimizer, weight_decay=0.1))
        for _ in range(2):
            learn(gpt, made)
        # The bias of the keys moves all scores of a query alike, which a softmax does not see: its gradient is noise.
        blind = {name for name in truth if name.endswith("k_proj.bias")}
        assert changed(gpt, before) | blind == truth, what
        assert report.parameters == sum(before[name].numel() for name in truth)
        assert report.base == sum(weight.numel() for weight in before.values()) - report.parameters
        assert report.stored == 4 * report.parameters


def test_gradients_are_those_of_full_tuning():
    gpt, x = model(std=0.2, n_layers=3), tokens()
    cross_entropy(gpt.hidden(x), gpt.head, x).backward()
    full = {name: weight.grad.clone() for name, weight in gpt.named_parameters()}
    freeze(gpt, "top:2,positions")
    assert all((weight.grad is not None) == weight.requires_grad for weight in gpt.parameters())
    gpt.zero_grad()
    cross_entropy(gpt.hidden(x), gpt.head, x).backward()
    for name, weight in gpt.named_parameters():
        assert (weight.grad is None) != weight.requires_grad
        if weight.requires_grad:
            assert torch.equal(weight.grad, full[name])


def test_a_weight_that_had_a_gradient_does_not_decay_when_frozen():
    gpt, x = model(std=0.2), tokens()
    optimizer = torch.optim.AdamW(gpt.parameters(), lr=0.1, weight_decay=0.1)
    cross_entropy(gpt.hidden(x), gpt.head, x).backward()
    before = everything(gpt)
    freeze(gpt, "none")
    optimizer.step()
    assert changed(gpt, before) == set()


def test_the_counts_of_gpt2_small():
    """7,089,408 for the highest block: 12 d^2 + 13 d + 2 d, d = 768."""
    from minigpt import GPT, presets

    with torch.device("meta"):
        gpt = GPT(presets.gpt2("small"))
    assert freeze(gpt, "top:1").parameters == 7_089_408 == 12 * 768**2 + 15 * 768
    assert freeze(gpt, "norms").parameters == 2 * 768 * 25
    assert freeze(gpt, "all").parameters == 124_439_808
    assert str(freeze(gpt, "freeze:11")) == "trains 7,089,408 of 124,439,808 (5.6971 %), stores 28,357,632 bytes"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_frozen_layers_below_store_nothing(kind):
    """Bytes that autograd keeps until each block begins; with one more block frozen, less is kept."""
    gpt, x, kept = model(kind, n_layers=3), tokens(), []

    def pack(tensor):
        kept.append(tensor.nbytes)
        return tensor

    totals, seen = [], []
    for block in gpt.blocks:
        block.register_forward_pre_hook(lambda *_: seen.append(sum(kept)))
    for k in range(3):
        freeze(gpt, f"freeze:{k}")
        seen.clear(), kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            gpt.hidden(x)
        assert seen[: k + 1] == [0] * (k + 1) and all(seen[k + 1 :]) and kept
        totals.append(sum(kept))
    assert totals[0] > totals[1] > totals[2]


def test_a_tied_head_must_be_answered_for():
    for what, named in {
        "head": "the head is to learn",
        "tokens": "the embedding is",
        "top:1,embeddings": "the e",
    }.items():
        with pytest.raises(Error, match=named):
            freeze(model(), what)
    gpt = model()
    report = freeze(gpt, "head", tied="share")
    assert gpt.head.weight is gpt.token_embedding.weight and gpt.head.weight.requires_grad
    assert report.parameters == gpt.head.weight.numel()
    freeze(gpt, "top:1")
    assert not gpt.head.weight.requires_grad


@pytest.mark.parametrize("what, learns", [("head", "head.weight"), ("tokens", "token_embedding.weight")])
def test_an_untied_head_learns_alone_and_is_saved(tmp_path, what, learns):
    gpt, x = model(std=0.2), tokens()
    logits = gpt(x)
    freeze(gpt, what, tied="untie")
    assert torch.equal(gpt(x), logits)
    before = everything(gpt)
    learn(gpt, make_optimizer(gpt, OptimizerConfig()))
    assert changed(gpt, before) == {learns}
    gpt.save_pretrained(tmp_path)
    assert torch.equal(type(gpt).from_pretrained(tmp_path)(x), gpt(x))


@pytest.mark.parametrize("direction", ["up", "down"])
def test_layer_by_layer(direction):
    """In every step the changed weights are the schedule's, and no weight has moments before its first step."""
    gpt, schedule = model(std=0.2, n_layers=3), Gradual(every=2, direction=direction, embeddings=True)
    order = [0, 1, 2] if direction == "up" else [2, 1, 0]
    gradual(gpt, None, schedule)
    assert all(weight.requires_grad for weight in gpt.parameters())
    optimizer = make_optimizer(gpt, OptimizerConfig(optimizer="adamw", weight_decay=0.1))
    for step in range(8):
        truth = of_blocks(gpt, *order[: step // 2 + 1])
        truth |= {"final_norm.weight", "final_norm.bias"} if "blocks.2.mlp_norm.bias" in truth else set()
        truth = truth if step < 6 else set(everything(gpt))
        before = everything(gpt)
        report = gradual(gpt, step, schedule)
        learn(gpt, optimizer)
        assert changed(gpt, before) == truth
        assert report.parameters == sum(before[name].numel() for name in truth)
        assert {name.split("/")[0] for name in state_by_name(gpt, optimizer)} == truth
    steps = {name: state_by_name(gpt, optimizer)[f"{name}/step"].item() for name in everything(gpt)}
    first = f"blocks.{order[0]}.mlp.up_proj.weight"
    assert steps[first] == 8 and steps[f"blocks.{order[2]}.mlp.up_proj.weight"] == 4
    assert steps["token_embedding.weight"] == 2


def test_a_step_of_the_schedule_depends_on_nothing_before():
    gpt, schedule = model(n_layers=3), Gradual(every=5, direction="down")
    masks = []
    for step in (7, 3, 100, 7):
        gradual(gpt, step, schedule)
        masks.append([weight.requires_grad for weight in gpt.parameters()])
    assert masks[0] == masks[3] and masks[1] != masks[0] != masks[2]
    assert not gpt.token_embedding.weight.requires_grad


@pytest.mark.parametrize("what, message", [
    ("top:3", "top:k with k from 1 to 2"), ("bottom:0", "from 1 to 2"), ("freeze:2", "from 0 to 1"), ("top", "top:k"),
    ("top:-1", "top:k"), ("nrms", "did you mean 'norms'"), ("norms:2", "no part"), ("none,norms", "leave out none"),
    ("", "no part"),
])  # fmt: skip
def test_a_wrong_word_is_an_error_that_says_what_is_right(what, message):
    gpt = model()
    with pytest.raises(Error, match=message):
        freeze(gpt, what)
    assert all(weight.requires_grad for weight in gpt.parameters())


def test_wrong_options():
    for make in (
        lambda: Gradual(every=0),
        lambda: Gradual(direction="sideways"),
        lambda: freeze(model(), "top:1", "?"),
    ):
        with pytest.raises(Error, match="give|did you mean|known"):
            make()
