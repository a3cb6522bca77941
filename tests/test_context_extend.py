"""An extended model has the old weights and reads further; what is cropped has the same logits."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from helpers import model, tokens
from transformers import AutoModelForCausalLM

import lora
from minigpt import GPT, Error, rope
from minigpt.context.extend import endless, extend, extended, parse_length, stretch_table
from minigpt.context.options import ROPES
from minigpt.training.compose import make_model, row_length
from minigpt.training.options import ShapeConfig

KINDS = ("gpt2", "gpt1", "gpt3", "llama", "mixture")


def test_a_table_is_stretched_by_the_formula_in_loops():
    table, length = torch.randn(7, 5), 19
    expected = torch.zeros(length, 5)
    for j in range(length):
        place = j * (7 - 1) / (length - 1)
        low = min(int(place), 5)
        expected[j] = (1 - (place - low)) * table[low] + (place - low) * table[low + 1]
    assert torch.allclose(stretch_table(table, length), expected, atol=1e-6)
    assert torch.equal(stretch_table(table, length)[[0, -1]], table[[0, -1]])
    assert torch.equal(stretch_table(table, 4), table[:4])
    whole = torch.arange(6.0)[:, None] @ torch.ones(1, 3)  # 11 rows of 6: every second one is an old one
    assert torch.allclose(stretch_table(whole, 11)[::2], whole)
    assert stretch_table(table.half(), 9).dtype == torch.float16


@pytest.mark.parametrize("how", ROPES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_extended_model_reads_further_and_is_opened_by_transformers(kind, how, tmp_path):
    gpt = model(kind, std=0.3, d_head=8)
    longer = extend(gpt, 50, how)
    assert longer.config.context == 50 and gpt.config.context == 24 and not longer.training
    learned = gpt.config.positions == "learned"
    ours = dict(gpt.named_parameters())
    for name, weight in longer.named_parameters():
        assert weight is ours[name] or (learned and name == "position_embedding.weight")
    x = tokens(2, 50)
    with torch.no_grad():
        logits = longer(x)
    longer.save_pretrained(tmp_path)
    again = GPT.from_pretrained(tmp_path)
    assert again.config == longer.config
    assert torch.equal(again(x), logits)
    if kind in ("gpt2", "gpt1", "llama"):
        reference = AutoModelForCausalLM.from_pretrained(tmp_path)
        with torch.no_grad():
            torch.testing.assert_close(logits, reference(x).logits, atol=2e-4, rtol=1e-4)


def test_short_texts_are_read_as_before_where_that_is_the_promise():
    gpt, x = model("llama", std=0.3), tokens(2, 24)
    with torch.no_grad():
        for how, same in {"none": True, "dynamic": True, "linear": False, "yarn": False, "ntk": False}.items():
            assert torch.equal(extend(gpt, 48, how)(x), gpt(x)) == same


@pytest.mark.parametrize("kind", KINDS)
def test_a_cropped_model_has_the_same_logits(kind):
    gpt, x = model(kind, std=0.3), tokens(2, 10)
    shorter = extend(gpt, 10)
    assert shorter.config.context == 10 and shorter.config.rope_scaling is None
    with torch.no_grad():
        assert torch.equal(shorter(x), gpt(x))
    with pytest.raises(Error, match="do not fit the context of 10"):
        shorter(tokens(1, 11))


def test_learned_positions_of_an_extended_model_are_between_the_old_ones():
    gpt = model("gpt2", std=0.3)
    longer = extend(gpt, 47)  # every second row is an old one
    old, x = gpt.position_embedding.weight, tokens(1, 24)
    assert torch.allclose(longer.position_embedding.weight[::2], old, atol=1e-6)
    assert longer.position_embedding.weight.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(longer(x, positions=2 * torch.arange(24)[None]), gpt(x), atol=1e-5, rtol=1e-5)


def test_what_is_stretched_is_stretched_on():
    config = model("llama").config
    twice = extended(extended(config, 48, "yarn"), 96, "yarn")
    assert twice == extended(config, 96, "yarn") and twice.rope_scaling == rope.Yarn(factor=4.0, original=24)
    assert extended(extended(config, 48, "linear"), 96, "linear") == extended(config, 96, "linear")
    assert extended(extended(config, 48, "dynamic"), 96, "dynamic").rope_scaling.original == 24
    assert extended(extended(config, 48, "ntk"), 96, "ntk").rope_theta == pytest.approx(
        extended(config, 96, "ntk").rope_theta
    )
    with pytest.raises(Error, match="stretched by yarn already: go on with rope='yarn'"):
        extended(extended(config, 48, "yarn"), 96, "linear")


def test_a_tied_head_stays_tied_and_training_goes_on():
    gpt = model("llama", tied=True).train()
    longer = extend(gpt, 48)
    assert longer.head.weight is longer.token_embedding.weight and longer.training
    logits = longer(x := tokens(2, 48))
    F.cross_entropy(logits.flatten(0, 1), x.flatten()).backward()
    assert all(weight.grad is not None for weight in longer.parameters())


def test_training_goes_on_from_an_extended_model(tmp_path):
    model("llama", std=0.3).save_pretrained(tmp_path)
    data = SimpleNamespace(vocab_size=61)
    for shape, context, kind in (
        (ShapeConfig(init=str(tmp_path), extend_context="2x"), 48, rope.Yarn),
        (ShapeConfig(init=str(tmp_path), extend_context="100", rope="linear", context=8), 100, rope.Linear),
        (ShapeConfig(init=str(tmp_path), context=8), 8, type(None)),
    ):
        gpt = make_model(shape, data, seed=0, device="cpu")
        assert row_length(shape, gpt) == context and type(gpt.config.rope_scaling) is kind
    with pytest.raises(Error, match="--extend-context stretches a model that is there: name it with --init"):
        ShapeConfig(extend_context="2x")
    with pytest.raises(Error, match="--rope is 'yarm': did you mean 'yarn'"):
        ShapeConfig(rope="yarm")


def test_endless_is_the_model_itself_up_to_its_context():
    gpt, x = model("llama", std=0.3), tokens(1, 24)
    stream = endless(gpt)
    assert (stream.config.sinks, stream.config.window, stream.config.endless) == (4, 20, True)
    with torch.no_grad():
        torch.testing.assert_close(stream(x), gpt(x), atol=1e-5, rtol=1e-5)
        assert stream(tokens(1, 100)).shape == (1, 100, 61)
    assert endless(gpt, sinks=2, window=5).config.window == 5
    with pytest.raises(Error, match="needs a model with rotary positions"):
        endless(model("gpt2"))


def test_what_cannot_be_extended_says_why():
    gpt = model("llama")
    with pytest.raises(Error, match="rope is 'yarm': did you mean 'yarn'"):
        extend(gpt, 48, "yarm")
    with pytest.raises(Error, match="context is 0"):
        extend(gpt, 0)
    lora.attach(gpt, lora.Config(r=2, alpha=4, targets=["q_proj"]))
    with pytest.raises(Error, match="merge or detach the adapters first"):
        extend(gpt, 48)
    for text in ("2 x", "x2", "-3", "twice", ""):
        with pytest.raises(Error, match="give 2x, or a number of tokens, such as 512"):
            parse_length(text, 256)
