"""Whoever else is written meanwhile, a text is the one of `generate` alone."""

import math
import random
from pathlib import Path

import pytest
import torch
from engines import MODELS, by_generate, check_told, drive, some_ask, words
from helpers import model
from mixing import NAMES, tuned

import lora
from minigpt import Error, sliding
from minigpt.generation import generate
from minigpt.generation.engine import Ask, Engine
from minigpt.generation.sampling import Sampler
from minigpt.serving import serving
from minigpt.tuning import mixed, prefix


@pytest.fixture(autouse=True)
def spare(monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", 0)  # so that a banded layer that forgot something is seen to


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", MODELS)
def test_texts_are_those_of_generate_whoever_comes_and_goes(kind, seed):
    name, changes = MODELS[kind]
    gpt, draw = model(name, std=0.2, **changes), random.Random(f"{kind} {seed}")
    asks = [some_ask(draw, 24) for _ in range(25)]
    arrive, gone = [draw.randrange(40) for _ in asks], {n: draw.randrange(5, 50) for n in draw.sample(range(25), 6)}
    engine = Engine(gpt, draw.choice([2, 5]), prefill_share=draw.choice([3, 20, 256]))
    for number, events in enumerate(drive(engine, asks, arrive, gone)):
        whole = by_generate(gpt, asks[number])
        if number in gone and words(events) != whole:
            assert words(events) == whole[: len(events)] and not any(event.finish for event in events)
        else:
            check_told(events, asks[number], whole)


@pytest.mark.parametrize("kind, shift", [("gpt2", True), ("gpt2", False), ("llama", True), ("mixture", False)])
def test_adapters_of_all_kinds_share_a_batch_and_what_cannot_be_mixed_goes_beside_it(kind, shift):
    """LoRA, rsLoRA, bottlenecks, prompts, prefixes of other lengths and two at once; DoRA and a LoRA with biases."""
    gpt = tuned(kind, shift)
    lora.attach(gpt, lora.Config(r=2, dora=True), "dora")
    lora.attach(gpt, lora.Config(r=2, targets=["q_proj"], bias="lora_only"), "biases")
    for parameter in lora.parameters(gpt):
        torch.nn.init.normal_(parameter, std=0.3)
    apart = ["dora", "biases", ("dora", "prompt", "prefix")]
    names = {str(each): each for each in (*NAMES, *apart) if each is not None}
    draw = random.Random(f"{kind} {shift}")
    asks = [some_ask(draw, 8, (None, *names)) for _ in range(44)]
    engine = Engine(gpt, 8, names, (lora,), prefill_share=11)
    assert len(set(engine.lanes.values())) == 3 + gpt.config.bias  # of a layer without bias LoRA learns none
    heard = drive(engine, asks, [draw.randrange(30) for _ in asks])
    for ask, events in zip(asks, heard, strict=True):
        check_told(events, ask, by_generate(gpt, ask, names.get(ask.adapter)))
    assert len({tuple(words(events)) for events in heard}) > 38


def recorded(engine: Engine, asks: list[Ask], **times) -> list[tuple[Ask, list[int], list[torch.Tensor]]]:
    """Every ask, its new tokens, and the logits that each was chosen from."""
    found = []
    for ask in asks:
        seen = []

        def see(scores, rows, seen=seen):
            seen.append(scores[0].clone())
            return scores

        found.append((Ask(ask.prompt, Sampler(temperature=0, max_new_tokens=9, extra=(see,))), seen))
    heard = drive(engine, [ask for ask, _ in found], **times)
    return [(ask, words(events), seen) for (ask, seen), events in zip(found, heard, strict=True)]


@pytest.mark.parametrize("kind", MODELS)
def test_logits_are_those_of_the_text_read_whole(kind):
    """Without a cache, without neighbours: through joins, moves to the right and back, and rows that leave."""
    name, changes = MODELS[kind]
    gpt, draw = model(name, std=0.2, **changes), random.Random(kind)
    asks = [Ask(draw.choices(range(61), k=k)) for k in (2, 15, 1, 7, 3, 15, 4, 1, 12)]
    engine = Engine(gpt, 3, prefill_share=4)
    for ask, new, seen in recorded(engine, asks, arrive=[0, 0, 1, 2, 9, 14, 15, 20, 20]):
        with torch.no_grad():
            whole = gpt(torch.tensor([ask.prompt + new[:-1]]))[0, len(ask.prompt) - 1 :]
        torch.testing.assert_close(torch.stack(seen), whole, atol=1e-5, rtol=0)


def test_log_probabilities_are_the_models_own_before_penalties_and_temperature():
    gpt = model(std=0.3)
    sampler = Sampler(temperature=3.0, top_k=20, repetition_penalty=3.0, max_new_tokens=8)
    asks = [Ask([1, 2, 3], sampler, top=4), Ask([5], sampler, top=0), Ask([7, 8], sampler), Ask([9], sampler, top=99)]
    heard = drive(Engine(gpt), asks)
    assert all(math.isnan(event.logprob) and event.top == [] for event in heard[2])
    for number in (0, 1, 3):
        ask, new = asks[number], words(heard[number])
        with torch.no_grad():
            text = gpt.double()(torch.tensor([ask.prompt + new]))[0, len(ask.prompt) - 1 : -1]
        for event, logprobs in zip(heard[number], text.log_softmax(-1), strict=True):
            assert event.logprob == pytest.approx(float(logprobs[event.token]), abs=1e-5)
            best = sorted(enumerate(logprobs.tolist()), key=lambda pair: -pair[1])[: ask.top]
            assert [token for token, _ in event.top] == [token for token, _ in best]
            assert [value for _, value in event.top] == pytest.approx([value for _, value in best], abs=1e-5)
    assert len(heard[3][0].top) == 61
    with pytest.raises(Error, match="top is -1: give a whole number of at least 0"):
        Ask([1], top=-1)


def test_a_text_ends_where_the_context_is_full():
    """A prompt of the whole context has one token; beside others, whose common length is beyond the context by then."""
    gpt = model(std=0.2)
    asks = [Ask(list(range(1, 1 + k)), Sampler(temperature=0), row=k) for k in (24, 23, 1, 24, 10)]
    heard = drive(Engine(gpt, 5), asks, arrive=[0, 1, 2, 9, 20])
    assert [len(events) for events in heard] == [1, 2, 24, 1, 15]
    for ask, events in zip(asks, heard, strict=True):
        check_told(events, ask, by_generate(gpt, ask))


def test_how_much_fits_is_a_matter_of_the_own_adapter():
    """The longer prefix takes 4 of 40 positions, the one that is at work otherwise 2."""
    gpt, names = tuned("gpt2", True), {"long": "prefix", "short": "ptuning2"}
    asks = [Ask([5] * k, adapter=name) for name, k in ((None, 36), ("long", 36), ("short", 36), (None, 40))]
    heard = drive(Engine(gpt, 4, names), asks)
    assert [len(events) for events in heard] == [5, 1, 3, 1]


def test_samples_of_a_prompt_are_read_once_and_whose_adapter_differs_is_not_mistaken():
    gpt, read = tuned("gpt2", True), []
    hook = gpt.blocks[0].register_forward_pre_hook(lambda block, inputs: read.append(tuple(inputs[0].shape[:2])))
    engine = Engine(gpt, 8, {"a": "lora", "b": "houlsby"}, (lora,))
    sampler = Sampler(temperature=2.0, max_new_tokens=6)
    asks = [Ask([1, 2, 3], sampler, row=row, adapter="ab"[row > 3]) for row in range(6)]
    heard = drive(engine, asks)
    assert read[0] == (2, 3) and set(read[1:]) == {(6, 1)}
    hook.remove()
    for ask, events in zip(asks, heard, strict=True):
        check_told(events, ask, by_generate(gpt, ask, {"a": "lora", "b": "houlsby"}[ask.adapter]))


def test_a_batch_that_never_empties_goes_on_beyond_any_capacity():
    """A row always lives on, so entries are numbered on and on: 600 steps of a context of 24, each text right."""
    gpt, draw = model(std=0.2), random.Random(3)
    asks = [Ask(draw.choices(range(61), k=3), Sampler(max_new_tokens=20), row=row) for row in range(60)]
    engine = Engine(gpt, 3)
    heard = drive(engine, asks, arrive=[10 * row for row in range(60)])
    assert all(words(events) == by_generate(gpt, ask) for ask, events in zip(asks, heard, strict=True))


def test_between_steps_the_model_is_as_its_owner_left_it():
    gpt = tuned("gpt2", False)
    lora.attach(gpt, lora.Config(r=2, dora=True), "dora")
    gpt.train()
    gpt.blocks[1].eval()
    mixed.use(gpt, ("rslora", "prefix"), lora)
    marks = ("training", "rows", "active", "enabled")

    def state():
        return [[getattr(module, mark, None) for mark in marks] for module in gpt.modules()], gpt.position_embedding

    before, engine = state(), Engine(gpt, 8, {str(name): name for name in NAMES if name} | {"dora": "dora"}, (lora,))
    for name in (None, *engine.names):
        engine.submit(Ask([1, 2], Sampler(max_new_tokens=4), adapter=name))
    while not engine.idle:
        engine.step()
        assert state() == before


def test_without_names_the_model_is_used_as_it_stands():
    gpt, ask = tuned("gpt2", True), Ask([1, 2, 3], Sampler(max_new_tokens=30), seed=4)
    mixed.use(gpt, ("lora", "prefix"), lora)
    (events,) = drive(Engine(gpt), [ask])
    assert words(events) == generate(gpt, [[1, 2, 3]], 30, seed=4)[0]
    mixed.use(gpt, None, lora)
    assert words(events) != generate(gpt, [[1, 2, 3]], 30, seed=4)[0]
    lora.merge(gpt, "lora")
    (events,) = drive(Engine(gpt), [ask])
    assert words(events) == generate(gpt, [[1, 2, 3]], 30, seed=4)[0]


def test_serving_changes_no_text():
    gpt = tuned("gpt2", True)
    names = {"a": "lora", "b": "rslora", "c": "houlsby"}
    asks = [Ask([row], Sampler(max_new_tokens=9), row=row, adapter="abc"[row % 3]) for row in range(7)]
    with serving(gpt), lora.serving(gpt):
        heard = drive(Engine(gpt, 3, names, (lora,)), asks, arrive=[0, 0, 0, 2, 5, 5, 9])
        lora.use(gpt, "lora")  # between the steps of others
    assert [words(e) for e in heard] == [by_generate(gpt, ask, names[ask.adapter]) for ask in asks]


def test_a_prefix_is_refused_where_generate_refuses_it():
    gpt = model("llama", window=6, sinks=2, banded_layers=(0,))
    prefix.attach(gpt, prefix.PrefixConfig(length=3))
    (events,) = drive(Engine(gpt), [Ask([1])])
    assert "attach it to a model without sinks" in str(events[0].error)


@pytest.mark.gpu
def test_on_a_gpu():
    gpt = tuned("gpt2", True).cuda()
    names = {str(each): each for each in NAMES if each is not None}
    asks = [some_ask(random.Random(n), 8, (None, *names)) for n in range(20)]
    heard = drive(Engine(gpt, 6, names, (lora,), prefill_share=9), asks, [n // 2 for n in range(20)])
    for ask, events in zip(asks, heard, strict=True):
        check_told(events, ask, by_generate(gpt, ask, names.get(ask.adapter)))


def test_the_example_of_the_docs_runs(tmp_path, monkeypatch, capsys):
    text = (Path(__file__).parent.parent / "docs" / "serving.md").read_text().split("## One batch for all")[1]
    model().save_pretrained(tmp_path / "runs" / "notes")
    monkeypatch.chdir(tmp_path)
    exec(text.split("```python\n")[1].split("```")[0], {})  # the text is ours
    assert capsys.readouterr().out.count("[") == 19 + 9  # two tokens in the first step
