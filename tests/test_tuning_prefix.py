"""Prefix-tuning and P-tuning v2 against PEFT, the hard prompt, and one row at a time."""

import copy
import json

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, DynamicCache

import lora
from minigpt import GPT, Error, presets
from minigpt.cache import Cache
from minigpt.generation import beam_search, compiled, generate, score, speculate, stream
from minigpt.generation.reader import Memory
from minigpt.loss import IGNORE, cross_entropy
from minigpt.training import checkpointing
from minigpt.training.optimizer import make_groups, make_optimizer
from minigpt.training.options import OptimizerConfig
from minigpt.tuning import prefix
from minigpt.tuning.prefix import PrefixConfig
from tests import helpers

KINDS = list(helpers.KINDS)
TEXTS = [[5, 9, 2, 7, 1, 30], [8, 3], [44, 6, 17, 12]]


def tuned(kind="gpt2", std=0.3, **config):
    model = helpers.model(kind, std=0.15)
    prefix.attach(model, PrefixConfig(**{"length": 3} | config))
    helpers.randomize(model.prefixes, std)
    return model


def theirs(model, path, **config):
    """The same base in transformers, with PEFT's prefix on it, and ours attached with PEFT's numbers."""
    model.save_pretrained(path)
    base = AutoModelForCausalLM.from_pretrained(path).eval()
    settings = {"task_type": "CAUSAL_LM", "num_virtual_tokens": config["length"]}
    if hidden := config.get("hidden"):
        settings |= {"prefix_projection": True, "encoder_hidden_size": hidden}
    wrapped = peft.get_peft_model(base, peft.PrefixTuningConfig(**settings)).eval()
    report = prefix.attach(model, PrefixConfig(**config))
    for ours, other in pairs(model, wrapped):
        ours.data.copy_(other.detach().view_as(ours))
    return wrapped, report


def pairs(model, wrapped):
    made, encoder = model.prefixes.held["default"], wrapped.prompt_encoder["default"]
    if made.config.hidden is None:
        return [(made.table, encoder.embedding.weight)]
    mlp = zip(made.transform.parameters(), encoder.transform.parameters(), strict=True)
    return [(made.embedding, encoder.embedding.weight), *mlp]


@pytest.mark.parametrize("hidden", [None, 7])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_logits_gradients_counts_and_steps_are_those_of_peft(kind, hidden, tmp_path):
    model = helpers.model(kind, std=0.15)
    wrapped, report = theirs(model, tmp_path, length=4, hidden=hidden)
    tokens = helpers.tokens(3, 9)
    torch.testing.assert_close(model(tokens), wrapped(tokens).logits, atol=1e-5, rtol=0)
    assert report.parameters == sum(each.numel() for each in wrapped.parameters() if each.requires_grad)
    optimizers = [
        torch.optim.AdamW([p for p in each.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
        for each in (model, wrapped)
    ]
    frozen = {key: weight.clone() for key, weight in model.named_parameters() if not weight.requires_grad}
    for step in range(20):
        tokens = helpers.tokens(2, 8)
        targets = torch.cat((tokens[:, 1:], torch.full((2, 1), IGNORE)), 1)
        ours = cross_entropy(model.hidden(tokens), model.head, targets)
        other = wrapped(tokens, labels=tokens).loss
        for optimizer, loss in zip(optimizers, (ours, other), strict=True):
            optimizer.zero_grad()
            loss.backward()
        if step == 0:
            for mine, its in pairs(model, wrapped):
                torch.testing.assert_close(mine.grad, its.grad.view_as(mine), atol=1e-5, rtol=0)
        for optimizer in optimizers:
            optimizer.step()
    for mine, its in pairs(model, wrapped):
        torch.testing.assert_close(mine, its.view_as(mine), atol=2e-5, rtol=0)
    weights = dict(model.named_parameters())
    assert all(torch.equal(weights[key], was) and weights[key].grad is None for key, was in frozen.items())


def test_counts():
    """2 L P d stored; with the MLP P d + d m + m + 2 L d m + 2 L d learn: the figures of the paper's GPT-2 medium."""
    small, medium = presets.gpt2("small"), presets.gpt2("medium")
    with torch.device("meta"):
        reports = [
            prefix.attach(GPT(config), PrefixConfig(length=length, hidden=hidden))
            for config, length, hidden in ((small, 10, None), (medium, 5, None), (medium, 5, 512))
        ]
    d, m, L, P = 1024, 512, 24, 5
    mlp = P * d + d * m + m + 2 * L * d * m + 2 * L * d
    assert [(r.parameters, r.stored) for r in reports] == [
        (184_320, 4 * 184_320),
        (245_760, 4 * 245_760),
        (mlp, 4 * 245_760),
    ]
    assert mlp == 25_744_896
    assert str(reports[0]) == "trains 184,320 of 124,624,128 (0.1479 %), stores 737,280 bytes"


@pytest.mark.parametrize("kind", KINDS)
def test_real_tokens_are_the_hard_prompt(kind):
    model, prompt, text = helpers.model(kind, std=0.15), [11, 4, 50, 23, 7], helpers.tokens(2, 9)
    whole = torch.cat((torch.tensor([prompt] * 2), text), 1)
    hard = model(whole)[:, len(prompt) :].detach()
    unshifted = torch.cat((torch.arange(5), torch.arange(9)))[None]
    if model.config.positions == "learned":
        apart = model(whole, positions=unshifted)[:, len(prompt) :].detach()
    else:
        apart = hard  # rotations know distances only
    prefix.attach(model, PrefixConfig(tokens=prompt))
    prefix.attach(model, PrefixConfig(tokens=prompt, shift=False), "unshifted")
    for name, expected in (("default", hard), ("unshifted", apart)):
        prefix.use(model, name)
        torch.testing.assert_close(model(text), expected, atol=2e-6, rtol=0)


def test_a_prefix_of_zeros_is_not_nothing():
    model = tuned(shift=False)
    model.prefixes.held["default"].table.data.zero_()
    tokens = helpers.tokens()
    changed = model(tokens)
    prefix.use(model, None)
    assert (changed - model(tokens)).abs().max() > 0.01


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind, shift, cached):
    model = tuned(kind, shift=shift)
    tokens = torch.tensor([[0] * (6 - len(text)) + text for text in TEXTS])
    keep = torch.tensor([[False] * (6 - len(text)) + [True] * len(text) for text in TEXTS])
    cache = Cache(model.config, 3, 6) if cached else None
    with torch.no_grad():
        logits = model(tokens, keep=keep, cache=cache)
        for row, text in enumerate(TEXTS):
            alone = model(torch.tensor([text]))[0]
            torch.testing.assert_close(logits[row, -len(text) :], alone, atol=2e-6, rtol=0)
    assert logits.isfinite().all()


@pytest.mark.parametrize("kind", ["gpt2", "mixture"])
def test_each_row_its_own_prefix_or_none(kind):
    model = tuned(kind)
    prefix.attach(model, PrefixConfig(length=5, shift=False), "long")
    prefix.attach(model, PrefixConfig(length=1, hidden=4), "short")
    helpers.randomize(model.prefixes, 0.3)
    names, texts = ["long", None, "default", "short"], [*TEXTS, TEXTS[0]]
    tokens = torch.tensor([[0] * (6 - len(text)) + text for text in texts])
    keep = torch.tensor([[False] * (6 - len(text)) + [True] * len(text) for text in texts])
    with prefix.rows(model, names), torch.no_grad():
        together = model(tokens, keep=keep)
        written = [generate(model, texts, 6, temperature=0, use_cache=use_cache) for use_cache in (True, False)]
        beams = [beam_search(model, texts, 3, 5, use_cache=use_cache) for use_cache in (True, False)]
        scores = score(model, texts)
    assert together.isfinite().all() and written[0] == written[1]
    for row, (name, text) in enumerate(zip(names, texts, strict=True)):
        prefix.use(model, name)
        with torch.no_grad():
            torch.testing.assert_close(together[row, -len(text) :], model(torch.tensor([text]))[0], atol=2e-6, rtol=0)
        assert written[0][row] == generate(model, [text], 6, temperature=0)[0]
        alone = [each.tokens for each in beam_search(model, [text], 3, 5)[0]]
        assert all([each.tokens for each in found[row]] == alone for found in beams)
        assert scores[row].logprobs == pytest.approx(score(model, [text])[0].logprobs, abs=1e-5)
    with prefix.rows(model, names), pytest.raises(Error, match="names 4 rows, the batch has 3"):
        model(tokens[:3])


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "gpt3", "mixture"])
def test_cached_is_uncached_is_compiled(kind, shift, monkeypatch):
    model = tuned(kind, shift=shift, std=0.6)
    monkeypatch.setattr(compiled, "_step", lambda on_gpu: compiled.read)  # the same shapes, uncompiled
    ways = [{}, {"use_cache": False}, {"compile": True}]
    prompts = [*TEXTS, TEXTS[0]]
    greedy = [generate(model, prompts, 30, temperature=0, **way) for way in ways]
    drawn = [generate(model, prompts, 4, temperature=0.9, **way) for way in ways]
    slid = [generate(model, prompts[:2], 26, temperature=0, overflow="slide", **way) for way in ways]
    assert all(way == found[0] for found in (greedy, drawn, slid) for way in found)
    room = model.config.context - 3 * shift
    assert [len(new) for new in greedy[0]] == [room + 1 - len(text) for text in prompts]
    beams = [beam_search(model, TEXTS, 4, 6, **way) for way in ways]
    for found in beams[1:]:
        assert [[beam.tokens for beam in row] for row in found] == [[beam.tokens for beam in row] for row in beams[0]]
    prefix.use(model, None)
    assert generate(model, prompts, 30, temperature=0) != greedy[0]


@pytest.mark.parametrize("kind", ["gpt2", "gpt3", "llama"])
def test_generate_and_beams_by_hand(kind):
    """The prefix fed again at each step, by the base alone: an independent loop over `Cache`."""
    model = tuned(kind)
    text = list(TEXTS[0])
    new = generate(model, [text], 8, temperature=0)[0]
    with torch.no_grad():
        for token in new:
            assert model(torch.tensor([text]))[0, -1].argmax() == token
            text.append(token)
        for beam in beam_search(model, [TEXTS[0]], 3, 5)[0]:
            logits = model(torch.tensor([TEXTS[0] + beam.tokens]))[0, len(TEXTS[0]) - 1 : -1]
            assert logits.log_softmax(-1)[range(5), beam.tokens].sum() == pytest.approx(beam.total, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "gpt3", "llama"])
def test_memory_and_a_draft_count_tokens_and_no_prefix(kind):
    model, draft = tuned(kind), helpers.model("gpt2", std=0.15)
    memory, text = Memory(model), TEXTS[0]
    first = list(stream(model, text, 4, temperature=0, memory=memory))
    assert memory.cache.read == len(text) + 3 and memory.cache.length == memory.cache.read + 3
    for more in (text + first + [3, 1], text[:3] + [9], text[:1] + [9, 9]):
        going_on = list(stream(model, more, 5, temperature=0, memory=memory))
        assert going_on == generate(model, [more], 5, temperature=0)[0]
    for pair in ((model, draft), (model, model), (draft, model)):
        assert speculate(*pair, text, 12, temperature=0).tokens == generate(pair[0], [text], 12, temperature=0)[0]


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "mixture"])
def test_packed_documents_see_the_prefix_and_themselves(kind, shift):
    model = tuned(kind, shift=shift)
    tokens = torch.tensor([TEXTS[0] + TEXTS[1] + TEXTS[2]])
    lengths = [len(text) for text in TEXTS]
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))[None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    with torch.no_grad():
        alone = torch.cat([model(torch.tensor([text])) for text in TEXTS], 1)
        for given in (positions, None):
            packed = model(tokens, documents=documents, positions=given)
            torch.testing.assert_close(packed, alone, atol=2e-6, rtol=0)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_blocks_run_twice_and_give_the_same(dropout):
    model, tokens, calls, found = tuned(hidden=6, dropout=dropout).train(), helpers.tokens(), [], []
    model.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    for through in (model.through, checkpointing.through):
        model.through = through
        model.zero_grad()
        torch.manual_seed(1)
        logits = model(tokens)
        logits.square().mean().backward()
        found.append([logits.detach(), *(weight.grad for weight in model.prefixes.parameters())])
    assert len(calls) == 3
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_p_tuning_v2_drops_numbers_of_each_row_in_training_only():
    config = PrefixConfig.p_tuning_v2(dropout=0.5)
    assert config == PrefixConfig(length=8, hidden=None, dropout=0.5)
    model = helpers.model(std=0.15)
    prefix.attach(model, config)
    tokens = helpers.tokens(1, 5).expand(2, 5)
    quiet = model(tokens)
    assert torch.equal(quiet[0], quiet[1]) and torch.equal(quiet, model(tokens))
    model.train()
    keys, _, _ = model.prefixes.joined(2)
    assert not torch.equal(keys[0][0], keys[0][1]) and 0.3 < (keys[0] == 0).float().mean() < 0.7
    assert generate(model, [[1, 2]], 4, temperature=0) == generate(model.eval(), [[1, 2]], 4, temperature=0)


@pytest.mark.parametrize("hidden", [None, 6])
def test_files_go_both_ways(hidden, tmp_path):
    model, tokens = helpers.model("llama", std=0.15), helpers.tokens(2, 9)
    wrapped, _ = theirs(model, tmp_path / "base", length=4, hidden=hidden)
    expected = model(tokens).detach()
    wrapped.save_pretrained(tmp_path / "theirs")
    prefix.save(model, tmp_path / "ours")
    assert list(load_file(tmp_path / "ours/adapter_model.safetensors")) == ["prompt_embeddings"]
    prefix.detach(model)
    for name in ("ours", "theirs"):
        report = prefix.load(model, tmp_path / name, name, trainable=True)
        assert report.parameters == 4 * 2 * 2 * 16
        torch.testing.assert_close(model(tokens), expected, atol=1e-6, rtol=0)
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    again = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    torch.testing.assert_close(again(tokens).logits, expected, atol=1e-5, rtol=0)


def test_our_own_settings_are_kept_and_wrong_files_refused(tmp_path):
    model = tuned(shift=False, dropout=0.2)
    expected = model(torch.tensor([TEXTS[0]])).detach()
    prefix.save(model, tmp_path)
    prefix.detach(model)
    prefix.load(model, tmp_path)
    made = model.prefixes.held["default"].config
    assert (made.shift, made.dropout) == (False, 0.2)
    assert torch.equal(model(torch.tensor([TEXTS[0]])), expected)
    prefix.detach(model)
    config, tensors = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    good, table = json.loads(config.read_text()), load_file(tensors)
    wrong = [
        ({"num_layer": 2}, table, "unknown setting 'num_layer': did you mean 'num_layers'"),
        ({"num_layers": 3}, table, "num_layers is 3, this model needs 2"),
        ({"peft_type": "LORA"}, table, "peft_type is 'LORA'"),
        ({"num_virtual_tokens": 4}, table, r"expected \(4, 128\)"),
        ({"minigpt_shift": "no"}, table, "shift is 'no'"),
        ({}, {"prompt": table["prompt_embeddings"]}, "expected 'prompt_embeddings' alone"),
        ({}, table | {"more": torch.zeros(1)}, "holds more, prompt_embeddings"),
        ({}, {"prompt_embeddings": table["prompt_embeddings"] * torch.nan}, "NaN"),
    ]
    for changes, held, message in wrong:
        config.write_text(json.dumps(good | changes))
        save_file(held, tensors)
        with pytest.raises(Error, match=message):
            prefix.load(model, tmp_path)
        assert not hasattr(model, "prefixes")


def test_what_does_not_fit_is_said():
    model, text = tuned(length=10), helpers.tokens(1, 15)
    with pytest.raises(Error, match="10 virtual tokens and a text up to position 14 do not fit the context of 24"):
        model(text)
    model(text[:, :14])
    with pytest.raises(Error, match="prompt 0 has 15 tokens, the model's context holds 14"):
        generate(model, text.tolist(), 1)
    prefix.attach(model, PrefixConfig(length=30, shift=False), "unshifted")
    model(helpers.tokens(1, 24))
    with pytest.raises(Error, match="is attached already"):
        prefix.attach(model, PrefixConfig(), "unshifted")
    with pytest.raises(Error, match="there is no 'unshift': did you mean 'unshifted'"):
        prefix.use(model, "unshift")
    cache = Cache(model.config, 1)
    prefix.use(model, None)
    model(text, cache=cache)
    prefix.use(model, "unshifted")
    with pytest.raises(Error, match="begun without it"):
        model(text[:, :1], cache=cache)


@pytest.mark.parametrize(
    "wrong", [{"length": 0}, {"hidden": 1.5}, {"dropout": 1}, {"shift": 1}, {"tokens": [1], "hidden": 4}]
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(Error, match="PrefixConfig"):
        PrefixConfig(**wrong)


def test_attach_freezes_the_base_and_detach_leaves_no_trace():
    model, tokens = helpers.model("llama", std=0.15), helpers.tokens()
    model.blocks[0].requires_grad_(False)
    before, learning = copy.deepcopy(model.state_dict()), [w.requires_grad for w in model.parameters()]
    logits, modules = model(tokens).detach(), [name for name, _ in model.named_modules()]
    for name in ("a", "b"):
        prefix.attach(model, PrefixConfig(length=2), name)
    copied = copy.deepcopy(model)
    assert torch.equal(copied(tokens), model(tokens)) and copied.hidden.model is copied
    assert {name for name, w in model.named_parameters() if w.requires_grad} == {
        "prefixes.held.a.table",
        "prefixes.held.b.table",
    }
    assert [group["weight_decay"] for group in make_groups(model, OptimizerConfig(weight_decay=0.1))] == [0.0]
    optimizer = make_optimizer(model, OptimizerConfig(weight_decay=0.1))
    optimizer.param_groups[0]["lr"], was = 0.1, model.prefixes.held["a"].table.clone()
    model(tokens).square().mean().backward()
    optimizer.step()
    assert torch.equal(model.prefixes.held["a"].table, was)  # b was at work
    prefix.detach(model, "b")
    assert torch.equal(model(tokens), logits)  # none is at work now
    prefix.detach(model)
    after = model.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[key], before[key]) for key in after)
    assert [name for name, _ in model.named_modules()] == modules and "hidden" not in vars(model)
    assert [w.requires_grad for w in model.parameters()] == learning
    prefix.detach(model)  # of nothing there is nothing to take
    with pytest.raises(Error, match="none is attached"):
        prefix.detach(model, "a")


def test_beside_lora_it_is_pefts_lora_with_the_same_past(tmp_path):
    model, tokens = tuned(), helpers.tokens(2, 9)
    lora.attach(model, lora.Config(r=2, alpha=4, targets=["q_proj", "v_proj"]))
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    made = model.prefixes.held["default"]
    assert made.table.requires_grad and sum(name.endswith((".A", ".B")) for name in learning) == len(learning) - 1
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in learning:
                weight.normal_(std=0.2)
    lora.save(model, tmp_path / "adapter")
    with torch.no_grad():
        ours = model(tokens)
    greedy = [generate(model, TEXTS, 5, temperature=0, use_cache=cached) for cached in (True, False)]
    assert greedy[0] == greedy[1]
    model(tokens).sum().backward()
    assert made.table.grad.abs().sum() > 0
    past = DynamicCache()
    table = made.table.detach().permute(1, 2, 0, 3)[:, None].expand(-1, 2, -1, -1, -1)
    for layer in range(2):
        past.update(table[2 * layer], table[2 * layer + 1], layer)
    prefix.detach(model)
    lora.detach(model)
    model.save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    other = peft.PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    with torch.no_grad():
        torch.testing.assert_close(ours, other(tokens, past_key_values=past).logits, atol=1e-5, rtol=0)
