"""Both attentions equal the formula, spelt out in loops; every mask equals its definition, spelt out in loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt import attention, masks
from minigpt.attention import fast, join_heads, plain, split_heads

KEEP = torch.tensor([[0, 0, 1, 1, 0, 1, 1], [1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0, 0]]).bool()
DOCUMENTS = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 3, 4, 5, 6], [5, 5, 5, 5, 5, 5, 5]])
MASKS = {  # name: (queries, mask), of 7 keys and 3 rows
    "none": (7, None),
    "banded": (7, masks.build(7, window=3)),
    "padding": (7, masks.build(7, keep=KEEP)),
    "documents": (7, masks.build(7, documents=DOCUMENTS)),
    "everything": (7, masks.build(7, window=2, keep=KEEP, documents=DOCUMENTS)),
    "cache": (3, None),
    "cache, one query": (1, None),
    "cache, banded, padding": (3, masks.build(3, past=4, window=2, keep=KEEP)),
    "cache, one query, banded": (1, masks.build(1, past=6, window=4)),
}


def qkv(n_queries, n_kv_heads=4, dtype=torch.float32, n_keys=7, d_head=8):
    shapes = (3, 4, n_queries, d_head), (3, n_kv_heads, n_keys, d_head), (3, n_kv_heads, n_keys, d_head)
    return [(2 * torch.randn(shape, dtype=dtype)).requires_grad_() for shape in shapes]


def by_loops(q, k, v, mask):
    """softmax(Q K^T / sqrt(D)) V over the keys that are seen, one number at a time."""
    batch, heads, n_queries, d_head = q.shape
    group, past = heads // k.shape[1], k.shape[2] - n_queries
    out = torch.zeros_like(q)
    for b in range(batch):
        for h in range(heads):
            keys, values = k[b, h // group].tolist(), v[b, h // group]
            for t, query in enumerate(q[b, h].tolist()):
                if mask is None:
                    seen = range(past + t + 1)
                else:
                    seen = [j for j, sees in enumerate(mask[b % len(mask), 0, t].tolist()) if sees]
                scores = [sum(x * y for x, y in zip(query, keys[j], strict=True)) / math.sqrt(d_head) for j in seen]
                total = sum(math.exp(score) for score in scores)
                for j, score in zip(seen, scores, strict=True):
                    out[b, h, t] += math.exp(score) / total * values[j]
    return out


@pytest.mark.parametrize("attend", [plain, fast])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", MASKS)
def test_attention_is_the_formula(kind, n_kv_heads, attend):
    n_queries, mask = MASKS[kind]
    q, k, v = qkv(n_queries, n_kv_heads, torch.float64)
    with torch.no_grad():
        assert torch.allclose(attend(q, k, v, mask), by_loops(q, k, v, mask), atol=1e-12)


def close(a, b, tolerance):
    return (a - b).norm() <= tolerance * b.norm()


# bfloat16 has 8 bits, 4e-3 a rounding: errors of both against float64 reach 1.7e-2.
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("n_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("kind", MASKS)
def test_plain_and_fast_agree_in_values_and_gradients(kind, n_kv_heads, dtype, tolerance):
    n_queries, mask = MASKS[kind]
    inputs = qkv(n_queries, n_kv_heads, dtype)
    slow, quick = plain(*inputs, mask), fast(*inputs, mask)
    assert slow.dtype == quick.dtype == dtype
    assert close(slow, quick, tolerance)
    weights = torch.randn_like(slow)
    for a, b in zip(
        torch.autograd.grad((slow * weights).sum(), inputs),
        torch.autograd.grad((quick * weights).sum(), inputs),
        strict=True,
    ):
        assert close(a, b, tolerance)


@pytest.mark.parametrize("autocast", [False, True])
def test_products_are_the_formula_forward_and_back(autocast):
    """Against float64, at a length of several tiles, from tensors as the model has them: (B, T, H, D), seen across."""
    inputs = [torch.randn(3, 150, 2, 16).bfloat16().float().transpose(1, 2) for _ in range(4)]
    *exact, weights = [x.double().requires_grad_() for x in inputs]
    slow = plain(*exact)
    wanted = torch.autograd.grad((slow * weights).sum(), exact)
    narrow = [x.to(torch.float32 if autocast else torch.bfloat16).requires_grad_() for x in inputs[:3]]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        quick = fast(*narrow)
    found = torch.autograd.grad(quick, narrow, inputs[3].bfloat16())
    assert type(quick.grad_fn).__name__ == "_ProductsBackward" and quick.dtype == torch.bfloat16
    assert [x.dtype for x in found] == [x.dtype for x in narrow]
    for a, b in zip((quick, *found), (slow, *wanted), strict=True):
        assert close(a.double(), b, 8e-3)  # 3.2e-3 to 5.1e-3 were seen


@pytest.mark.parametrize(
    ("change", "n_kv_heads", "n_queries", "mask"),
    [("long", 4, 7, None), ("grouped", 2, 7, None), ("cache", 4, 3, None), ("mask", 4, 7, MASKS["banded"][1])],
)
def test_what_products_do_not_suit_goes_to_the_kernel(change, n_kv_heads, n_queries, mask, monkeypatch):
    monkeypatch.setattr(attention.products, "attend", None)
    monkeypatch.setattr(attention.products, "MOST_KEYS", 6 if change == "long" else 7)
    inputs = qkv(n_queries, n_kv_heads, torch.bfloat16)
    assert close(fast(*inputs, mask), plain(*inputs, mask), 3e-2)
    assert fast(*qkv(7, dtype=torch.bfloat16), dropout=0.5).isfinite().all()
    with pytest.raises(TypeError, match="NoneType"):
        monkeypatch.setattr(attention.products, "MOST_KEYS", 7)
        fast(*qkv(7, dtype=torch.bfloat16))


@pytest.mark.gpu
@pytest.mark.parametrize("kind", MASKS)
def test_plain_and_fast_agree_on_cuda(kind):
    n_queries, mask = MASKS[kind]
    q, k, v = (x.detach().cuda() for x in qkv(n_queries, 2))
    mask = None if mask is None else mask.cuda()
    assert torch.allclose(plain(q, k, v, mask), fast(q, k, v, mask), atol=1e-4)


@pytest.mark.parametrize("attend", [plain, fast])
def test_a_hidden_key_has_weight_zero_however_high_its_score(attend):
    q, k, v = qkv(7)
    with torch.no_grad():
        q, k = q.abs() * -1e4, k.abs() * 1e4  # every visible score is far below -1e4
        before = attend(q, k, v)
        v[:, :, 4:] = 1e6
        assert torch.equal(attend(q, k, v)[:, :, :4], before[:, :, :4])


@pytest.mark.parametrize("attend", [plain, fast])
def test_dropout_drops_weights_and_scales_the_rest(attend):
    time, rate = 64, 0.25
    q, v = torch.zeros(8, 4, time, time), torch.eye(time).expand(8, 4, time, time)  # the output is the weights
    mask = torch.ones(1, 1, time, time, dtype=torch.bool)
    weights = attend(q, q, v, mask, dropout=rate)
    kept = weights != 0
    assert torch.allclose(weights[kept], torch.tensor(1 / time / (1 - rate)))
    assert abs(kept.float().mean() - (1 - rate)) < 0.01  # six standard deviations are 0.007
    assert torch.equal(attend(q, q, v, mask, dropout=0.0), attend(q, q, v, mask))


def test_heads_split_and_join():
    x = torch.arange(2 * 3 * 8).reshape(2, 3, 8)
    heads = split_heads(x, 4)
    assert heads.shape == (2, 2, 3, 4) and heads[1, 1, 2].tolist() == x[1, 2, 4:].tolist()
    assert torch.equal(join_heads(heads), x)


def sees(i, j, keep, documents, window):
    """The definition: itself; else an earlier real token, of the same document, within the window of real tokens."""
    if i == j:
        return True
    between = sum(keep[j + 1 : i + 1])
    return j < i and keep[j] and documents[i] == documents[j] and (window is None or between < window)


@st.composite
def settings_of_a_mask(draw):
    n_queries, past, batch = draw(st.integers(1, 6)), draw(st.integers(0, 5)), draw(st.integers(1, 2))
    rows = st.lists(st.lists(st.booleans(), min_size=n_queries + past, max_size=n_queries + past), min_size=batch)
    keep = draw(st.none() | rows.map(lambda r: r[:batch]))
    numbers = st.lists(st.integers(0, 2), min_size=n_queries + past, max_size=n_queries + past)
    documents = draw(st.none() | st.lists(numbers, min_size=batch, max_size=batch))
    return n_queries, past, draw(st.none() | st.integers(1, 12)), keep, documents


@settings(deadline=None, max_examples=300)
@given(settings_of_a_mask())
def test_a_mask_is_its_definition(setting):
    n_queries, past, window, keep, documents = setting
    n_keys = past + n_queries
    tensors = {"keep": keep, "documents": documents}
    given_tensors = {name: torch.tensor(rows) for name, rows in tensors.items() if rows is not None}
    mask = masks.build(n_queries, past, window=window, **given_tensors)
    batch = len(keep or documents or [0])
    if mask is None:  # "all of the past and myself"
        mask = torch.ones(n_queries, n_keys, dtype=torch.bool).tril(past)[None, None]
    assert mask.dtype == torch.bool and mask.shape == (batch, 1, n_queries, n_keys)
    for b in range(batch):
        real = keep[b] if keep else [True] * n_keys
        numbers = documents[b] if documents else [0] * n_keys
        for t in range(n_queries):
            expected = [sees(past + t, j, real, numbers, window) for j in range(n_keys)]
            assert mask[b, 0, t].tolist() == expected


def test_no_mask_where_none_is_needed():
    assert masks.build(5) is None and masks.build(1, past=4) is None
    assert masks.build(5, window=5) is None and masks.build(3, past=2, window=5) is None
    assert masks.build(5, window=4) is not None and masks.build(3, past=2, window=4) is not None


def test_a_window_counts_the_token_itself():
    assert masks.build(6, window=3)[0, 0].sum(dim=-1).tolist() == [1, 2, 3, 3, 3, 3]


def test_the_mask_of_the_last_keys_is_its_last_columns():
    mask = torch.rand(2, 1, 4, 9) < 0.5
    for n_keys in (4, 6, 9):  # four are as many as there are queries
        assert torch.equal(masks.last(mask, n_keys), mask[..., 9 - n_keys :])
    assert torch.equal(masks.last(mask, 5, front=2), mask[..., [0, 1, 6, 7, 8]])
    assert masks.last(None, 3) is None
