"""Banded layers keep the last entries only: the same logits and tokens as keeping all, in memory that does not grow.

SPARE is 0 in most tests: so one entry too few is seen to be.
"""

import pytest
import torch
from helpers import model, tokens

import lora
from minigpt import sliding
from minigpt.cache import Cache
from minigpt.generation import Memory, beam_search, generate, stream
from minigpt.generation.reader import PlainReader, Reader
from minigpt.generation.speculative import rounds

LAYERS = {"all banded": (0, 1), "alternating": (1,)}
KINDS = {"learned": "gpt2", "rotary, grouped": "llama"}


@pytest.fixture(autouse=True)
def spare(monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", 0)


def banded(window: int, layers: str = "all banded", kind: str = "learned", context: int = 120, **changes):
    torch.manual_seed(0)
    sizes = {"n_layers": 2, "context": context, "window": window, "banded_layers": LAYERS[layers]}
    return model(KINDS[kind], std=0.2, **sizes | changes)


def close(ours, plain):
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", LAYERS)
@pytest.mark.parametrize("chunks", [[50], [1] * 50, [7, 2, 1, 3, 25, 12]], ids=len)
def test_any_chunking_is_the_full_forward(kind, layers, chunks):
    x, keep = tokens(3, 50), torch.arange(50) >= torch.tensor([[0], [13], [48]])
    holes = torch.rand(3, 50, generator=torch.Generator().manual_seed(0)) < 0.5
    holes[0, :30], holes[1, 10:40] = True, False  # a row may see nothing new for longer than its window
    for window in (1, 3, 8):
        gpt = banded(window, layers, kind).double()
        for real in (torch.ones_like(keep), keep, holes):
            cache, parts = Cache(gpt.config, 3, dtype=torch.float64), []
            with torch.inference_mode():
                for part, kept in zip(x.split(chunks, 1), real.split(chunks, 1), strict=True):
                    parts.append(gpt(part, cache=cache, keep=None if real.all() else kept))
                whole = gpt(x, keep=real)
            torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], atol=1e-10, rtol=1e-8)
            assert cache.layers[1].start > 0 or real is holes


@pytest.mark.parametrize("kind, layers", list(zip(KINDS, LAYERS, strict=True)))
@pytest.mark.parametrize("window", [1, 3, 6])
@pytest.mark.parametrize("prompts", [[[5, 9, 2]], [list(range(40)), [7], [3] * 11]], ids=["one", "padded"])
def test_branches_compacting_and_leaving_equal_texts_read_whole(kind, layers, window, prompts):
    gpt, random = banded(window, layers, kind, context=200), torch.Generator().manual_seed(0)
    places = list(range(len(prompts)))
    reader, plain = Reader(gpt, places, room=400), PlainReader(gpt, places)
    close(reader.start(prompts), plain.start(prompts))
    width = 1
    for step in range(24):
        parents = torch.randint(width, (len(places), (4, 2, 3)[step // 8]), generator=random)
        width = parents.shape[1]
        new = torch.randint(61, parents.shape, generator=random).tolist()
        texts = plain.step(new, parents.tolist())
        if step in (6, 19):
            reader.cache.branch(parents)
            reader.cache.compact()
            parents = torch.arange(width).expand(len(places), -1)
        close(reader.step(new, parents.tolist()), texts)
        if step == 15 and len(places) > 1:
            places = [2, 0]
            reader.select(places), plain.select(places)
    assert reader.cache.layers[1].start > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers", LAYERS)
def test_tokens_equal_reading_everything_again(kind, layers):
    gpt = banded(5, layers, kind, context=40)
    prompts = [[5, 9, 2], [7], list(range(30)), [5, 9, 2]]
    for options in ({"temperature": 0}, {"seed": 3, "eos": [1, 2, 3]}, {"seed": 4, "overflow": "slide"}):
        written = generate(gpt, prompts, 25, **options)
        assert written == generate(gpt, prompts, 25, use_cache=False, **options)
    assert len({token for text in written for token in text}) > 10
    beams = {"num_beams": 3, "max_new_tokens": 20, "eos": [1, 2], "num_return_sequences": 3, "early_stopping": "never"}
    ours, plain = (beam_search(gpt, prompts, use_cache=use_cache, **beams) for use_cache in (True, False))
    assert [[beam.tokens for beam in row] for row in ours] == [[beam.tokens for beam in row] for row in plain]


@pytest.mark.parametrize("window", [2, 6])
def test_adapters_of_rows(window):
    gpt = banded(window, "alternating", context=60)
    for name in ("a", "b"):
        lora.attach(gpt, lora.Config(r=2, alpha=16, targets=["q_proj", "v_proj"]), name=name)
    with torch.no_grad():
        for name, weight in gpt.named_parameters():
            if "adapters" in name:
                weight.normal_()
    prompts = [[5, 9, 2], list(range(25)), [5, 9, 2]]
    with lora.rows(gpt, ["a", None, "b"]):
        options = {"max_new_tokens": 30, "temperature": 0}
        together = generate(gpt, prompts, **options)
        assert together == generate(gpt, prompts, use_cache=False, **options)
    assert together[0] != together[2]


def test_memory_is_bounded_by_the_window(monkeypatch):
    monkeypatch.undo()  # the usual SPARE
    gpt = banded(window := 16, context=1000)
    entry = 2 * 2 * 32 * 4  # layers, keys and values, C, float32
    most = 4 * (window + sliding.SPARE)
    memory = Memory(gpt)
    text = tokens(1, 400)[0].tolist()
    list(stream(gpt, text, 150, memory=memory))
    assert memory.cache.length == 549 and memory.cache.nbytes <= most * entry
    reader = Reader(gpt, [0, 1], room=4 * 100)
    reader.start([text, [1]])
    for _ in range(100):
        reader.step([[1, 2, 3, 4]] * 2, [[0, 0, 0, 0]] * 2)
    assert reader.cache.nbytes <= 2 * 4 * most * entry  # rows, branches
    dense = banded(16, "alternating", context=1000)
    assert Cache(dense.config, 1).nbytes == entry * (1000 + 2 * (16 + sliding.SPARE)) // 2


@pytest.mark.parametrize("spare", [0, 8])
def test_conversations_that_go_back(spare, monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", spare)
    gpt = banded(6, "alternating", context=120)
    memory, text = Memory(gpt), tokens(1, 50)[0].tolist()
    read = []
    gpt.token_embedding.register_forward_hook(lambda module, args, out: read.append(args[0].numel()))

    def goes_on(text, new):
        read.clear()
        found = list(stream(gpt, text, new, temperature=0, memory=memory))
        already = len(memory.text) - sum(read)
        assert found == generate(gpt, [text], new, temperature=0)[0]
        return found, already

    text += goes_on(text, 20)[0]
    assert goes_on(text, 5)[1] == 69  # all but the last token
    assert goes_on([*text[:66], 1, 2], 5)[1] == (66 if spare else 0)
    assert goes_on(text[:30], 5)[1] == 0  # too far: read again from the beginning
    for parted in range(29, 20, -1):
        assert goes_on([*text[:parted], parted], 7)[1] in (parted, 0)
    assert goes_on([4], 90)[1] == 0
    assert goes_on([8], 3)[1] == 0


@pytest.mark.parametrize("spare", [0, 32])
def test_what_a_draft_proposed_is_taken_back(spare, monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", spare)
    gpt, draft = banded(4, "alternating"), banded(3)
    made = [token for each in rounds(gpt, draft, [5, 9, 2], 100, 5, temperature=0) for token in each.tokens]
    assert made == generate(gpt, [[5, 9, 2]], 100, temperature=0, use_cache=False)[0]


def test_a_reading_that_fails_changes_nothing():
    gpt, x = banded(4), tokens(1, 60)
    cache = Cache(gpt.config, 1)
    with torch.inference_mode():
        gpt(x[:, :20], cache=cache)
        hook = gpt.blocks[1].mlp.register_forward_hook(lambda *_: 1 / 0)
        for chunk in (x[:, 20:50], x[:, :1]):
            with pytest.raises(ZeroDivisionError):
                gpt(chunk, cache=cache)
        hook.remove()
        rest = gpt(x[:, 20:], cache=cache)
        close(rest, gpt(x)[:, 20:])


def test_the_oldest_entry_by_brute_force():
    random = torch.Generator().manual_seed(0)
    for _ in range(100):
        seen = torch.rand(2, 3, 12, generator=random) < 0.4
        for last in (0, 1, 3, 20):
            places = [row.nonzero().flatten().tolist() for row in seen.flatten(0, 1)]
            wanted = [place for row in places for place in row[len(row) - min(last, len(row)) :]]
            assert sliding.oldest(seen, 12, last) == min(wanted, default=12)
    assert [sliding.oldest(None, 12, last) for last in (0, 3, 20)] == [12, 9, 0]
