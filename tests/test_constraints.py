"""Constraints against brute force over all texts of a small vocabulary, and inside transformers' generate."""

import itertools
import math
import random
from types import SimpleNamespace

import pytest
import torch
from helpers import randomize
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2Config, GPT2LMHeadModel
from transformers.generation import logits_process

from minigpt import GPT, Error, GPTConfig
from minigpt.generation import beam_search, generate
from minigpt.generation.constraints import Banks, Contains, OneOf, StartsWith
from minigpt.generation.sampling import Sampler, row_generator
from minigpt.generation.scoring import score

V = 6
ENDS = frozenset({0, 5})
PHRASES = [[1], [1, 2], [1, 2, 3], [2, 2], [3, 4, 1], [1, 2]]  # prefixes, a phrase in the middle of one, one twice
PROMPT = [4, 0, 1]  # ids of phrases and an end: none of them counts
LEGAL = {(*phrase, end) for phrase in PHRASES for end in ENDS}
some_phrases = st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=4), min_size=1, max_size=5)


def logits_of(tokens) -> torch.Tensor:
    """A language model without structure: other logits after every text."""
    return 2 * torch.randn(V, generator=torch.Generator().manual_seed(hash(tuple(tokens)) % 2**32))


def history(written, prompt=PROMPT):
    return SimpleNamespace(tokens=[*prompt, *written], prompt=len(prompt))


def scores_after(written, constraint, log=False) -> torch.Tensor:
    scores = logits_of(PROMPT + list(written))[None]
    return constraint(scores.log_softmax(-1) if log else scores, [history(written)])[0]


def by_definition(written, legal) -> set[int]:
    """What may follow: the next token of every legal text that begins so."""
    return {text[len(written)] for text in legal if len(text) > len(written) and text[: len(written)] == tuple(written)}


def texts(n):
    return itertools.chain.from_iterable(itertools.product(range(V), repeat=length) for length in range(n + 1))


def test_exactly_the_phrases_can_be_written_and_their_probabilities_add_up():
    """Every text of up to four tokens: its probability under the constraint, from the softmax of what is left."""
    one_of, total = OneOf(PHRASES, ENDS), 0.0
    for text in texts(4):
        if not any(token in ENDS for token in text[:-1]):
            p = expected = 1.0
            for t in range(len(text)):
                p *= scores_after(text[:t], one_of).double().softmax(-1)[text[t]].item() if p else 0.0
                free = logits_of(PROMPT + list(text[:t])).double().exp()
                allowed = by_definition(text[:t], LEGAL)
                expected *= (free[text[t]] / free[list(allowed)].sum()).item() if text[t] in allowed else 0.0
            assert p == pytest.approx(expected, abs=1e-9)
            if text and text[-1] in ENDS:
                assert (p > 0) == (text in LEGAL)
                total += p
    assert total == pytest.approx(1, abs=1e-6)


def test_draws_follow_that_distribution():
    one_of, sampler, n = OneOf(PHRASES, ENDS), Sampler(), 3000
    generators, written = [row_generator(0, row) for row in range(n)], [[] for _ in range(n)]
    for _ in range(one_of.longest):
        logits = torch.stack([logits_of(PROMPT + text) for text in written])
        new = sampler.choose(one_of(logits, [history(text) for text in written]), generators)
        for text, token in zip(written, new.tolist(), strict=True):
            if not ENDS.intersection(text):
                text.append(token)
    for text in LEGAL:
        p = math.prod(scores_after(text[:t], one_of).softmax(-1)[text[t]].item() for t in range(len(text)))
        assert abs(written.count(list(text)) - n * p) <= 4 * math.sqrt(n * p) + 1
    assert {tuple(text) for text in written} <= LEGAL


def test_greedy_takes_the_best_at_each_step_among_what_is_legal():
    written = []
    while not ENDS.intersection(written):
        free = logits_of(PROMPT + written)
        best = max(by_definition(written, LEGAL), key=lambda token: free[token].item())
        written.append(int(scores_after(written, OneOf(PHRASES, ENDS)).argmax()))
        assert written[-1] == best
    assert tuple(written) in LEGAL


def test_beams_rank_by_the_models_own_probability():
    """Log-probabilities are cut, not renormalised: wide beams find log p of each phrase, and nothing else."""
    one_of, beams, found = OneOf(PHRASES, ENDS), [(0.0, ())], {}
    for _ in range(one_of.longest):
        rows = torch.stack([logits_of(PROMPT + list(text)).log_softmax(-1) for _, text in beams])
        rows = one_of(rows, [history(text) for _, text in beams])
        wider = [
            (total + row[token].item(), (*text, token))
            for (total, text), row in zip(beams, rows, strict=True)
            for token in range(V)
            if row[token] > -math.inf
        ]
        found |= {text: total for total, text in wider if text[-1] in ENDS}
        beams = [(total, text) for total, text in wider if text[-1] not in ENDS]
    assert not beams
    free = {
        text: sum(logits_of(PROMPT + list(text[:t])).double().log_softmax(-1)[text[t]].item() for t in range(len(text)))
        for text in LEGAL
    }
    assert found == pytest.approx(free, abs=1e-5)


@settings(deadline=None, max_examples=200)
@given(phrases=some_phrases, written=st.lists(st.integers(0, 4), max_size=5))
def test_what_is_allowed_by_definition(phrases, written):
    legal = {(*phrase, end) for phrase in phrases for end in (0, 4)}
    allowed = OneOf(phrases, {0, 4}).allowed(written)
    ended = any(tuple(written[:n]) in legal for n in range(len(written) + 1))
    assert (allowed is None) == ended
    assert ended or set(allowed) == by_definition(written, legal)
    assert OneOf(phrases, 0).longest == max(map(len, phrases)) + 1


def may_follow(ids, legal, prompt):
    written = tuple(ids[prompt:])
    if any(written[:n] in legal for n in range(len(written) + 1)):
        return list(range(V))
    return sorted(by_definition(written, legal)) or [0]


def test_scores_equal_transformers_processor():
    one_of = OneOf(PHRASES, ENDS)
    theirs = logits_process.PrefixConstrainedLogitsProcessor(lambda _, ids: may_follow(ids.tolist(), LEGAL, 3), 1)
    for n in range(4):
        written = [list(text[:n]) for text in sorted(LEGAL) if len(text) >= n]  # ended ones among them
        ids = torch.tensor([PROMPT + text for text in written])
        scores = torch.randn(len(ids), V)
        assert torch.equal(one_of(scores, [history(text) for text in written]), theirs(ids, scores))


@pytest.mark.parametrize("num_beams", [1, 4])
def test_inside_transformers_generate(num_beams):
    """Our processor in their search gives what their own prefix_allowed_tokens_fn gives."""
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=V, n_positions=16, n_embd=16, n_layer=1, n_head=2, initializer_range=0.5)
    model = GPT2LMHeadModel(config).eval()
    ended = 0
    for prompt in itertools.product(range(V), repeat=2):
        ids = torch.tensor([prompt])
        options = {"num_beams": num_beams, "max_new_tokens": 4, "eos_token_id": sorted(ENDS), "pad_token_id": 5}
        options |= {"do_sample": False, "attention_mask": torch.ones_like(ids)}
        one_of = OneOf(PHRASES, ENDS)

        def ours(ids, scores, one_of=one_of):
            return one_of(scores, [SimpleNamespace(tokens=row, prompt=2) for row in ids.tolist()])

        theirs = model.generate(
            ids, prefix_allowed_tokens_fn=lambda _, ids: may_follow(ids.tolist(), LEGAL, 2), **options
        )
        with_ours = model.generate(ids, logits_processor=[ours], **options)[0, 2:].tolist()
        assert with_ours == theirs[0, 2:].tolist()
        stop = next(i for i, token in enumerate(with_ours) if token in ENDS)
        assert tuple(with_ours[: stop + 1]) in LEGAL
        ended += stop
    assert ended > 40  # not all of them the shortest phrase


@pytest.fixture(scope="module")
def gpt():
    torch.manual_seed(4)
    return randomize(GPT(GPTConfig(vocab_size=V, context=16, n_layers=2, n_heads=2, d_model=16)).eval(), 0.4)


def test_in_generate(gpt):
    prompts = [[4, 0, 1], [2], [3, 3, 3, 3, 1]] * 20
    one_of, options = OneOf(PHRASES, ENDS), {"eos": ENDS, "temperature": 1.5}
    for more in ({}, {"temperature": 0}, {"use_cache": False}):
        texts = generate(gpt, prompts, one_of.longest, extra=[one_of], **options | more)
        assert {tuple(text) for text in texts} <= LEGAL
        assert "temperature" in more or len({tuple(text) for text in texts}) > 6
    assert all(text[:2] == [3, 1] for text in generate(gpt, prompts, 5, extra=[StartsWith([3, 1])], temperature=1.5))


def test_in_beam_search_all_phrases_ranked_by_their_score(gpt):
    """A beam for each legal text: all are found, and log P is what `score` says without a constraint."""
    prompts, one_of = [[4, 0, 1], [2]], OneOf(PHRASES, ENDS)
    options = {"num_beams": len(LEGAL), "eos": ENDS, "length_penalty": 0.0, "extra": [one_of]}
    for prompt, beams in zip(prompts, beam_search(gpt, prompts, max_new_tokens=one_of.longest, **options), strict=True):
        legal = [list(text) for text in LEGAL]
        scores = score(gpt, [prompt + text for text in legal], [len(prompt)] * len(legal))
        ranked = sorted(zip(legal, scores, strict=True), key=lambda pair: pair[1].total, reverse=True)
        assert [beam.tokens for beam in beams] == [text for text, _ in ranked]
        assert [beam.total for beam in beams] == pytest.approx([found.total for _, found in ranked], abs=1e-5)


def test_starts_with():
    beginning, written = [3, 0, 3], []
    for _ in range(6):
        written.append(int(scores_after(written, StartsWith(beginning)).argmax()))
    free = list(beginning)
    for _ in range(3):
        free.append(int(logits_of(PROMPT + free).argmax()))
    assert written == free
    for text in texts(4):
        n = len(text)
        legal = set(range(V)) if list(text[:3]) == beginning else {beginning[n]} if list(text) == beginning[:n] else {}
        scores, free = scores_after(text, StartsWith(beginning)), logits_of(PROMPT + list(text))
        assert all(scores[token] == (free[token] if token in legal else -math.inf) for token in range(V))


@pytest.mark.parametrize("constraint", [OneOf([[1, 2]], {0}), StartsWith([1, 2])])
def test_rows_apart_and_what_was_taken_out_before_stays_out(constraint):
    scores = torch.arange(4.0).repeat(4, 1)
    scores[:, 1] = -math.inf
    out = constraint(scores, [history([]), history([1]), history([3]), history([1, 2, 0])])
    assert out.isinf()[:3].tolist() == [[True] * 4, [True, True, False, True], [True] * 4]  # 1 was taken out; 3 is off
    assert torch.equal(out[3], scores[3])
    assert constraint(scores.bfloat16(), [history([1])] * 4).dtype == torch.bfloat16
    assert scores[0].tolist() == [0, -math.inf, 2, 3]  # not written to


def brute_progress(phrase, written):
    if any(written[i : i + len(phrase)] == phrase for i in range(len(written))):
        return len(phrase)
    return max(k for k in range(len(phrase)) if written[len(written) - k :] == phrase[:k])


@settings(deadline=None, max_examples=500)
@given(phrase=st.lists(st.integers(1, 2), min_size=1, max_size=6), written=st.lists(st.integers(1, 3), max_size=14))
def test_progress_by_brute_force(phrase, written):
    contains, progress = Contains(phrase), brute_progress(phrase, written)
    assert contains.progress(written) == progress
    assert contains.next_token(written) == (None if progress == len(phrase) else phrase[progress])
    for token in (1, 2, 3):
        assert contains.step(progress, token) == brute_progress(phrase, [*written, token])


@pytest.mark.parametrize("phrase", [[1, 1, 2], [1, 2, 1, 2, 3], [1] * 4, [1, 2, 1, 1, 2, 1, 2], [1, 2, 1, 3, 1, 2, 2]])
def test_progress_among_near_misses(phrase):
    """Mostly the next token, sometimes another: phrases are broken off late, and begun again in the middle."""
    random.seed(5)
    contains, met = Contains(phrase), 0
    for _ in range(100):
        written = []
        while len(written) < 40 and (token := contains.next_token(written)) is not None:
            written.append(token if random.random() < 0.7 else random.randint(1, 3))
            assert contains.progress(written) == brute_progress(phrase, written)
        met += contains.progress(written) == len(phrase)
    assert met > 50


def test_beams_are_shared_out_in_turn_from_the_fullest_bank():
    """Six texts, best first, with 0 0 1 0 2 1 tokens of the phrase in place: 4, 2, 0 in the first turn, then 5, 1."""
    banks = Banks([[7, 8]])
    texts = [[1], [2], [7], [3], [1, 7, 8], [3, 7]]
    assert [banks.progress(text) for text in texts] == [0, 0, 1, 0, 2, 1]
    turns = [4, 2, 0, 5, 1, 3]
    assert [banks.share(texts, beams) for beams in range(1, 7)] == [sorted(turns[:beams]) for beams in range(1, 7)]


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: OneOf([], {0}), ["OneOf", "no phrases"]),
        (lambda: OneOf([[1], []], {0}), ["phrase 1", "no tokens"]),
        (lambda: OneOf([[1], [2, 0, 3]], {0}), ["phrase 1", "end token 0"]),
        (lambda: OneOf([[1]], set()), ["ends", "no tokens"]),
        (lambda: OneOf(["cough"], {0}), ["phrase 0", "cough", "tokenizer.encode"]),
        (lambda: OneOf([1, 2], {0}), ["phrase 0", "token ids"]),
        (lambda: OneOf([[1, -2]], {0}), ["phrase 0", "-2"]),
        (lambda: OneOf([[1]], {-1}), ["ends", "-1"]),
        (lambda: OneOf([[1], [7, 1]], {0})(torch.zeros(1, 7), [history([])]), ["OneOf", "token 7", "7 tokens"]),
        (lambda: OneOf([[1]], {9})(torch.zeros(1, 7), [history([])]), ["OneOf", "token 9"]),
        (lambda: StartsWith([]), ["beginning", "no tokens"]),
        (lambda: StartsWith([1, 8])(torch.zeros(1, 7), [history([])]), ["StartsWith", "token 8"]),
        (lambda: Contains([]), ["phrase", "no tokens"]),
    ],
)
def test_bad_input_is_named(make, words):
    with pytest.raises(Error) as caught:
        make()
    assert all(word in str(caught.value) for word in words), caught.value
