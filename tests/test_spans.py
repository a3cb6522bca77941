"""Span corruption: the paper's sentence, and what must hold for every text and every choice of spans."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import Error
from minigpt.corpus.spans import corrupt, draw, infilling, restore

SENTENCE = "Thank you for inviting me to your party last week".split()
SENTINELS = ["<X>", "<Y>", "<Z>"]


def test_the_sentence_of_the_paper():
    """Raffel et al. 2020, figure 2."""
    corrupted, target = corrupt(SENTENCE, [(2, 4), (8, 9)], SENTINELS)
    assert " ".join(corrupted) == "Thank you <X> me to your party <Y> week"
    assert " ".join(target) == "<X> for inviting <Y> last <Z>"
    whole = "Thank you <X> me to your party <Y> week <sep> <X> for inviting <Y> last <Z>"
    assert " ".join(infilling(corrupted, target, "<sep>")) == whole
    assert restore(corrupted, target, SENTINELS) == SENTENCE


def test_spans_at_both_ends_and_none():
    assert corrupt([1, 2, 3], [(0, 1), (2, 3)], [7, 8, 9]) == ([7, 2, 8], [7, 1, 8, 3, 9])
    assert corrupt([1, 2, 3], [], [7]) == ([1, 2, 3], [7])
    assert corrupt([1, 2, 3], [(0, 3)], [7, 8]) == ([7], [7, 1, 2, 3, 8])


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 80), st.integers(0, 999), st.floats(0.01, 0.95), st.floats(1, 6))
def test_what_is_drawn_can_be_restored(length, seed, rate, mean):
    text = [random.Random(seed).randrange(5) for _ in range(length)]
    spans = draw(length, random.Random(seed), rate, mean)
    taken = sum(after - first for first, after in spans)
    assert taken == min(max(round(length * rate), 1), length - 1)
    assert len(spans) == min(max(round(taken / mean), 1), taken, length - taken)
    assert spans[0][0] >= 1 and spans[-1][1] == length
    assert all(one[1] < other[0] for one, other in zip(spans, spans[1:], strict=False))
    sentinels = list(range(100, 101 + len(spans)))
    corrupted, target = corrupt(text, spans, sentinels)
    assert [token for token in corrupted if token >= 100] == sentinels[:-1]
    assert [token for token in target if token >= 100] == sentinels
    assert len(corrupted) + len(target) == length + 2 * len(spans) + 1
    assert restore(corrupted, target, sentinels) == text


def test_draw_is_random_and_repeats_with_its_seed():
    found = {tuple(draw(60, random.Random(seed))) for seed in range(50)}
    assert len(found) > 20 and draw(30, random.Random(3)) == draw(30, random.Random(3))


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: corrupt([1, 2, 3], [(0, 1), (2, 3)], [7, 8]), "take 3 sentinels, found 2"),
        (lambda: corrupt([1, 7, 3], [(0, 1)], [7, 8]), "holds the sentinel 7"),
        (lambda: corrupt([1, 2, 3], [(0, 1), (1, 2)], [7, 8, 9]), "span 1"),  # no gap: two sentinels would be one
        (lambda: corrupt([1, 2, 3], [(1, 2), (0, 1)], [7, 8, 9]), "span 1"),
        (lambda: corrupt([1, 2, 3], [(2, 4)], [7, 8]), "span 0"),
        (lambda: corrupt([1, 2, 3], [(1, 1)], [7, 8]), "span 0"),
        (lambda: restore([1, 7], [2, 7, 3], [7, 8]), "begins with 2"),
        (lambda: restore([1, 7], [8, 3], [7, 8]), "has the sentinel 7"),
        (lambda: draw(1, random.Random(0)), "length 1"),
        (lambda: draw(9, random.Random(0), rate=1.0), "rate 1.0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(Error) as caught:
        call()
    assert words in str(caught.value)
