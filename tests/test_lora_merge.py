"""Merging against float64 and numpy's rounding; unmerging bit for bit; every state in which either could go wrong."""

import copy
import pickle
from fractions import Fraction
from math import isqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lora
from lora import exact
from lora.exact import Sum, Update, round_once, row_blocks
from lora.merging import merged_weight

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
PAIRS = [
    (torch.float32, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.bfloat16, torch.bfloat16),
    (torch.float16, torch.float32),
    (torch.float16, torch.float16),
]


def bits(tensor):
    return (
        tensor.detach()
        .contiguous()
        .view({2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()])
        .clone()
    )


def nearest(x: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    """float64 -> dtype by numpy, and for bfloat16, which numpy has not, by trying both neighbours."""
    if dtype in (torch.float16, torch.float32, torch.float64):
        return torch.from_numpy(x.astype({torch.float16: "f2", torch.float32: "f4", torch.float64: "f8"}[dtype]))
    below = torch.from_numpy((x.astype("f4").view("u4") & 0xFFFF0000).view("f4").copy())
    up = (below.view(torch.int32) + 0x10000).view(torch.float32)
    exact = torch.from_numpy(x)
    to_down, to_up = (exact - below.double()).abs(), (exact - up.double()).abs()
    even = (below.view(torch.int32) >> 16) % 2 == 0
    return torch.where((to_down < to_up) | ((to_down == to_up) & even), below, up).bfloat16()


def triple(base, adapter, out=96, into=64, r=8, seed=0):
    torch.manual_seed(seed)
    W, A, B = torch.randn(out, into) * 0.02, torch.randn(r, into) * 0.02, torch.randn(out, r) * 0.02
    return W.to(base), A.to(adapter), B.to(adapter)


def test_units_are_those_of_the_formats():
    assert torch.finfo(torch.float64).eps / 2 == exact.U64
    for dtype in DTYPES:
        info = torch.finfo(dtype)
        assert exact.UNIT[dtype] == info.eps / 2
        assert exact.TINY[dtype] == info.tiny * info.eps / 2  # 0 in float64, as half of its smallest number is


@pytest.mark.parametrize("shape", [(1000, 700), (3, 10**6), (5, 0), (0, 4), (700, 1)])
def test_blocks_hold_as_many_elements_as_fit_and_all_rows_once(shape):
    blocks = list(exact.row_blocks(shape))
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(shape[0]))
    for block in blocks:
        elements = (block.stop - block.start) * shape[1]
        assert elements <= max(exact.CHUNK, shape[1]) and (block.stop == shape[0] or elements > exact.CHUNK - shape[1])


class TestRounding:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_equals_numpy_on_a_million_values(self, dtype):
        torch.manual_seed(0)
        x = torch.randn(1_000_000, dtype=torch.float64) * 0.02
        assert torch.equal(round_once(x.clone(), dtype), nearest(x.numpy(), dtype))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_the_values_torch_gets_wrong(self, dtype):
        """Halfway between two neighbours, and a hair more or less than float32 can say."""
        torch.manual_seed(0)
        low = torch.randn(10_000).abs().to(dtype)
        high = torch.nextafter(low, torch.full_like(low, torch.inf))
        middle = (low.double() + high.double()) / 2
        for hair, expected in ((1e-12, high), (-1e-12, low)):
            x = middle * (1 + hair)
            assert torch.equal(round_once(x.clone(), dtype), expected)
            assert torch.equal(round_once(-x, dtype), -expected)
            assert not torch.equal(x.to(dtype), expected), "torch learned to round: this can go"

    def test_ends_of_the_range(self):
        x = torch.tensor(
            [0.0, -0.0, 1e-300, -1e-300, 65519.99, 65520.0, 1e300, -1e300, 2.0**-25, 2.0**-25 * 1.0000001],
            dtype=torch.float64,
        )
        found = round_once(x.clone(), torch.float16)
        with np.errstate(over="ignore"):
            assert torch.equal(bits(found), bits(torch.from_numpy(x.numpy().astype("f2"))))


class TestMergedWeight:
    @pytest.mark.parametrize("transposed", [False, True])
    @pytest.mark.parametrize("base, adapter", PAIRS)
    def test_no_element_is_wrong(self, base, adapter, transposed):
        W, A, B = triple(base, adapter, out=700, into=500)
        truth = W.double().numpy() + 2.0 * (B.double().numpy() @ A.double().numpy())
        update = Update(A, B, 2.0, transposed)
        found, report = merged_weight(W.T.contiguous() if transposed else W, update, "w")
        found = found.T if transposed else found
        assert found.dtype == base
        assert torch.equal(found, nearest(truth, base))
        assert report.changed == pytest.approx(float((found != W).float().mean()))
        delta = torch.from_numpy(truth) - W.double()
        assert report.loss == pytest.approx(
            float((found.double() - torch.from_numpy(truth)).norm() / delta.norm()), rel=1e-6
        )

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_a_zero_update_changes_no_bit_not_even_a_sign(self, dtype):
        W, A, B = triple(dtype, torch.float32)
        W[0, :4] = torch.tensor([0.0, -0.0, 1.0, -1.0])
        B.zero_()
        found, report = merged_weight(W, Update(A, B, 2.0), "w")
        assert torch.equal(bits(found), bits(W)) and (report.changed, report.loss) == (0, 0)

    @settings(max_examples=60, deadline=None)
    @given(
        out=st.integers(1, 40), into=st.integers(1, 40), r=st.integers(1, 9), pair=st.sampled_from(PAIRS),
        scale=st.floats(-4, 4), size=st.sampled_from([1e-30, 1e-4, 1.0, 100.0]), seed=st.integers(0, 99),
    )  # fmt: skip
    def test_any_shape_rank_and_size(self, out, into, r, pair, scale, size, seed):
        W, A, B = triple(*pair, out, into, r, seed)
        B = B * size
        truth = W.double().numpy() + scale * (B.double().numpy() @ A.double().numpy())
        found = merged_weight(W, Update(A, B, scale), "w")[0]
        expected = nearest(truth, pair[0])
        # The two float64 sums may differ in their last bit, and that may decide a tie: such is within the doubt.
        total = Sum(W, Update(A, B, scale))
        doubt = torch.cat([total.doubt(rows) for rows in row_blocks(W.shape)])
        away = (found.double() - torch.from_numpy(truth)).abs() - (expected.double() - torch.from_numpy(truth)).abs()
        assert bool((away <= 2 * doubt).all())

    def test_dora(self):
        W, A, B = triple(torch.float32, torch.float32)
        magnitude = torch.rand(len(W)) + 0.5
        whole = W.double() + 2 * B.double() @ A.double()
        truth = whole * (magnitude.double() / whole.norm(dim=1))[:, None]
        for transposed in (False, True):
            weight = W.T.contiguous() if transposed else W
            found, _ = merged_weight(weight, Update(A, B, 2.0, transposed, magnitude), "w")
            assert torch.equal(found.T if transposed else found, truth.float())

    def test_the_doubt_covers_rows_whose_sum_cancels(self):
        """W + B A of almost nothing: its length, and so all of the row, has few right digits. Truth by fractions."""
        W = torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64)
        A, B = torch.tensor([[1 / 3, 1 / 3, 2 / 3]], dtype=torch.float64), torch.tensor([[3.0]], dtype=torch.float64)
        scale, magnitude = -1 + 2.0**-40, torch.tensor([1.0])
        total = Sum(W, Update(A, B, scale, magnitude=magnitude))
        row = [
            Fraction(w) + Fraction(scale) * 3 * Fraction(a) for w, a in zip(W[0].tolist(), A[0].tolist(), strict=True)
        ]
        square = sum(part * part for part in row)
        rows = slice(0, 1)
        doubt, found = total.doubt(rows)[0].tolist(), total.truth(rows)[1][0].tolist()
        for part, near, much in zip(row, found, doubt, strict=True):
            # part / sqrt(square), to within 1e-30
            exact = Fraction(isqrt(int(part * part / square * 10**60)), 10**30)
            assert abs(abs(Fraction(near)) - exact) <= Fraction(much)
        assert 1e-6 < max(doubt) < 1e-2  # sixteen digits less the twelve that cancel

    @pytest.mark.parametrize(
        "W, BA, cancels, magnitude",
        [
            ([1.0, 2.0**-40], [1.0, 0.0], 2.0**-40, 1.0),  # the length is uncertain, and so is who did not cancel
            ([1.0, 1.0], [1.0, 0.0], 2.0**-20, 1e6),  # one cancels, the length is that of the other
            ([1.0, 2.0**-60], [1.0, 0.0], 2.0**-53, 1.0),  # nothing is known any more
        ],
    )
    def test_the_doubt_of_dora_row_by_row(self, W, BA, cancels, magnitude):
        A, scale = torch.tensor([[x / 3 for x in BA]], dtype=torch.float64), -1 + cancels
        update = Update(A, torch.tensor([[3.0]], dtype=torch.float64), scale, magnitude=torch.tensor([magnitude]))
        total, rows = Sum(torch.tensor([W], dtype=torch.float64), update), slice(0, 1)
        row = [Fraction(w) + Fraction(scale) * 3 * Fraction(a) for w, a in zip(W, A[0].tolist(), strict=True)]
        square = sum(part * part for part in row)
        doubt, found = total.doubt(rows)[0].tolist(), total.truth(rows)[1][0].tolist()
        for part, near, much in zip(row, found, doubt, strict=True):
            exact = int(magnitude) * Fraction(isqrt(int(part * part / square * 10**60)), 10**30)
            assert much == float("inf") or abs(abs(Fraction(near)) - exact) <= Fraction(much)

    @pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
    def test_the_doubt_covers_float64_and_not_much_more(self, size):
        """Against fractions: never too small, and within a factor of six of the largest error of two thousand."""
        W, A = torch.randn(2, 1, 2000, dtype=torch.float64)
        B, scale = torch.tensor([[size / 3]], dtype=torch.float64), -1.1
        total, rows, worst = Sum(W, Update(A, B, scale)), slice(0, 1), 0
        for w, a, near, much in zip(W[0].tolist(), A[0].tolist(), total.truth(rows)[1][0].tolist(),
                                    total.doubt(rows)[0].tolist(), strict=True):  # fmt: skip
            off = abs(Fraction(near) - Fraction(w) - Fraction(scale) * Fraction(B.item()) * Fraction(a))
            worst = max(worst, off / Fraction(much))
        assert 1 / 6 < worst <= 1

    @pytest.mark.parametrize("bad", [torch.nan, torch.inf])
    @pytest.mark.parametrize("where", ["W", "A", "B"])
    def test_what_is_not_finite_is_named(self, where, bad):
        given = dict(zip("WAB", triple(torch.float32, torch.float32), strict=True))
        given[where][1, 1] = bad
        whose = "base" if where == "W" else "adapter"
        with pytest.raises(lora.Error, match=f"blocks.3: not merged: the {whose} holds NaN or infinity"):
            merged_weight(given["W"], Update(given["A"], given["B"], 2.0), "blocks.3")

    def test_what_would_overflow_half_is_named(self):
        W, A, B = triple(torch.float16, torch.float32)
        with pytest.raises(lora.Error, match="too large for torch.float16"):
            merged_weight(W, Update(A, B * 1e9, 2.0), "w")


def network(dtype=torch.float32):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Linear(32, 8)).to(dtype)


def adapted(dtype=torch.float32, name="default", **options):
    model = network(dtype)
    lora.attach(model, lora.Config(**({"r": 4, "alpha": 8, "targets": ["0", "2"]} | options)), name=name)
    stir(model)
    return model


def stir(model, seed=1):
    torch.manual_seed(seed)
    for parameter in lora.parameters(model):
        nn.init.normal_(parameter, std=0.3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_thousand_cycles_with_training_between_change_no_bit(dtype):
    model = adapted(dtype)
    weight = model[0].base.weight
    with torch.no_grad():
        weight.view(-1)[:3] = torch.tensor([0.0, -0.0, -1e-8])
    before = {name: bits(p) for name, p in model.named_parameters() if "base" in name}
    optimizer = torch.optim.SGD(lora.parameters(model), lr=0.01)
    x = torch.randn(2, 16, dtype=dtype)
    for _ in range(1000):
        lora.merge(model)
        lora.unmerge(model)
        model(x).float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert model[0].base.weight is weight
    after = {name: bits(p) for name, p in model.named_parameters() if "base" in name}
    assert all(torch.equal(before[name], after[name]) for name in before)


class TestNoStateCanHurtTheBase:
    """Each of these corrupts the base in a library that unmerges by subtracting."""

    def setup_method(self):
        self.model = adapted()
        self.x = torch.randn(3, 16)
        self.before = {path: bits(layer.base.weight) for path, layer in lora.layers_of(self.model).items()}
        self.adapted = self.model(self.x)
        lora.merge(self.model)
        self.merged = self.model(self.x)

    def base_is_untouched(self):
        lora.unmerge(self.model)
        found = {path: bits(layer.base.weight) for path, layer in lora.layers_of(self.model).items()}
        assert all(torch.equal(self.before[path], found[path]) for path in self.before)

    def test_scale_changed_while_merged(self):
        for module in lora.modules_of(self.model, "default"):
            module.scale *= 2
        self.base_is_untouched()

    def test_adapter_edited_while_merged(self):
        stir(self.model, seed=5)
        self.base_is_untouched()

    def test_train_and_eval_do_nothing(self):
        self.model.eval()
        self.model.train()
        assert torch.equal(self.model(self.x), self.merged)
        self.base_is_untouched()
        assert torch.equal(self.model(self.x), self.adapted)

    def test_detached_while_merged(self):
        lora.detach(self.model)
        assert all(
            torch.equal(a, bits(p))
            for a, p in zip(self.before.values(), [self.model[0].weight, self.model[2].weight], strict=True)
        )

    def test_disabled_while_merged_is_the_base_and_then_merged_again(self):
        plain = network()(self.x)
        with lora.disabled(self.model):
            assert torch.equal(self.model(self.x), plain)
            with lora.disabled(self.model):
                assert torch.equal(self.model(self.x), plain)
            assert torch.equal(self.model(self.x), plain)
        assert torch.equal(self.model(self.x), self.merged)
        self.base_is_untouched()

    def test_unmerged_within_disabled(self):
        with lora.disabled(self.model):
            lora.unmerge(self.model)
        self.base_is_untouched()
        assert torch.equal(self.model(self.x), self.adapted)

    def test_an_exception_within_disabled(self):
        with pytest.raises(ZeroDivisionError), lora.disabled(self.model):
            1 / 0  # noqa: B018
        assert torch.equal(self.model(self.x), self.merged)

    @pytest.mark.parametrize("act", ["merge", "attach", "use", "rows"])
    def test_what_would_confuse_is_refused(self, act):
        acts = {
            "merge": lambda: lora.merge(self.model),
            "attach": lambda: lora.attach(self.model, lora.Config(r=2, targets=["0"]), name="other"),
            "use": lambda: lora.use(self.model),
            "rows": lambda: lora.rows(self.model, ["default"] * 3).__enter__(),
        }
        with pytest.raises(lora.Error, match=r"merged.*lora.unmerge"):
            acts[act]()
        assert torch.equal(self.model(self.x), self.merged)
        self.base_is_untouched()

    def test_training_while_merged_says_what_to_do(self):
        with pytest.raises(lora.Error, match=r"merged adapters do not learn: call lora.unmerge"):
            self.model.train()(self.x).sum().backward()

    def test_moved_to_another_dtype_and_back(self):
        self.model.double()
        assert self.model[0].original[0].dtype == torch.float64
        self.model.float()
        self.base_is_untouched()

    @pytest.mark.parametrize("copying", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_are_merged_too_and_unmerge_alone(self, copying):
        other = copying(self.model)
        lora.unmerge(other)
        assert torch.equal(bits(other[0].base.weight), self.before["0"])
        assert torch.equal(self.model(self.x), self.merged)
        self.base_is_untouched()

    def test_unmerging_twice_is_unmerging(self):
        lora.unmerge(self.model)
        self.base_is_untouched()


def test_a_failed_merge_leaves_every_layer_as_it_was():
    model = adapted()
    with torch.no_grad():
        model[2].adapters["default"].B[0, 0] = torch.nan
    weights = [layer.base.weight for layer in lora.layers_of(model).values()]
    with pytest.raises(lora.Error, match="2: not merged"):
        lora.merge(model)
    assert [layer.base.weight for layer in lora.layers_of(model).values()] == weights
    assert not any(layer.merged for layer in lora.layers_of(model).values())


def test_several_adapters_merge_as_their_sum():
    model = adapted(name="a")
    lora.attach(model, lora.Config(r=2, alpha=0.7, targets=["2"]), name="b")
    stir(model)
    x = torch.randn(3, 16)
    lora.use(model, "a", "b")
    both = model(x)
    W = model[2].base.weight.double()
    updates = [model[2].update(name) for name in ("a", "b")]
    truth = W + sum(u.scale * u.B.double() @ u.A.double() for u in updates)
    lora.merge(model)
    torch.testing.assert_close(model(x), both)
    assert torch.equal(model[2].base.weight, truth.float())
    assert not any(p.requires_grad for layer in lora.layers_of(model).values() for p in layer.base.parameters())
    lora.unmerge(model)
    assert torch.equal(model(x), both)


def test_merging_a_named_adapter_uses_it_alone():
    model = adapted(name="a")
    lora.attach(model, lora.Config(r=2, targets=["2"]), name="b")
    stir(model)
    x = torch.randn(3, 16)
    lora.use(model, "a")
    alone = model(x)
    lora.use(model, "a", "b")
    lora.merge(model, "a")
    torch.testing.assert_close(model(x), alone)


def test_a_layer_without_the_merged_adapter_is_left_alone():
    model = network()
    for name, target in (("a", "0"), ("b", "2")):
        lora.attach(model, lora.Config(r=2, targets=[target]), name=name)
    stir(model)
    weight = model[2].base.weight
    (report,) = lora.merge(model, "a")
    assert report.name == "0" and model[0].merged == ("a",)
    assert model[2].base.weight is weight and model[2].merged == ()


def test_a_model_that_is_off_stays_off_when_it_is_merged():
    model, x = adapted(), torch.randn(3, 16)
    with_it = model(x)
    with lora.disabled(model):
        base, weight = model(x), model[0].base.weight
        lora.merge(model)
        assert torch.equal(model(x), base) and model[0].base.weight is weight
    torch.testing.assert_close(model(x), with_it)
    assert not torch.equal(model[0].base.weight, weight)
    lora.unmerge(model)
    assert model[0].base.weight is weight


def test_bake_leaves_the_old_modules_with_new_weights():
    model = adapted(bias="all", modules_to_save=[])
    x = torch.randn(3, 16)
    before = model(x)
    reports = lora.bake(model)
    assert [type(m) for m in model] == [nn.Linear, nn.Tanh, nn.Linear]
    assert model.state_dict().keys() == network().state_dict().keys()
    torch.testing.assert_close(model(x), before)
    assert [report.name for report in reports] == ["0", "2"]
    assert 0.9 < reports[0].changed <= 1 and reports[0].loss < 1e-6


def test_bake_leaves_what_was_learned_whole():
    model = adapted(targets=["0"], modules_to_save=["2"])
    learned, x = model[2].adapters["default"].weight, torch.randn(3, 16)
    before = model(x)
    lora.bake(model)
    assert [type(m) for m in model] == [nn.Linear, nn.Tanh, nn.Linear] and torch.equal(model[2].weight, learned)
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize(("targets", "tied"), [(["c_attn"], True), (["lm_head"], False)])
def test_bake_tells_transformers_whether_the_head_is_still_tied(targets, tied):
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=1, n_head=2))
    lora.attach(model, lora.Config(r=2, targets=targets, tied="untie"))
    stir(model)
    lora.bake(model)
    assert model.config.tie_word_embeddings is tied
    assert (model.lm_head.weight is model.transformer.wte.weight) is tied


def test_the_report_shows_what_16_bits_lose():
    """The measured row of the reference: std(dW)/std(W) = 0.001 leaves 78 % of bf16 weights as they were."""
    torch.manual_seed(0)
    W = (torch.randn(512, 512) * 0.02).bfloat16()
    A, B = torch.randn(8, 512), torch.randn(512, 8)
    B *= 0.001 * 0.02 / (B @ A).std()
    _, report = merged_weight(W, Update(A, B, 1.0), "w")
    assert 1 - report.changed == pytest.approx(0.78, abs=0.02)
    assert report.loss == pytest.approx(0.78, abs=0.03)


def test_a_meta_or_integer_weight_is_refused():
    with pytest.raises(lora.Error, match="floating point of at least 16 bits"):
        merged_weight(torch.zeros(4, 4, dtype=torch.int8), Update(torch.zeros(2, 4), torch.zeros(4, 2), 1.0), "w")
    with pytest.raises(lora.Error, match=r"\(4, 5\), its adapter is for \(4, 4\)"):
        merged_weight(torch.zeros(4, 5), Update(torch.zeros(2, 4), torch.zeros(4, 2), 1.0), "w")
