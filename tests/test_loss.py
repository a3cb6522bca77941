"""The chunked loss equals the formula in value and gradient, and never holds all logits."""

import math

import pytest
import torch
from helpers import model, tokens
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt import loss
from minigpt.loss import IGNORE, cross_entropy, plain

V, C = 50, 8


@pytest.fixture
def many_chunks(monkeypatch):
    """Chunks of 128 rows."""
    monkeypatch.setattr(loss, "CHUNK_BYTES", 1)
    monkeypatch.setattr(loss, "CHUNK_ROWS", 128)


class Adapted(nn.Module):
    """A head as LoRA makes it: not an nn.Linear, so the loss must call it."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base, self.out_features = base, base.out_features
        self.low = nn.Parameter(torch.randn(rank, base.in_features, dtype=base.weight.dtype))
        self.high = nn.Parameter(torch.randn(base.out_features, rank, dtype=base.weight.dtype))

    def forward(self, x):
        return self.base(x) + x @ self.low.T @ self.high.T


HEADS = {
    "linear": lambda: nn.Linear(C, V, bias=False),
    "with a bias": lambda: nn.Linear(C, V),
    "adapted": lambda: Adapted(nn.Linear(C, V, bias=False)),
}


def batch(n_rows, n_columns, dtype=torch.float32, ignored=0.3):
    hidden = torch.randn(n_rows, n_columns, C, dtype=dtype, requires_grad=True)
    targets = torch.randint(V, (n_rows, n_columns))
    return hidden, targets.where(torch.rand(n_rows, n_columns) >= ignored, IGNORE)


def by_formula(hidden, head, targets):
    """Sum of log sum_v exp(h W_v) - h W_target, a token at a time."""
    total = 0.0
    for logits, target in zip(head(hidden).flatten(0, 1), targets.flatten().tolist(), strict=True):
        if target != IGNORE:
            total = total + torch.logsumexp(logits, dim=0) - logits[target]
    return total


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("shape", [(1, 1), (1, 127), (2, 64), (1, 129), (4, 64), (7, 37), (3, 171)], ids=str)
def test_values_and_gradients_are_the_formula_around_chunk_boundaries(shape, kind, reduction, many_chunks):
    head = HEADS[kind]().double()
    hidden, targets = batch(*shape, torch.float64)
    targets[0, 0] = 3
    count = (targets != IGNORE).sum() if reduction == "mean" else 1
    leaves = [hidden, *head.parameters()]
    expected = by_formula(hidden, head, targets) / count
    found = cross_entropy(hidden, head, targets, reduction)
    assert torch.allclose(found, expected, rtol=1e-12)
    if reduction == "sum":
        assert torch.allclose(plain(hidden, head, targets), expected, rtol=1e-12)
    for a, b in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    head = nn.Linear(C, V, bias=False).double()
    hidden, targets = batch(2, 3, torch.float64)

    def function(h, weight):
        return loss.fast(h.flatten(0, 1), weight, targets.flatten())

    assert torch.autograd.gradcheck(function, (hidden, head.weight))


@pytest.mark.parametrize("kind", HEADS)
def test_gradients_are_scaled_by_what_comes_after(kind):
    head, (hidden, targets) = HEADS[kind](), batch(2, 9)
    once = torch.autograd.grad(cross_entropy(hidden, head, targets), [hidden, *head.parameters()])
    thrice = torch.autograd.grad(3 * cross_entropy(hidden, head, targets), [hidden, *head.parameters()])
    for a, b in zip(once, thrice, strict=True):
        assert torch.allclose(3 * a, b, atol=1e-6)


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_with_no_target_at_all_the_loss_is_zero_and_so_are_the_gradients(kind, reduction):
    head, (hidden, targets) = HEADS[kind](), batch(2, 5, ignored=1.0)
    found = cross_entropy(hidden, head, targets, reduction)
    assert found.item() == 0.0
    for grad in torch.autograd.grad(found, [hidden, *head.parameters()]):
        assert torch.equal(grad, torch.zeros_like(grad))


def test_an_ignored_token_does_not_matter_whatever_it_is():
    head, (hidden, targets) = HEADS["linear"](), batch(2, 5)
    targets[0, 0], targets[0, 1] = IGNORE, 7
    before = cross_entropy(hidden, head, targets)
    for garbage in (-3e4, math.inf, math.nan):
        with torch.no_grad():
            hidden[0, 0] = garbage
        assert torch.equal(cross_entropy(hidden, head, targets), before)
        assert torch.equal(torch.autograd.grad(cross_entropy(hidden, head, targets), hidden)[0][0, 0], torch.zeros(C))


def test_every_micro_batch_weighs_by_its_tokens():
    """Sum over micro-batches / tokens of the step is the loss of the step; the mean of their means is not."""
    head, (hidden, targets) = HEADS["linear"](), batch(4, 16, ignored=0.0)
    targets[0, :14] = IGNORE
    whole = cross_entropy(hidden, head, targets)
    sums = [cross_entropy(h[None], head, t[None], "sum") for h, t in zip(hidden, targets, strict=True)]
    means = [cross_entropy(h[None], head, t[None]) for h, t in zip(hidden, targets, strict=True)]
    assert torch.allclose(sum(sums) / (targets != IGNORE).sum(), whole, atol=1e-6)
    assert not torch.allclose(sum(means) / 4, whole, atol=1e-3)


@pytest.mark.parametrize("kind", HEADS)
def test_huge_logits_stay_exact(kind):
    head = HEADS[kind]()
    with torch.no_grad():
        for weight in head.parameters():
            weight.zero_()
        weight = head.weight if isinstance(head, nn.Linear) else head.base.weight
        weight[0, 0], weight[1, 0] = 1.0, -1.0
    hidden, targets = torch.zeros(1, 3, C), torch.tensor([[0, 1, 2]])
    hidden[..., 0] = 1e4  # logits 1e4, -1e4, 0, 0, ...: losses 0, 2e4 and 1e4
    hidden.requires_grad_()
    found = cross_entropy(hidden, head, targets, "sum")
    assert found.item() == 3e4
    assert torch.isfinite(torch.autograd.grad(found, hidden)[0]).all()


@pytest.mark.parametrize("kind", HEADS)
def test_autocast_rounds_products_but_not_the_loss(kind, many_chunks):
    head, (hidden, targets) = HEADS[kind](), batch(2, 200)
    leaves = [hidden, *head.parameters()]
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_entropy(hidden, head, targets)
        rounded = plain(hidden, head, targets) / (targets != IGNORE).sum()
    expected = plain(hidden, head, targets) / (targets != IGNORE).sum()
    assert found.dtype == torch.float32
    assert torch.allclose(found, rounded, rtol=1e-5)
    assert abs(found - expected) < 2e-3 * expected
    for a, b in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        assert a.dtype == torch.float32 and 2e-4 < (a - b).norm() / b.norm() < 2e-2


def test_a_bfloat16_model_has_a_float32_loss():
    head, (hidden, targets) = HEADS["linear"]().bfloat16(), batch(2, 20, torch.bfloat16)
    found = cross_entropy(hidden, head, targets)
    expected = plain(hidden, head, targets) / (targets != IGNORE).sum()
    assert found.dtype == torch.float32 and torch.allclose(found, expected, rtol=1e-3)
    assert torch.autograd.grad(found, head.weight)[0].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", HEADS)
def test_a_frozen_head_gets_no_gradient_and_the_rest_is_the_same(kind):
    head, (hidden, targets) = HEADS[kind](), batch(2, 9)
    expected = torch.autograd.grad(cross_entropy(hidden, head, targets), hidden)[0]
    head.requires_grad_(False)
    cross_entropy(hidden, head, targets).backward()
    assert torch.equal(hidden.grad, expected)
    assert all(weight.grad is None for weight in head.parameters())


def test_frozen_hidden_states_leave_the_head_its_gradient():
    head, (hidden, targets) = HEADS["linear"](), batch(2, 9)
    expected = torch.autograd.grad(cross_entropy(hidden, head, targets), head.weight)[0]
    cross_entropy(hidden.detach(), head, targets).backward()
    assert torch.equal(head.weight.grad, expected)


def test_the_loss_is_that_of_transformers():
    reference = GPT2LMHeadModel(GPT2Config(vocab_size=V, n_positions=16, n_embd=8, n_layer=2, n_head=2)).eval()
    x = torch.randint(V, (3, 16))
    labels = x.masked_fill(torch.rand(3, 16) < 0.3, IGNORE)
    output = reference(x, labels=labels, output_hidden_states=True)
    hidden = output.hidden_states[-1][:, :-1]
    assert torch.allclose(cross_entropy(hidden, reference.lm_head, labels[:, 1:]), output.loss, atol=1e-6)


def test_a_tied_head_adds_its_gradient_to_the_embedding():
    gpt, x = model("gpt2", std=0.1), tokens(2, 12)
    reference = torch.nn.functional.cross_entropy(gpt(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())
    expected = torch.autograd.grad(reference, list(gpt.parameters()))
    found = torch.autograd.grad(cross_entropy(gpt.hidden(x[:, :-1]), gpt.head, x[:, 1:]), list(gpt.parameters()))
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


class Recorder(TorchDispatchMode):
    """The largest tensor any operation makes, and how many matrix products there are; autograd's included."""

    def __init__(self):
        super().__init__()
        self.largest, self.products = 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.untyped_storage().nbytes())
        self.products += "mm" in str(function)
        return out


@pytest.mark.parametrize("kind", HEADS)
def test_no_tensor_is_as_large_as_all_logits(kind, many_chunks):
    head, (hidden, targets) = HEADS[kind](), batch(4, 1024)
    n_tokens, chunk = 4 * 1024, 128
    with Recorder() as recorder:
        plain(hidden, head, targets).backward()
    assert recorder.largest >= 4 * n_tokens * V  # the recorder sees what there is to see
    with Recorder() as recorder:
        cross_entropy(hidden, head, targets).backward()
    assert recorder.largest <= max(4 * chunk * V, 8 * n_tokens * C)


def test_a_chunk_keeps_to_its_bytes():
    assert loss.chunk_rows(1000, 4) * 1000 * 4 <= loss.CHUNK_BYTES < (loss.chunk_rows(1000, 4) + 1) * 1000 * 4
    assert loss.chunk_rows(10**9, 4) == loss.CHUNK_ROWS


def test_evaluation_makes_no_gradients():
    head, (hidden, targets) = HEADS["linear"](), batch(1, 64)
    with Recorder() as recorder, torch.no_grad():
        evaluated = cross_entropy(hidden, head, targets)
    assert recorder.products == 1
    assert torch.equal(evaluated, cross_entropy(hidden, head, targets))
