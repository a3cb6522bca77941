"""The layer against its formula; gradients against float64; which layers get one; rows, dropout, states."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import lora
from lora import dora
from lora.product import fast, plain


def random_(model, seed=1, std=0.3):
    torch.manual_seed(seed)
    for parameter in lora.parameters(model):
        nn.init.normal_(parameter, std=std)
    return model


def mlp(n_in=6, hidden=10, n_out=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(n_in, hidden), nn.GELU(), nn.Linear(hidden, n_out))


class TestProduct:
    @pytest.mark.parametrize("scale", [2.0, "each rank", "each row"])
    def test_fast_equals_plain_values_and_gradients(self, scale):
        torch.manual_seed(0)
        h, x, A, B = torch.randn(5, 7), torch.randn(5, 6), torch.randn(3, 6), torch.randn(7, 3)
        if scale != 2.0:
            scale = torch.rand(3) if scale == "each rank" else torch.rand(5, 3)
        found, truth = [], []
        for product, out, dtype in ((fast, found, torch.float32), (plain, truth, torch.float64)):
            given = [tensor.to(dtype).requires_grad_() for tensor in (h, x, A, B)]
            factor = scale if isinstance(scale, float) else scale.to(dtype)
            made = product(given[0] * 1, *given[1:], factor)
            out += [made, *torch.autograd.grad(made.square().sum(), given)]
        for ours, theirs in zip(found, truth, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-4)

    def test_fast_adds_into_h_and_saves_only_x_and_u(self):
        h, x = torch.randn(5, 7), torch.randn(5, 6)
        A, B = torch.randn(3, 6, requires_grad=True), torch.randn(7, 3, requires_grad=True)
        at = h.data_ptr()
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape) or t, lambda t: t):
            out = fast(h, x, A, B, 2.0)
        assert out.data_ptr() == at
        assert sorted(map(tuple, kept)) == sorted([(5, 6), (5, 3), (3, 6), (7, 3)])

    def test_frozen_factors_get_no_gradient(self):
        h, x = torch.randn(5, 7), torch.randn(5, 6, requires_grad=True)
        fast(h, x, torch.randn(3, 6), torch.randn(7, 3), 2.0).sum().backward()
        assert x.grad is not None

    def test_gradcheck(self):
        given = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((4, 5), (4, 3), (2, 3), (5, 2))]
        assert torch.autograd.gradcheck(lambda h, x, A, B: fast(h * 1, x, A, B, 0.7), given)

    def test_under_autocast_and_on_views_it_is_plain(self):
        x, A, B = torch.randn(5, 6), torch.randn(3, 6), torch.randn(7, 3)
        h = torch.randn(5, 14)[:, ::2]
        assert torch.equal(fast(h, x, A, B, 2.0), plain(h, x, A, B, 2.0))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(fast(h.clone(), x, A, B, 2.0), plain(h, x, A, B, 2.0))

    @pytest.mark.parametrize("scale", [1.5, "each row"])
    def test_without_gradients(self, scale):
        h, x, A, B = torch.randn(5, 7), torch.randn(5, 6), torch.randn(3, 6), torch.randn(7, 3)
        scale = scale if isinstance(scale, float) else torch.rand(5, 3)
        expected = plain(h, x, A, B, scale)
        with torch.no_grad():
            torch.testing.assert_close(fast(h, x, A, B, scale), expected)

    @pytest.mark.parametrize("learns, kept", [("A", [(5, 6)]), ("B", [(5, 3)])])
    def test_one_factor_alone_learns_and_saves_what_it_needs(self, learns, kept):
        h, x = torch.randn(5, 7), torch.randn(5, 6)
        factors = {"A": torch.randn(3, 6), "B": torch.randn(7, 3)}
        factors[learns].requires_grad_()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            out = fast(h.clone(), x, factors["A"], factors["B"], 1.5)
        shapes = [tuple(t.shape) for t in saved if t.shape not in {f.shape for f in factors.values()}]
        assert shapes == kept
        found = torch.autograd.grad(out.square().sum(), factors[learns])
        truth = torch.autograd.grad(plain(h, x, factors["A"], factors["B"], 1.5).square().sum(), factors[learns])
        torch.testing.assert_close(found, truth)

    def test_autograd_knows_that_h_was_written_to(self):
        """What saved h for its own backward must say so, instead of using other numbers."""
        x = torch.randn(5, 6, requires_grad=True)
        h = (x @ torch.randn(6, 7)).sigmoid()
        out = fast(h, x, torch.randn(3, 6), torch.randn(7, 3), 2.0)
        assert out is h
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            out.sum().backward()


@pytest.mark.parametrize("shape", [(6,), (5, 6), (2, 3, 6), (1, 1, 1, 6)])
def test_the_layer_is_the_formula_for_any_shape(shape):
    model = random_(attached(mlp(), targets=["0"]))
    x = torch.randn(shape)
    layer = model[0]
    A, B = layer.adapters["default"].A, layer.adapters["default"].B
    h = F.linear(x, layer.base.weight, layer.base.bias) + (8 / 4) * (x @ A.T) @ B.T
    torch.testing.assert_close(layer(x), h)
    assert layer(x).shape == h.shape


def attached(model, name="default", **options):
    lora.attach(model, lora.Config(**({"r": 4, "alpha": 8, "targets": ["0", "2"]} | options)), name=name)
    return model


@pytest.mark.parametrize("r", [2, 5])
def test_full_rank_fits_any_update(r):
    """Section 4.1: with r up to the rank of W, LoRA can become any update; with less, the best of that rank."""
    torch.manual_seed(0)
    model, target = attached(nn.Sequential(nn.Linear(6, 5)).double(), targets=["0"], r=r), torch.randn(5, 6).double()
    wanted = model[0].base.weight + target
    optimizer = torch.optim.LBFGS(lora.parameters(model), max_iter=500, line_search_fn="strong_wolfe")
    x = torch.eye(6).double()

    def loss():
        optimizer.zero_grad()
        error = (model(x) - F.linear(x, wanted, model[0].base.bias)).square().sum()
        error.backward()
        return error

    optimizer.step(loss)
    left = torch.linalg.svdvals(target)[r:].square().sum().item()  # Eckart & Young 1936
    assert loss().item() == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("init, std", [("gaussian", 1 / 16), ("kaiming", 1 / (3 * 1000) ** 0.5)])
def test_a_starts_as_said_and_b_at_zero(init, std):
    torch.manual_seed(0)
    model = attached(nn.Sequential(nn.Linear(1000, 20)), targets=["0"], r=16, init=init)
    adapter = model[0].adapters["default"]
    assert adapter.A.std().item() == pytest.approx(std, rel=0.03)
    assert adapter.A.mean().item() == pytest.approx(0, abs=std / 30)
    assert not adapter.B.any()


def test_scale_is_alpha_over_r_or_over_its_root():
    assert lora.Config(r=16, alpha=4).scale("x") == 0.25
    assert lora.Config(r=16, alpha=4, rslora=True).scale("x") == 1.0


def test_only_adapters_learn_and_the_counts_are_the_papers():
    """r = 4 on Wq and Wv: GPT-2 medium 393,216 and large 737,280 (Hu et al. print 0.35 M and 0.77 M)."""
    from minigpt import GPT, presets

    for size, count in (("medium", 393_216), ("large", 737_280), ("small", 147_456)):
        with torch.device("meta"):
            model = GPT(presets.gpt2(size))
        found = lora.attach(model, lora.Config(r=4, alpha=32, targets=["q_proj", "v_proj"]))
        assert found.parameters == count and found.stored == 4 * count
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == count
    assert str(found).startswith("trains 147,456 of 124,587,264 (0.1184 %), stores 589,824 bytes")


class TestNames:
    def test_a_wrong_name_says_the_nearest_and_touches_nothing(self):
        from minigpt import GPT, GPTConfig

        model = GPT(GPTConfig(vocab_size=20, context=8, n_layers=2, n_heads=2, d_model=8))
        for config, message in (
            ({"targets": ["q_porj"]}, "'q_porj' fits no module: did you mean 'q_proj'"),
            ({"targets": ["q_proj", "w_proj"]}, "'w_proj' fits no module"),
            ({"targets": r".*\.9\..*"}, "fits no module"),
            ({"targets": ["q_proj"], "layers": [7]}, r"within layers \[7\]"),
            ({"targets": ["q_proj"], "rank_pattern": {"v_proj": 2}}, "rank_pattern: 'v_proj' fits none"),
            ({"targets": ["q_proj"], "exclude": ["zzz"]}, "exclude: 'zzz' fits no module"),
            ({"targets": ["final_norm"]}, "final_norm is a LayerNorm; adapters fit"),
            ({"targets": ["q_proj"], "modules_to_save": ["haed"]}, "'haed' fits no module: did you mean 'head'"),
            ({"targets": ["(q"][0]}, "not a regular expression"),
            ({"targets": ["head"]}, "share one weight"),
        ):
            with pytest.raises(lora.Error, match=message):
                lora.attach(model, lora.Config(**config))
            assert all(p.requires_grad for p in model.parameters()) and not lora.layers_of(model), config

    @pytest.mark.parametrize(
        "bad, message",
        [
            ({"r": 0}, "a rank is 0"),
            ({"r": 2.5}, "a rank is 2.5"),
            ({"alpha": 0}, "an alpha is 0"),
            ({"alpha": float("nan")}, "an alpha is nan"),
            ({"dropout": 1.0}, "dropout is 1.0"),
            ({"bias": "some"}, "bias is 'some': choose from none"),
            ({"targets": []}, "targets is empty"),
        ],
    )
    def test_a_config_checks_itself(self, bad, message):
        with pytest.raises(lora.Error, match=message):
            lora.Config(**bad)

    def test_all_linear_leaves_out_head_and_embeddings(self):
        from minigpt import GPT, presets

        model = GPT(presets.llama_like(vocab_size=20, context=8, n_layers=1, n_heads=2, d_model=8))
        found = lora.attach(model, lora.Config(r=2, targets="all-linear", exclude=["down_proj"])).layers
        kinds = {path.rsplit(".", 1)[-1] for path in found}
        assert kinds == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"}

    def test_ranks_alphas_and_layers_by_pattern(self):
        model = nn.ModuleDict({"h": nn.ModuleList(mlp() for _ in range(3))})
        config = lora.Config(
            r=4, alpha=8, targets=["0", "2"], layers=[0, 2], rank_pattern={r"h\.2\.0": 7}, alpha_pattern={"2": 3}
        )
        lora.attach(model, config)
        found = {
            path: (layer.adapters["default"].rank, layer.adapters["default"].scale)
            for path, layer in lora.layers_of(model).items()
        }
        assert found == {"h.0.0": (4, 2.0), "h.0.2": (4, 0.75), "h.2.0": (7, 8 / 7), "h.2.2": (4, 0.75)}

    def test_adapter_names(self):
        model = attached(mlp())
        for bad in ("default", "", "a.b"):
            with pytest.raises(lora.Error):
                attached(model, name=bad)
        with pytest.raises(lora.Error, match="did you mean 'default'"):
            lora.use(model, "defualt")


class TestSeveral:
    def setup_method(self):
        self.model = mlp().eval()
        self.plain = copy.deepcopy(self.model)
        attached(self.model, "a")
        attached(self.model, "b", targets=["2"], r=2, alpha=5)
        random_(self.model)
        self.x = torch.randn(4, 3, 6)

    def test_use_says_who_works(self):
        lora.use(self.model)
        assert torch.equal(self.model(self.x), self.plain(self.x))
        lora.use(self.model, "b")
        b = self.model(self.x)
        lora.use(self.model, "a")
        assert not torch.equal(self.model(self.x), b)
        lora.use(self.model, "b")
        assert torch.equal(self.model(self.x), b)

    def test_a_sum_is_the_sum_trained_or_not(self):
        lora.use(self.model, "a", "b")
        evaluated = self.model(self.x)
        torch.testing.assert_close(self.model.train()(self.x), evaluated)

    def test_gradients_reach_those_at_work_only(self):
        lora.use(self.model, "a")
        self.model.train()(self.x).sum().backward()
        assert all(p.grad is not None for p in lora.parameters(self.model, "a"))
        assert all(p.grad is None for p in lora.parameters(self.model, "b"))

    def test_disabled_neither_changes_who_learns_nor_what_works(self):
        learns = [p.requires_grad for p in self.model.parameters()]
        for parameter in lora.parameters(self.model, "b"):
            parameter.requires_grad_(False)
        frozen = [p.requires_grad for p in self.model.parameters()]
        assert frozen != learns
        before = self.model(self.x)
        with lora.disabled(self.model):
            assert torch.equal(self.model(self.x), self.plain(self.x))
        assert [p.requires_grad for p in self.model.parameters()] == frozen
        assert torch.equal(self.model(self.x), before)

    def test_detach_one_then_all_restores_the_very_modules(self):
        base = self.model[0].base
        lora.detach(self.model, "a")
        assert self.model[0] is base and lora.adapters(self.model) == ("b",)
        lora.detach(self.model)
        assert torch.equal(self.model(self.x), self.plain(self.x))
        assert self.model.state_dict().keys() == self.plain.state_dict().keys()

    def test_rows_in_training_give_the_gradients_of_separate_runs(self):
        names = ["b", None, "a", "a"]
        with lora.rows(self.model, names):
            self.model.train()(self.x).square().sum().backward()
        found = {id(p): p.grad.clone() for p in lora.parameters(self.model)}
        self.model.zero_grad()
        for row, name in enumerate(names):
            lora.use(self.model, *([name] if name else []))
            loss = self.model(self.x[row : row + 1]).square().sum()
            if name:
                loss.backward()
        for parameter in lora.parameters(self.model):
            torch.testing.assert_close(found[id(parameter)], parameter.grad, rtol=1e-4, atol=1e-4)

    def test_rows_notice_an_adapter_that_changed_between_calls(self):
        with torch.no_grad(), lora.rows(self.model, ["a", "b", "a", None]):
            first = self.model(self.x)
            assert torch.equal(self.model(self.x), first)
            self.model[2].adapters["b"].B.mul_(2)
            second = self.model(self.x)
        assert torch.equal(first[[0, 2, 3]], second[[0, 2, 3]]) and not torch.equal(first[1], second[1])

    def test_rows_must_fit_the_batch_and_be_known(self):
        with pytest.raises(lora.Error, match="2 rows are named, the batch has 4"), lora.rows(self.model, ["a", "b"]):
            self.model(self.x)
        with pytest.raises(lora.Error, match="no adapter 'c'"), lora.rows(self.model, ["c"]):
            pass
        assert self.model[0].rows is None

    def test_each_row_has_the_dropout_of_its_adapter(self):
        attached(self.model, "wet", targets=["0"], dropout=0.5, r=4)
        random_(self.model)
        x = torch.randn(6, requires_grad=True).expand(4, 2000, 6)
        self.model.train()
        with lora.rows(self.model, ["wet", "a", None, "wet"]):
            out = self.model[0](x)
        lora.use(self.model)
        spread = out.std(dim=1).mean(dim=1)
        assert spread[0] > 0.01 and spread[3] > 0.01 and spread[1] < 1e-5 and spread[2] < 1e-5
        lora.use(self.model, "wet")
        mean = self.model.eval()[0](x[:1, :1])[0, 0]
        torch.testing.assert_close(out[0].mean(0), mean, rtol=0, atol=0.15)


def test_dropout_is_of_x_and_of_training_only():
    model = random_(attached(nn.Sequential(nn.Linear(50, 3)), targets=["0"], dropout=0.4)).eval()
    x = torch.ones(4000, 50)
    torch.testing.assert_close(model(x)[0], model(x)[1])
    dropped = model.train()(x)
    torch.testing.assert_close(dropped.mean(0), model.eval()(x)[0], rtol=0, atol=0.2)
    assert dropped.std(0).min() > 0.01


def test_the_padding_of_an_embedding_learns_nothing():
    model = nn.Sequential(nn.Embedding(10, 4, padding_idx=3))
    attached(model, targets=["0"], r=2)
    random_(model)
    model(torch.tensor([3, 3, 5])).sum().backward()
    grad = model[0].adapters["default"].A.grad
    assert not grad[:, 3].any() and grad[:, 5].any()


@pytest.mark.parametrize("copying", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_adapted_models_are_copied_and_pickled(copying):
    model = random_(attached(mlp()))
    x = torch.randn(2, 6)
    with torch.no_grad():
        assert torch.equal(copying(model)(x), model(x))


def test_state_dict_round_trip():
    model, other = random_(attached(mlp())), attached(mlp())
    other.load_state_dict(model.state_dict())
    x = torch.randn(2, 6)
    assert torch.equal(model(x), other(x))


def test_training_lowers_the_loss_and_leaves_the_base():
    model = attached(mlp(), r=2)
    x, y = torch.randn(64, 6), torch.randn(64, 4)
    base = [layer.base.weight.clone() for layer in lora.layers_of(model).values()]
    optimizer = torch.optim.Adam(lora.parameters(model), lr=0.02)
    losses = []
    for _ in range(100):
        loss = F.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.75 * losses[0]
    assert all(torch.equal(a, layer.base.weight) for a, layer in zip(base, lora.layers_of(model).values(), strict=True))


class TestDora:
    def test_lengths_without_the_sum_equal_those_of_the_sum(self):
        torch.manual_seed(0)
        W, A, B = torch.randn(9, 7), torch.randn(3, 7), torch.randn(9, 3)
        truth = dora.lengths_plain(W.double(), A.double(), B.double(), 0.7)
        torch.testing.assert_close(dora.lengths(W, W.square().sum(1), A, B, 0.7).double(), truth, rtol=1e-5, atol=1e-5)

    def test_the_formula_with_bias(self):
        model = random_(attached(mlp(), targets=["0"], dora=True), std=0.5)
        layer, x = model[0], torch.randn(5, 6)
        adapter = layer.adapters["default"]
        whole = layer.base.weight + adapter.scale * adapter.B @ adapter.A
        weight = adapter.magnitude[:, None] * whole / whole.norm(dim=1, keepdim=True)
        torch.testing.assert_close(layer(x), F.linear(x, weight, layer.base.bias))

    def test_it_does_not_add_up(self):
        model = attached(attached(mlp(), "a", dora=True), "b")
        with pytest.raises(lora.Error, match="'a' has dora.*use it alone"):
            lora.use(model, "a", "b")
        with pytest.raises(lora.Error, match="dora"), lora.rows(model, ["a", "b"]):
            pass


def test_multihead_attention_of_torch_is_refused_where_it_would_be_ignored():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    with pytest.raises(lora.Error, match="NonDynamicallyQuantizableLinear"):
        lora.attach(model, lora.Config(r=2, targets=["out_proj"]))


def test_slices_must_add_up():
    model = nn.Sequential(nn.Linear(4, 12))
    for bad in ((True, False, True, True, False), ((4, True), (4, True)), (False, False)):
        with pytest.raises(lora.Error, match="slices"):
            attached(model, targets=["0"], slices={"0": bad})
    attached(model, targets=["0"], slices={"0": ((6, True), (2, False), (4, True))})
    random_(model)
    A, B = model[0].adapters["default"].factors()
    assert A.shape == (8, 4) and B.shape == (12, 8)
    assert not B[6:8].any() and not B[:6, 4:].any() and not B[8:, :4].any() and B[:6, :4].all() and B[8:, 4:].all()


def step_fused(adapter):
    adapter.B.grad = torch.ones_like(adapter.B)
    torch.optim.AdamW([adapter.B], lr=0.1, fused=True).step()  # counts no version


@pytest.mark.parametrize(
    "change",
    [
        lambda adapter: adapter.B.mul_(2),
        lambda adapter: adapter.B.data.mul_(2),
        step_fused,
        lambda adapter: setattr(adapter, "B", nn.Parameter(adapter.B * 2)),
        lambda adapter: setattr(adapter.B, "data", adapter.B.data * 2),
        lambda adapter: setattr(adapter, "scale", adapter.scale * 2),
    ],
    ids=["in place", "in place, unseen", "fused step", "another parameter", "other data", "the scale"],
)
@pytest.mark.parametrize("served_before", [False, True])
def test_every_change_shows_at_once(change, served_before):
    """Evaluation between two steps of training must not see the adapter of before."""
    model = random_(attached(mlp())).eval()
    x = torch.randn(2, 6)
    with torch.no_grad():
        if served_before:
            with lora.serving(model):
                model(x)
        first = model(x)
        assert torch.equal(model(x), first)
        change(model[2].adapters["default"])
        now = model(x)
    torch.testing.assert_close(now, model(x))
    assert not torch.allclose(now, first)


def test_serving_follows_which_adapter_works_and_what_is_loaded(tmp_path):
    model = random_(attached(attached(mlp(), "a"), "b")).eval()
    x = torch.randn(3, 6)
    lora.save(model, tmp_path, name="b")

    def answers():
        found = []
        for names in (["a"], ["b"], ["a", "b"], []):
            lora.use(model, *names)
            found += [model(x), model(x)]
        with lora.rows(model, ["a", None, "b"]):
            found += [model(x), model(x)]
        with lora.rows(model, ["b", "a", None]):
            found += [model(x), model(x)]
        lora.use(model, "a")
        with lora.disabled(model):
            found.append(model(x))
        return found

    with torch.no_grad():
        expected = answers()
        with lora.serving(model):
            for ours, theirs in zip(answers(), expected, strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
            lora.use(model, "a")
            model(x)
            lora.refill(model, tmp_path, name="a")
            refilled = model(x)
        lora.use(model, "b")
        torch.testing.assert_close(refilled, model(x), rtol=1e-6, atol=1e-6)
    with lora.serving(model):
        model(x).sum().backward()  # training inside is slow, not wrong
        assert model[2].adapters["b"].B.grad.abs().sum() > 0
