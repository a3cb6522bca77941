"""The fast product against PyTorch's own, and against float64."""

import pytest
import torch
import torch.nn.functional as F

from minigpt import linear
from minigpt.linear import Linear

needs_onednn = pytest.mark.skipif(linear._onednn() is None, reason="no AVX-512 here: fast is plain")


@pytest.fixture
def always(monkeypatch):
    """Small products go the fast way too."""
    monkeypatch.setattr(linear, "WORTH", 0)


@needs_onednn
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (1, 1), (5, 7, 3), (2, 2, 2, 16), (64, 130)])
@pytest.mark.parametrize("n_out", [1, 4, 33])
def test_values_and_gradients_equal_float64(always, shape, n_out, bias):
    torch.manual_seed(0)
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(n_out, shape[-1], requires_grad=True)
    shift = torch.randn(n_out, requires_grad=True) if bias else None
    given = [tensor for tensor in (x, weight, shift) if tensor is not None]
    assert linear._suits(x, weight)
    out = linear.fast(x, weight, shift)
    g = torch.randn_like(out)
    found = torch.autograd.grad(out, given, g)
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    truth = F.linear(*exact)
    torch.testing.assert_close(out.double(), truth, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found, torch.autograd.grad(truth, exact, g.double()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)


@needs_onednn
def test_strided_inputs(always):
    x, weight = torch.randn(6, 8).T, torch.randn(6, 10).T
    torch.testing.assert_close(linear.fast(x, weight), linear.plain(x, weight), rtol=1e-5, atol=1e-5)
    rows = torch.randn(4, 12)[:, ::2]
    torch.testing.assert_close(linear.fast(rows, weight), linear.plain(rows, weight), rtol=1e-5, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize("learns", ["x", "weight", "bias", "nothing"])
def test_only_what_learns_gets_a_gradient_and_is_paid_for(always, learns):
    given = {"x": torch.randn(4, 8), "weight": torch.randn(6, 8), "bias": torch.randn(6)}
    if learns in given:
        given[learns].requires_grad_()
    out = linear.fast(*given.values())
    assert out.requires_grad == (learns != "nothing")
    if learns == "nothing":
        return
    saved = [tensor is not None for tensor in out.grad_fn.saved_tensors]
    assert saved == [learns == "weight", learns == "x"], "a frozen weight should keep no input alive"
    out.sum().backward()
    assert [name for name, tensor in given.items() if tensor.grad is not None] == [learns]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_take_the_plain_way(always, dtype):
    x, weight = torch.randn(4, 8, dtype=dtype), torch.randn(6, 8, dtype=dtype)
    assert torch.equal(linear.fast(x, weight), F.linear(x, weight))


def test_small_products_and_single_vectors_take_the_plain_way():
    assert not linear._suits(torch.randn(4, 8), torch.randn(6, 8))
    assert not linear._suits(torch.randn(4096), torch.randn(4096, 4096))


def test_autocast_is_obeyed(always):
    x, weight = torch.randn(4, 8), torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.fast(x, weight).dtype == torch.bfloat16


def test_without_avx512_fast_is_plain(always, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    linear._onednn.cache_clear()
    try:
        x, layer = torch.randn(4, 8, requires_grad=True), Linear(8, 6)
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
        assert not layer(x).grad_fn.name().startswith("_Product")
    finally:
        linear._onednn.cache_clear()


def test_an_operator_that_changed_is_not_used(monkeypatch):
    def changed(*_):
        raise TypeError("a new signature")

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", changed, raising=False)
    linear._onednn.cache_clear()
    try:
        assert linear._onednn() is None
    finally:
        linear._onednn.cache_clear()


def test_the_module_is_an_nn_linear():
    torch.manual_seed(0)
    ours = Linear(8, 6)
    torch.manual_seed(0)
    theirs = torch.nn.Linear(8, 6)
    assert isinstance(ours, torch.nn.Linear)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    assert torch.equal(ours.weight, theirs.weight)
    ours.multiply = linear.plain
    x = torch.randn(3, 8)
    assert torch.equal(ours(x), theirs(x))
