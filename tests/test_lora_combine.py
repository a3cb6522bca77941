"""Sums of adapters against dense float64 sums and against peft; truncation against the dense SVD."""

from argparse import ArgumentParser

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora import combine as module
from lora import files
from lora.combine import combine
from lora.config import Config
from lora.errors import Error
from lora.exact import Update
from lora.files import Stored
from lora.truncate import scaled, truncate

sizes = st.integers(1, 9)
weights = st.floats(0.01, 10) | st.floats(-10, -0.01)


def adapter(r=3, out=6, into=8, seed=0, paths=("h.0.q", "h.1.q"), dtype=torch.float32, embeddings=(), **more) -> Stored:
    """Random A and B; keywords of Config and of Stored alike."""
    dice = torch.Generator().manual_seed(seed)
    rest = {key: more.pop(key) for key in ("replaced", "fingerprint", "parts") if key in more}
    config = Config(**{"r": r, "alpha": 5, "targets": tuple(paths)} | more)
    updates = {}
    for path in paths:
        A = torch.randn(config.rank(path), into, generator=dice).to(dtype)
        B = torch.randn(out, config.rank(path), generator=dice).to(dtype)
        updates[path] = Update(A, B, config.scale(path), path in embeddings)
    return Stored(config, updates, frozenset(embeddings), **rest)


def dense(update: Update) -> torch.Tensor:
    return update.scale * update.B.double() @ update.A.double()


def close(found: Update, truth: torch.Tensor):
    assert torch.linalg.norm(dense(found) - truth) <= 1e-6 * torch.linalg.norm(truth)


@given(st.lists(st.tuples(sizes, weights, st.booleans()), min_size=1, max_size=4), sizes, sizes)
@settings(max_examples=60, deadline=None)
def test_sum_is_that_of_the_dense_matrices(given_adapters, out, into):
    made = [adapter(r, out, into, n, rslora=rslora) for n, (r, _, rslora) in enumerate(given_adapters)]
    by = [weight for _, weight, _ in given_adapters]
    total, errors = combine(made, by)
    for path, update in total.updates.items():
        truth = sum(w * dense(each.updates[path]) for w, each in zip(by, made, strict=True))
        # Against |B| |A|: with weights of both signs the sum itself may vanish.
        size = update.B.double().abs() @ update.A.double().abs()
        assert ((dense(update) - truth).abs() <= 1e-6 * size).all()
        assert update.scale == total.config.scale(path) == 1.0 and errors[path] == 0.0
        assert len(update.A) == total.config.rank(path) == sum(len(each.updates[path].A) for each in made)


@pytest.mark.parametrize("rslora", [(False, False), (True, True), (True, False)])
@pytest.mark.parametrize("by", [(1.0, 1.0), (0.7, 0.3), (1.5, -0.25)])
def test_relative_error_in_norm(rslora, by):
    one, two = adapter(8, 32, 48, 1, rslora=rslora[0]), adapter(4, 32, 48, 2, rslora=rslora[1])
    total, _ = combine([one, two], by)
    for path, update in total.updates.items():
        close(update, by[0] * dense(one.updates[path]) + by[1] * dense(two.updates[path]))


def test_powers_of_two_are_exact_and_others_rounded_once():
    one = adapter(2, alpha=4)
    B = one.updates["h.0.q"].B
    assert torch.equal(combine([one], [0.25])[0].updates["h.0.q"].B, B * 0.5)
    truth = B.double() * (0.7 * 2.0)
    assert torch.equal(scaled(B, 0.7, 2.0), truth.float())
    assert ((scaled(B, 0.7, 2.0).double() - truth).abs() <= 2**-24 * truth.abs()).all()


@pytest.mark.parametrize("dtype, expected", [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)])
def test_dtype_is_float32_at_least(dtype, expected):
    one, two = adapter(2, dtype=dtype), adapter(3, seed=1, dtype=torch.bfloat16)
    update = combine([one, two], [0.3, 0.7])[0].updates["h.0.q"]
    assert update.A.dtype == update.B.dtype == expected
    assert update.B.is_contiguous()
    close(update, 0.3 * dense(one.updates["h.0.q"]) + 0.7 * dense(two.updates["h.0.q"]))


def test_layers_that_only_some_have_survive_the_disk(tmp_path):
    """Paths where one ends as another does, ranks that differ, an embedding: read back, all is as it was summed."""
    one = adapter(2, 6, 8, 1, ("q", "h.q", "wte"), embeddings=("wte",), rank_pattern={"^q": 4})
    two = adapter(3, 6, 8, 2, ("x.h.q", "h.q"))
    total, _ = combine([one, two], [0.5, 2.0])
    files.write(total, tmp_path / "sum")
    back = files.read(tmp_path / "sum")
    ranks = {path: len(update.A) for path, update in back.updates.items()}
    assert ranks == {"q": 4, "h.q": 5, "x.h.q": 3, "wte": 2}
    assert back.embeddings == {"wte"} and back.updates["wte"].transposed
    for path, update in back.updates.items():
        parts = [w * dense(each.updates[path]) for w, each in ((0.5, one), (2.0, two)) if path in each.updates]
        assert update.scale == 1.0
        close(update, sum(parts))


def test_same_targets_are_kept_as_they_were_written():
    pair = [adapter(2, seed=n, targets=("q",), layers=(0, 1), dropout=0.1) for n in range(2)]
    config = combine(pair, [1, 1])[0].config
    assert (config.targets, config.layers, config.dropout, config.r, config.alpha) == (("q",), (0, 1), 0.1, 4, 4)


def blocks(ranks, sizes, into, seed, **more) -> Stored:
    """A fused layer whose parts have adapters of their own."""
    one = adapter(sum(ranks), sum(sizes), into, seed, ("c_attn",), **more)
    update = one.updates["c_attn"]
    pieces = [B[:, :r] for B, r in zip(update.B.split(sizes), ranks, strict=True)]
    fused = Update(update.A, torch.block_diag(*pieces), update.scale)
    return Stored(one.config, {"c_attn": fused}, parts={"c_attn": tuple(zip(sizes, ranks, strict=True))})


def test_parts_of_a_fused_layer_stay_parts(tmp_path):
    one, two = blocks((2, 0, 2), (6, 6, 6), 10, 1), blocks((3, 0, 1), (6, 6, 6), 10, 2)
    total, _ = combine([one, two], [0.5, -1.5])
    files.write(total, tmp_path / "sum")
    back = files.read(tmp_path / "sum")
    assert back.parts == {"c_attn": ((6, 5), (6, 0), (6, 3))}
    update, truth = back.updates["c_attn"], 0.5 * dense(one.updates["c_attn"]) - 1.5 * dense(two.updates["c_attn"])
    close(update, truth)
    assert not update.B[:6, 5:].any() and not update.B[6:12].any() and not update.B[12:, :5].any()

    cut, errors = truncate(total, 2)
    assert cut.parts == {"c_attn": ((6, 2), (6, 0), (6, 2))} and cut.config.rank("c_attn") == 4
    best = torch.cat([cut_dense(truth[:6], 2), torch.zeros(6, 10), cut_dense(truth[12:], 2)])
    torch.testing.assert_close(dense(cut.updates["c_attn"]), best, rtol=1e-5, atol=1e-5)
    assert errors["c_attn"] == pytest.approx((torch.linalg.norm(truth - best) / torch.linalg.norm(truth)).item())

    mixed, _ = combine([one, adapter(2, 18, 10, 3, ("c_attn",))], [1, 1])
    assert not mixed.parts


def cut_dense(x: torch.Tensor, rank: int) -> torch.Tensor:
    U, S, Vh = torch.linalg.svd(x, full_matrices=False)
    return U[:, :rank] * S[:rank] @ Vh[:rank]


@given(sizes, sizes, sizes, st.integers(1, 9), st.booleans())
@settings(max_examples=60, deadline=None)
def test_truncation_is_eckart_young(r, out, into, rank, rslora):
    one = adapter(r, out, into, paths=("q",), rslora=rslora)
    cut, errors = truncate(one, rank)
    update, whole = cut.updates["q"], dense(one.updates["q"])
    assert len(update.A) == update.B.shape[1] == cut.config.rank("q") <= rank
    assert update.scale == cut.config.scale("q") == 1.0
    S = torch.linalg.svdvals(whole)
    best = (S[rank:].norm() / S.norm()).item()
    assert errors["q"] == pytest.approx(best, abs=1e-12)
    assert (torch.linalg.norm(dense(update) - whole) / S.norm()).item() == pytest.approx(best, abs=1e-6)


def test_truncation_balances_the_factors():
    update = truncate(adapter(4, paths=("q",)), 2)[0].updates["q"]
    gram = [update.B.T @ update.B, update.A @ update.A.T]
    torch.testing.assert_close(gram[0], gram[1], rtol=1e-4, atol=1e-4)
    assert update.A.is_contiguous() and update.B.is_contiguous()


def test_what_is_replaced_whole():
    head = torch.randn(3, 8)
    one = adapter(2, modules_to_save=("score",), replaced={"score.weight": head})
    total, _ = combine([one, adapter(2, seed=1)], [0.7, 0.3])
    assert torch.equal(total.replaced["score.weight"], head) and total.config.modules_to_save == ("score",)
    assert combine([one, one], [1, 1])[0].replaced.keys() == {"score.weight"}
    other = adapter(2, modules_to_save=("score",), replaced={"score.weight": head + 1})
    with pytest.raises(Error, match=r"score\.weight: replaced by a and, differently, by b"):
        combine([one, other], [1, 1], names=["a", "b"])
    bias = adapter(2, seed=1, bias="lora_only", replaced={"h.0.q.bias": torch.ones(6)})
    assert combine([one, bias], [1, 1])[0].config.bias == "lora_only"
    with pytest.raises(Error, match="score: adapted by one adapter, replaced whole"):
        combine([one, adapter(2, paths=("score",))], [1, 1])


def dora(seed=0) -> Stored:
    plain = adapter(2, seed=seed, dora=True)
    updates = {p: Update(u.A, u.B, u.scale, magnitude=torch.ones(6)) for p, u in plain.updates.items()}
    return Stored(plain.config, updates)


def test_dora_alone_may_be_cut_but_not_added():
    cut, _ = combine([dora()], [1.0], rank=1)
    assert cut.config.dora and cut.updates["h.0.q"].magnitude is not None and len(cut.updates["h.0.q"].A) == 1
    for made, by in (([dora(), dora(1)], [1, 1]), ([dora()], [0.5]), ([adapter(2), dora()], [1, 1])):
        with pytest.raises(Error, match="DoRA rescales rows"):
            combine(made, by)


def test_what_does_not_add_up():
    one = adapter(2, fingerprint={"h.0.q.weight": "a" * 32})
    two = adapter(2, fingerprint={"h.0.q.weight": "b" * 32})
    with pytest.raises(Error, match="h.0.q.weight: adapter 1 was trained on a base with fingerprint aaaaaaaa"):
        combine([one, two], [1, 1])
    assert combine([one, adapter(2)], [1, 1])[0].fingerprint == one.fingerprint
    with pytest.raises(Error, match=r"h\.0\.q: in adapter 1 an update of \(6, 8\).*of \(6, 9\)"):
        combine([adapter(2), adapter(2, into=9)], [1, 1])
    with pytest.raises(Error, match="for an embedding"):
        combine([adapter(2, 6, 6), adapter(2, 6, 6, embeddings=("h.0.q",))], [1, 1])
    with pytest.raises(Error, match="ensure_weight_tying"):
        combine([adapter(2, tied="tie")], [1])
    with pytest.raises(Error, match="2 adapters and 1 weights"):
        combine([one, one], [1])
    for bad in (0.0, float("nan"), float("inf")):
        with pytest.raises(Error, match="adapter 2: its weight is"):
            combine([one, one], [1, bad])
    with pytest.raises(Error, match="too large for torch.float32"):
        combine([one], [1e300])
    for bad in (0, 1.5, True):
        with pytest.raises(Error, match="whole number of at least 1"):
            combine([one], [1], rank=bad)


def command(*words) -> int:
    parser = ArgumentParser()
    module.add_arguments(parser)
    return module.run(parser.parse_args([str(word) for word in words]))


def test_command(tmp_path, capsys):
    pair = adapter(3, seed=1), adapter(2, seed=2)
    for name, each in zip("ab", pair, strict=True):
        files.write(each, tmp_path / name, base="gpt2")
    assert command(tmp_path / "sum", tmp_path / "a", tmp_path / "b", "--weights=0.7,-0.3", "--rank", 2) == 0
    truth, errors = combine(pair, [0.7, -0.3], rank=2)
    out = capsys.readouterr().out
    assert all(f"{error:.2e}" in out for error in errors.values())
    back = files.read(tmp_path / "sum")
    for path, update in back.updates.items():
        assert torch.equal(update.A, truth.updates[path].A) and torch.equal(update.B, truth.updates[path].B)
    assert '"base_model_name_or_path": "gpt2"' in (tmp_path / "sum/adapter_config.json").read_text()
    with pytest.raises(Error, match="already holds an adapter"):
        command(tmp_path / "sum", tmp_path / "a")
    for wrong in ("1,x", "1"):
        with pytest.raises(Error, match="weights"):
            command(tmp_path / "other", tmp_path / "a", tmp_path / "b", "--weights", wrong)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("rslora", [False, True])
def test_against_peft(tmp_path, rslora):
    """peft opens the sum; its layers are the dense sum. Its own "cat" agrees, but not for rsLoRA."""
    peft = pytest.importorskip("peft")
    from transformers import GPT2Config, GPT2LMHeadModel

    def base():
        torch.manual_seed(0)
        return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2)).eval()

    def config(r, targets):
        return peft.LoraConfig(r=r, lora_alpha=8, target_modules=targets, use_rslora=rslora, init_lora_weights=False)

    model = peft.get_peft_model(base(), config(4, ["c_attn", "c_fc"]), "first")
    model.add_adapter("second", config(2, ["c_attn", "c_fc"]))
    model.save_pretrained(str(tmp_path))
    deltas = {
        name: {key: layer.get_delta_weight(key).double() for key in ("first", "second")}
        for name, layer in model.named_modules()
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight")
    }
    assert command(tmp_path / "sum", tmp_path / "first", tmp_path / "second", "--weights=0.75,0.3") == 0
    ours = peft.PeftModel.from_pretrained(base(), str(tmp_path / "sum"), adapter_name="sum")
    layers = dict(ours.named_modules())
    assert len(deltas) == 4
    model.add_weighted_adapter(["first", "second"], [0.75, 0.3], "cat", combination_type="cat")
    for name, delta in deltas.items():
        truth = 0.75 * delta["first"] + 0.3 * delta["second"]
        found = layers[name].get_delta_weight("sum").double()
        assert torch.linalg.norm(found - truth) <= 1e-6 * torch.linalg.norm(truth)
        theirs = dict(model.named_modules())[name].get_delta_weight("cat").double()
        agree = torch.linalg.norm(theirs - truth) <= 1e-6 * torch.linalg.norm(truth)
        assert agree or rslora, "peft's sum is wrong for plain LoRA, which it used to add rightly"
