"""Scores against a loop of one token at a time in float64, transformers' loss, and windows by brute force."""

import copy
import math

import pytest
import torch
from helpers import KINDS, config
from helpers import model as make
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt import GPT, Error
from minigpt.generation import generate, scoring
from minigpt.generation.scoring import Score, best_of_n, score

V, CONTEXT = config().vocab_size, config().context
LENGTHS = [7, 25, 2, 16, 7, 24, 3]  # 25: the last token is scored, not read


@pytest.fixture
def texts():
    return [torch.randint(V, (length,)).tolist() for length in LENGTHS]


@pytest.fixture(params=KINDS)
def model(request):
    return make(request.param, std=0.2)


def one_by_one(model, text, prompt=1, starts=None):
    """Every token alone: the text before it from `starts[t]` on, no batch, no padding, float64."""
    wide = copy.deepcopy(model).double()
    logprobs = []
    for t in range(prompt, len(text)):
        with torch.no_grad():
            logits = wide(torch.tensor([text[starts[t] if starts else 0 : t]]))[0, -1]
        logprobs.append(math.log(logits.softmax(-1)[text[t]].item()))
    return logprobs


@pytest.mark.parametrize("batch", [4096, 50, 1])
def test_scores_equal_one_token_at_a_time(model, texts, batch, monkeypatch):
    monkeypatch.setattr(scoring, "BATCH", batch)
    prompts = [1, 3, 1, 15, 6, 1, 2]
    scores = score(model, texts, prompts)
    for text, prompt, found in zip(texts, prompts, scores, strict=True):
        expected = one_by_one(model, text, prompt)
        assert found.logprobs == pytest.approx(expected, abs=1e-5)
        assert found.total == pytest.approx(sum(expected), abs=1e-4)
        assert found.mean == pytest.approx(sum(expected) / (len(text) - prompt), abs=1e-5)
        assert found.perplexity == pytest.approx(math.exp(-found.mean))
    alone = [score(model, [text], [prompt])[0].total for text, prompt in zip(texts, prompts, strict=True)]
    assert alone == pytest.approx([found.total for found in scores], abs=1e-4)


def test_perplexity_equals_transformers(tmp_path):
    sizes = {"vocab_size": V, "n_positions": CONTEXT, "n_embd": 32, "n_layer": 2, "n_head": 4}
    theirs = GPT2LMHeadModel(GPT2Config(**sizes, initializer_range=0.3))
    theirs.eval().save_pretrained(tmp_path)
    ids = torch.randint(V, (1, CONTEXT))
    labels = ids.clone()
    labels[:, :5] = -100
    expected = theirs(ids, labels=labels).loss.exp().item()
    assert score(GPT.from_pretrained(tmp_path), ids.tolist(), [5])[0].perplexity == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("stride", [1, 5, 12, 23, CONTEXT])
@pytest.mark.parametrize("prompt", [1, 10, CONTEXT + 1, 45])
def test_windows_by_brute_force(stride, prompt):
    """Token t is read from the last multiple of the stride that reaches it first: of all windows with t, the first."""
    model, lengths = make(std=0.2), [60, CONTEXT + 1, CONTEXT + 2, 61]
    texts = [torch.randint(V, (length,)).tolist() for length in lengths]
    prompts = [min(prompt, length - 1) for length in lengths]
    for text, given, found in zip(texts, prompts, score(model, texts, prompts, stride=stride), strict=True):
        starts = [next(s for s in range(0, 99, stride) if t <= s + CONTEXT) for t in range(len(text))]
        assert all(t - start >= CONTEXT - stride for t, start in enumerate(starts) if start)
        assert all(t - start <= CONTEXT for t, start in enumerate(starts))
        assert found.logprobs == pytest.approx(one_by_one(model, text, given, starts), abs=1e-5)


def test_a_stride_changes_nothing_that_fits(texts):
    model = make(std=0.2)
    assert score(model, texts, stride=3) == score(model, texts)


def test_logits_are_never_all_there(texts, monkeypatch):
    model, seen = make(std=0.2), []
    whole = score(model, texts)
    model.head.register_forward_hook(lambda _, inputs, logits: seen.append(logits.numel()))
    monkeypatch.setattr(scoring, "LOGITS", 10 * V)
    parts = score(model, texts, [1] * len(texts))
    assert sum(seen) == V * sum(length - 1 for length in LENGTHS)  # and none that nobody asked for
    assert max(seen) == 10 * V
    for a, b in zip(whole, parts, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-6)


def test_adapters_of_each_text(texts, monkeypatch):
    """Modules with `rows` hear which texts are read: batches go by length, windows repeat a text."""
    model = make(std=0.2)
    heard = []

    class Told(torch.nn.Module):
        rows = tuple(f"adapter of {length}" for length in LENGTHS)

        def forward(self, x):
            assert len(self.rows) == len(x)
            heard.extend(self.rows)
            return x

    model.dropout = Told()
    monkeypatch.setattr(scoring, "BATCH", 25)
    score(model, texts)
    assert sorted(heard) == sorted(Told.rows) and heard[0] == "adapter of 25"
    heard.clear()
    long = [torch.randint(V, (60,)).tolist(), *texts[1:]]
    score(model, long, stride=12)
    assert heard.count("adapter of 7") == 4 + 1  # the first text, in windows that begin at 0, 12, 24, 36; the fifth
    assert model.dropout.rows == Told.rows
    with pytest.raises(Error, match="7 rows.*2 texts"):
        score(model, texts[:2])


def test_the_model_is_left_as_found_and_reads_without_dropout(texts):
    model = make(std=0.2, resid_dropout=0.5, embed_dropout=0.5)
    calm = score(model, texts)
    model.train()
    model.blocks[0].eval()
    flags, state = [module.training for module in model.modules()], torch.get_rng_state()
    assert score(model, texts) == calm
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)


def test_half_precision_and_certain_tokens(texts):
    model = make(std=0.2)
    exact, half = score(model, texts), score(make(std=0.2).bfloat16(), texts)
    assert len(half) == len(exact) and all(math.isfinite(found.perplexity) for found in half)
    assert Score([-1e6]).perplexity == math.inf
    assert Score([0.0, 0.0]).perplexity == 1
    sharp = make(std=0.2)
    sharp.head.weight.data *= 300  # differences of logits in the hundreds
    for text, found in zip(texts, score(sharp, texts), strict=True):
        assert min(found.logprobs) < -100
        wide = copy.deepcopy(sharp).double()(torch.tensor([text[:-1]])).log_softmax(-1)[0]
        expected = wide.gather(-1, torch.tensor(text[1:])[:, None])[:, 0].tolist()
        assert found.logprobs == pytest.approx(expected, rel=1e-5, abs=1e-3)


def test_nothing_to_score():
    assert score(make(), []) == []


@pytest.mark.parametrize("by", ["mean", "total"])
def test_best_of_n(by):
    model, prompt = make(std=0.2), [5, 2, 9]
    options = {"max_new_tokens": 12, "temperature": 1.3, "top_k": 30, "seed": 4, "eos": list(range(8))}
    ranked = best_of_n(model, prompt, 8, by=by, **options)
    drawn = generate(model, [prompt] * 8, **options)
    assert sorted(tokens for tokens, _ in ranked) == sorted(drawn)
    assert len({len(tokens) for tokens in drawn}) > 2
    expected = {tuple(new): one_by_one(model, prompt + new, len(prompt)) for new in drawn}
    key = (lambda x: sum(x) / len(x)) if by == "mean" else sum
    best_first = sorted(drawn, key=lambda new: key(expected[tuple(new)]), reverse=True)
    assert [tokens for tokens, _ in ranked] == best_first
    for tokens, found in ranked:
        assert found.logprobs == pytest.approx(expected[tuple(tokens)], abs=1e-5)


def test_best_of_n_fills_the_context():
    ((tokens, found),) = best_of_n(make(std=0.2), [1] * 20, 1, 99)
    assert len(tokens) == len(found.logprobs) == CONTEXT + 1 - 20
    ((tokens, found),) = best_of_n(make(std=0.2), [1] * 20, 1, 30, overflow="slide")
    assert len(tokens) == len(found.logprobs) == 30


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda m: score(m, [[1, 2], [1] * 26]), ["text 1", "26 tokens", "25", "stride=12"]),
        (lambda m: score(m, [[1, 2], [3]]), ["text 1", "1 tokens", "1 are given"]),
        (lambda m: score(m, [[]]), ["text 0", "0 tokens"]),
        (lambda m: score(m, [[1, 2, 3]], [3]), ["text 0", "3 are given"]),
        (lambda m: score(m, [[1, 2, 3]], [0]), ["text 0", "0 are given"]),
        (lambda m: score(m, [[1, 2, 3]], [1, 1]), ["2 lengths", "1 texts"]),
        (lambda m: score(m, [[1, 2, 3]], 1), ["prompts is 1", "list"]),
        (lambda m: score(m, [[1, V]]), ["text 0", str(V), "vocabulary"]),
        (lambda m: score(m, [[1, -1]]), ["text 0", "-1", "vocabulary"]),
        (lambda m: score(m, [1, 2]), ["text 0", "list of token ids"]),
        (lambda m: score(m, [[1, 2]], stride=0), ["stride", "0", "24"]),
        (lambda m: score(m, [[1, 2]], stride=25), ["stride", "25", "24"]),
        (lambda m: best_of_n(m, [1], 0), ["n is 0"]),
        (lambda m: best_of_n(m, [1], 2, by="perplexity"), ["by", "perplexity", "mean"]),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(Error) as caught:
        call(make())
    assert all(word in str(caught.value) for word in words), caught.value


def test_a_broken_model_scores_nothing():
    model = make()
    with torch.no_grad():
        model.final_norm.bias.fill_(math.nan)
    with pytest.raises(Error, match="NaN or infinite"):
        score(model, [[1, 2, 3]])
