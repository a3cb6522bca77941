"""What a model with adapters may be put through: copied, saved, disabled, merged, compiled, hooked, in any order."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import lora

X = torch.randn(3, 6, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.up, self.mlp, self.head = nn.Linear(6, 8), nn.Sequential(nn.Linear(8, 8), nn.GELU()), nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.mlp(self.up(x)))


def attach(model, name="default", std=0.3, **options):
    lora.attach(model, lora.Config(**({"r": 4, "alpha": 6, "targets": ["up", "0"]} | options)), name=name)
    torch.manual_seed(sum(map(ord, name)))
    with torch.no_grad():
        for parameter in lora.parameters(model, name):
            parameter.add_(torch.randn_like(parameter) * std)
    return model


def same_base(model) -> bool:
    plain = dict(Net().named_parameters())
    return all(
        torch.equal(plain[name.replace(".base", "")], p) for name, p in model.named_parameters() if "base" in name
    )


copies = pytest.mark.parametrize("copying", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])


class TestMergedAndDisabled:
    def test_merging_within_disabled_shows_outside(self):
        model = attach(Net(), bias="lora_only")
        adapted = model(X)
        with lora.disabled(model):
            lora.merge(model)
            assert torch.equal(model(X), Net()(X))
        torch.testing.assert_close(model(X), adapted)
        lora.unmerge(model)
        assert same_base(model) and torch.equal(model(X), adapted)

    def test_baking_within_disabled_keeps_what_was_baked(self):
        model = attach(Net(), modules_to_save=["head"])
        adapted = model(X)
        with lora.disabled(model):
            lora.bake(model)
        torch.testing.assert_close(model(X), adapted)

    def test_unmerging_within_disabled_is_still_the_base_inside(self):
        model = attach(Net(), bias="lora_only")
        adapted = model(X)
        lora.merge(model)
        with lora.disabled(model):
            lora.unmerge(model)
            assert torch.equal(model(X), Net()(X))
        assert same_base(model) and torch.equal(model(X), adapted)

    def test_disabled_within_disabled_is_restored_as_it_was(self):
        model = attach(Net())
        with lora.disabled(model):
            with lora.disabled(model):
                pass
            assert torch.equal(model(X), Net()(X))

    def test_a_failed_merge_leaves_in_use_what_was(self):
        model = attach(attach(Net(), "a"), "b")
        lora.use(model, "a")
        before = model(X)
        with torch.no_grad():
            model.mlp[0].adapters["b"].B[0, 0] = torch.nan
        with pytest.raises(lora.Error, match="not merged"):
            lora.merge(model, "b")
        assert torch.equal(model(X), before)

    def test_merging_needs_something_in_use_and_no_rows(self):
        model = attach(Net())
        with lora.rows(model, ["default"] * 3), pytest.raises(lora.Error, match="leave lora.rows first"):
            lora.merge(model)
        lora.merge(model)
        with pytest.raises(lora.Error, match="merged already"):
            lora.merge(model)
        lora.unmerge(model)
        lora.use(model)
        with pytest.raises(lora.Error, match="no adapter is in use"):
            lora.merge(model)

    def test_a_refused_attach_adds_nothing(self):
        model = attach(Net())
        lora.merge(model)
        with pytest.raises(lora.Error, match="merged"):
            attach(model, "other")
        assert lora.adapters(model) == ("default",)
        assert not any(p.requires_grad for name, p in model.named_parameters() if "adapters" not in name)

    def test_refilling_while_merged_is_refused(self, tmp_path):
        model = attach(Net())
        lora.save(model, tmp_path)
        lora.merge(model)
        with pytest.raises(lora.Error, match=r"lora.unmerge\(model\) before refilling"):
            lora.refill(model, tmp_path)

    def test_refilling_on_another_base_is_refused(self, tmp_path):
        model = attach(Net())
        lora.save(model, tmp_path)
        with torch.no_grad():
            model.up.base.weight.mul_(2)
        with pytest.raises(lora.Error, match=r"'up\.weight' differs from the base it recorded"):
            lora.refill(model, tmp_path)
        lora.refill(model, tmp_path, check_base=False)


class TestStates:
    """A state dict is of the base and its adapters, whether or not one is in the other at the moment."""

    @pytest.mark.parametrize("to_merged", [False, True])
    @pytest.mark.parametrize("from_merged", [False, True])
    def test_merged_or_not_on_either_side(self, from_merged, to_merged):
        model, other = attach(Net(), bias="lora_only"), attach(Net(), std=0.1, bias="lora_only")
        with torch.no_grad():
            model.up.base.weight.mul_(2)
            model.up.base.bias.mul_(2)
        expected, base = model(X), model.up.base.weight.clone()
        for one, merged in ((model, from_merged), (other, to_merged)):
            if merged:
                lora.merge(one)
        state = model.state_dict()
        torch.testing.assert_close(model(X), expected)
        other.load_state_dict(state)
        torch.testing.assert_close(other(X), expected)
        lora.unmerge(other)
        assert torch.equal(other.up.base.weight, base) and torch.equal(other(X), expected)

    def test_a_state_loaded_within_serving_or_disabled(self):
        model, other = attach(Net()).eval(), attach(Net(), std=0.1).eval()
        lora.merge(other)
        with torch.no_grad():
            with lora.disabled(other):
                other.load_state_dict(model.state_dict())
                assert torch.equal(other(X), Net()(X))
            assert torch.equal(other(X), model(X))
            with lora.serving(other):
                other(X)
                other.load_state_dict(attach(Net(), std=0.2).state_dict())
                assert not torch.allclose(other(X), model(X))

    @copies
    def test_a_copy_made_while_serving_serves_no_more(self, copying):
        model = attach(Net()).eval()
        with torch.no_grad():
            with lora.serving(model):
                model(X)
                other = copying(model)
                assert model.up.kept is not None
            before = other(X)
            other.up.adapters["default"].B.mul_(2)
            assert not torch.allclose(other(X), before)

    def test_another_dtype_while_serving(self):
        model = attach(Net()).eval()
        with torch.no_grad(), lora.serving(model):
            model(X)
            model.bfloat16()
            served = model(X.bfloat16())
        with torch.no_grad():
            assert torch.equal(served, model(X.bfloat16()))


class TestServing:
    def setup_method(self):
        self.model = attach(attach(Net(), "a"), "b").eval()
        lora.use(self.model, "a")

    def test_what_is_kept_serves_neither_the_base_nor_the_merged(self):
        with torch.no_grad(), lora.serving(self.model):
            adapted = self.model(X)
            with lora.disabled(self.model):
                assert torch.equal(self.model(X), Net()(X))
            assert torch.equal(self.model(X), adapted)
            lora.merge(self.model)
            torch.testing.assert_close(self.model(X), adapted)

    @pytest.mark.parametrize("rows", [None, ["a", None, "a"]])
    def test_what_is_kept_takes_no_gradient_away(self, rows):
        gradients = []
        for serving in (False, True):
            self.model.zero_grad()
            with lora.rows(self.model, rows or ["a"] * 3):
                if serving:
                    with lora.serving(self.model):
                        with torch.no_grad():
                            self.model(X)
                        self.model(X).sum().backward()
                        self.model(X).sum().backward()
                else:
                    (2 * self.model(X)).sum().backward()
            gradients.append([p.grad.clone() for p in lora.parameters(self.model, "a")])
        assert all(g.any() for g in gradients[0])
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other)


class TestRows:
    @pytest.mark.parametrize("time", [1, 2, 5])
    def test_each_token_has_the_adapter_of_its_row(self, time):
        model = attach(attach(Net(), "a"), "b", r=2, targets=["0"]).eval()
        x, names = torch.randn(4, time, 6), ["b", None, "a", "a"]
        with torch.no_grad():
            with lora.rows(model, names):
                found = model(x)
            for row, name in enumerate(names):
                lora.use(model, *([name] if name else []))
                torch.testing.assert_close(found[row], model(x[row]))

    def test_all_of_the_base(self):
        model = attach(Net())
        with lora.rows(model, [None] * 3):
            assert torch.equal(model(X), Net()(X))

    def test_a_module_learned_whole_by_who_is_in_use_is_not_in_the_rows(self):
        model = attach(attach(Net(), "a"), "b", modules_to_save=["head"])
        expected = model(X)
        with lora.rows(model, ["a", None, "a"]):
            found = model(X)
        assert torch.equal(model(X), expected)
        assert torch.equal(found[1:2], Net()(X[1:2]))
        lora.use(model, "a")
        torch.testing.assert_close(found[[0, 2]], model(X)[[0, 2]])

    def test_within_rows(self):
        model = attach(attach(Net(), "a"), "b")
        with lora.rows(model, ["a", "b", None]):
            outer = model(X)
            with lora.rows(model, ["b"] * 3):
                assert not torch.equal(model(X), outer)
            assert torch.equal(model(X), outer)

    @pytest.mark.parametrize("options", [{"bias": "lora_only"}, {"modules_to_save": ["head"]}, {"dora": True}])
    def test_whole_tensors_do_not_add_up(self, options):
        model = attach(attach(Net(), "a"), "b", **options)
        with pytest.raises(lora.Error, match="'b' has dora, a bias or saved modules"):
            lora.use(model, "a", "b")
        with pytest.raises(lora.Error, match="'b' has dora, a bias or saved modules"), lora.rows(model, ["a", "b"]):
            pass

    def test_dropout_of_unlike_adapters_keeps_the_mean_and_rests_in_evaluation(self):
        model = nn.Sequential(nn.Linear(50, 1, bias=False))
        for name, dropout in (("wet", 0.2), ("dry", 0.0)):
            lora.attach(model, lora.Config(r=1, alpha=1, targets=["0"], dropout=dropout), name=name)
            for parameter in lora.parameters(model, name):
                nn.init.ones_(parameter)
        nn.init.zeros_(model[0].base.weight)
        with lora.rows(model, ["wet", "dry"]):
            found = model.train()(torch.ones(2, 4000, 50))[..., 0]
            assert model.eval()(torch.ones(2, 9, 50)).eq(50).all()
        assert found[1].eq(50).all()
        assert found[0].mean().item() == pytest.approx(50, abs=0.3)
        assert found[0].var().item() == pytest.approx(50 * 0.2 / 0.8, rel=0.15)


class TestNamesOfAdapters:
    def test_one_named_twice_would_count_double(self):
        model = attach(Net())
        before = model(X)
        for act in (lora.use, lora.merge):
            with pytest.raises(lora.Error, match="'default' is named twice"):
                act(model, "default", "default")
        assert torch.equal(model(X), before)

    def test_what_is_detached_works_no_more(self):
        model = attach(attach(Net(), "a"), "b")
        with pytest.raises(lora.Error, match="no adapter 'c'"):
            lora.detach(model, "c")
        lora.detach(model, "b")
        assert torch.equal(model(X), Net()(X)) and lora.adapters(model) == ("a",)

    @pytest.mark.parametrize("training", [False, True])
    def test_adapters_are_in_the_mode_of_the_model(self, training):
        model = attach(Net().train(training), dropout=0.5)
        assert {module.training for module in model.modules()} == {training}
        assert torch.equal(model(X), model(X)) != training


class TestModules:
    def test_a_module_under_two_names_is_adapted_under_both(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                torch.manual_seed(0)
                self.first = nn.Linear(6, 6)
                self.second = nn.ModuleList([self.first])

            def forward(self, x):
                return self.second[0](self.first(x))

        model = attach(Twice(), targets=["first"])
        layer = model.first
        W = layer.base.weight + 1.5 * layer.adapters["default"].B @ layer.adapters["default"].A
        expected = F.linear(F.linear(X, W, layer.base.bias), W, layer.base.bias)
        torch.testing.assert_close(model(X), expected)
        lora.merge(model)
        torch.testing.assert_close(model(X), expected)
        lora.detach(model)
        assert type(model.first) is nn.Linear and model.first is model.second[0]
        assert torch.equal(model(X), Twice()(X))

    @pytest.mark.parametrize("normed", [parametrizations.weight_norm, torch.nn.utils.weight_norm])
    @pytest.mark.filterwarnings("ignore::FutureWarning")
    def test_a_weight_that_is_computed_is_refused(self, normed, tmp_path):
        model = nn.ModuleDict({"q": nn.Linear(6, 4)})
        lora.save(attach(copy.deepcopy(model), targets=["q"]), tmp_path)
        model["q"] = normed(model["q"])
        for act in (lambda: attach(model, targets=["q"]), lambda: lora.load(model, tmp_path, check_base=False)):
            with pytest.raises(lora.Error, match="its weight is computed"):
                act()
        assert not lora.layers_of(model) and any(p.requires_grad for p in model.parameters())

    def test_an_embedding_that_rewrites_its_weight_is_refused(self):
        with pytest.raises(lora.Error, match="max_norm"):
            attach(nn.Sequential(nn.Embedding(5, 6, max_norm=1.0)), targets=["0"])

    def test_an_embedding_that_multiplies_what_it_finds(self):
        class Scaled(nn.Embedding):
            embed_scale = 3.0

            def forward(self, x):
                return super().forward(x) * self.embed_scale

        model, tokens = attach(nn.Sequential(Scaled(5, 6)), targets=["0"], dropout=0.5), torch.arange(5)
        adapted = model(tokens)
        assert torch.equal(model(tokens), adapted), "a token is there or not"
        lora.merge(model)
        torch.testing.assert_close(model(tokens), adapted)

    def test_a_module_with_adapters_inside_is_not_learned_whole(self):
        for targets, whole in ((["0"], "mlp"), (["up"], "up")):
            model = attach(Net(), "a", targets=targets)
            with pytest.raises(lora.Error, match=f"{whole} carries adapters already"):
                attach(model, "b", targets=["head"], modules_to_save=[whole])
            assert lora.adapters(model) == ("a",)

    def test_a_module_learned_whole_is_off_while_disabled_and_stays_when_baked(self):
        model = attach(Net(), modules_to_save=["head"])
        adapted = model(X)
        with lora.disabled(model):
            assert torch.equal(model(X), Net()(X))
        lora.bake(model)
        assert type(model.head) is nn.Linear and not torch.equal(model.head.weight, Net().head.weight)
        torch.testing.assert_close(model(X), adapted)

    def test_dora_and_embeddings(self):
        with pytest.raises(lora.Error, match="0 is an embedding; DoRA here fits linear layers"):
            attach(nn.Sequential(nn.Embedding(5, 6)), targets=["0"], dora=True)

    def test_names_fit_whole_words_and_whole_paths(self):
        model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("proj", "q_proj", "q_proj2")})
        found = lora.attach(model, lora.Config(r=1, targets=["proj"]))
        assert found.layers == ("proj",)
        lora.detach(model)
        assert lora.attach(model, lora.Config(r=1, targets=r"q_.*j")).layers == ("q_proj",)
        config = lora.Config(r=1, alpha=1, rank_pattern={"proj": 2}, alpha_pattern={"proj": 8})
        assert (config.rank("q_proj"), config.scale("q_proj"), config.scale("h.proj")) == (1, 1, 4)


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head = nn.Embedding(7, 6), nn.Linear(6, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x))


def test_one_matrix_with_two_adapters_becomes_two():
    model, tokens = attach(Tied(), targets=["embedding", "head"], tied="untie"), torch.arange(7)
    adapted = model(tokens)
    lora.merge(model)
    torch.testing.assert_close(model(tokens), adapted)
    assert not torch.equal(model.head.base.weight, model.embedding.base.weight)
    lora.unmerge(model)
    assert model.head.base.weight is model.embedding.base.weight


def test_a_tied_update_has_one_scale():
    model, tokens = attach(Tied(), targets=["head"], tied="tie"), torch.arange(7)
    model.head.adapters["default"].scale *= 2
    adapted = model(tokens)
    lora.merge(model)
    torch.testing.assert_close(model(tokens), adapted)
    assert model.head.base.weight is model.embedding.base.weight


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"bias": "lora_only"}])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_16_bit_base_gives_16_bit_answers(dtype, options):
    model = attach(Net().to(dtype), **options)
    found = model(X.to(dtype))
    truth = attach(Net().to(dtype), **options).double()(X.to(dtype).double())
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), truth, rtol=0.03, atol=0.03)


class TestDora:
    def test_with_a_bias_of_its_own(self):
        model = attach(Net(), targets=["up"], dora=True, bias="lora_only")
        adapter = model.up.adapters["default"]
        whole = model.up.base.weight + adapter.scale * adapter.B @ adapter.A
        weight = adapter.magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True)
        torch.testing.assert_close(model.up(X), F.linear(X, weight, adapter.bias))

    def test_the_length_is_held_constant_in_backward(self):
        model = attach(Net(), targets=["up"], dora=True)
        adapter, base = model.up.adapters["default"], model.up.base
        model.up(X).square().sum().backward()
        found = [p.grad.clone() for p in adapter.parameters()]
        model.zero_grad()
        whole = base.weight + adapter.scale * adapter.B @ adapter.A
        weight = adapter.magnitude[:, None] * whole / whole.detach().norm(dim=1, keepdim=True)
        F.linear(X, weight, base.bias).square().sum().backward()
        for one, parameter in zip(found, adapter.parameters(), strict=True):
            torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-4)

    def test_lengths_of_16_bit_rows_are_summed_in_float32(self):
        weight = (torch.rand(4, 3000) + 0.5).bfloat16()
        layer = lora.layers.LinearLayer(nn.Linear(3000, 4).bfloat16())
        layer.base.weight.data = weight
        torch.testing.assert_close(layer.squares(), weight.double().square().sum(1).float(), rtol=1e-5, atol=0)

    def test_a_row_that_cancels_has_length_zero_not_nan(self):
        from lora.dora import lengths

        A, B = torch.randn(1, 7), torch.randn(1000, 1)
        W = -(B @ A)
        assert (lengths(W, W.square().sum(1), A, B, 1.0) < 1e-2).all()


def test_a_hook_on_the_base_keeps_what_it_saw():
    model, seen = attach(Net()), []
    model.up.base.register_forward_hook(lambda module, given, out: seen.append(out))
    model(X)
    with torch.no_grad():
        model(X)
    assert all(torch.equal(out, Net().up(X)) for out in seen)


def test_autocast_trains_as_float32_does():
    model = attach(Net())
    model(X).square().sum().backward()
    truth = [p.grad.clone() for p in lora.parameters(model)]
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        out = model(X)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    for parameter, gradient in zip(lora.parameters(model), truth, strict=True):
        assert (parameter.grad - gradient).norm() < 0.05 * gradient.norm()


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointed_activations_give_the_same_gradients(reentrant):
    model, gradients = attach(Net(), dropout=0.3).train(), []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=reentrant)):
        model.zero_grad()
        torch.manual_seed(5)
        x = X.clone().requires_grad_()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in lora.parameters(model)] + [x.grad])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_compiled_model_follows_every_state():
    model = nn.Sequential(nn.Linear(6, 4))
    attach(attach(model, "a", targets=["0"]), "b", targets=["0"]).eval()
    compiled = torch.compile(model, backend="eager")

    def same():
        torch.testing.assert_close(compiled(X), model(X))

    with torch.no_grad():
        same()
        model[0].adapters["b"].B.mul_(2)
        same()
        with lora.serving(model):
            lora.use(model, "a")
            same()
            same()
        lora.merge(model)
        same()
        lora.unmerge(model)
        same()
    gradients = []
    for run in (model.train(), compiled):
        model.zero_grad()
        run(X).sum().backward()
        gradients.append([p.grad.clone() for p in lora.parameters(model, "a")])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)
