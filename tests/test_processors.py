"""Processors and penalties, each by itself: against transformers' classes and written-out loops."""

import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processing import Text, V, by_row, filtered, logits_of_all_kinds, same, texts
from transformers.generation import logits_process as hf

from minigpt.generation import penalties, processors
from minigpt.generation.sampling import Sampler


@pytest.mark.parametrize("share", [1e-6, 0.01, 0.05, 0.3, 0.999, 1.0])
def test_min_p_equals_transformers(share):
    z = logits_of_all_kinds()
    assert torch.equal(processors.min_p(z, share), hf.MinPLogitsWarper(share)(None, z))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.3, 0.5, 0.75, 0.9, 0.999])
def test_typical_equals_transformers_ties_included(p):
    z = logits_of_all_kinds()
    expected, firm = filtered(hf.TypicalLogitsWarper(p), z)
    same(processors.typical(z, p).softmax(-1), expected, firm, least=22)
    assert processors.typical(z, 1.0) is z


def test_typical_by_its_definition():
    z = logits_of_all_kinds().double()
    for p in (0.2, 0.6, 0.95):
        for row, ours in zip(z, processors.typical(z, p), strict=True):
            mass = {v: m for v, m in enumerate(row.softmax(-1).tolist()) if row[v] > -math.inf}
            entropy = -sum(m * math.log(m) for m in mass.values() if m)
            distance = {v: abs(-math.log(m) - entropy) if m else math.inf for v, m in mass.items()}
            held, border = 0.0, 0.0
            for v in sorted(mass, key=distance.get):
                if held < p:
                    border = distance[v]
                held += mass[v]
            assert {v for v in range(V) if ours[v] > -math.inf} == {v for v in mass if distance[v] <= border + 1e-9}


@pytest.mark.parametrize("p", [1e-9, 0.3, 0.5, 0.9, 0.9999, 1 - 1e-12])
def test_ranking_the_head_equals_ranking_all(p, monkeypatch):
    size = 3000
    sharp = 3 * torch.randn(2, 3, size)
    tied = torch.randint(0, 12, (2, 3, size)).float()
    masked = sharp.masked_fill(torch.rand(2, 3, size) < 0.9, -math.inf)
    one = torch.zeros(2, 3, size).index_fill(-1, torch.tensor(size - 1), 1.0)  # one above, and then all alike
    for key in (sharp, tied, masked, torch.zeros(2, 3, size), one, sharp * 3):
        mass = key.double().softmax(-1)
        real, expected = mass > 0, processors.leading(key, mass, p)
        for head in (2, 50, 700, 2999):
            monkeypatch.setattr(processors, "HEAD", head)
            assert torch.equal(processors.leading_fast(key, mass, p) & real, expected & real)


@pytest.mark.parametrize("r", [0.7, 1.0, 1.3, 5.0])
def test_repetition_equals_transformers(r):
    z = logits_of_all_kinds()
    histories = texts(len(z))
    expected = by_row(hf.RepetitionPenaltyLogitsProcessor(r), z, histories)
    assert torch.equal(penalties.repetition(z, histories, r), expected)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 30])
def test_no_repeat_ngram_equals_transformers_and_brute_force(n):
    z = logits_of_all_kinds()
    histories = texts(len(z), few=3)
    ours = penalties.no_repeat_ngram(z, histories, n)
    assert torch.equal(ours, by_row(hf.NoRepeatNGramLogitsProcessor(n), z, histories))
    for row, before, text in zip(ours, z, histories, strict=True):
        grams = {tuple(text.tokens[i : i + n]) for i in range(len(text.tokens) - n + 1)}
        repeats = [(*text.tokens[len(text.tokens) - n + 1 :], v) in grams for v in range(V)]
        assert torch.equal(row, before.masked_fill(torch.tensor(repeats), -math.inf))


def test_banned_equals_transformers():
    z = logits_of_all_kinds()
    histories = texts(len(z), few=3)
    words = [[7], [0, 1], [1, 1], [2, 0, 5], [0, 0, 1, 2], [1, 90], [0] * 40, [9, 8]]
    ours = Sampler(banned=words).adjust(z, histories)
    assert torch.equal(ours, by_row(hf.NoBadWordsLogitsProcessor(words), z, histories))
    assert len({tuple(row.isinf().tolist()) for row in ours[:8]}) > 2  # not the same for every text
    assert torch.equal(Sampler(banned=[7, 9]).adjust(z, histories), z.index_fill(1, torch.tensor([7, 9]), -math.inf))


@pytest.mark.parametrize("n", [1, 2, 10])
def test_end_tokens_equal_transformers(n):
    z = logits_of_all_kinds()
    histories = texts(len(z))
    for row, text in zip(z, histories, strict=True):
        ids, scores, ends = torch.tensor([text.tokens]), row[None], [4, 90]
        expected = hf.MinNewTokensLengthLogitsProcessor(text.prompt, n, ends)(ids, scores)
        assert torch.equal(penalties.min_new_tokens(scores, [text], n, frozenset(ends)), expected)
        expected = hf.ForcedEOSTokenLogitsProcessor(text.prompt + n, ends)(ids, scores)
        if len(text.tokens) < text.prompt + n:  # where there is a place left to write
            assert torch.equal(penalties.force_end(scores, [text], n, frozenset(ends)), expected)
    whole = penalties.min_new_tokens(z, histories, n, {4, 90})
    alone = [penalties.min_new_tokens(row[None], [text], n, {4, 90}) for row, text in zip(z, histories, strict=True)]
    assert torch.equal(whole, torch.cat(alone))


def test_forced_first_equals_transformers():
    z = logits_of_all_kinds()[:3]
    histories = [Text([8], 1), Text([8, 5], 1), Text([8, 5], 2)]
    ours = penalties.forced_first(z, histories, 6)
    assert torch.equal(ours[:2], by_row(hf.ForcedBOSTokenLogitsProcessor(6), z[:2], histories[:2]))
    assert torch.equal(ours[2], ours[0])  # transformers has it for decoders that begin with one token


@pytest.mark.parametrize("frequency, presence", [(0.5, 0.0), (0.0, 1.5), (0.7, 0.3), (-1.0, -2.0), (-0.2, 0.9)])
def test_frequency_and_presence_by_a_loop(frequency, presence):
    z = logits_of_all_kinds()
    histories = texts(len(z))
    expected = z.double().clone()
    for row, text in zip(expected, histories, strict=True):
        for v, count in Counter(text.tokens[text.prompt :]).items():
            row[v] = row[v] - count * frequency - (1 if count > 0 else 0) * presence
    ours = Sampler(frequency_penalty=frequency, presence_penalty=presence).adjust(z, histories)
    assert torch.allclose(ours.double(), expected, rtol=1e-6, atol=1e-6)
    assert not torch.equal(ours, z)


small_logits = st.lists(st.floats(-50, 50, width=32), min_size=8, max_size=8)


written = st.lists(st.integers(0, 7), max_size=12)


def test_tokens_without_a_logit_are_passed_over():
    """A text may hold some that no head speaks of: the new tokens of a task."""
    z, text = torch.zeros(1, 3), [Text([3, 0, 3], 1)]
    assert penalties.no_repeat_ngram(z, text, 1).tolist() == [[-math.inf, 0, 0]]
    assert penalties.no_repeat_ngram(z, text, 2).tolist() == [[-math.inf, 0, 0]]


@settings(max_examples=100, deadline=None)
@given(small_logits, written, st.floats(1, 10))
def test_repetition_takes_from_seen_tokens_as_a_whole(z, tokens, r):
    """Odds of a seen token against an unseen one never rise, whatever the signs; nor does what all seen tokens hold, so
    one seen token alone never gains. Seen tokens keep their order, though one may gain from another."""
    z = torch.tensor([z], dtype=torch.float64)
    after = penalties.repetition(z, [Text([0, *tokens], 1)], r)
    seen = torch.zeros(8, dtype=torch.bool).index_fill(0, torch.tensor([0, *tokens]), True)
    change = (after - z)[0]
    assert (change[seen] <= 0).all() and (change[~seen] == 0).all()
    assert after.softmax(-1)[0, seen].sum() <= z.softmax(-1)[0, seen].sum() + 1e-12
    by_z = after[0, seen][z[0, seen].argsort()]
    assert (by_z.diff() >= 0).all()


@settings(max_examples=100, deadline=None)
@given(small_logits, written, st.floats(0, 3), st.floats(0, 3))
def test_counted_penalties_take_from_what_was_written_oftener(z, tokens, frequency, presence):
    """Odds of u against v never rise where u was written at least as often; the oftenest written never gains."""
    z = torch.tensor([z], dtype=torch.float64)
    after = penalties.frequency_and_presence(z, [Text([7, *tokens], 1)], frequency, presence)
    count = torch.tensor([tokens.count(v) for v in range(8)])
    change = (after - z)[0]
    oftener = count[:, None] >= count
    assert ((change[:, None] - change)[oftener] <= 1e-12).all()
    p, q = z.softmax(-1)[0], after.softmax(-1)[0]
    assert q[count.argmax()] <= p[count.argmax()] + 1e-12
    shifted = penalties.frequency_and_presence(z - 100, [Text([7, *tokens], 1)], frequency, presence)
    assert torch.allclose(shifted.softmax(-1), after.softmax(-1), atol=1e-9)


def test_seen_tokens_may_gain_from_each_other():
    z = torch.tensor([[4.0, 3.0, -9.0]])
    after = penalties.repetition(z, [Text([0, 1], 1)], 2.0)
    assert after.softmax(-1)[0, 1] > z.softmax(-1)[0, 1]
