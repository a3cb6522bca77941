"""What is looked at inside a model is what transformers, a loop or a fresh adapter says."""

import json
import math

import peft
import pytest
import torch
from helpers import KINDS, config, model, randomize, tokens
from transformers import AutoModelForCausalLM, DynamicCache

import lora
from minigpt import GPT, Error, sliding
from minigpt.cache import Cache
from minigpt.generation import beam_search
from minigpt.insight.attention import attention_weights
from minigpt.insight.chances import log_chances, next_tokens
from minigpt.insight.dial import dial
from minigpt.insight.growth import growth, spot_of
from minigpt.insight.repetition import repeated
from minigpt.model import Attention
from minigpt.tuning import prefix


@pytest.mark.parametrize("kind", ["gpt2", "gpt1", "llama"])
def test_attention_is_that_of_transformers(kind, tmp_path):
    gpt = randomize(GPT(config(kind)), 0.3).eval()
    gpt.save_pretrained(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    x = tokens(2, 12)
    with torch.no_grad():
        theirs = torch.stack(reference(x, output_attentions=True).attentions)
    assert torch.allclose(attention_weights(gpt, x), theirs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_add_up_and_no_token_looks_ahead(kind):
    gpt, x = model(kind), tokens(1, 14)
    attends = [module.attend for module in gpt.modules() if isinstance(module, Attention)]
    weights = attention_weights(gpt.train(), x)
    assert gpt.training and attends == [module.attend for module in gpt.modules() if isinstance(module, Attention)]
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    assert weights.triu(1).abs().max() == 0


def test_a_window_and_padding_are_not_looked_at():
    gpt, keep = model("gpt3"), torch.ones(1, 12, dtype=torch.bool)
    keep[:, :3] = False
    weights = attention_weights(gpt, tokens(1, 12), keep=keep)
    assert weights[:, 0, :, 3:, :3].abs().max() == 0
    banded = [layer for layer in range(gpt.config.n_layers) if gpt.config.layer_window(layer)]
    window = gpt.config.window
    assert weights[banded[0], 0, :, 11, : 12 - window].abs().max() == 0
    assert weights[banded[0], 0, :, 11, 12 - window :].min() > 0


def test_a_prefix_is_looked_at_in_front():
    gpt, x = model("llama"), tokens(1, 6)
    plain = attention_weights(gpt, x)
    prefix.attach(gpt, prefix.PrefixConfig(length=3), "p")
    for module in gpt.modules():
        if isinstance(where := getattr(module, "learned_in", None), str):
            randomize(getattr(module, where), 0.5)
    weights = attention_weights(gpt, x)
    assert weights.shape[-1] == 9 and weights[..., :3].min() > 0
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-5)
    # A text keeps what it looks at where it keeps its positions: for rotary ones only the distance counts.
    rest = weights[0, ..., 3:]  # of the first layer, whose queries no prefix has touched
    assert torch.allclose(rest / rest.sum(-1, keepdim=True), plain[0], atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_prefix_is_the_past_of_transformers(kind, tmp_path):
    gpt, x = model(kind, std=0.2), tokens(1, 7)
    gpt.save_pretrained(tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    prefix.attach(gpt, prefix.PrefixConfig(length=3), "p")
    randomize(gpt.prefixes, 0.5)
    table, past = gpt.prefixes.held["p"].table.detach().permute(1, 2, 0, 3)[:, None], DynamicCache()
    for layer in range(gpt.config.n_layers):
        past.update(table[2 * layer], table[2 * layer + 1], layer)
    with torch.no_grad():
        theirs = torch.stack(reference(x, past_key_values=past, output_attentions=True).attentions)
    assert torch.allclose(attention_weights(gpt, x), theirs, atol=1e-5)


def test_with_sinks_the_first_tokens_and_the_window_are_looked_at():
    gpt = model("llama", std=0.3, window=4, banded_layers=(0, 1), sinks=2, context=6)
    weights = attention_weights(gpt, tokens(1, 12))
    i, j = torch.arange(12)[:, None], torch.arange(12)
    seen = (j <= i) & ((j < 2) | (i - j < 4))
    assert weights[..., seen].min() > 0 and weights[..., ~seen].max() == 0
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-6)


@pytest.mark.parametrize("kind", ["gpt2", "gpt3"])
def test_what_a_cache_holds_is_looked_at_too(kind, monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", 0)  # so that a banded layer has fewer keys
    gpt, x = model(kind, std=0.3), tokens(1, 14)
    cache = Cache(gpt.config, 1, 14)
    with torch.no_grad():
        gpt.hidden(x[:, :11], cache=cache)
    later = attention_weights(gpt, x[:, 11:], cache=cache)
    assert torch.allclose(later, attention_weights(gpt, x)[..., 11:, :], atol=1e-5)


def test_16_bits_add_up_to_1_too():
    weights = attention_weights(model("llama", std=0.3, dtype=torch.bfloat16), tokens(1, 12))
    assert weights.dtype == torch.float32
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:-1]), atol=1e-6)


def test_an_error_leaves_attention_as_it_was():
    gpt = model("gpt2")
    before = [module.attend for module in gpt.modules() if isinstance(module, Attention)]
    with pytest.raises(Error):
        attention_weights(gpt, tokens(1, 2000))
    assert before == [module.attend for module in gpt.modules() if isinstance(module, Attention)]


def test_chances_are_the_softmax_of_the_last_logits():
    gpt, x = model("llama"), tokens(1, 9)
    with torch.no_grad():
        wanted = gpt.eval()(x)[0, -1].softmax(-1)
    found = next_tokens(gpt.train(), x[0].tolist(), 5)
    assert [token for token, _ in found] == wanted.topk(5).indices.tolist()
    assert [p for _, p in found] == pytest.approx(wanted.topk(5).values.tolist(), abs=1e-6)
    with pytest.raises(Error, match="has 0 tokens"):
        log_chances(gpt, [])
    gpt.final_norm.weight.data.fill_(math.nan)
    with pytest.raises(Error, match="are NaN"):
        next_tokens(gpt, [1], 5)


def adapted(**options) -> GPT:
    torch.manual_seed(0)
    gpt = model("gpt2").eval()
    lora.attach(gpt, lora.Config(**{"r": 4, "alpha": 8, "targets": "all-linear"} | options), "a")
    for module in lora.layers_of(gpt).values():
        torch.nn.init.normal_(module.adapters["a"].B, std=0.2)
    return gpt


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"targets": ["q_proj", "v_proj"]}])
def test_a_scale_is_a_fresh_adapter_with_that_much_alpha(options):
    gpt, ids = adapted(**options), tokens(1, 8)[0].tolist()
    found = dial(gpt, lora, "a", ids, (0.0, 0.5, 1.0, 1.7), top=6)
    state = gpt.state_dict()
    for scale, row in zip(found.scales, found.probabilities, strict=True):
        if scale:
            other = adapted(**options | {"alpha": 8 * scale})
            other.load_state_dict(state)
            wanted = log_chances(other, ids).exp()
        else:
            with lora.disabled(gpt):
                wanted = log_chances(gpt, ids).exp()
        assert torch.allclose(row, wanted[list(found.tokens)], atol=1e-6)
    with lora.disabled(gpt):
        base = log_chances(gpt, ids)
    assert found.kl[0] == 0 and found.kl[2] > 0.01
    by_hand = sum(math.exp(p) * (p - q) for p, q in zip(log_chances(gpt, ids).tolist(), base.tolist(), strict=True))
    assert found.kl[2].item() == pytest.approx(by_hand, abs=1e-5)
    assert torch.allclose(found.probabilities.sum(1) + found.rest, torch.ones(4), atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}, {"bias": "lora_only"}])
def test_a_scale_is_that_much_alpha_in_peft(options, tmp_path):
    gpt, ids = adapted(**options), tokens(1, 8)[0].tolist()
    for layer in lora.layers_of(gpt).values():
        randomize(layer.adapters["a"], 0.2)
    scales = (0.0, 0.5, 1.0, 1.7)
    found = dial(gpt, lora, "a", ids, scales, top=6)
    lora.save(gpt, tmp_path / "a")
    lora.detach(gpt)
    gpt.save_pretrained(tmp_path / "base")
    settings = json.loads((tmp_path / "a" / "adapter_config.json").read_text())
    for scale, row in zip(scales, found.probabilities, strict=True):
        changed = {"lora_alpha": settings["lora_alpha"] * scale}
        changed |= {"alpha_pattern": {k: v * scale for k, v in settings.get("alpha_pattern", {}).items()}}
        (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(settings | changed))
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        other = peft.PeftModel.from_pretrained(base, tmp_path / "a").eval()
        with torch.no_grad():
            wanted = other(torch.tensor([ids])).logits[0, -1].softmax(-1)
        assert torch.allclose(row, wanted[list(found.tokens)], atol=1e-5)
    assert (found.kl[0] == 0) == (not {"dora", "bias"} & options.keys())


def test_of_several_adapters_one_is_turned():
    gpt, ids = adapted(), tokens(1, 8)[0].tolist()
    alone = dial(gpt, lora, "a", ids, (0.5, 1.0), top=6)
    lora.attach(gpt, lora.Config(r=2, targets="all-linear"), "b")
    for layer in lora.layers_of(gpt).values():
        torch.nn.init.normal_(layer.adapters["b"].B, std=0.2)
    lora.use(gpt, "a")
    again = dial(gpt, lora, "a", ids, (0.5, 1.0), top=6)
    assert torch.equal(again.probabilities, alone.probabilities) and torch.equal(again.kl, alone.kl)
    with pytest.raises(Error, match="'b' is not at work"):
        dial(gpt, lora, "b", ids, (0.5,))
    with pytest.raises(lora.Error, match="no adapter 'c'"):
        dial(gpt, lora, "c", ids, (0.5,))
    lora.use(gpt, "b")
    with_b = log_chances(gpt, ids).exp()
    lora.use(gpt, "a", "b")
    both = dial(gpt, lora, "a", ids, (0.0, 1.0), top=6)
    assert torch.allclose(both.probabilities[0], with_b[list(both.tokens)], atol=1e-6)
    assert torch.equal(both.probabilities[1], log_chances(gpt, ids).exp()[list(both.tokens)])
    with lora.rows(gpt, ["b"]):
        assert dial(gpt, lora, "b", ids, (0.0, 1.0)).kl[1] > 0.01
    with pytest.raises(Error, match="has 25 tokens"):
        dial(gpt, lora, "a", [1] * 25, (0.3,))
    assert torch.equal(dial(gpt, lora, "a", ids, (0.0, 1.0), top=6).probabilities, both.probabilities)


def test_merging_a_scaled_adapter_is_what_the_dial_shows():
    gpt, ids = adapted(), tokens(1, 8)[0].tolist()
    found = dial(gpt, lora, "a", ids, (0.3,), top=6)
    for layer in lora.layers_of(gpt).values():
        layer.adapters["a"].B.data *= 0.3
    lora.merge(gpt)
    assert torch.allclose(log_chances(gpt, ids).exp()[list(found.tokens)], found.probabilities[0], atol=1e-5)


def test_scaled_is_seen_while_serving_and_undone_after_an_error():
    gpt, x = adapted(), tokens(1, 8)
    with lora.serving(gpt), torch.inference_mode():
        before = gpt(x)
        with pytest.raises(ZeroDivisionError), lora.scaled(gpt, "a", 0.0):
            with lora.disabled(gpt):
                base = gpt(x)
            assert torch.allclose(gpt(x), base, atol=1e-6) and not torch.allclose(before, base, atol=1e-2)
            raise ZeroDivisionError
        assert torch.equal(gpt(x), before)
    with pytest.raises(lora.Error, match="no adapter 'b'"), lora.scaled(gpt, "b", 1.0):
        pass
    lora.merge(gpt)
    with pytest.raises(lora.Error, match="merged"), lora.scaled(gpt, "a", 1.0):
        pass


def test_spectra_are_the_singular_values_of_the_dense_update():
    gpt = adapted()
    for path, found in lora.spectra(gpt, "a").items():
        adapter = lora.layers_of(gpt)[path].adapters["a"]
        wanted = torch.linalg.svdvals((adapter.scale * adapter.B @ adapter.A).double())[:4]
        assert list(found.values) == pytest.approx(wanted.tolist(), rel=1e-5)
        assert found.norm == pytest.approx(wanted.norm().item(), rel=1e-5)


def test_growth_is_the_search_and_ends_where_the_best_text_ends():
    gpt, traces = model("gpt2").eval(), []
    ids = tokens(1, 4)[0].tolist()
    found = beam_search(gpt, [ids], num_beams=3, max_new_tokens=6, traces=traces)[0]
    steps = growth(traces[0], lambda run: [f"<{token}>" for token in run])
    assert [len(step) for step in steps] == [len(step) for step in traces[0].steps]
    assert {candidate.fate for step in steps for candidate in step} >= {"running", "dropped"}
    for beam in found:
        step, place = spot_of(traces[0], beam)
        words = []
        while step >= 0:
            words.append(steps[step][place].text)
            step, place = step - 1, steps[step][place].parent
        assert "".join(reversed(words)) == "".join(f"<{token}>" for token in beam.tokens)


def test_a_loop_repeats_itself_and_a_draw_from_many_words_hardly():
    greedy = [3, 1, 4, 1, 5] * 20
    drawn = torch.randint(50_000, (100,), generator=torch.Generator().manual_seed(0)).tolist()
    assert repeated(greedy) == pytest.approx(1 - 5 / 97) and repeated(drawn) == 0
    by_hand = sum(greedy[i : i + 3] in [greedy[j : j + 3] for j in range(i)] for i in range(98)) / 98
    assert repeated(greedy, 3) == pytest.approx(by_hand)
    assert repeated([1, 2], 4) == 0
    with pytest.raises(Error, match="at least 1"):
        repeated([1], 0)
