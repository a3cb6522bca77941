"""Sinks are StreamingLLM, spelt out token by token; patterns are their definitions; a prompt may be read in chunks."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from helpers import model, tokens

from minigpt import Error, GPTConfig, attention, masks, sliding
from minigpt.cache import Cache
from minigpt.generation import Memory, beam_search, compiled, generate, stream
from minigpt.generation.reader import PlainReader, Reader
from minigpt.generation.scoring import score
from minigpt.memory import Job, predict
from minigpt.model import activate
from minigpt.positions import inverse_frequencies, rotary, rotate


@pytest.fixture(autouse=True)
def spare(monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", 0)  # so that one entry too few is seen to be


def endless(window: int = 6, sinks: int = 3, std: float = 0.2, layers=(0, 1), dtype=torch.float64, **changes):
    torch.manual_seed(0)
    banding = {"window": window, "banded_layers": layers, "sinks": sinks}
    return model("llama", std=std, dtype=dtype, **{"context": window + sinks} | banding | changes)


def streaming_llm(gpt, text: list[int]) -> torch.Tensor:
    """Xiao et al. 2023, section 3.2: unturned keys of the first s and the last W tokens; each step turns them by
    their places in that cache. The logits after every token."""
    config, kept, out = gpt.config, [([], []) for _ in gpt.blocks], []
    group = config.n_heads // config.n_kv_heads
    for token in text:
        x = gpt.token_embedding(torch.tensor([[token]]))
        for block, (keys, values) in zip(gpt.blocks, kept, strict=True):
            h = block.attn_norm(x)
            q, k, v = (
                attention.split_heads(p(h), config.d_head)[0]
                for p in (block.attn.q_proj, block.attn.k_proj, block.attn.v_proj)
            )
            keys.append(k), values.append(v)
            if len(keys) > config.sinks + config.window:
                del keys[config.sinks], values[config.sinks]
            table = rotary(torch.arange(len(keys))[None], config.d_head, config.rope_theta, torch.float64)
            turned = rotate(torch.cat(keys, 1)[None], table)[0].repeat_interleave(group, 0)
            asked = rotate(q[None], tuple(each[:, :, -1:] for each in table))[0]
            weights = (asked @ turned.mT / config.d_head**0.5).softmax(-1)
            seen = weights @ torch.cat(values, 1).repeat_interleave(group, 0)
            x = x + block.attn.o_proj(attention.join_heads(seen[None]))
            h = block.mlp_norm(x)
            x = x + block.mlp.down_proj(activate(block.mlp.gate_proj(h), config.activation) * block.mlp.up_proj(h))
        out.append(gpt.head(gpt.final_norm(x))[0, 0])
    return torch.stack(out)


@pytest.mark.parametrize(("window", "sinks"), [(6, 3), (1, 1), (4, 8), (9, 0)])
def test_sinks_are_streaming_llm(window, sinks):
    gpt, text = endless(window, sinks or 1), tokens(1, 40)
    if not sinks:
        gpt.config = GPTConfig.from_dict(gpt.config.to_dict() | {"sinks": 0, "context": 40})
    with torch.no_grad():
        torch.testing.assert_close(gpt(text)[0], streaming_llm(gpt, text[0].tolist()), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layers", [(0, 1), (1,)])
@pytest.mark.parametrize("chunks", [[60], [1] * 60, [7, 2, 1, 3, 35, 12]], ids=len)
def test_any_chunking_is_the_full_forward(layers, chunks):
    x, keep = tokens(3, 60), torch.arange(60) >= torch.tensor([[0], [13], [57]])
    holes = torch.rand(3, 60, generator=torch.Generator().manual_seed(0)) < 0.5
    holes[0, :30], holes[1, 10:40] = True, False
    for window, sinks in ((1, 1), (3, 4), (8, 2)):
        gpt = endless(window, sinks, layers=layers)
        gpt.config = GPTConfig.from_dict(gpt.config.to_dict() | {"context": 100})
        for real in (torch.ones_like(keep), keep, holes):
            cache, parts = Cache(gpt.config, 3, 60, dtype=torch.float64), []
            with torch.inference_mode():
                for part, kept in zip(x.split(chunks, 1), real.split(chunks, 1), strict=True):
                    parts.append(gpt(part, cache=cache, keep=None if real.all() else kept))
                whole = gpt(x, keep=None if real.all() else real)
            torch.testing.assert_close(torch.cat(parts, 1)[real], whole[real], atol=1e-10, rtol=1e-8)
        first = Cache(gpt.config, 1, 60, dtype=torch.float64)
        with torch.inference_mode():
            for part in x[:1].split(chunks, 1):
                gpt(part, cache=first)
        assert first.layers[1].start > 0 and first.layers[1].front == sinks


def test_padding_moves_the_sinks_along():
    gpt, x = endless(), tokens(1, 30)
    padded, keep = F.pad(x, (11, 0)), F.pad(torch.ones(1, 30, dtype=torch.bool), (11, 0))
    with torch.no_grad():
        torch.testing.assert_close(gpt(padded, keep=keep)[:, 11:], gpt(x), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("sinks", [1, 5])
@pytest.mark.parametrize("prompts", [[[5, 9, 2]], [list(range(40)), [7], [3] * 11]], ids=["one", "padded"])
def test_branches_and_leaving_equal_texts_read_whole(sinks, prompts):
    gpt, random = endless(4, sinks, dtype=torch.float32), torch.Generator().manual_seed(0)
    places = list(range(len(prompts)))
    reader, plain = Reader(gpt, places, room=400), PlainReader(gpt, places)
    torch.testing.assert_close(reader.start(prompts), plain.start(prompts), atol=1e-4, rtol=1e-4)
    width = 1
    for step in range(24):
        parents = torch.randint(width, (len(places), (4, 2, 3)[step // 8]), generator=random)
        width = parents.shape[1]
        new = torch.randint(61, parents.shape, generator=random).tolist()
        texts = plain.step(new, parents.tolist())
        if step == 5:
            reader.cache.branch(parents)
            reader.cache.compact()
            parents = torch.arange(width).expand(len(places), -1)
        torch.testing.assert_close(reader.step(new, parents.tolist()), texts, atol=1e-4, rtol=1e-4)
        if step == 15 and len(places) > 1:
            places = [2, 0]
            reader.select(places), plain.select(places)
    assert reader.cache.layers[1].start > 0


def test_branches_that_part_at_once_have_first_tokens_of_their_own():
    gpt, random = endless(4, 5, dtype=torch.float32), torch.Generator().manual_seed(0)
    reader, plain = Reader(gpt, [0], room=100), PlainReader(gpt, [0])
    torch.testing.assert_close(reader.start([[5, 9]]), plain.start([[5, 9]]), atol=1e-4, rtol=1e-4)
    parents = [[0, 0, 0]]
    for _ in range(20):
        new = torch.randint(61, (1, 3), generator=random).tolist()
        texts = plain.step(new, parents)
        torch.testing.assert_close(reader.step(new, parents), texts, atol=1e-4, rtol=1e-4)
        parents = [[0, 1, 2]]


@pytest.mark.parametrize("sinks", [1, 3])
def test_far_positions_are_turned_in_float64(sinks):
    """Of a text without end: in float32 an angle of 3 million is a tenth off."""
    gpt, far = endless(4, sinks), torch.tensor([[10**8 + 1]])
    cos, sin = gpt._rotary(far, far + 1, torch.float32)
    for pair, frequency in enumerate(inverse_frequencies(gpt.config.d_head, gpt.config.rope_theta).tolist()):
        assert cos[0, 0, 0, pair].item() == pytest.approx(math.cos((10**8 + 1) * frequency), abs=1e-6)
        assert sin[0, 0, 0, pair].item() == pytest.approx(math.sin((10**8 + 1) * frequency), abs=1e-6)


def test_texts_without_end():
    """Ten times the context and more: the same with a cache and without, alone and together, and by beams."""
    gpt = endless(12, 4, dtype=torch.float32, std=0.3)
    prompts, options = [[5, 9, 2], list(range(40))], {"max_new_tokens": 160, "seed": 3}
    together = generate(gpt, prompts, **options)
    assert [len(new) for new in together] == [160, 160]
    assert together[0] == generate(gpt, prompts[:1], use_cache=False, **options)[0]
    assert together[1] == generate(gpt, prompts[1:], row=1, **options)[0]
    assert together[0] == list(stream(gpt, prompts[0], memory=(memory := Memory(gpt)), **options))
    assert memory.cache.length > 160
    assert memory.cache.nbytes == Memory(gpt).cache.nbytes == 2 * 2 * 2 * 2 * (12 + 4) * 8 * 4  # layers, k and v, heads
    text = prompts[0] + together[0]
    assert list(stream(gpt, text, 20, temperature=0, memory=memory)) == generate(gpt, [text], 20, temperature=0)[0]
    beams = {"num_beams": 3, "max_new_tokens": 60, "eos": [1]}
    ours, plain = (beam_search(gpt, prompts, use_cache=use_cache, **beams) for use_cache in (True, False))
    assert [[beam.tokens for beam in row] for row in ours] == [[beam.tokens for beam in row] for row in plain]


def test_long_texts_are_computed_in_chunks_and_stay_exact():
    """At 3,000 tokens: chunks as the formula; and 10^6 tokens on, as if it were the beginning."""
    gpt, x = endless(70, 4), tokens(1, 900)
    (found,) = score(gpt, [x[0].tolist()])
    for block in gpt.blocks:
        block.attn.attend = attention.plain
    (plain,) = score(gpt, [x[0].tolist()])
    assert found.logprobs == pytest.approx(plain.logprobs, abs=1e-8)
    far = torch.arange(40)[None] + 10**6
    q, k = torch.randn(1, 1, 40, 8), torch.randn(1, 1, 40, 8)
    near = [rotate(each, rotary(far - 10**6, 8, 1e4, torch.float32, exact=True)) for each in (q, k)]
    there = [rotate(each, rotary(far, 8, 1e4, torch.float32, exact=True)) for each in (q, k)]
    torch.testing.assert_close(there[0] @ there[1].mT, near[0] @ near[1].mT, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("length", [50, 600])
def test_the_future_is_not_seen_but_the_sinks_are(length):
    x = tokens(1, length)
    for loud in (False, True):  # so loud that a key counts for all or nothing
        gpt = endless(20, 2, std=20.0 if loud else 0.2)
        with torch.no_grad():
            whole = gpt(x)
            for place, seen_at_the_end in ((1, True), (5, False), (length - 3, True)):
                other = x.clone()
                other[:, place] = (other[:, place] + 1) % 61
                changed = (gpt(other) != whole).any(-1)[0]
                assert not changed[:place].any() and changed[place]
                assert changed[-1] == seen_at_the_end or loud


def test_gradients_are_the_formulas():
    gpt, x = endless(70, 4), tokens(1, 600)
    plain = endless(70, 4)
    for block in plain.blocks:
        block.attn.attend = attention.plain
    for net in (gpt, plain):
        net(x).logsumexp(-1).sum().backward()
    for ours, theirs in zip(gpt.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-8, rtol=1e-8)


WRONG = [
    ({"sinks": -1}, "sinks is -1: give 0, or how many first tokens stay visible"),
    ({"sinks": 4}, "it needs positions='rotary', pattern='local', window and banded_layers"),
    ({"sinks": 4, "window": 8, "banded_layers": (0,)}, "it needs positions='rotary'"),
    ({"sinks": 4, "window": 8, "banded_layers": (0,), "positions": "rotary", "pattern": "fixed"}, "pattern='local'"),
    ({"pattern": "strided"}, "no layer is banded: give window and banded_layers"),
    ({"pattern": "stride", "window": 8, "banded_layers": (0,)}, "did you mean 'strided'"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=str)
def test_what_cannot_be_is_refused_with_the_fix(changes, message):
    with pytest.raises(Error, match=message):
        GPTConfig(**changes)
    with pytest.raises(Error, match="packed documents"):
        endless()(tokens(1, 20), documents=torch.zeros(1, 20, dtype=torch.int64))


# Patterns


def sees(pattern: str, i: int, j: int, l: int) -> bool:
    """The sets of Child et al. 2019, section 4.2 and 4.3, with l keys in the row; c = 1."""
    rows = {
        "strided": set(range(max(0, i - l + 1), i + 1)) | {t for t in range(i + 1) if (i - t) % l == 0},
        "fixed": {t for t in range(i + 1) if t // l == i // l} | {t for t in range(i + 1) if t % l in range(l - 1, l)},
    }
    return j in rows[pattern]


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_a_pattern_is_its_definition(pattern):
    keep = torch.rand(2, 20, generator=torch.Generator().manual_seed(0)) < 0.7
    for window, past in itertools.product((1, 2, 5, 19), (0, 7)):
        for real in (None, keep):
            mask = masks.build(20 - past, past, window=window, pattern=pattern, keep=real)
            for b, i, j in itertools.product(range(len(mask)), range(past, 20), range(20)):
                if real is None or (real[b, i] and real[b, j]):
                    place = torch.arange(20) if real is None else real[b].cumsum(0) - 1
                    expected = sees(pattern, int(place[i]), int(place[j]), window)
                    assert mask[b, 0, i - past, j] == expected


@pytest.mark.parametrize("pattern", ["strided", "fixed"])
def test_patterns_decode_as_they_read(pattern):
    gpt = model("llama", std=0.2, context=700, window=4, banded_layers=(1,), pattern=pattern)
    prompts = [[5, 9, 2], list(range(30))]
    for options in ({"temperature": 0}, {"seed": 3}):
        assert generate(gpt, prompts, 25, **options) == generate(gpt, prompts, 25, use_cache=False, **options)
    beams = {"num_beams": 3, "max_new_tokens": 20, "eos": [1, 2]}
    ours, plain = (beam_search(gpt, prompts, use_cache=use_cache, **beams) for use_cache in (True, False))
    assert [[beam.tokens for beam in row] for row in ours] == [[beam.tokens for beam in row] for row in plain]
    with torch.no_grad():
        assert gpt(tokens(1, 600)).isfinite().all()  # no chunks: these reach back further than a window


# Prefill


@pytest.mark.parametrize("kind", ["gpt2", "gpt3", "llama"])
@pytest.mark.parametrize("chunk", [1, 7, 40, 1000])
def test_a_prompt_is_read_in_chunks(kind, chunk, monkeypatch):
    gpt = model(kind, std=0.2, context=120)
    prompts = [[5, 9, 2], list(range(50)), [3] * 33]
    expected = generate(gpt, prompts, 10, temperature=0)
    read = []
    gpt.token_embedding.register_forward_hook(lambda module, args, out: read.append(args[0].numel()))
    monkeypatch.setattr(Reader, "prefill_chunk", chunk)
    assert generate(gpt, prompts, 10, temperature=0) == expected
    assert max(read) <= max(chunk, 3) and read[0] == min(150, max(1, chunk // 3) * 3)
    memory = Memory(gpt)
    assert list(stream(gpt, prompts[1], 10, temperature=0, memory=memory)) == expected[1]


def test_steps_of_fixed_shapes_read_the_same(monkeypatch):
    """The step that is compiled elsewhere (tests/test_compiled.py), as it is written."""
    monkeypatch.setattr(compiled, "_step", lambda on_gpu: compiled.read)
    prompts = [[5, 9, 2], list(range(40)), [7]]
    for gpt in (
        endless(12, 4, dtype=torch.float32),
        endless(5, 2, layers=(1,), dtype=torch.float32, context=200),
        model("llama", std=0.2, context=200, window=4, banded_layers=(1,), pattern="strided"),
        model("llama", std=0.2, context=200, rope_scaling={"rope_type": "dynamic", "factor": 4.0,
                                                           "original_max_position_embeddings": 50}),
    ):  # fmt: skip
        for options in ({"temperature": 0}, {"seed": 3}):
            texts = generate(gpt, prompts, 40, **options)
            assert generate(gpt, prompts, 40, compile=True, **options) == texts


def test_the_room_of_a_cache_is_predicted():
    for gpt in (
        endless(6, 3, context=200),
        endless(6, 3, layers=(1,), context=200),
        model("llama", context=200, window=4, banded_layers=(1,), pattern="fixed"),
    ):
        predicted = predict(gpt.config, Job(batch=2, length=150)).cache
        assert predicted == Cache(gpt.config, 2, 150, dtype=torch.float32).nbytes


@pytest.mark.parametrize("room", [0, 32])
def test_a_conversation_goes_back(room, monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", room)
    gpt = endless(8, 3, dtype=torch.float32)
    memory, text = Memory(gpt), tokens(1, 90)[0].tolist()
    for asked in (text, text[:85], text[:20], [*text[:20], *text[:70]], [7]):
        found = list(stream(gpt, asked, 25, temperature=0, memory=memory))
        assert found == generate(gpt, [asked], 25, temperature=0, use_cache=False)[0]
