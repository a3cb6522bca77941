"""The toy language of bench/: its operations by hand, its splits, and that its measures can tell right from wrong."""

import random

import pytest
import torch

from bench import family_text, family_toy, toy
from minigpt.corpus.spans import restore
from minigpt.loss import IGNORE


def test_rows_are_inputs_and_what_the_operation_makes_of_them():
    x = torch.tensor([[[3, 1, 9, 4], [0, 0, 5, 9]]])
    expected = {
        "copy": ([3, 1, 9, 4], [0, 0, 5, 9]),
        "reverse": ([4, 9, 1, 3], [9, 5, 0, 0]),
        "sort": ([1, 3, 4, 9], [0, 0, 5, 9]),
        "plus one": ([4, 2, 0, 5], [1, 1, 6, 0]),
        "rotate": ([1, 9, 4, 3], [0, 5, 9, 0]),
        "minus one": ([2, 0, 8, 3], [9, 9, 4, 8]),
    }
    for operation, (one, two) in enumerate(expected[name] for name in toy.OPERATIONS):
        row = [3, 1, 9, 4, toy.EQUALS, *one, toy.END, 0, 0, 5, 9, toy.EQUALS, *two, toy.END]
        assert toy.rows(operation, x).tolist() == [row]


def test_inputs_of_tuning_and_of_judging_share_none_and_cover_all():
    generator = torch.Generator().manual_seed(0)
    tune, held = (
        toy.inputs((60_000,), generator, which) @ torch.tensor([1000, 100, 10, 1]) for which in ("tune", "held")
    )
    assert not set(tune.tolist()) & set(held.tolist())
    assert set(held.tolist()) == set(range(0, 10_000, 5)) and len(set(tune.tolist())) > 7900


@pytest.mark.parametrize("shots, named", [(0, False), (2, True)])
def test_exact_match_is_one_for_who_knows_and_none_for_who_does_not(monkeypatch, shots, named):
    asked = []

    def sorting(model, prompts, **_):
        asked.extend(prompts)
        return [sorted(prompt[-5:-1]) for prompt in prompts]

    monkeypatch.setattr(toy, "generate", sorting)
    options = {"shots": shots, "named": named, "front": [99], "count": 50, "which": "held"}
    assert toy.exact_match(None, toy.OPERATIONS.index("sort"), **options) == 1
    assert toy.exact_match(None, toy.OPERATIONS.index("plus one"), **options) < 0.1
    first = toy.NAMES + toy.OPERATIONS.index("sort") if named else toy.BEGIN
    assert asked[0][:2] == [99, first] and all(len(prompt) == 2 + 10 * shots + 5 for prompt in asked)
    assert all((prompt[-2] % 5) == 0 for prompt in asked)


def test_targets_on_the_answer_are_its_digits_and_the_end():
    text = toy.texts(2, 3, 2, torch.Generator().manual_seed(0))
    batch = toy.batch_of(text, answers_only=True)
    assert [[t for t in row if t != IGNORE] for row in batch.targets.tolist()] == text[:, -5:].tolist()
    assert batch.n_targets == 15


@pytest.mark.parametrize("after_only", [False, True])
def test_infilling_batches_can_be_restored(after_only):
    batch = family_toy.corrupted(torch.Generator().manual_seed(0), random.Random(0), after_only)
    originals = toy.mixed(family_toy.ROWS, torch.Generator().manual_seed(0), k=4).tolist()
    assert batch.tokens.shape[1] <= toy.CONTEXT
    for row, targets, original in zip(batch.tokens.tolist(), batch.targets.tolist(), originals, strict=True):
        cut = row.index(toy.SEPARATOR)
        asked = [t for t in targets if t != IGNORE]
        assert asked[: 0 if after_only else cut] == row[1 : 1 if after_only else cut + 1]
        assert restore(row[:cut], asked[0 if after_only else cut :], family_toy.SENTINELS) == original


def test_thinned_batches_ask_for_their_share():
    batch = toy.batch_of(torch.randint(10, (50, 41)))
    thin = family_text.thinned(batch, 0.15, seed=1)
    kept = thin.targets != IGNORE
    assert torch.equal(thin.targets[kept], batch.targets[kept]) and thin.n_targets == kept.sum()
    assert 0.1 < thin.n_targets / batch.n_targets < 0.2
