"""QLoRA from what lies on disk: the base rounded as the adapter had it, merged and verified against itself."""

import json

import pytest
import torch
from helpers import model, tokens
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import lora
from lora.cli import main
from lora.files import read
from minigpt import GPT, hub

CONFIG = lora.Config(r=2, alpha=4, targets=["q_proj", "v_proj", "up_proj"])


def tuned(folder, kind="gpt2", double=True, dtype=torch.float32, targets="all-linear"):
    """A base on disk, and an adapter trained beside it in four bits."""
    gpt = model(kind, std=0.2, d_model=64, d_ff=96).to(dtype)
    hub.save(gpt, folder / "base")
    lora.quantize(gpt, targets, double)
    lora.attach(gpt, CONFIG)
    for weight in lora.parameters(gpt):
        torch.nn.init.normal_(weight, std=0.1)
    lora.save(gpt, folder / "adapter", base=str(folder / "base"))
    return gpt


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("kind, dtype", [("gpt2", torch.float32), ("llama", torch.float32), ("llama", torch.bfloat16)])
def test_merged_from_disk_is_dequantised_and_merged_in_memory(kind, dtype, double, tmp_path, capsys):
    """The same bits in every tensor, and the model that was trained, up to the rounding of the merge."""
    gpt = tuned(tmp_path, kind, double, dtype)
    x = tokens()
    expected = gpt(x).detach()
    paths = [str(tmp_path / name) for name in ("base", "adapter", "merged")]
    assert main(["merge", *paths]) == 0
    assert "rounded to four bits in" in capsys.readouterr().out
    lora.dequantize(gpt)
    torch.testing.assert_close(gpt(x), expected, atol=1e-6 if dtype == torch.float32 else 0.1, rtol=0)
    lora.bake(gpt)
    gpt.save_pretrained(tmp_path / "ours")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "merged"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert main(["verify", *paths, "--policy", "exact"]) == 0
    assert "note: the base is" in capsys.readouterr().out
    if dtype == torch.float32:
        torch.testing.assert_close(GPT.from_pretrained(tmp_path / "merged")(x), expected, atol=1e-5, rtol=0)


def test_a_base_stored_in_16_bits_and_opened_in_32(tmp_path, capsys):
    """The adapter saw float32 numbers that codes of 16-bit weights stand for: it is still its base."""
    hub.save(model("llama", std=0.2, d_model=64, d_ff=96).bfloat16(), tmp_path / "base")
    gpt = GPT.from_pretrained(tmp_path / "base").float()
    lora.quantize(gpt)
    lora.attach(gpt, CONFIG)
    for weight in lora.parameters(gpt):
        torch.nn.init.normal_(weight, std=0.1)
    lora.save(gpt, tmp_path / "adapter")
    paths = [str(tmp_path / name) for name in ("base", "adapter", "merged")]
    assert main(["merge", *paths]) == 0 and main(["verify", *paths, "--policy", "exact"]) == 0
    assert "ANOTHER BASE" not in capsys.readouterr().out
    assert main(["inspect", paths[1], "--base", paths[0]]) == 0
    assert "is it, rounded to four bits" in capsys.readouterr().out


def test_layers_that_no_adapter_touches_are_rounded_too(tmp_path):
    """And a part of a fused tensor alone, where only that was in four bits."""
    tuned(tmp_path, targets=("k_proj", "down_proj"))
    assert main(["merge", *(str(tmp_path / name) for name in ("base", "adapter", "merged"))]) == 0
    base, merged = (load_file(tmp_path / name / "model.safetensors") for name in ("base", "merged"))
    name = "transformer.h.1.mlp.c_proj.weight"
    layer = torch.nn.Linear(96, 64, bias=False)
    layer.weight.data = base[name].T.contiguous()
    assert torch.equal(merged[name], lora.nf4_layer.NF4Linear(layer).weight.T) and not torch.equal(
        merged[name], base[name]
    )
    joined = [tensors["transformer.h.1.attn.c_attn.weight"].split(64, 1)[1] for tensors in (base, merged)]
    layer.weight = torch.nn.Parameter(joined[0].T.contiguous())
    assert torch.equal(joined[1], lora.nf4_layer.NF4Linear(layer).weight.T)


def test_a_merge_onto_the_weights_of_before_is_not_it(tmp_path, capsys):
    gpt = tuned(tmp_path)
    plain = GPT.from_pretrained(tmp_path / "base")
    lora.load(plain, tmp_path / "adapter", check_base=False)
    lora.bake(plain)
    plain.save_pretrained(tmp_path / "wrong")
    assert main(["verify", *(str(tmp_path / name) for name in ("base", "adapter", "wrong"))]) == 1
    assert "NOT EQUAL" in capsys.readouterr().out
    assert (plain(tokens()) - gpt(tokens())).abs().max() > 1e-2


def test_a_model_gets_the_weights_that_the_adapter_saw(tmp_path):
    gpt, x = tuned(tmp_path), tokens()
    plain = GPT.from_pretrained(tmp_path / "base").eval()
    with pytest.raises(lora.Error, match=r"trained beside weights in four bits: lora.round_base\(model"):
        lora.load(plain, tmp_path / "adapter")
    assert (
        len(lora.round_base(plain, tmp_path / "adapter")) == 12 and lora.round_base(plain, tmp_path / "adapter") == ()
    )
    lora.load(plain, tmp_path / "adapter")
    torch.testing.assert_close(plain(x), gpt(x), atol=1e-5, rtol=0)
    lora.save(plain, tmp_path / "again")  # it still knows
    assert read(tmp_path / "again").rounded == read(tmp_path / "adapter").rounded
    other = GPT.from_pretrained(tmp_path / "base").eval()
    lora.quantize(other)
    assert lora.round_base(other, tmp_path / "adapter") == () and lora.load(other, tmp_path / "adapter")
    torch.testing.assert_close(other(x), gpt(x), atol=1e-6, rtol=0)


def test_an_adapter_of_a_whole_base_says_nothing_of_four_bits(tmp_path):
    gpt = model()
    lora.attach(gpt, CONFIG)
    lora.save(gpt, tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as file:
        assert "nf4" not in json.loads(file.metadata()["lora"]) and not read(tmp_path).rounded
    assert lora.round_base(gpt, tmp_path) == ()


def test_what_does_not_fit_is_said(tmp_path, capsys):
    tuned(tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    good = json.loads(metadata["lora"])
    for damage, words in {
        lambda ours: ours["nf4"].update(
            {"transformer.h.9.mlp.c_fc.weight": {"parts": [[96, True]]}}
        ): "has no transformer",
        lambda ours: next(iter(ours["nf4"].values())).update(parts=[[5, True]]): "of 5 outputs",
        lambda ours: next(iter(ours["nf4"].values())).update(parts=3): "is damaged",
        lambda ours: next(iter(ours["nf4"].values())).update(odd=3): "is damaged",
    }.items():
        ours = json.loads(json.dumps(good))
        damage(ours)
        save_file(load_file(file), file, {"lora": json.dumps(ours)})
        assert main(["merge", *(str(tmp_path / name) for name in ("base", "adapter", "merged"))]) == 2
        assert words in capsys.readouterr().err and not (tmp_path / "merged").exists()
    with pytest.raises(lora.Error, match="rounded in different ways"):
        from lora.combine import combine

        save_file(load_file(file), file, {"lora": json.dumps(good)})
        one = read(tmp_path / "adapter")
        lora.detach(gpt := GPT.from_pretrained(tmp_path / "base"))
        lora.attach(gpt, CONFIG)
        combine([one, lora.collect(gpt)], [1, 1], ["one", "other"])
