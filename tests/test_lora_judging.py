"""How sharp verifying is: one unit in the last place, one element at a border between blocks, one odd tensor."""

import math

import pytest
import torch
from lora_checkpoints import adapter, delta, llama, merged, save

from lora import checkpoint, exact, files
from lora.bound import Bound, Lean
from lora.errors import Error
from lora.exact import Sum, Update
from lora.verify import verify

Q = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def three(tmp_path):
    tensors = llama(layers=1)
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors)
    return tensors, base, lora, tmp_path / "out"


def finding(verdict, name):
    return next(found for found in verdict.findings if found.name == name)


def why(*given, **options) -> str:
    verdict = verify(*given, **options)
    assert not verdict.equal and verdict.reasons
    return "; ".join(verdict.reasons)


def test_one_unit_off_the_wrong_way_is_beyond_the_bound(three):
    """The nearest is at most half a unit from the truth; its neighbour on the far side one at least."""
    tensors, base, _, out = three
    lora = adapter(out.parent / "small", tensors, std=0.005)
    truth = tensors[Q].double() + torch.from_numpy(delta(lora, Q.removesuffix(".weight")))
    best = truth.float()
    off = torch.nextafter(best, torch.where(best.double() > truth, 9.0, -9.0).float())
    save(out, merged(tensors, lora) | {Q: off})
    for policy in ("bound", "exact"):
        found = finding(verify(base, lora, out, policy), Q)
        assert found.wrong > 0.95 * found.elements, policy  # the bound of a weight near 0 is wider
        assert 1.4 < found.ulp <= 1.5 + 1e-6


def test_one_unit_off_towards_the_truth_may_be_honest(three):
    """Nearly a tie: the other neighbour is as good, to whoever computes in float32."""
    tensors, base, lora, out = three
    truth = tensors[Q].double() + torch.from_numpy(delta(lora, Q.removesuffix(".weight")))
    best = truth.float()
    other = torch.nextafter(best, torch.where(best.double() > truth, -9.0, 9.0).float())
    tied = (other.double() - truth).abs() < 1.04 * (best.double() - truth).abs()
    save(out, merged(tensors, lora) | {Q: torch.where(tied, other, best)})
    assert tied.sum() > 10 and verify(base, lora, out).equal
    assert finding(verify(base, lora, out, "exact"), Q).wrong == tied.sum()


def test_float64_is_judged_within_its_own_errors_and_no_further(tmp_path):
    tensors = {"q.weight": torch.randn(40, 30, dtype=torch.float64)}
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors, targets=["q"], r=9)
    update = files.read(lora).updates["q"]
    A, B = update.A.double(), update.B.double()
    other_order = tensors["q.weight"] + (B.flip(1) * update.scale) @ A.flip(0)
    assert not torch.equal(other_order, torch.from_numpy(merged(tensors, lora)["q.weight"].numpy()))
    for policy in ("bound", "exact"):
        assert verify(base, lora, save(tmp_path / "out", {"q.weight": other_order}), policy).equal
    off = other_order * (1 + 1e-13)
    found = finding(verify(base, lora, save(tmp_path / "out", {"q.weight": off}), "exact"), "q.weight")
    assert found.wrong > 0.9 * found.elements


@pytest.mark.parametrize("name", [Q, "lm_head.weight"])
def test_places_and_counts_over_many_blocks(three, name, monkeypatch):
    monkeypatch.setattr(exact, "CHUNK", 500)
    monkeypatch.setattr(checkpoint, "BLOCK", 1024)
    tensors, base, lora, out = three
    right = merged(tensors, lora)
    assert verify(base, lora, save(out, right), "exact").equal
    places = [(0, 0), (9, 47), (10, 0), (21, 5), (47, 47)]
    weight = right[name].clone()
    for place in places:
        weight[place] += 1.0
    found = finding(verify(base, lora, save(out, right | {name: weight})), name)
    assert found.wrong == len(places)
    assert [place for place, _, _ in found.off] == places[:4]
    for place, is_, should in found.off:
        assert is_ == weight[place] and should == pytest.approx(right[name][place].item(), rel=1e-6)


class TestUntouched:
    def test_the_last_element_counts(self, three):
        tensors, base, lora, out = three
        right = merged(tensors, lora)
        right["lm_head.weight"] = right["lm_head.weight"].clone()
        right["lm_head.weight"][-1, -1] += 1e-3
        assert "was changed" not in why(base, lora, save(out, right))
        assert finding(verify(base, lora, out), "lm_head.weight").wrong == 1

    def test_a_zero_keeps_its_sign(self, three, tmp_path):
        tensors, _, lora, out = three
        tensors["model.norm.weight"][:2] = torch.tensor([0.0, -0.0])
        base, right = save(tmp_path / "signed", tensors), merged(tensors, lora)
        assert verify(base, lora, save(out, right)).equal
        right["model.norm.weight"] = right["model.norm.weight"].abs()
        assert "model.norm.weight" in why(base, lora, save(out, right))

    def test_whole_numbers_stay_what_they_are(self, three, tmp_path):
        tensors, _, lora, out = three
        base = save(tmp_path / "ids", tensors | {"ids": torch.arange(5)})
        right = merged(tensors, lora)
        assert verify(base, lora, save(out, right | {"ids": torch.arange(5)})).equal
        for ids, text in ((torch.arange(5, dtype=torch.int32), "holds I32, expected I64"), (torch.arange(5.0), "F32")):
            found = finding(verify(base, lora, save(out, right | {"ids": ids})), "ids")
            assert not found.ok and text in found.reason.text

    def test_nan_where_the_base_has_it(self, three, tmp_path):
        """Nothing to be proud of, but not the merge's doing: as it was, cast, or in a weight that is adapted."""
        tensors, _, lora, out = three
        tensors["model.norm.weight"][3] = torch.nan
        tensors[Q][2, 3] = torch.nan
        base = save(tmp_path / "holed", tensors)
        right = merged(tensors, lora)
        for policy in ("bound", "exact"):
            assert verify(base, lora, save(out, right), policy).equal
            cast = {name: t.double() for name, t in right.items()} | {Q: right[Q]}
            assert finding(verify(base, lora, save(out, cast), policy), "model.norm.weight").ok
        right["model.norm.weight"] = right["model.norm.weight"].nan_to_num(1.0)
        assert "model.norm.weight" in why(base, lora, save(out, right))
        right = merged(tensors, lora)
        right[Q] = right[Q].nan_to_num(1.0)
        assert "q_proj" in why(base, lora, save(out, right))

    @pytest.mark.parametrize(
        "name, shape", [("h.0.attn.bias", (4,)), ("h.0.attn.masked_bias", (1,)), ("h.0.attn.q.bias", (1, 1, 4, 4))]
    )
    def test_only_buffers_may_be_missing_or_more(self, three, tmp_path, name, shape):
        tensors, base, lora, out = three
        right, more = merged(tensors, lora), {name: torch.ones(shape)}
        assert f"not in the base: {name}" in why(base, lora, save(out, right | more))
        assert f"missing: {name}" in why(save(tmp_path / "more", tensors | more), lora, save(out, right))


class TestHeads:
    def tied(self, tmp_path):
        tensors = llama(layers=1, tied=True)
        config = {"tie_word_embeddings": True}
        base = save(tmp_path / "base", tensors, config)
        lora = adapter(tmp_path / "lora", tensors)
        return merged(tensors, lora), config, base, lora

    def test_a_head_stored_again_must_be_the_embedding(self, tmp_path):
        right, config, base, lora = self.tied(tmp_path)
        head = right["model.embed_tokens.weight"].clone()
        assert verify(base, lora, save(tmp_path / "out", right | {"lm_head.weight": head}, config)).equal
        head[3, 3] += 1
        assert "not in the base: lm_head" in why(
            base, lora, save(tmp_path / "out", right | {"lm_head.weight": head}, config)
        )

    def test_a_head_that_is_gone_must_be_tied(self, tmp_path):
        tensors = llama(layers=1)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors)
        right = merged(tensors, lora)
        del right["lm_head.weight"]
        assert verify(base, lora, save(tmp_path / "out", right, {"tie_word_embeddings": True})).equal
        untied = save(tmp_path / "out", right, {"tie_word_embeddings": False})
        assert "missing: lm_head.weight" in why(base, lora, untied)


def test_a_fingerprint_of_a_tensor_the_base_has_not(three, tmp_path):
    tensors, base, _, out = three
    lora = adapter(tmp_path / "marked", tensors, fingerprint={"model.layers.9.x.weight": "0" * 32})
    verdict = verify(base, lora, save(out, merged(tensors, lora)))
    assert verdict.equal and "ANOTHER BASE" in verdict.notes[0]


def test_a_policy_that_is_none(three):
    tensors, base, lora, out = three
    with pytest.raises(Error, match="policy is 'strict': choose from bound, exact"):
        verify(base, lora, save(out, merged(tensors, lora)), policy="strict")


RSLORA = {
    6**0.5: "alpha without / sqrt(r)",
    1 / 6**0.5: "alpha / r instead of alpha / sqrt(r); alpha looks like 4.899 instead of 12",
    6: "applied 6 times, or alpha looks like 72 instead of 12",
    2: "applied twice",
    0.5: "alpha looks like 6 instead of 12",
    1.015: "alpha looks like 12.18 instead of 12",
}


@pytest.mark.parametrize("times", RSLORA)
def test_rank_stabilised_adapters(tmp_path, times):
    tensors = llama(layers=1)
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors, r=6, alpha=12, rslora=True)
    assert verify(base, lora, save(tmp_path / "out", merged(tensors, lora))).equal
    assert RSLORA[times] in why(base, lora, save(tmp_path / "out", merged(tensors, lora, times)))


def sum_of(W, A, B, scale=2.0, magnitude=None) -> Sum:
    return Sum(W, Update(A, B, scale, magnitude=magnitude))


def gamma(n: int, unit: float) -> float:
    return n * unit / (1 - n * unit)


class TestBound:
    """The formula of lora/bound.py, term by term, in float64 and without blocks."""

    @pytest.mark.parametrize("kind, fine", [(torch.float32, 2.0**-24), (torch.bfloat16, 2.0**-24)])
    def test_plain(self, kind, fine):
        W, A, B = torch.randn(7, 9).to(kind), torch.randn(5, 9) * 0.1, torch.randn(7, 5) * 0.1
        unit = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}[kind]
        total, rows = sum_of(W, A, B), slice(0, 7)
        truth = total.truth(rows)[1]
        six, many = gamma(6, unit), gamma(5, fine)
        expected = (six + many + six * many) * 2 * B.double().abs() @ A.double().abs() + total.doubt(rows)
        expected += fine * truth.abs() if kind == torch.bfloat16 else 0
        found = Bound(total, kind).error(rows, truth, torch.arange(63)).view(7, 9)
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-30)

    def test_a_base_that_the_result_cannot_hold_is_cast_first(self):
        W, A, B = torch.randn(7, 9), torch.zeros(5, 9), torch.zeros(7, 5)
        total, rows = sum_of(W, A, B), slice(0, 7)
        found = Bound(total, torch.bfloat16).error(rows, W.double(), torch.arange(63)).view(7, 9)
        expected = (W.double() - W.bfloat16().double()).abs() + W.double().abs() * 2.0**-24 + total.doubt(rows)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)
        assert not Bound(sum_of(W.bfloat16(), A, B), torch.float32).casts

    def test_numbers_too_small_to_be_normal(self):
        """Casting B to float16 loses all of it; the bound must not be smaller than what was lost."""
        W, A, B = torch.zeros(3, 4).half(), torch.rand(2, 4) + 1, torch.full((3, 2), 2.0**-26)
        total, rows = sum_of(W, A, B), slice(0, 3)
        truth = total.truth(rows)[1]
        lost = (truth - (2.0 * (B.half().double() @ A.half().double()))).abs()
        bound = Bound(total, torch.float16).error(rows, truth, torch.arange(12)).view(3, 4)
        assert lost.min() > 0 and (lost <= bound).all() and (bound < 64 * 2.0**-24).all()

    def test_dora(self):
        W, A, B, m = torch.randn(7, 9), torch.randn(5, 9) * 0.1, torch.randn(7, 5) * 0.1, torch.rand(7) + 0.5
        unit, rows = 2.0**-24, slice(0, 7)
        total = sum_of(W, A, B, magnitude=m)
        raw = W.double() + 2 * B.double() @ A.double()
        six, many = gamma(6, unit), gamma(5, unit)
        E = (six + many + six * many) * 2 * B.double().abs() @ A.double().abs()
        length = raw.norm(dim=1)
        rho = E.norm(dim=1) / length + gamma(11, unit)
        expected = (m.double() / length)[:, None] * (E + (rho + gamma(4, unit))[:, None] * raw.abs())
        found = Bound(total, torch.float32).error(rows, total.truth(rows)[1], torch.arange(63)).view(7, 9)
        torch.testing.assert_close(found, expected + total.doubt(rows), rtol=1e-6, atol=0)
        stored = Sum(W.T.contiguous(), Update(A, B, 2.0, transposed=True, magnitude=m))
        rows = slice(0, 9)
        other = Bound(stored, torch.float32).error(rows, stored.truth(rows)[1], torch.arange(63)).view(9, 7)
        torch.testing.assert_close(other.T, found, rtol=1e-9, atol=0)

    def test_of_a_row_that_cancels_nothing_is_known(self):
        A, B, m = torch.randn(5, 9).double(), torch.randn(7, 5).double(), torch.rand(7).double() + 0.5
        W = torch.randn(7, 9).double()
        W[3] = (-2.0 * (B @ A))[3]
        wobble = sum_of(W, A, B, magnitude=m).wobble
        assert wobble[3] == math.inf and (wobble[[0, 1, 2, 4, 5, 6]] < 1e-13).all()


class TestLean:
    def lean(self, std=0.1, scale=2.0, r=4):
        W, A, B = torch.randn(60, 50), torch.randn(r, 50) * std, torch.randn(60, r) * std
        total = sum_of(W, A, B, scale)
        return Lean(Bound(total, torch.float32)), (scale * B.double() @ A.double()), A.double(), B.double()

    def test_chance_is_six_deviations_and_no_more(self):
        """Errors of one size and random sides pass; five times the deviation passes, seven times does not."""
        lean, D, _, _ = self.lean()
        count, size = D.numel(), 1e-3
        for deviations, honest in ((0, True), (5, True), (7, False)):
            lean.pull = lean.spread = 0.0
            more = int(deviations * count**0.5 / 2)
            side = torch.ones(count)
            side[: count // 2 - more] = -1
            lean.add(size * side.double() * D.abs().mean() / D.view(-1), D.view(-1))
            assert lean.honest is honest, deviations

    def test_the_scale_is_that_of_the_errors(self):
        lean, D, _, _ = self.lean()
        lean.add(0.01 * D, D)
        assert lean.scale == pytest.approx(1.01) and not lean.honest

    @pytest.mark.parametrize("scale", [1.0, 4.0, -0.5])
    def test_what_is_allowed_is_what_casting_makes_common(self, scale):
        lean, D, A, B = self.lean(scale=scale)
        common = ((A * (scale * B.T @ D)).square().sum() + (B * (scale * D @ A.T)).square().sum()).sqrt()
        energy = D.square().sum()
        assert lean.energy == pytest.approx(energy.item())
        tiny = (abs(scale) + 2) * 2.0**-150 * (D.numel() * energy.item()) ** 0.5
        assert lean.allowed == pytest.approx((6 * 2.0**-24 * common + 2.0**-27 * energy).item() + tiny, rel=1e-9)

    def test_a_scale_that_the_dtype_cannot_hold_may_be_rounded(self):
        """alpha / r = 1/3 in bfloat16 is a five-hundredth off: honest, if it is all there is."""
        W, A, B = torch.randn(60, 50).bfloat16(), torch.randn(4, 50).bfloat16(), torch.randn(60, 4).bfloat16()
        lean, D = Lean(Bound(sum_of(W, A, B, 1 / 3), torch.bfloat16)), 1 / 3 * B.double() @ A.double()
        rounded = torch.tensor(1 / 3).bfloat16().item() * 3 - 1
        lean.add(rounded * D, D)
        assert lean.honest and abs(rounded) > 1e-4
        lean.add(0.1 * D, D)
        assert not lean.honest

    def test_errors_of_dora_lean_together(self):
        W, A, B = torch.randn(60, 50), torch.randn(4, 50), torch.randn(60, 4)
        lean, D = Lean(Bound(sum_of(W, A, B, magnitude=torch.ones(60)), torch.float32)), 2 * B.double() @ A.double()
        lean.add(0.01 * D, D)
        assert lean.honest
