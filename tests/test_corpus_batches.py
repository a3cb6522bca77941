"""Every target once an epoch, and a batch that depends on its number alone: against brute force."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.corpus.batches import IGNORE, Batches
from minigpt.errors import Error


@settings(deadline=None, max_examples=200)
@given(
    n=st.integers(2, 70),
    context=st.integers(1, 20),
    batch_size=st.integers(1, 6),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_every_target_exactly_once_an_epoch(n, context, batch_size, seed, epoch, shuffle):
    tokens = np.arange(n, dtype=np.uint16)
    batches = Batches(tokens, context, batch_size, seed, shuffle=shuffle)
    windows, seen = 0, []
    for i in range(epoch * len(batches), (epoch + 1) * len(batches)):
        batch = batches[i]
        real = batch.targets != IGNORE
        assert batch.tokens.shape == batch.targets.shape and batch.tokens.shape[1] == context
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        assert (batch.targets[real] == batch.tokens[real] + 1).all()
        assert (batch.tokens[~real] == 0).all() and batch.n_targets == real.sum()
        assert len(batch.tokens) == batch_size or i % len(batches) == len(batches) - 1
        windows += len(batch.tokens)
        seen += batch.targets[real].tolist()
    assert sorted(seen) == list(range(1, n))
    assert windows == -(-(n - 1) // context)
    if not shuffle:
        assert seen == list(range(1, n))


def test_a_batch_depends_on_its_number_alone():
    tokens = np.arange(1000)
    one, other = Batches(tokens, 7, 4, seed=5), Batches(tokens, 7, 4, seed=5)
    wanted = [3, 90, 36, 35, 3, 200, 0]
    for i in wanted:
        assert torch.equal(one[i].tokens, other[i].tokens)
    for i in reversed(wanted):
        assert torch.equal(one[i].tokens, Batches(tokens, 7, 4, seed=5)[i].tokens)


def test_epochs_and_seeds_have_their_own_order():
    tokens = np.arange(2000)
    batches = Batches(tokens, 5, 4, seed=0)
    orders = [batches.order(0), batches.order(1), Batches(tokens, 5, 4, seed=1).order(0)]
    for a in range(3):
        assert sorted(orders[a]) == list(range(400)) and not np.array_equal(orders[a], np.arange(400))
        assert not np.array_equal(orders[a], orders[a - 1])
    # (seed, epoch) must not collide as seed + epoch would.
    assert not np.array_equal(batches.order(1), Batches(tokens, 5, 4, seed=1).order(0))


def test_the_order_is_the_same_for_ever():
    # From the definition of PCG64 and SeedSequence, both frozen by numpy: a change here breaks every resumed run.
    assert Batches(np.arange(51), 5, 4, seed=3).order(2).tolist() == [4, 0, 8, 5, 3, 9, 7, 6, 1, 2]


def borders_by_hand(row, n_real, eot):
    documents, positions, document, position = [], [], 0, 0
    for column, token in enumerate(row):
        if (column < n_real and token == eot) or column == n_real:
            document, position = document + 1, 0
        documents.append(document)
        positions.append(position)
        position += 1
    return documents, positions


@settings(deadline=None, max_examples=200)
@given(tokens=st.lists(st.sampled_from([0, 0, 1, 2, 3]), min_size=2, max_size=60), context=st.integers(1, 15))
def test_document_borders(tokens, context):
    eot = 0
    batches = Batches(np.array(tokens, np.uint32), context, 3, seed=1, eot=eot, document_mask=True)
    for i in range(len(batches)):
        batch = batches[i]
        for r, row in enumerate(batch.tokens.tolist()):
            n_real = int((batch.targets[r] != IGNORE).sum())
            documents, positions = borders_by_hand(row, n_real, eot)
            assert batch.documents[r].tolist() == documents
            assert batch.positions[r].tolist() == positions


def test_end_of_text_begins_its_document():
    batch = Batches(np.array([9, 1, 2, 9, 3, 9, 9, 4]), 10, 1, 0, eot=9, document_mask=True)[0]
    assert batch.tokens.tolist() == [[9, 1, 2, 9, 3, 9, 9, 9, 9, 9]]
    assert batch.targets.tolist() == [[1, 2, 9, 3, 9, 9, 4] + [IGNORE] * 3]
    assert batch.documents.tolist() == [[1, 1, 1, 2, 2, 3, 4, 5, 5, 5]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1, 0, 0, 0, 1, 2]]
    assert batch.documents.dtype == batch.positions.dtype == torch.int64


def test_without_document_mask_there_are_no_borders():
    batch = Batches(np.arange(9), 4, 2, 0, eot=3)[0]
    assert batch.positions is None and batch.documents is None
    assert batch.to("cpu").documents is None and batch.to("meta").tokens.is_meta


def test_memory_maps_and_wide_ids(tmp_path):
    path = tmp_path / "t.bin"
    np.array([1, 70_000, 2], "<u4").tofile(path)
    batch = Batches(np.memmap(path, "<u4", "r"), 2, 1, 0)[0]
    assert batch.tokens.tolist() == [[1, 70_000]] and batch.targets.tolist() == [[70_000, 2]]


@pytest.mark.parametrize(
    "tokens, options, reason",
    [
        (np.arange(1), {}, "1 tokens hold no target"),
        (np.zeros((2, 2), int), {}, "one dimension"),
        (np.zeros(5), {}, "expected integers"),
        (np.arange(9), {"context": 0}, "at least 1"),
        (np.arange(9), {"batch_size": 0}, "at least 1"),
        (np.arange(9), {"seed": -1}, "at least 0"),
        (np.arange(9), {"document_mask": True}, "needs eot"),
    ],
)
def test_bad_requests(tokens, options, reason):
    with pytest.raises(Error, match=reason):
        Batches(tokens, **{"context": 4, "batch_size": 2, "seed": 0, **options})


def test_no_endless_loops_by_accident():
    batches = Batches(np.arange(9), 4, 2, 0)
    with pytest.raises(TypeError, match="no end"):
        list(batches)
    with pytest.raises(IndexError):
        batches[-1]
