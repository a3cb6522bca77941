"""A config refuses what cannot work, naming the fix; the presets are the published models, to the parameter."""

import dataclasses
import json

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

from minigpt import Error, GPTConfig, presets
from minigpt.model import count_parameters

WRONG = [
    ({"vocab_size": 0}, "vocab_size is 0: give a whole number of at least 1"),
    ({"context": -1}, "context is -1"),
    ({"n_layers": 2.0}, "n_layers is 2.0"),
    ({"d_model": "768"}, "d_model is '768'"),
    ({"d_model": None}, "d_model is None"),
    ({"n_heads": True}, "n_heads is True"),
    ({"d_head": 0}, "d_head is 0"),
    ({"d_ff": 0}, "d_ff is 0"),
    ({"d_model": 70, "n_heads": 12}, "take d_model 60 or 72, or set d_head"),
    ({"d_model": 5, "n_heads": 12}, "take d_model 12"),
    ({"n_heads": 12, "n_kv_heads": 5}, r"take one of \[1, 2, 3, 4, 6, 12\]"),
    ({"n_kv_heads": 24}, "do not divide"),
    ({"norm": "rms_norm"}, "did you mean 'rmsnorm'"),
    ({"norm_place": "Pre"}, "did you mean 'pre'"),
    ({"activation": "gelu_new"}, "did you mean 'gelu"),
    ({"activation": "mish"}, "known: 'gelu', 'gelu_tanh', 'relu', 'relu2', 'silu'"),
    ({"positions": "rope"}, "known: 'learned', 'rotary'"),
    ({"positions": "rotary", "d_head": 5}, "d_head is 5: make it even"),
    ({"attn_dropout": 1.0}, r"attn_dropout is 1.0: give a probability in \[0, 1\)"),
    ({"embed_dropout": -0.1}, "embed_dropout is -0.1"),
    ({"resid_dropout": float("nan")}, "resid_dropout is nan"),
    ({"resid_dropout": "0.1"}, "resid_dropout is '0.1'"),
    ({"norm_eps": 0.0}, "norm_eps is 0.0: give a number above 0"),
    ({"norm_eps": "1e-5"}, "norm_eps is '1e-5'"),
    ({"rope_theta": float("inf")}, "rope_theta is inf"),
    ({"init_std": -0.02}, "init_std is -0.02"),
    ({"tied": "false"}, "tied is 'false': give True or False"),
    ({"bias": 1}, "bias is 1: give True or False"),
    ({"gated": None}, "gated is None"),
    ({"window": 256}, r"needs both \(say window=256, banded_layers="),
    ({"banded_layers": (1,)}, "needs both"),
    ({"window": 0, "banded_layers": (1,)}, "window is 0"),
    ({"window": 4, "banded_layers": (12,)}, "layer 12: layers are 0 to 11"),
    ({"window": 4, "banded_layers": (-1,)}, "layer -1"),
    ({"window": 4, "banded_layers": (True,)}, "layer True"),
    ({"window": 4, "banded_layers": (1, 1)}, "name each once"),
    ({"window": 4, "banded_layers": 1}, "banded_layers is 1: give a list of layer numbers"),
    ({"window": 4, "banded_layers": None}, "banded_layers is None"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=str)
def test_what_cannot_work_is_refused_with_the_fix(changes, message):
    with pytest.raises(Error, match=message):
        GPTConfig(**changes)


def test_a_misspelt_field_names_the_nearest():
    with pytest.raises(Error, match="no field 'n_layer': did you mean 'n_layers'"):
        GPTConfig.from_dict({"n_layer": 3})


def test_sizes_left_out_are_derived():
    config = GPTConfig(n_heads=4, d_model=48)
    assert (config.d_head, config.n_kv_heads, config.d_ff) == (12, 4, 192)
    assert GPTConfig(n_heads=4, d_model=50, d_head=7).d_head == 7


def test_a_config_is_frozen_and_hashable():
    config = GPTConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.n_layers = 3
    assert config == GPTConfig() and hash(config) == hash(GPTConfig())
    assert dataclasses.replace(config, n_layers=3).n_layers == 3


@pytest.mark.parametrize(
    "config",
    [presets.gpt1(), presets.gpt2("xl"), presets.gpt3("13B"), presets.llama_like(n_kv_heads=4)],
    ids=["gpt1", "gpt2", "gpt3", "llama"],
)
def test_a_config_survives_json(config):
    again = GPTConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config and hash(again) == hash(config)


def formula(layers, inner, d, context, vocab=50257, final_norm=True):
    """Tied embedding, positions, and layers of two norms (4 d), q k v o (4 d inner + 3 inner + d), MLP (8 d^2 + 5 d).

    With inner = n_heads x d_head = d this is V d + T d + L (12 d^2 + 13 d) + 2 d.
    """
    layer = 4 * d + (4 * d * inner + 3 * inner + d) + (8 * d**2 + 5 * d)
    return vocab * d + context * d + layers * layer + (2 * d if final_norm else 0)


COUNTS = {
    "gpt1": (presets.gpt1(), 116_534_784, formula(12, 768, 768, 512, 40478, final_norm=False)),
    "gpt2 small": (presets.gpt2("small"), 124_439_808, formula(12, 768, 768, 1024)),
    "gpt2 medium": (presets.gpt2("medium"), 354_823_168, formula(24, 1024, 1024, 1024)),
    "gpt2 large": (presets.gpt2("large"), 774_030_080, formula(36, 1280, 1280, 1024)),
    "gpt2 xl": (presets.gpt2("xl"), 1_557_611_200, formula(48, 1600, 1600, 1024)),
    "gpt3 small": (presets.gpt3("small"), 125_226_240, formula(12, 768, 768, 2048)),
    "gpt3 medium": (presets.gpt3("medium"), 355_871_744, formula(24, 1024, 1024, 2048)),
    "gpt3 large": (presets.gpt3("large"), 760_300_032, formula(24, 1536, 1536, 2048)),
    "gpt3 XL": (presets.gpt3("XL"), 1_517_123_584, formula(24, 24 * 128, 2048, 2048)),
    "gpt3 2.7B": (presets.gpt3("2.7B"), 2_651_553_280, formula(32, 2560, 2560, 2048)),
    "gpt3 6.7B": (presets.gpt3("6.7B"), 6_658_404_352, formula(32, 4096, 4096, 2048)),
    "gpt3 13B": (presets.gpt3("13B"), 12_936_488_380, formula(40, 40 * 128, 5140, 2048)),
    "gpt3 175B": (presets.gpt3("175B"), 174_604_259_328, formula(96, 12288, 12288, 2048)),
}


@pytest.mark.parametrize("name", COUNTS)
def test_presets_have_the_published_number_of_parameters(name):
    config, count, by_formula = COUNTS[name]
    assert count_parameters(config) == count == by_formula


def test_two_rows_of_the_gpt3_table_do_not_multiply_out():
    """Heads x d_head is 24 x 128 for d_model 2048 and 40 x 128 for 5140; had it been d_model, these were the counts."""
    assert formula(24, 2048, 2048, 2048) == 1_315_723_264
    assert formula(40, 5140, 5140, 2048) == 12_952_938_780
    xl, b13 = presets.gpt3("XL"), presets.gpt3("13B")
    assert (xl.n_heads * xl.d_head, xl.d_model) == (3072, 2048)
    assert (b13.n_heads * b13.d_head, b13.d_model) == (5120, 5140)


@pytest.mark.parametrize(
    ("ours", "reference", "shape"),
    [
        (presets.gpt1(), OpenAIGPTLMHeadModel, OpenAIGPTConfig()),
        (presets.gpt2("small"), GPT2LMHeadModel, GPT2Config()),
        (presets.gpt2("xl"), GPT2LMHeadModel, GPT2Config(n_layer=48, n_head=25, n_embd=1600)),
    ],
    ids=["gpt1", "gpt2", "gpt2-xl"],
)
def test_counts_are_those_of_transformers(ours, reference, shape):
    with torch.device("meta"):
        assert count_parameters(ours) == sum(p.numel() for p in reference(shape).parameters())


def test_a_preset_can_be_shrunk():
    assert presets.gpt2("small", n_heads=4, d_model=64).d_head == 16
    assert presets.gpt3("XL", n_heads=4, d_model=64).d_head == 16
    assert presets.gpt3("XL", n_layers=4).d_head == 128
    assert presets.gpt1(n_heads=4, d_model=64, vocab_size=100).d_ff == 256
    assert presets.gpt2(n_heads=4, d_model=64, d_head=8).d_head == 8


def test_gpt3_alternates_dense_and_banded():
    config = presets.gpt3("small", n_layers=5)
    assert [config.layer_window(layer) for layer in range(5)] == [None, 256, None, 256, None]
    assert presets.gpt3("small", window=None).banded_layers == ()
    assert presets.gpt3("small", n_layers=1).window is None
    assert presets.gpt3("small", n_layers=3, banded_layers=range(0, 3, 2)).layer_window(0) == 256


def test_an_unknown_size_names_the_known():
    with pytest.raises(Error, match="no size 'meduim': did you mean 'medium'"):
        presets.gpt2("meduim")
    with pytest.raises(Error, match="no size '175b': did you mean '175B'"):
        presets.gpt3("175b")
