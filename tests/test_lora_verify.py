"""Verifying and merging checkpoints: against numpy, against peft's merges, and against merges that went wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lora_checkpoints import DTYPES, adapter, delta, llama, merged, nearest, paths, save
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lora import files
from lora.bound import half_spacing
from lora.checkpoint import Checkpoint
from lora.errors import Error
from lora.merge_files import merge_checkpoint
from lora.recipe import weight_of
from lora.verify import verify

ROOT = Path(__file__).parents[1]


@pytest.fixture
def three(tmp_path):
    """Base tensors, and the directories BASE, ADAPTER, MERGED (right, by numpy)."""
    tensors = llama()
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors)
    return tensors, base, lora, save(tmp_path / "merged", merged(tensors, lora))


def spoil(directory: Path, change) -> Path:
    """Let `change` work on the tensors of a single-file checkpoint."""
    tensors = load_file(directory / "model.safetensors")
    return save(directory, change(tensors) or tensors)


def why(base, lora, result, **options) -> str:
    verdict = verify(base, lora, result, **options)
    assert not verdict.equal and verdict.reasons
    return "; ".join(verdict.reasons)


# ------------------------------------------------------------------------------------------------ right ones


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adapter_dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("r", [1, 4, 40])
def test_our_merge_is_numpy_s_and_passes_both_policies(tmp_path, dtype, adapter_dtype, r):
    tensors = llama(dtype=dtype)
    base = save(tmp_path / "base", tensors, {"model_type": "llama"}, shards=3)
    lora = adapter(tmp_path / "lora", tensors, r=r, dtype=adapter_dtype)
    reports = merge_checkpoint(base, lora, tmp_path / "out")
    want = merged(tensors, lora)
    with Checkpoint(tmp_path / "out") as out:
        assert out.entries.keys() == tensors.keys() and len(out.files) == 3
        for name in tensors:
            assert torch.equal(out.tensor(name), want[name]), name
    for policy in ("exact", "bound"):
        verdict = verify(base, lora, tmp_path / "out", policy)
        assert verdict.equal and not verdict.reasons
    assert len(reports) == 6 and all(0 < report.changed <= 1 for report in reports)
    name = "model.layers.1.self_attn.q_proj"
    report = next(report for report in reports if report.name == f"{name}.weight")
    update, before = delta(lora, name), tensors[f"{name}.weight"].double().numpy()
    lost = want[f"{name}.weight"].double().numpy() - before - update
    assert report.loss == pytest.approx((lost**2).sum() ** 0.5 / (update**2).sum() ** 0.5, rel=1e-6)


def tools(weight, A, B, scale):
    """How others merge, in their dtypes."""
    kind = weight.dtype
    yield "peft", weight.clone().add_((B.float() @ A.float()).mul(scale).to(B.dtype))
    yield "peft safe", weight + ((B @ A) * scale).to(kind)
    yield "litgpt", weight + (B.to(kind) @ A.to(kind)) * scale
    yield "loralib", weight.clone().add_((B.to(kind) @ A.to(kind)) * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("adapter_dtype", DTYPES)
@pytest.mark.parametrize("r", [1, 16, 256])
@pytest.mark.parametrize("std", [0.05, 1e-4])
def test_bound_passes_every_honest_merge(tmp_path, dtype, adapter_dtype, r, std):
    tensors = {"q_proj.weight": (torch.randn(96, 80) * 0.02).to(dtype)}
    base = save(tmp_path / "base", tensors)
    lora = adapter(tmp_path / "lora", tensors, r=r, alpha=0.37 * r, targets=["q_proj"], std=std, dtype=adapter_dtype)
    update = files.read(lora).updates["q_proj"]
    for tool, weight in tools(tensors["q_proj.weight"], update.A, update.B, update.scale):
        verdict = verify(base, lora, save(tmp_path / "out", {"q_proj.weight": weight.to(dtype)}))
        assert verdict.equal, (tool, verdict.reasons, verdict.findings)


def test_exact_calls_another_tool_s_merge_rounding_and_bound_passes_it(tmp_path, three):
    tensors, base, lora, _ = three
    result = dict(tensors)
    for path in paths(lora):
        result[f"{path}.weight"] = tensors[f"{path}.weight"] + torch.from_numpy(delta(lora, path)).float()
    out = save(tmp_path / "out", result)
    assert verify(base, lora, out).equal
    assert "not the nearest" in why(base, lora, out, policy="exact")


def test_one_bit_is_found(three):
    tensors, base, lora, out = three
    name = "model.layers.0.self_attn.q_proj.weight"
    place = (3, 5)

    def up(tensors):
        tensors[name][place] = torch.nextafter(tensors[name][place], torch.tensor(9.0))

    right = verify(base, lora, out, "exact")
    assert right.equal and {finding.ulp for finding in right.findings if finding.kind == "adapted"} == {0.5}
    spoil(out, up)
    finding = next(f for f in verify(base, lora, out, "exact").findings if f.name == name)
    assert not finding.ok and finding.wrong == 1 and finding.off[0][0] == place
    assert 0.5 < finding.ulp < 1.6
    spoil(out, lambda tensors: tensors[name].__setitem__(place, 1.0))
    text = why(base, lora, out)
    assert "1 of 2,304 elements are off" in text
    verdict = verify(base, lora, out)
    finding = next(f for f in verdict.findings if f.name == name)
    assert finding.off[0][0] == place and finding.off[0][1] == 1.0


def test_half_spacing():
    values = torch.tensor([1.0, -1.5, 3.0, 0.0, 2.0**-149])
    want = torch.tensor([2.0**-24, 2.0**-24, 2.0**-23, 2.0**-150, 2.0**-150], dtype=torch.float64)
    assert torch.equal(half_spacing(values.double(), torch.float32), want)


# ------------------------------------------------------------------------------------------------ wrong ones


def times(factor):
    return lambda tensors, lora: merged(tensors, lora, factor)


def transposed(tensors, lora):
    result = merged(tensors, lora)
    for path in paths(lora):
        weight = tensors[f"{path}.weight"]
        if weight.shape[0] == weight.shape[1]:
            result[f"{path}.weight"] = nearest(weight.double().numpy() + delta(lora, path).T, weight.dtype)
    return result


def other_adapter(tensors, lora):
    return merged(tensors, adapter(lora.parent / "other", tensors))


def other_base(tensors, lora):
    return merged(llama(dtype=next(iter(tensors.values())).dtype), lora)


def noisy_base(tensors, lora):
    return merged({name: t + torch.randn_like(t) * 0.02 if t.ndim == 2 else t for name, t in tensors.items()}, lora)


def noisy_layers(tensors, lora):
    noisy = {name: t + torch.randn_like(t) * 0.02 if t.ndim == 2 else t for name, t in tensors.items()}
    mixed = merged(noisy, lora)
    return {name: mixed[name] if name.removesuffix(".weight") in paths(lora) else t for name, t in tensors.items()}


def one_missing(tensors, lora):
    return merged(tensors, lora, skip=["model.layers.1.self_attn.q_proj"])


def layer_missing(tensors, lora):
    return merged(tensors, lora, skip=[path for path in paths(lora) if ".1." in path])


def without(name):
    return lambda tensors, lora: {key: value for key, value in merged(tensors, lora).items() if key != name}


def extra(tensors, lora):
    return merged(tensors, lora) | {"model.layers.0.self_attn.q_norm.weight": torch.ones(4)}


def changed(*names):
    def change(tensors, lora):
        result = merged(tensors, lora)
        return result | {name: result[name] * 1.5 for name in names}

    return change


def holding(value):
    def change(tensors, lora):
        result = merged(tensors, lora)
        result["model.layers.0.self_attn.v_proj.weight"][2, 3] = value
        return result

    return change


def shaped(tensors, lora):
    result = merged(tensors, lora)
    return result | {"lm_head.weight": result["lm_head.weight"][:60]}


def swapped(tensors, lora):
    result, (one, two) = merged(tensors, lora), (f"model.layers.{i}.self_attn.q_proj" for i in (0, 1))
    for path, from_ in ((one, two), (two, one)):
        result[f"{path}.weight"] = nearest(
            tensors[f"{path}.weight"].double().numpy() + delta(lora, from_), torch.float32
        )
    return result


NORM = "model.norm.weight"
WRONG = {
    "base itself": (times(0), "adapter not applied"),
    "twice": (times(2), "applied twice"),
    "three times": (times(3), "applied 3 times"),
    "subtracted": (times(-1), "subtracted"),
    "alpha without /r": (times(6), "alpha without / r"),
    "rslora for plain": (times(6**0.5), "sqrt"),
    "alpha one percent more": (times(1.01), "alpha looks like 12.12 instead of 12"),
    "alpha one percent less": (times(0.99), "alpha looks like 11.88 instead of 12"),
    "half alpha": (times(0.5), "alpha looks like 6 instead of 12"),
    "alpha a millionth more": (times(1 + 1e-4), "wrong alpha"),
    "transposed": (transposed, "transposed"),
    "stale": (other_adapter, "stale or other adapter"),
    "layers swapped": (swapped, "2 of 6 adapted tensors"),
    "other base": (other_base, "wrong base"),
    "noisy base": (noisy_base, "wrong base"),
    "adapted layers of another base": (noisy_layers, "wrong base: 6 of 6 adapted tensors"),
    "one missing": (one_missing, "not applied to 1 of 6 adapted tensors (model.layers.1.self_attn.q_proj.weight)"),
    "layer missing": (layer_missing, "not applied to 3 of 6 adapted tensors"),
    "tensor missing": (without(NORM), "missing: model.norm.weight"),
    "adapted tensor missing": (without("model.layers.0.self_attn.q_proj.weight"), "missing: model.layers.0.self_attn"),
    "extra": (extra, "not in the base: model.layers.0.self_attn.q_norm.weight"),
    "norm changed": (changed(NORM), "changed, though the adapter does not touch them: model.norm.weight"),
    "NaN": (holding(torch.nan), "not finite"),
    "infinity": (holding(torch.inf), "not finite"),
    "wrong shape": (shaped, "changed, though the adapter does not touch them: lm_head.weight"),
}


@pytest.mark.parametrize("policy", ["bound", "exact"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_and_named(tmp_path, name, policy):
    wrong, reason = WRONG[name]
    tensors = llama()
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors, r=6, alpha=12)
    assert reason in why(base, lora, save(tmp_path / "out", wrong(tensors, lora)), policy=policy)


IN_HALF = ("base itself", "twice", "half alpha", "alpha without /r", "transposed", "stale", "other base", "one missing")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", IN_HALF)
def test_what_is_wrong_is_found_in_16_bits(tmp_path, name, dtype):
    wrong, reason = WRONG[name]
    tensors = llama(dtype=dtype)
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors, r=6, alpha=12)
    assert reason.replace("like 6", "like").split(" instead")[0] in why(
        base, lora, save(tmp_path / "out", wrong(tensors, lora))
    )


@pytest.mark.parametrize("std", [1e-3, 1e-2])
def test_small_updates_in_bfloat16_not_applied_and_one_percent_off(tmp_path, std):
    """Far below the spacing of most weights, and yet: not applied is found, and so is alpha off by a percent or two."""
    tensors = {"q_proj.weight": (torch.randn(700, 700) * 0.05).bfloat16()}
    base = save(tmp_path / "base", tensors)
    lora = adapter(tmp_path / "lora", tensors, r=8, alpha=16, targets=["q_proj"], std=std * 5)
    assert verify(base, lora, save(tmp_path / "out", merged(tensors, lora))).equal
    assert "not applied" in why(base, lora, base)
    assert "wrong alpha" in why(base, lora, save(tmp_path / "out", merged(tensors, lora, 1.02)))


def test_an_update_below_the_dtype_is_called_indistinguishable(tmp_path):
    tensors = {"q_proj.weight": (torch.rand(32, 32) + 1).bfloat16()}
    base = save(tmp_path / "base", tensors)
    lora = adapter(tmp_path / "lora", tensors, targets=["q_proj"], std=1e-3)
    verdict = verify(base, lora, base)
    assert verdict.equal and "indistinguishable" in verdict.findings[0].note and "indistinguishable" in verdict.notes[0]


def test_no_number_is_no_number_in_another_dtype_either(tmp_path):
    tensors = {"q_proj.weight": torch.randn(8, 8), "scales": torch.tensor([1.0, torch.nan, 2.0])}
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors, targets=["q_proj"])
    right = merged(tensors, lora)
    assert verify(base, lora, save(tmp_path / "cast", right | {"scales": tensors["scales"].half()})).equal
    for place, value in ((1, 0.0), (2, torch.nan)):  # a number for none, none for a number
        wrong = tensors["scales"].half()
        wrong[place] = value
        verdict = verify(base, lora, save(tmp_path / "wrong", right | {"scales": wrong}))
        assert not verdict.equal and sum(finding.wrong for finding in verdict.findings) == 1


def test_a_tensor_of_one_element_is_compared_too(tmp_path):
    tensors = {"q_proj.weight": torch.randn(8, 8), "gain": torch.tensor([1.5])}
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors, targets=["q_proj"])
    right = merged(tensors, lora)
    assert verify(base, lora, save(tmp_path / "right", right)).equal
    assert verify(base, lora, save(tmp_path / "cast", right | {"gain": torch.tensor([1.5]).half()})).equal
    text = why(base, lora, save(tmp_path / "wrong", right | {"gain": torch.tensor([1.25])}))
    assert "gain (of 1)" in text


# ------------------------------------------------------------------------------------------------ dtypes and names


def test_another_dtype_is_judged_in_its_own_and_noted(tmp_path):
    tensors = llama()
    base, lora = save(tmp_path / "base", tensors), adapter(tmp_path / "lora", tensors)
    narrow = save(tmp_path / "narrow", merged(tensors, lora, dtype=torch.bfloat16))
    for policy in ("bound", "exact"):
        verdict = verify(base, lora, narrow, policy)
        assert verdict.equal and any("cast to BF16" in note for note in verdict.notes)
        assert all(finding.note == "cast to BF16" for finding in verdict.findings)
    same = verify(base, lora, save(tmp_path / "same", merged(tensors, lora)))
    assert same.equal and not any(finding.note for finding in same.findings)
    only_cast = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    assert "not applied" in why(base, lora, save(tmp_path / "cast", only_cast))
    half = save(tmp_path / "half", {name: tensor.bfloat16() for name, tensor in tensors.items()})
    wide = {name: tensor.float() for name, tensor in merged(load_file(half / "model.safetensors"), lora).items()}
    verdict = verify(half, lora, save(tmp_path / "wide", wide))
    assert verdict.equal and any("computed in bfloat16, stored in F32" in note for note in verdict.notes)
    cast_first = merged(only_cast, lora)
    assert verify(base, lora, save(tmp_path / "cast_first", cast_first)).equal
    in_float = merged(load_file(half / "model.safetensors"), lora, dtype=torch.float32)
    assert verify(half, lora, save(tmp_path / "float", in_float), "exact").equal
    # Within what bfloat16 may do, but not in bfloat16.
    stronger = merged(load_file(half / "model.safetensors"), lora, 1.001, dtype=torch.float32)
    assert "alpha" in why(half, lora, save(tmp_path / "stronger", stronger))


@pytest.mark.parametrize("shards", [1, 3])
def test_prefixes_shards_and_single_files(tmp_path, shards):
    tensors = llama()
    base, lora = save(tmp_path / "base", tensors, shards=shards), adapter(tmp_path / "lora", tensors)
    right = merged(tensors, lora)
    bare = {name.removeprefix("model."): tensor for name, tensor in right.items()}
    assert verify(base, lora, save(tmp_path / "bare", bare)).equal
    assert verify(save(tmp_path / "bare_base", {n.removeprefix("model."): t for n, t in tensors.items()}), lora,
                  save(tmp_path / "out", right, shards=2)).equal  # fmt: skip
    assert verify(base, lora, tmp_path / "out").equal
    assert verify(base, lora, tmp_path / "bare" / "model.safetensors").equal
    both = bare | {
        "model.norm.weight": right["model.norm.weight"],
        "transformer.norm.weight": right["model.norm.weight"],
    }
    del both["norm.weight"]
    with pytest.raises(Error, match="could be"):
        verify(tmp_path / "bare_base", lora, save(tmp_path / "both", both))


def test_derived_buffers_do_not_count(three):
    tensors, base, lora, out = three
    spoil(base, lambda t: t | {"h.0.attn.bias": torch.ones(1, 1, 4, 4), "h.0.attn.masked_bias": torch.tensor(-1e4)})
    spoil(out, lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)})
    assert verify(base, lora, out).equal


def test_biases_and_modules_to_save(tmp_path):
    tensors = llama() | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(48)}
    base = save(tmp_path / "base", tensors)
    lora = adapter(tmp_path / "lora", tensors)
    stored = files.read(lora)
    new = {NORM: torch.randn(48), "model.layers.0.self_attn.q_proj.bias": torch.randn(48)}
    config = stored.config.__class__(**{**stored.config.__dict__, "bias": "lora_only", "modules_to_save": ("norm",)})
    files.write(files.Stored(config, stored.updates, replaced=new), lora)
    merge_checkpoint(base, lora, tmp_path / "out")
    got = load_file(tmp_path / "out" / "model.safetensors")
    assert all(torch.equal(got[name], tensor) for name, tensor in new.items())
    assert verify(base, lora, tmp_path / "out", "exact").equal
    assert "learned whole" in why(base, lora, save(tmp_path / "bad", got | {NORM: tensors[NORM]}))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transposed", [False, True])
def test_dora(tmp_path, dtype, transposed):
    shape = (30, 40)
    weight = torch.randn(shape).to(dtype)
    base = save(tmp_path / "base", {"c_fc.weight": weight.T if transposed else weight})
    lora = adapter(tmp_path / "lora", {"c_fc.weight": weight}, targets=["c_fc"], dora=True)
    update = files.read(lora).updates["c_fc"]
    merge_checkpoint(base, lora, tmp_path / "out")
    assert verify(base, lora, tmp_path / "out", "exact").equal
    raw = weight.double() + update.scale * (update.B.double() @ update.A.double())
    truth = (update.magnitude.double() / raw.norm(dim=1))[:, None] * raw
    got = load_file(tmp_path / "out" / "model.safetensors")["c_fc.weight"]
    assert torch.equal(got.T if transposed else got, nearest(truth.numpy(), dtype))
    naive = weight + (update.scale * (update.B @ update.A)).to(dtype)
    naive = (update.magnitude.to(dtype) / naive.norm(dim=1).to(dtype))[:, None] * naive
    assert verify(base, lora, save(tmp_path / "naive", {"c_fc.weight": naive.T if transposed else naive})).equal
    plain = (weight.double() + update.scale * (update.B.double() @ update.A.double())).to(dtype)
    why(base, lora, save(tmp_path / "plain", {"c_fc.weight": plain.T if transposed else plain}))


# ------------------------------------------------------------------------------------------------ square and Conv1D


def gpt2(prefix="transformer.", d=16) -> dict:
    shapes = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, 4 * d), "mlp.c_proj": (4 * d, d)}
    tensors = {f"{prefix}wte.weight": torch.randn(31, d), f"{prefix}wpe.weight": torch.randn(8, d)}
    for leaf, shape in shapes.items():
        tensors |= {f"{prefix}h.0.{leaf}.weight": torch.randn(shape), f"{prefix}h.0.{leaf}.bias": torch.randn(shape[1])}
    return tensors


@pytest.mark.parametrize("config", [{"model_type": "gpt2"}, None])
def test_square_conv1d_is_known_by_config_or_by_siblings(tmp_path, config):
    tensors, path = gpt2(""), "transformer.h.0.attn.c_proj"
    base = save(tmp_path / "base", tensors, config)
    lora = adapter(tmp_path / "lora", {f"{path}.weight": torch.empty(16, 16)}, targets=["c_proj"])
    merge_checkpoint(base, lora, tmp_path / "out")
    got = load_file(tmp_path / "out" / "model.safetensors")
    want = nearest(tensors["h.0.attn.c_proj.weight"].double().numpy() + delta(lora, path).T, torch.float32)
    assert torch.equal(got["h.0.attn.c_proj.weight"], want)


# ------------------------------------------------------------------------------------------------ tied heads


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_a_tied_head_is_untied_by_an_adapter_on_one_of_the_two(tmp_path, target):
    tensors = llama(tied=True)
    base = save(tmp_path / "base", tensors, {"model_type": "qwen2", "tie_word_embeddings": True})
    embedding = tensors["model.embed_tokens.weight"]
    lora, path = tmp_path / "lora", {"lm_head": "lm_head", "embed_tokens": "model.embed_tokens"}[target]
    if target == "lm_head":
        adapter(lora, {"lm_head.weight": embedding}, targets=[target])
        update = delta(lora, path)
    else:
        A, B = torch.randn(4, 61), torch.randn(48, 4)
        config = files.Config(r=4, alpha=8, targets=(target,), tied="untie")
        stored = files.Stored(config, {path: files.Update(A, B, 2.0, transposed=True)}, frozenset({path}))
        files.write(stored, lora)
        update = 2 * (B.double() @ A.double()).T.numpy()
    merge_checkpoint(base, lora, tmp_path / "out")
    got = load_file(tmp_path / "out" / "model.safetensors")
    want = nearest(embedding.double().numpy() + update, torch.float32)
    changed, kept = ("lm_head", "model.embed_tokens") if target == "lm_head" else ("model.embed_tokens", "lm_head")
    assert torch.equal(got[f"{changed}.weight"], want) and torch.equal(got[f"{kept}.weight"], embedding)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    assert verify(base, lora, tmp_path / "out", "exact").equal
    shared = save(tmp_path / "shared", tensors | {"model.embed_tokens.weight": want})  # what peft does
    assert "one matrix cannot be both" in why(base, lora, shared)
    assert torch.equal(
        weight_of(Checkpoint(base), files.read(lora))(path), embedding if path == "lm_head" else embedding.T
    )
    (tmp_path / "out" / "config.json").write_text('{"tie_word_embeddings": true}')
    assert "loading loses it" in why(base, lora, tmp_path / "out")


def test_a_tied_update_counts_once(tmp_path):
    tensors = llama(tied=True)
    base = save(tmp_path / "base", tensors, {"tie_word_embeddings": True})
    embedding = tensors["model.embed_tokens.weight"]
    A, B = torch.randn(4, 61), torch.randn(48, 4)
    config = files.Config(r=4, alpha=8, targets=("embed_tokens", "lm_head"), tied="tie")
    updates = {
        "model.embed_tokens": files.Update(A, B, 2.0, transposed=True),
        "lm_head": files.Update(B.T.contiguous(), A.T.contiguous(), 2.0),
    }
    files.write(files.Stored(config, updates, frozenset({"model.embed_tokens"})), tmp_path / "lora")
    merge_checkpoint(base, tmp_path / "lora", tmp_path / "out")
    got, update = load_file(tmp_path / "out" / "model.safetensors"), 2 * (B.double() @ A.double()).T.numpy()
    assert got.keys() == tensors.keys()
    assert torch.equal(got["model.embed_tokens.weight"], nearest(embedding.double().numpy() + update, torch.float32))
    assert verify(base, tmp_path / "lora", tmp_path / "out", "exact").equal
    again = got | {"lm_head.weight": got["model.embed_tokens.weight"]}
    assert verify(base, tmp_path / "lora", save(tmp_path / "again", again, {"tie_word_embeddings": True})).equal
    twice = nearest(embedding.double().numpy() + 2 * update, torch.float32)
    assert "applied twice" in why(
        base, tmp_path / "lora", save(tmp_path / "bad", got | {"model.embed_tokens.weight": twice})
    )


# ------------------------------------------------------------------------------------------------ fingerprints


def test_fingerprint_of_another_base(three, tmp_path):
    tensors, base, _, _ = three
    name = "model.layers.0.self_attn.q_proj.weight"
    right = {name: files.fingerprint(tensors[name])}
    lora = adapter(tmp_path / "marked", tensors, fingerprint=right)
    out = save(tmp_path / "out", merged(tensors, lora))
    assert not verify(base, lora, out).notes
    lora = adapter(tmp_path / "marked", tensors, fingerprint={name: "0" * 32})
    out = save(tmp_path / "out", merged(tensors, lora))
    verdict = verify(base, lora, out)
    assert verdict.equal and "ANOTHER BASE" in verdict.notes[0]
    other = save(tmp_path / "other", llama())
    assert "(fingerprint)" in why(other, lora, out)


# ------------------------------------------------------------------------------------------------ bad files


def test_hostile_and_broken_checkpoints(tmp_path, three):
    tensors, base, lora, out = three
    sharded = save(tmp_path / "sharded", tensors, shards=2)
    index = sharded / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    for name in ("../base/model.safetensors", "/etc/passwd", "sub/x.safetensors", "..\\x.safetensors", "x.bin", 7):
        index.write_text(json.dumps(good | {"weight_map": {**good["weight_map"], NORM: name}}))
        with pytest.raises(Error, match="index.json"):
            verify(sharded, lora, out)
    index.write_text(
        json.dumps(good | {"weight_map": {**good["weight_map"], "ghost": "model-00001-of-00002.safetensors"}})
    )
    with pytest.raises(Error, match="ghost"):
        verify(sharded, lora, out)
    for text in ("{", "[]", "{}"):
        index.write_text(text)
        with pytest.raises(Error, match="index.json"):
            verify(sharded, lora, out)
    whole = (base / "model.safetensors").read_bytes()
    for bad in (whole[:100], whole[:-5], b"", b"\xff" * 64):
        (tmp_path / "bad.safetensors").write_bytes(bad)
        with pytest.raises(Error, match=r"bad\.safetensors"):
            verify(tmp_path / "bad.safetensors", lora, out)
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(Error, match="pickle"):
        verify(tmp_path / "pickled", lora, out)
    with pytest.raises(Error, match="no checkpoint here"):
        verify(tmp_path / "nowhere", lora, out)


def test_adapters_that_do_not_fit(tmp_path, three):
    tensors, base, _, out = three
    lora = adapter(tmp_path / "wide", {"model.layers.0.mlp.up_proj.weight": torch.empty(9, 9)}, targets=["up_proj"])
    with pytest.raises(Error, match="another size"):
        verify(base, lora, out)
    lora = adapter(tmp_path / "deep", {"model.layers.7.mlp.up_proj.weight": torch.empty(9, 9)}, targets=["up_proj"])
    with pytest.raises(Error, match="no tensor for the adapter's layer"):
        merge_checkpoint(base, lora, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_merge_refuses_overflow_and_leaves_nothing(tmp_path):
    tensors = {"q_proj.weight": torch.full((8, 8), 6e4).half()}
    base = save(tmp_path / "base", tensors)
    lora = adapter(tmp_path / "lora", tensors, targets=["q_proj"], std=100.0)
    with pytest.raises(Error, match=r"q_proj\.weight: not merged: the sum is too large"):
        merge_checkpoint(base, lora, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "lora"]
    naive = (tensors["q_proj.weight"].double() + torch.from_numpy(delta(lora, "q_proj"))).half()
    assert naive.isinf().any()
    why(base, lora, save(tmp_path / "naive", {"q_proj.weight": naive}))


def test_merge_copies_the_rest_and_keeps_the_bits_of_zero(tmp_path):
    tensors = {
        "q_proj.weight": torch.tensor([[-0.0, 1.0], [0.0, -0.0]]),
        "ids": torch.arange(3),
        "s": torch.tensor(2.0),
    }
    base = save(tmp_path / "base", tensors, {"model_type": "x"})
    (base / "tokenizer.json").write_text("{}")
    (base / "pytorch_model.bin").write_bytes(b"x")
    files.write(
        files.Stored(files.Config(r=1, alpha=1, targets=("q_proj",)),
                     {"q_proj": files.Update(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0], [1.0]]), 1.0)}),
        tmp_path / "lora",
    )  # fmt: skip
    merge_checkpoint(base, tmp_path / "lora", tmp_path / "out")
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
        got = opened.get_tensor("q_proj.weight")
        assert torch.equal(got, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
        assert got.signbit().tolist() == [[True, False], [False, True]]
        assert torch.equal(opened.get_tensor("ids"), torch.arange(3)) and opened.get_tensor("s") == 2
    with pytest.raises(Error, match="already exists"):
        merge_checkpoint(base, tmp_path / "lora", tmp_path / "out")


# ------------------------------------------------------------------------------------------------ peft itself


@pytest.fixture(scope="module")
def peft_models():
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 61, "bos_token_id": 0, "eos_token_id": 0}
    gpt2_config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=16, **small)
    llama_config = transformers.LlamaConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, **small
    )
    return {
        "gpt2": (transformers.GPT2LMHeadModel, gpt2_config, ["c_attn", "c_proj", "c_fc"]),
        "llama": (transformers.LlamaForCausalLM, llama_config, ["q_proj", "v_proj", "down_proj"]),
    }


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_peft_merges_pass(tmp_path, peft_models, kind, dtype, safe):
    peft = pytest.importorskip("peft")
    make, config, targets = peft_models[kind]
    base = make(config).to(dtype).eval()
    base.save_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.1)
    adapted.save_pretrained(tmp_path / "lora")
    adapted.merge_and_unload(safe_merge=safe).save_pretrained(tmp_path / "merged")
    verdict = verify(tmp_path / "base", tmp_path / "lora", tmp_path / "merged")
    assert verdict.equal, verdict.reasons
    assert "not applied" in why(tmp_path / "base", tmp_path / "lora", tmp_path / "base")
    merge_checkpoint(tmp_path / "base", tmp_path / "lora", tmp_path / "ours")
    assert verify(tmp_path / "base", tmp_path / "lora", tmp_path / "ours", "exact").equal
    opened = make.from_pretrained(tmp_path / "ours", dtype=dtype)
    tokens = torch.randint(61, (2, 8))
    assert torch.allclose(opened(tokens).logits, adapted(tokens).logits, atol={torch.float32: 1e-5}.get(dtype, 0.1))


# ------------------------------------------------------------------------------------------------ memory

MEASURE = """
import resource, sys
from lora.verify import verify
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import torch; torch.set_num_threads(1); torch.randn(64, 64) @ torch.randn(64, 64)
verify(sys.argv[1] + "/small", sys.argv[1] + "/small_lora", sys.argv[1] + "/small")
before = peak()
assert verify(sys.argv[1] + "/base", sys.argv[1] + "/lora", sys.argv[1] + "/base").equal
print(peak() - before)
"""


def test_memory_is_blocks(tmp_path):
    """300 MB against 300 MB, in a process of its own: a few blocks more than a tiny check takes."""
    for prefix, size in (("small_", 8), ("", 6000)):
        tensors = {"q_proj.weight": torch.ones(size // 2, 6000), "embed_tokens.weight": torch.ones(3 * size // 2, 6000)}
        save(tmp_path / (prefix.removesuffix("_") or "base"), tensors)
        lora = adapter(
            tmp_path / f"{prefix}lora", {"q_proj.weight": tensors["q_proj.weight"]}, targets=["q_proj"], std=1e-6
        )
        stored = files.read(lora)
        marks = {"q_proj.weight": files.fingerprint(tensors["q_proj.weight"])}
        files.write(files.Stored(stored.config, stored.updates, fingerprint=marks), lora)
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 150


def test_save_file_reads_what_we_write_and_the_other_way_round(tmp_path):
    from lora.checkpoint import write_tensors

    tensors = {
        "é": torch.randn(3, 5).bfloat16(),
        "b": torch.arange(7),
        "empty": torch.zeros(0, 4),
        "s": torch.tensor(True),
    }
    codes = {"é": "BF16", "b": "I64", "empty": "F32", "s": "BOOL"}
    shapes = {name: (codes[name], tuple(t.shape), t.nbytes) for name, t in tensors.items()}
    write_tensors(tmp_path / "x.safetensors", shapes, {}, lambda name: [tensors[name]])
    got = load_file(tmp_path / "x.safetensors")
    assert all(torch.equal(got[name], tensor) for name, tensor in tensors.items())
    save_file(tensors, tmp_path / "y.safetensors")
    with Checkpoint(tmp_path / "y.safetensors") as opened:
        assert all(torch.equal(opened.tensor(name), tensor) for name, tensor in tensors.items())
        assert torch.equal(opened.rows("é", slice(1, 3)), tensors["é"][1:3])
