"""Laid out weights against float64; every way in which a product could be of the wrong weight."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lora
from minigpt import GPT, GPTConfig, linear, serving
from minigpt.errors import Error
from minigpt.generation import generate
from minigpt.linear import Linear

needs_blocked = pytest.mark.skipif(serving._blocked() is None, reason="no oneDNN here: nothing is laid out")
needs_int8 = pytest.mark.skipif(serving._int8() is None, reason="no 8-bit products here: nothing is laid out")
both = pytest.mark.parametrize(
    "kind", [pytest.param("float32", marks=needs_blocked), pytest.param("int8", marks=needs_int8)]
)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Small products are worth it too."""
    monkeypatch.setattr(serving, "WORTH", 0)
    torch.manual_seed(0)


def small(**changes) -> GPT:
    shape = {"n_layers": 2, "n_heads": 2, "d_model": 32, "vocab_size": 101, "context": 48, **changes}
    return GPT(GPTConfig(**shape)).eval().requires_grad_(False)


def products(model: nn.Module) -> list:
    return [module.multiply for module in model.modules() if isinstance(module, Linear)]


def served(model: nn.Module) -> bool:
    return all(isinstance(product, serving.Product) for product in products(model))


@needs_blocked
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(1,), (2,), (8,), (2, 3), (70,), (4, 1)])
@pytest.mark.parametrize("n_in, n_out", [(1, 1), (3, 17), (64, 48), (130, 5), (257, 1003)])
def test_float32_equals_float64(rows, n_in, n_out, bias):
    layer, x = Linear(n_in, n_out, bias).requires_grad_(False), torch.randn(*rows, n_in)
    with serving.serving(layer):
        assert layer.multiply.suits(x)
        out = layer(x)
    truth = F.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    bound = 2.0**-24 * n_in * F.linear(x.abs().double(), layer.weight.abs().double()) + 1e-6
    assert out.shape == truth.shape and ((out.double() - truth).abs() <= bound).all()


@both
def test_strided_and_empty_inputs(kind):
    layer, wide = Linear(24, 40).requires_grad_(False), torch.randn(5, 3, 48)
    with serving.serving(layer, kind):
        for x in (wide[:, -1, ::2], wide[:, :, :24].transpose(0, 1), wide[:0, 0, :24]):
            torch.testing.assert_close(layer(x), layer(x.contiguous()), rtol=1e-6, atol=1e-6)
        vector = wide[0, 0, :24]
        torch.testing.assert_close(layer(vector), F.linear(vector, layer.weight, layer.bias))


@needs_int8
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("rows", [(1,), (3,), (2, 3), (70,)])
@pytest.mark.parametrize("n_in, n_out", [(1, 1), (3, 17), (64, 48), (1030, 65)])
def test_int8_equals_its_twin_and_keeps_its_bounds(rows, n_in, n_out, bias):
    layer, x = Linear(n_in, n_out, bias).requires_grad_(False), torch.randn(*rows, n_in) * 3
    layer.weight[0], x[1:2] = 0, 0
    with serving.serving(layer, "int8"):
        out = layer(x).double()
    torch.testing.assert_close(out.float(), serving.int8_plain(x, layer.weight, layer.bias), rtol=1e-4, atol=1e-4)
    q, scale = serving.quantize(layer.weight)
    assert q.dtype == torch.int8 and (q.abs().amax(1)[1:] == 127).all()
    laid, shift = q.double() * scale.double()[:, None], layer.bias.double() if bias else 0.0
    # What stands in the docstrings: rounding W, then rounding x.
    assert ((laid - layer.weight.double()).abs() <= scale.double()[:, None] * 0.50001).all()
    bound = x.double().abs().amax(-1, keepdim=True) / 254 * laid.abs().sum(1)
    gap = (out - F.linear(x.double(), laid) - shift).abs()
    assert (gap <= bound * 1.001 + 1e-5).all()
    assert n_in < 64 or gap.max() > 1e-3, "inputs are rounded too, as documented"


@needs_int8
def test_an_int8_row_does_not_depend_on_its_neighbours():
    layer, x = Linear(64, 48).requires_grad_(False), torch.randn(5, 64)
    with serving.serving(layer, "int8"):
        alone = layer(x[:1])
        x[1:] *= 1000
        assert torch.equal(layer(x)[:1], alone)


@needs_int8
def test_int8_hides_no_nan():
    layer, x = Linear(64, 48).requires_grad_(False), torch.randn(3, 64)
    x[0, 5], x[1, 5] = float("nan"), float("inf")
    with serving.serving(layer, "int8"):
        finite = layer(x).isfinite()
    assert not finite[:2].any() and finite[2].all()
    layer.weight[3, 3] = float("nan")
    with serving.serving(layer, "int8"):
        assert layer.multiply is linear.fast


@needs_blocked
@pytest.mark.parametrize("tied", [True, False])
def test_generate_writes_the_same_tokens(tied):
    model, prompts = small(tied=tied), [[1, 2, 3], [4], [5, 6, 7, 8, 9]]
    embedding = model.token_embedding.weight
    before = generate(model, prompts, max_new_tokens=20, seed=3)
    with serving.serving(model):
        assert served(model) and model.token_embedding.weight is embedding
        assert generate(model, prompts, max_new_tokens=20, seed=3) == before
    assert set(products(model)) == {linear.fast}


@needs_int8
def test_int8_reads_a_prompt_as_it_writes_it():
    model, prompts = small(init_std=0.2), [[1, 2, 3], [4]]
    with serving.serving(model, "int8"):
        cached = generate(model, prompts, max_new_tokens=20, temperature=0)
        assert cached == generate(model, prompts, max_new_tokens=20, temperature=0, use_cache=False)


@both
def test_another_tensor_in_place_of_the_weight_is_seen(kind):
    layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
    other = nn.Parameter(torch.randn(12, 16), requires_grad=False)
    with serving.serving(layer, kind):
        layer.weight = other
        assert torch.equal(layer(x), F.linear(x, other, layer.bias))
        layer.bias = nn.Parameter(torch.randn(12), requires_grad=False)
        assert torch.equal(layer(x), F.linear(x, other, layer.bias))


@needs_blocked
def test_lora_beside_merged_and_unmerged():
    model, tokens = small(), torch.randint(101, (2, 7))
    lora.attach(model, lora.Config(r=2, targets=["q_proj", "v_proj", "up_proj"]))
    for name, weight in model.named_parameters():
        if name.endswith(".B"):
            nn.init.normal_(weight.data)
    model.requires_grad_(False)
    truth = model(tokens)
    with serving.serving(model):
        assert served(model)
        torch.testing.assert_close(model(tokens), truth, rtol=1e-4, atol=1e-5)
        lora.merge(model)
        torch.testing.assert_close(model(tokens), truth, rtol=1e-4, atol=1e-4)
        lora.unmerge(model)
        torch.testing.assert_close(model(tokens), truth, rtol=1e-4, atol=1e-5)
    assert set(products(model)) == {linear.fast}


@both
@pytest.mark.parametrize("learns", ["x", "weight", "bias"])
def test_gradients_are_those_of_fast(kind, learns):
    layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
    asked = x if learns == "x" else getattr(layer, learns)
    asked.requires_grad_()
    truth = torch.autograd.grad(layer(x).square().sum(), asked)
    with serving.serving(layer, kind):
        assert torch.equal(torch.autograd.grad(layer(x).square().sum(), asked)[0], truth[0])


@both
def test_other_dtypes_and_autocast_go_the_usual_way(kind):
    layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
    with serving.serving(layer, kind):
        with torch.autocast("cpu", torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        layer.double()
        assert torch.equal(layer(x.double()), F.linear(x.double(), layer.weight, layer.bias))
    with serving.serving(layer, kind):
        assert layer.multiply is linear.fast


@both
def test_what_is_not_worth_it_goes_the_usual_way(kind, monkeypatch):
    layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
    monkeypatch.setattr(serving, "WORTH", 1 << 19)
    with serving.serving(layer, kind):
        assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@both
def test_all_is_as_before_after_an_error_and_in_between(kind):
    model, tokens = small(tied=False), torch.randint(101, (1, 4))
    truth = model(tokens)
    for _ in range(2):
        with pytest.raises(KeyError), serving.serving(model, kind):
            kept = products(model)
            raise KeyError
        assert set(products(model)) == {linear.fast}
        assert all(product.laid is None for product in kept), "the copies are freed"
    model.head.weight.mul_(2)
    with serving.serving(model, kind):
        assert not torch.equal(model(tokens), truth)
    assert torch.equal(model(tokens), truth * 2)


@needs_blocked
@needs_int8
@pytest.mark.parametrize("outer", ["float32", "int8"])
@pytest.mark.parametrize("inner", ["float32", "int8"])
@pytest.mark.parametrize("crossed", [False, True])
def test_one_within_another_or_across(outer, inner, crossed):
    layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
    first, second = serving.serving(layer, outer), serving.serving(layer, inner)
    first.__enter__()
    a = layer.multiply
    second.__enter__()
    b = layer.multiply
    assert type(b) is serving.KINDS[inner] and (outer != inner or a.laid is b.laid)
    (first if crossed else second).__exit__(None, None, None)
    assert layer.multiply is (b if crossed else a) and layer.multiply.laid is not None
    (second if crossed else first).__exit__(None, None, None)
    assert layer.multiply is linear.fast and torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))


@both
def test_shared_modules_and_shared_weights_have_one_copy(kind):
    one, other = Linear(16, 16), Linear(16, 16)
    other.weight = one.weight
    model = nn.Sequential(one, other, one).requires_grad_(False)
    with serving.serving(model, kind):
        assert one.multiply.laid is other.multiply.laid
    assert set(products(model)) == {linear.fast}


@both
@pytest.mark.parametrize("copied", [copy.deepcopy, copy.copy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_made_inside_is_a_usual_model(kind, copied):
    layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
    with serving.serving(layer, kind):
        twin = copied(layer)
        assert isinstance(layer.multiply, serving.Product)
    twin.weight.mul_(2)
    assert torch.equal(twin(x), F.linear(x, twin.weight, twin.bias)), "not with the weight of before"
    assert copied is copy.copy or twin.multiply is linear.fast


@pytest.mark.parametrize("kind", ["float32", "int8"])
@pytest.mark.parametrize("fault", ["missing", "refuses", "wrong"])
def test_without_the_operators_nothing_changes(kind, fault, monkeypatch):
    class Family:
        def __getattr__(self, name):
            if fault == "missing":
                raise AttributeError(name)
            return self.changed

        def changed(self, x, *_):
            if fault == "refuses":
                raise TypeError("a new signature")
            return torch.zeros(2, 48)

    monkeypatch.setattr(torch.ops, "mkldnn", Family())
    monkeypatch.setattr(torch.ops, "onednn", Family())
    serving._blocked.cache_clear(), serving._int8.cache_clear()
    try:
        layer, x = Linear(16, 12).requires_grad_(False), torch.randn(3, 16)
        with serving.serving(layer, kind):
            assert layer.multiply is linear.fast
            assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    finally:
        serving._blocked.cache_clear(), serving._int8.cache_clear()


@both
def test_a_product_chosen_by_hand_stays(kind):
    layer = Linear(16, 12)
    layer.multiply = linear.plain
    with serving.serving(layer, kind):
        assert layer.multiply is linear.plain


def test_a_misspelt_kind_is_named():
    with pytest.raises(Error, match="weights='int'.*did you mean 'int8'"), serving.serving(small(), "int"):
        pass
