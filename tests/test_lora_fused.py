"""One tensor on disk that is several layers in the model: q, k and v in GPT-2's c_attn, with unlike adapters."""

import json

import pytest
import torch
from torch import nn

import lora
from lora import files
from minigpt import GPT, GPTConfig, presets

TOKENS = torch.tensor([[3, 14, 15, 92, 65], [35, 89, 79, 32, 38]])
SIZES = {"vocab_size": 100, "context": 16, "n_layers": 2, "n_heads": 2, "d_model": 16}


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    GPT(GPTConfig(**SIZES)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def attach(model, std=0.3, **options):
    lora.attach(model, lora.Config(**({"r": 3, "alpha": 4, "targets": ["q_proj", "v_proj"]} | options)))
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in lora.parameters(model):
            parameter.add_(torch.randn_like(parameter) * std)
    return model


def opened(base, adapter, **options):
    model = GPT.from_pretrained(base)
    lora.load(model, adapter, **options)
    return model


OPTIONS = {
    "other alphas": {"alpha_pattern": {"v_proj": 7}},
    "other ranks": {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 5}},
    "dora": {"targets": ["q_proj", "k_proj", "v_proj"], "dora": True},
    "biases": {"bias": "lora_only", "targets": ["q_proj", "k_proj", "v_proj", "down_proj"]},
    "all biases": {"bias": "all"},
    "a square learned whole": {"modules_to_save": ["o_proj"]},
    "a wide one learned whole": {"modules_to_save": ["down_proj", "final_norm"]},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_there_and_back(base, tmp_path, case):
    model = attach(GPT.from_pretrained(base), **OPTIONS[case])
    lora.save(model, tmp_path / "adapter")
    again = opened(base, tmp_path / "adapter", trainable=True)
    torch.testing.assert_close(again(TOKENS), model(TOKENS), rtol=1e-6, atol=1e-6)
    shapes = [{name: p.shape for name, p in each.named_parameters()} for each in (model, again)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("case", OPTIONS)
def test_transformers_knows_it_as_well(base, tmp_path, case):
    """The same file, the same base, its fingerprint too, in a model that has one c_attn."""
    transformers = pytest.importorskip("transformers")
    model = attach(GPT.from_pretrained(base), **OPTIONS[case])
    lora.save(model, tmp_path / "adapter")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(base).eval()
    lora.load(theirs, tmp_path / "adapter")
    torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), rtol=0, atol=1e-5)


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], ["q_proj", "k_proj", "v_proj"], ["k_proj"]], ids=str)
def test_an_adapter_that_has_not_learned_yet_keeps_its_parts(base, tmp_path, targets):
    """B is zero, so that the zeros tell nothing: the file says whose ranks are whose."""
    model = GPT.from_pretrained(base)
    lora.attach(model, lora.Config(r=3, targets=targets))
    lora.save(model, tmp_path / "adapter")
    again = opened(base, tmp_path / "adapter", trainable=True)
    names = {name: tuple(p.shape) for name, p in model.named_parameters()}
    assert {name: tuple(p.shape) for name, p in again.named_parameters()} == names
    lora.refill(again, tmp_path / "adapter")


def test_slices_that_have_not_learned_yet_keep_their_parts(base, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs, again = (transformers.AutoModelForCausalLM.from_pretrained(base) for _ in range(2))
    lora.attach(theirs, lora.Config(r=3, targets=["c_attn"], slices={"c_attn": (True, False, True)}))
    lora.save(theirs, tmp_path / "adapter")
    lora.load(again, tmp_path / "adapter")
    assert lora.modules_of(again, "default")[0].parts == ((16, True), (16, False), (16, True))


@pytest.mark.parametrize("compact", [False, True])
def test_a_compact_file_of_unequal_ranks(base, tmp_path, compact):
    model = attach(GPT.from_pretrained(base), rank_pattern={"v_proj": 2})
    lora.save(model, tmp_path / "adapter", compact=compact)
    torch.testing.assert_close(opened(base, tmp_path / "adapter")(TOKENS), model(TOKENS), rtol=1e-6, atol=1e-6)


def test_dora_on_a_part_is_refused_and_nothing_is_written(base, tmp_path):
    model = attach(GPT.from_pretrained(base), targets=["q_proj"], dora=True)
    with pytest.raises(lora.Error, match=r"c_attn: dora on a part of a fused weight.*adapt all parts, or none"):
        lora.save(model, tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()


def test_what_the_config_on_disk_says(base, tmp_path):
    model = attach(
        GPT.from_pretrained(base), bias="all", exclude=r"blocks\.0\..*", alpha_pattern={"v_proj": 7}, layers=[1]
    )
    lora.save(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["modules_to_save"] is config["exclude_modules"] is config["layers_to_transform"] is None
    stored = files.read(tmp_path / "adapter")
    assert [path for path in stored.updates if stored.config.wants(path)] == list(stored.updates)
    assert len(stored.updates) == 1


def test_alphas_come_back_as_they_were_given(tmp_path):
    torch.manual_seed(0)
    GPT(presets.llama_like(**SIZES)).save_pretrained(tmp_path / "base")
    model = attach(GPT.from_pretrained(tmp_path / "base"), alpha_pattern={"v_proj": 7})
    lora.save(model, tmp_path / "adapter")
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    alphas = {config["lora_alpha"], *config["alpha_pattern"].values()}
    assert alphas == {4, 7} and all(isinstance(alpha, int) for alpha in alphas)
    assert torch.equal(opened(tmp_path / "base", tmp_path / "adapter")(TOKENS), model(TOKENS))


def test_an_adapter_of_a_fused_layer_with_other_sizes_is_refused(base, tmp_path):
    lora.save(attach(GPT.from_pretrained(base)), tmp_path / "adapter")
    other = GPT(GPTConfig(**SIZES | {"d_model": 24}))
    with pytest.raises(lora.Error, match="16 inputs and 48 outputs, the layer 24 and 72"):
        lora.load(other, tmp_path / "adapter", check_base=False)
    assert not lora.layers_of(other) and isinstance(other.blocks[0].attn.q_proj, nn.Linear)
