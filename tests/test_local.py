"""Chunks under a band equal the formula; they look at the window and keep nothing but their inputs."""

import contextlib
import itertools

import pytest
import torch
from helpers import config, model, tokens

from minigpt import attention, local, masks
from minigpt.cache import Cache
from minigpt.masks import Band
from minigpt.memory import Job, predict
from minigpt.model import GPT


def qkv(n_queries: int, n_keys: int, heads: int = 2, groups: int = 2, batch: int = 2, dtype=torch.float64):
    shapes = (batch, heads, n_queries, 8), (batch, groups, n_keys, 8), (batch, groups, n_keys, 8)
    return [(2 * torch.randn(shape, dtype=dtype)).requires_grad_() for shape in shapes]


def documents(n_keys: int) -> torch.Tensor:
    """Two rows with borders of their own, one on the border of a chunk."""
    slots = torch.arange(n_keys)
    return torch.stack([(slots >= 70).long() + (slots >= 71).long() + (slots >= 290).long(), slots // 64])


GRID = list(itertools.product((1, 2, 64, 65, 129, 250), (1, 64, 300), (0, 1, 64, 200)))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("groups", [2, 1])
def test_chunks_are_the_formula(groups, packed):
    for window, n_queries, past in GRID:
        n_keys = past + n_queries
        band = Band(window, n_queries, past, documents(n_keys) if packed else None)
        inputs = qkv(n_queries, n_keys, groups=groups)
        with torch.no_grad():
            ours, plain = (attend(*inputs, band) for attend in (local.chunked, attention.plain))
        torch.testing.assert_close(ours, plain, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("window", "past"), [(1, 0), (64, 0), (65, 70), (100, 5), (200, 128)])
def test_gradients_are_the_formulas(window, past, packed):
    n_queries = 300
    band = Band(window, n_queries, past, documents(past + n_queries) if packed else None)
    inputs = qkv(n_queries, past + n_queries, heads=2, groups=1)
    slope = torch.randn(2, 2, n_queries, 8, dtype=torch.float64)
    ours, plain = (
        torch.autograd.grad((attend(*inputs, band) * slope).sum(), inputs)
        for attend in (local.chunked, attention.plain)
    )
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b, atol=1e-11, rtol=1e-11)


def test_a_band_written_out_is_what_build_makes(monkeypatch):
    monkeypatch.setattr(masks, "SHORT", 10**9)
    for window, n_queries, past in ((3, 20, 0), (5, 7, 9), (1, 4, 3)):
        for numbers in (None, torch.randint(3, (2, past + n_queries))):
            built = masks.build(n_queries, past, window=window, documents=numbers)
            band = Band(window, n_queries, past, numbers)
            assert torch.equal(band.dense(), built)
            shorter = masks.last(band, n_queries + 2).dense() if past and numbers is None else None
            assert shorter is None or torch.equal(shorter, built[..., -(n_queries + 2) :])


def test_when_a_band_is_not_written_out():
    assert isinstance(masks.build(512, window=256), Band) and isinstance(masks.build(600, window=1), Band)
    assert isinstance(masks.build(256, 256, window=100), Band)
    assert not masks.build(200, 1000, window=8).pays and masks.build(256, 300, window=8).pays
    for n_queries, past, window in ((511, 0, 8), (512, 0, 257)):
        assert isinstance(masks.build(n_queries, past, window=window), torch.Tensor)
    assert isinstance(masks.build(600, window=8, keep=torch.ones(1, 600, dtype=torch.bool)), torch.Tensor)
    assert masks.build(600) is None


class Spy:
    """Counts the scores that are computed."""

    def __init__(self):
        self.chunk, self.scores = local._chunk, 0

    def __call__(self, q, keys, *more):
        self.scores += q.shape[2] * sum(each.shape[2] for each in keys)
        return self.chunk(q, keys, *more)


def test_cost_grows_with_the_window_not_with_the_text(monkeypatch):
    found = {}
    for length, window in itertools.product((1024, 4096), (64, 256)):
        monkeypatch.setattr(local, "_chunk", spy := Spy())
        with torch.no_grad():
            local.chunked(*qkv(length, length, 1, 1, 1, torch.float32), Band(window, length))
        found[length, window] = spy.scores / length
        assert spy.scores <= length * (window + local.MOST)
        monkeypatch.undo()
    assert found[4096, 64] < 1.1 * found[1024, 64] and found[4096, 256] < 1.2 * found[1024, 256]


@contextlib.contextmanager
def counting():
    """Bytes of the storages that autograd saves, each once."""
    sizes, alive = {}, []

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        alive.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield sizes


def test_nothing_is_kept_but_the_inputs():
    length = 1024
    inputs = qkv(length, length, 2, 2, 1, torch.float32)
    kept = {}
    for attend in (local.chunked, attention.fast):
        mask = Band(64, length) if attend is local.chunked else Band(64, length).dense()
        with counting() as sizes:
            out = attend(*inputs, mask)
        own = {each.untyped_storage().data_ptr() for each in inputs}
        kept[attend] = sum(size for place, size in sizes.items() if place not in own)
        del out
    assert kept[local.chunked] == 0 and kept[attention.fast] > 4 * length**2


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("window", [20, 64, 300])
def test_the_memory_of_a_step_is_predicted(window, packed):
    """Autograd saves what is predicted, but for k and v of the banded layer, which its checkpoints hold."""
    shape = config("gpt2", context=600, window=window, banded_layers=(1,))
    job, gpt = Job(batch=2, length=600, documents=packed), GPT(shape).train()
    numbers = torch.arange(600).expand(2, 600) // 100
    openings = {"documents": numbers, "positions": (torch.arange(600).expand(2, 600) % 100).contiguous()}
    with counting() as sizes:
        hidden = gpt.hidden(tokens(2, 600), **(openings if packed else {}))
    own = {weight.untyped_storage().data_ptr() for weight in gpt.parameters()}
    found = sum(size for place, size in sizes.items() if place not in own)
    assert predict(shape, job).activations == found + 2 * (2 * 600 * 32 * 4)
    assert hidden.shape == (2, 600, 32)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_banded_model_takes_this_way_by_itself_and_is_the_formula(kind, monkeypatch):
    gpt, x = model(kind, std=0.2, dtype=torch.float64, context=600, window=70, banded_layers=(0,)), tokens(1, 600)
    plain = model(kind, dtype=torch.float64, context=600, window=70, banded_layers=(0,))
    plain.load_state_dict(gpt.state_dict())
    for block in plain.blocks:
        block.attn.attend = attention.plain
    monkeypatch.setattr(local, "_chunk", spy := Spy())
    losses = [net(x).logsumexp(-1).sum() for net in (gpt, plain)]
    assert 0 < spy.scores < 600 * 600 / 2
    for loss in losses:
        loss.backward()
    assert torch.allclose(*losses)
    for ours, theirs in zip(gpt.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("chunks", [[900], [600, 300], [1] * 5 + [595, 40, 260], [299, 1, 600]], ids=len)
def test_with_a_cache_any_chunking_is_the_full_forward(kind, chunks):
    for window in (1, 40, 129):
        gpt = model(kind, std=0.2, dtype=torch.float64, context=900, window=window, banded_layers=(0, 1))
        x, cache = tokens(2, 900), Cache(gpt.config, 2, dtype=torch.float64)
        with torch.inference_mode():
            parts = [gpt(part, cache=cache) for part in x.split(chunks, 1)]
            torch.testing.assert_close(torch.cat(parts, 1), gpt(x), atol=1e-10, rtol=1e-8)


def test_the_future_is_not_seen_nor_what_lies_before_the_windows():
    gpt = model("llama", std=0.02, context=800, window=50, banded_layers=(0, 1))
    x = tokens(1, 800)
    with torch.no_grad():
        for weight in gpt.parameters():
            weight.mul_(1000)
        whole, other = gpt(x), x.clone()
        other[:, 301:] = (other[:, 301:] + 1) % 61
        assert torch.equal(gpt(other)[:, :301], whole[:, :301])
        other = x.clone()
        other[:, 300] = (other[:, 300] + 1) % 61
        changed = (gpt(other) != whole).any(-1)[0].nonzero().flatten()
        assert changed.min() == 300 and changed.max() <= 300 + 2 * 49  # two layers, each looks 49 back


def test_dropout_is_the_same_when_it_is_made_again():
    """The output is linear in v: so <v, dL/dv> = L, if both passes drop the same weights."""
    q, k, v = qkv(400, 400, 2, 2, 1)
    band = Band(80, 400)
    torch.manual_seed(0)
    loss = (local.chunked(q, k, v, band, 0.3) * torch.randn(8, dtype=torch.float64)).sum()
    (slope,) = torch.autograd.grad(loss, v)
    assert torch.allclose((slope * v).sum(), loss)
    with torch.no_grad():
        ones = torch.ones_like(v)
        dropped = local.chunked(q, k, ones, band, 0.3)
    assert abs(dropped.mean() - 1) < 0.05 and dropped.std() > 0.01  # weights add up to 1 on average


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("packed", [False, True])
def test_flex_attention_is_the_formula(packed):
    """As its own reference on the CPU: what it compiles to on a GPU is the next test."""
    from torch.nn.attention.flex_attention import flex_attention

    for window, past in ((130, 0), (40, 140)):
        band = Band(window, 260, past, documents(past + 260) if packed else None, torch.device("cpu"))
        inputs = [each.detach().float() for each in qkv(260, past + 260)]
        ours = local.flex(*inputs, band, flex_attention)
        torch.testing.assert_close(ours, attention.plain(*inputs, band), atol=1e-5, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("d_head", [8, 16, 64])
@pytest.mark.parametrize("past", [0, 100])
def test_on_cuda_too(past, d_head):
    shapes = (2, 4, 700, d_head), (2, 2, past + 700, d_head), (2, 2, past + 700, d_head)
    inputs = [torch.randn(shape, device="cuda").requires_grad_() for shape in shapes]
    band = Band(90, 700, past, device=torch.device("cuda"))
    ours, plain = local.attend(*inputs, band), attention.plain(*inputs, band)
    torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-3)
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), inputs) for out in (ours, plain)), strict=True):
        torch.testing.assert_close(a, b, atol=1e-2, rtol=1e-2)
