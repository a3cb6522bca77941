"""Stretched positions are transformers', number by number and in the logits; a cache and a batch change nothing."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from helpers import model, tokens
from transformers import AutoModelForCausalLM, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from minigpt import GPT, Error, GPTConfig, rope
from minigpt.cache import Cache
from minigpt.generation import beam_search, generate
from minigpt.positions import frequencies, inverse_frequencies, rotary

T = 32  # the context before
SCALINGS = {
    "linear": rope.Linear(factor=2.0),
    "dynamic": rope.Dynamic(factor=2.0, original=T),
    "yarn": rope.Yarn(factor=2.0, original=T),
    "yarn, all": rope.Yarn(factor=3.0, original=T, attention_factor=1.25, beta_fast=8.0, beta_slow=0.5, truncate=False),
    "llama3": rope.Llama3(factor=2.0, original=T),
    "llama3, borders": rope.Llama3(factor=4.0, original=T, low_freq_factor=1.5, high_freq_factor=6.0),
}


def theirs(scaling, d_head: int, theta: float, context: int, length: int | None = None):
    """Frequencies and attention factor by transformers."""
    sizes = {"hidden_size": 2 * d_head, "num_attention_heads": 2, "head_dim": d_head}
    config = LlamaConfig(**sizes, **rope.to_config(context, theta, scaling))
    return ROPE_INIT_FUNCTIONS[scaling.kind](config, seq_len=length)


GRID = list(itertools.product((4, 16, 64, 128), (100.0, 10000.0, 500000.0), (1.0, 2.0, 4.0, 13.5), (64, 1024, 8192)))


@pytest.mark.parametrize("kind", SCALINGS)
def test_frequencies_and_factor_are_those_of_transformers(kind):
    for d_head, theta, factor, original in GRID:
        changes = {"factor": factor} | ({} if kind == "linear" else {"original": original})
        scaling = replace(SCALINGS[kind], **changes)
        for length in (1, original, original + 1, 2 * original, 5 * original) if kind == "dynamic" else (7,):
            ours = frequencies(d_head, theta, scaling, torch.tensor([[length]])).flatten()
            expected, attention_factor = theirs(scaling, d_head, theta, int(original * factor), length)
            torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
            assert getattr(scaling, "scale", 1.0) == pytest.approx(attention_factor, abs=1e-6)


def test_yarn_is_not_upside_down():
    """The fastest pairs stay and the slowest are divided: written out by hand, for a case that shows the ramp."""
    scale = frequencies(64, 1e4, rope.Yarn(factor=40.0, original=4096), torch.tensor([[1]]))
    scale = scale / inverse_frequencies(64)
    expected = {0: 1.0, 5: 1.0, 10: 1.0, 15: 0.625, 20: 0.25, 25: 0.025, 31: 0.025}
    for pair, value in expected.items():
        assert scale[pair].item() == pytest.approx(value, rel=1e-5)


def test_defaults_are_the_published_ones():
    assert rope.Llama3(factor=8.0, original=8192) == rope.from_json(
        {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192,
         "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    )  # fmt: skip


def test_dynamic_is_three_thetas_at_twice_the_length():
    ours = frequencies(64, 1e4, rope.Dynamic(factor=2.0, original=1024), torch.tensor([[2048]])).flatten()
    assert torch.allclose(ours, inverse_frequencies(64, 1e4 * 3 ** (64 / 62)), rtol=1e-5)


def test_ntk_is_another_theta_that_slows_the_slowest_pair_by_the_factor():
    for d_head, factor in ((8, 2.0), (64, 4.0), (128, 16.0)):
        ratio = inverse_frequencies(d_head, 1e4) / inverse_frequencies(d_head, rope.ntk_theta(1e4, factor, d_head))
        assert ratio[0] == 1 and ratio[-1].item() == pytest.approx(factor, rel=1e-5)
        assert (ratio.diff() > 0).all()


def test_angles_are_multiplied_by_the_attention_factor_and_linear_by_its_positions():
    positions = torch.arange(40)[None]
    plain, half = rotary(positions, 8, 1e4, torch.float64), rotary(positions, 8, 1e4, torch.float64, SCALINGS["linear"])
    for a, b in zip(plain, half, strict=True):
        assert torch.equal(a[:, :, :20], b[:, :, ::2])
    cos, sin = rotary(positions, 8, 1e4, torch.float64, rope.Yarn(factor=4.0, original=T))
    assert torch.allclose((cos**2 + sin**2).sqrt(), torch.tensor(0.1 * math.log(4) + 1, dtype=torch.float64))


# With transformers


def stretched(kind: str, std: float = 0.3, **changes) -> GPT:
    return model("llama", std=std, context=2 * T, rope_scaling=SCALINGS[kind], **changes)


@pytest.mark.parametrize("kind", SCALINGS)
def test_transformers_opens_it_with_equal_logits_and_we_read_it_back(kind, tmp_path):
    ours = stretched(kind)
    ours.save_pretrained(tmp_path / "ours")
    reference = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    for length in (5, T, T + 1, 2 * T - 1, 2 * T):  # upwards: theirs remembers the longest text it was given
        x = tokens(2, length)
        with torch.no_grad():
            torch.testing.assert_close(ours(x), reference(x).logits, atol=1e-4, rtol=1e-4)
    again = GPT.from_pretrained(tmp_path / "ours")
    assert again.config == ours.config
    reference.save_pretrained(tmp_path / "theirs")
    assert GPT.from_pretrained(tmp_path / "theirs").config == ours.config


@pytest.mark.parametrize("kind", SCALINGS)
def test_our_own_directory_and_json_keep_it(kind, tmp_path):
    ours = stretched(kind, window=5, banded_layers=(1,))
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "minigpt"
    again, x = GPT.from_pretrained(tmp_path), tokens(1, 50)
    assert again.config == ours.config and hash(again.config) == hash(ours.config)
    assert torch.equal(again(x), ours(x))


OTHERS = [  # spellings of others: config.json -> what it means
    ({"rope_scaling": {"type": "linear", "factor": 4.0}}, rope.Linear(factor=4.0), 512),
    ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, rope.Dynamic(factor=4.0, original=512), 2048),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2}, "original_max_position_embeddings": 256},
     rope.Yarn(factor=2, original=256), 512),
    ({"rope_scaling": {"rope_type": "yarn", "factor": None, "original_max_position_embeddings": 128}},
     rope.Yarn(factor=4.0, original=128), 512),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "mscale": 1.0,
                          "mscale_all_dim": 0.5}},
     rope.Yarn(factor=4.0, original=128, attention_factor=(0.1 * math.log(4) + 1) / (0.05 * math.log(4) + 1)), 512),
]  # fmt: skip


@pytest.mark.parametrize(("config", "scaling", "context"), OTHERS, ids=[str(row[0]) for row in OTHERS])
def test_spellings_of_others(config, scaling, context):
    theta, found, room = rope.from_config(config | {"rope_theta": 300.0}, 512)
    assert (theta, found, room) == (300.0, scaling, context)


WRONG = [
    ({"rope_scaling": {"rope_type": "yarm", "factor": 2.0}}, "did you mean 'yarn'"),
    ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "lacks 'original_max_position_embeddings'"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor is 0.5: give a number, at least 1"),
    ({"rope_scaling": {"rope_type": "linear", "factor": True}}, "factor is True"),
    ({"rope_scaling": 2.0}, "rope_scaling is 2.0: give one of minigpt.rope: Linear, Dynamic"),
    ({"rope_scaling": SCALINGS["yarn"], "positions": "learned"}, "positions is 'learned': leave it out"),
    ({"rope_scaling": SCALINGS["yarn"], "d_head": 2}, "d_head is 2: give at least 4"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=str)
def test_what_cannot_be_is_refused_with_the_fix(changes, message):
    with pytest.raises(Error, match=message):
        GPTConfig(**{"positions": "rotary"} | changes)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rope.Dynamic(factor=2.0, original=1.5), "original is 1.5: give a whole number of tokens"),
        (lambda: rope.Yarn(factor=2.0, original=8, beta_fast=1, beta_slow=2), "below beta_slow 2: swap them"),
        (lambda: rope.Yarn(factor=2.0, original=8, truncate=1), "truncate is 1: give True or False"),
        (lambda: rope.Yarn(factor=2.0, original=8, attention_factor=0), "attention_factor is 0: give a number, above"),
        (lambda: rope.Llama3(factor=2.0, original=8, low_freq_factor=4), "not above low_freq_factor 4"),
        (lambda: rope.Linear(factor=math.inf), "factor is inf"),
        (lambda: rope.ntk_theta(1e4, 2.0, 2), "d_head is 2: use linear"),
    ],
)
def test_a_record_checks_itself(make, message):
    with pytest.raises(Error, match=message):
        make()


# With a cache


@pytest.mark.parametrize("kind", [kind for kind in SCALINGS if kind != "dynamic"])
@pytest.mark.parametrize("chunks", [[60], [1] * 60, [7, 30, 1, 22]], ids=len)
def test_any_chunking_is_the_full_forward(kind, chunks):
    gpt, x = stretched(kind).double(), tokens(2, 60)
    cache = Cache(gpt.config, 2, dtype=torch.float64)
    with torch.inference_mode():
        parts = [gpt(part, cache=cache) for part in x.split(chunks, 1)]
        torch.testing.assert_close(torch.cat(parts, 1), gpt(x), atol=1e-10, rtol=1e-8)


def test_dynamic_through_a_cache_is_turned_for_the_whole_context_from_the_first_token(tmp_path):
    """Else old keys would be turned by one theta and new queries by another. So it is transformers' full forward of a
    text as long as the context, at every place, and of any text where theta is that of the context."""
    gpt, x = stretched("dynamic").double(), tokens(1, 2 * T)
    cache = Cache(gpt.config, 1, dtype=torch.float64)
    with torch.inference_mode():
        steps = torch.cat([gpt(part, cache=cache) for part in x.split([9, 40, 1, 1, 13], 1)], 1)
        torch.testing.assert_close(steps, gpt(x), atol=1e-10, rtol=1e-8)
    gpt.float().save_pretrained(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(steps.float(), reference(x).logits, atol=1e-4, rtol=1e-4)
        frozen = model("llama", context=2 * T, rope_theta=1e4 * 3 ** (8 / 6))
        frozen.load_state_dict(gpt.state_dict())
        torch.testing.assert_close(steps[:, :50].float(), frozen(x[:, :50]), atol=1e-4, rtol=1e-4)
        assert (gpt(x[:, :50]) - frozen(x[:, :50])).abs().max() > 1e-2  # which without a cache it is not


@pytest.mark.parametrize("kind", SCALINGS)
def test_texts_with_a_cache_and_without_alone_and_together(kind):
    gpt = stretched(kind)
    prompts = [[5, 9, 2], list(range(40)), [7]]
    for options in ({"temperature": 0}, {"seed": 3, "eos": [1, 2]}):
        together = generate(gpt, prompts, 20, **options)
        assert together == generate(gpt, prompts, 20, use_cache=False, **options)
    alone = [generate(gpt, [prompt], 20, row=row, **options)[0] for row, prompt in enumerate(prompts)]
    assert alone == together
    beams = {"num_beams": 3, "max_new_tokens": 12, "eos": [1, 2]}
    ours, plain = (beam_search(gpt, prompts, use_cache=use_cache, **beams) for use_cache in (True, False))
    assert [[beam.tokens for beam in row] for row in ours] == [[beam.tokens for beam in row] for row in plain]


def test_dynamic_rows_of_a_batch_are_each_as_long_as_they_are():
    gpt, long, short = stretched("dynamic").double(), tokens(1, 60), tokens(1, 40)
    x, keep = torch.zeros(2, 60, dtype=torch.int64), torch.ones(2, 60, dtype=torch.bool)
    x[0], x[1, 20:], keep[1, :20] = long, short, False
    with torch.no_grad():
        torch.testing.assert_close(gpt(x, keep=keep)[1, 20:], gpt(short)[0], atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("kind", [kind for kind in SCALINGS if kind != "dynamic"])
def test_the_future_is_not_seen(kind):
    gpt, x = stretched(kind, std=0.02), tokens(2, 60)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.mul_(1000)
        other = x.clone()
        other[:, 41:] = (other[:, 41:] + 1) % 61
        assert torch.equal(gpt(x)[:, :41], gpt(other)[:, :41])
