"""Whoever else is written meanwhile, a text is the one of `generate` alone; who fails or leaves harms nobody."""

import math
import random
from collections import defaultdict

import pytest
import torch
from helpers import model
from mixing import NAMES, alone, tuned

import lora
from minigpt import Error, sliding
from minigpt.cache import Cache
from minigpt.generation import generate
from minigpt.generation.engine import Ask, Engine, Event
from minigpt.generation.joining import Joined
from minigpt.generation.sampling import Sampler
from minigpt.serving import serving
from minigpt.tuning import mixed, prefix

SINKS = {"context": 9, "window": 6, "sinks": 3}
MODELS = {
    "learned": ("gpt2", {}),
    "post-norm": ("gpt1", {}),
    "window": ("gpt3", {}),
    "grouped": ("llama", {}),
    "mixture": ("mixture", {}),
    "sinks": ("llama", {"window": 4, "sinks": 2, "banded_layers": (1,)}),
    "endless": ("llama", {"context": 9, "window": 6, "sinks": 3, "banded_layers": (0, 1)}),
}


@pytest.fixture(autouse=True)
def spare(monkeypatch):
    monkeypatch.setattr(sliding, "SPARE", 0)  # so that a banded layer that forgot something is seen to


def drive(engine: Engine, asks: list[Ask], arrive=None, cancel=None) -> list[list[Event]]:
    """What each ask hears; number i arrives before step arrive[i], and is cancelled before step cancel[i]."""
    arrive, cancel, tickets, heard, step = arrive or [0] * len(asks), cancel or {}, {}, defaultdict(list), 0
    while len(tickets) < len(asks) or not engine.idle:
        for number, ask in enumerate(asks):
            if arrive[number] == step:
                tickets[number] = engine.submit(ask)
            if cancel.get(number) == step and number in tickets:
                engine.cancel(tickets[number])
        assert engine.live <= engine.max_rows
        for ticket, events in engine.step().items():
            heard[ticket] += events
        step += 1
    return [heard[tickets[number]] for number in range(len(asks))]


def words(events: list[Event]) -> list[int]:
    return [event.token for event in events]


def by_generate(gpt, ask: Ask, names=None) -> list[int]:
    """The reference: `generate` of this prompt alone."""
    fields = {name: getattr(ask.sampler, name) for name in Sampler.__dataclass_fields__ if name != "ends"}
    options = {"eos": ask.sampler.ends or None, "seed": ask.seed, "row": ask.row}
    options |= fields | {"max_new_tokens": ask.sampler.max_new_tokens or gpt.config.context}
    text = mixed.begin(gpt, [names], [ask.prompt])[0] if names else ask.prompt
    if not mixed.prompt.names(gpt):
        return generate(gpt, [text], **options)[0]
    return alone(gpt, names, 0, text, lambda rows, _: generate(gpt, rows, **options))[0]


def some_ask(draw: random.Random, longest: int, adapters=(None,)) -> Ask:
    ways = [
        {"temperature": 0},
        {"temperature": 1.3, "top_k": 9},
        {"temperature": 0.9, "top_p": 0.8, "repetition_penalty": 1.4},
        {"temperature": 0, "frequency_penalty": 0.7, "no_repeat_ngram": 2},
        {"temperature": 1.1, "min_new_tokens": 3, "banned": (5,)},
    ]
    most = draw.randint(3, 14)
    sampler = Sampler(ends=draw.sample(range(61), draw.choice([1, 12])), max_new_tokens=most, **draw.choice(ways))
    text = draw.choices(range(61), k=draw.choice([1, 2, 5, draw.randint(1, longest)]))
    return Ask(text, sampler, draw.randrange(9), draw.randrange(3), draw.choice(adapters), draw.choice([None, 0, 3]))


def check_told(events: list[Event], ask: Ask, whole: list[int]):
    """What an ask heard is all of its text, and how it ended."""
    assert words(events) == whole
    assert [event.finish for event in events[:-1]] == [None] * (len(whole) - 1)
    assert events[-1].finish == ("end" if whole[-1] in ask.sampler.ends else "length")


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


def test_who_cannot_be_written_is_refused_before_anything_runs(monkeypatch):
    gpt = tuned("gpt2", True)  # a context of 40
    monkeypatch.setattr(gpt, "through", None)  # a call of the model would fail
    engine = Engine(gpt, names={"short": "prompt", "long": "prefix"}, others=(lora,))
    most = Sampler(max_new_tokens=4)
    for ask, message in (
        (Ask([]), "prompt 0 is empty"),
        (Ask([1] * 41, most), "prompt 0 has 41 tokens, the model's context holds 40"),
        (Ask([1] * 38, most, adapter="short"), "3 virtual tokens and a text of 38 are 41, the context holds 40"),
        (Ask([1] * 37, most, adapter="long"), "has 37 tokens, the model's context holds 36"),
        (Ask([1, 99]), "token 99 is not in the model's vocabulary"),
        (Ask([1], Sampler(ends={70})), "token 70 is not in the model's vocabulary"),
        (Ask([1], adapter="shord"), "there is no adapter 'shord': did you mean 'short'"),
        (Ask([1], seed=-1), "seed is -1"),
    ):
        with pytest.raises(Error, match=message):
            engine.submit(ask)
    assert engine.idle and engine.step() == {}
    with pytest.raises(Error, match="'prefik' is not attached: did you mean 'prefix'"):
        Engine(gpt, names={"a": "prefik"})
    with pytest.raises(Error, match="max_rows is 0: give a whole number of at least 1"):
        Engine(gpt, 0)
    with pytest.raises(Error, match="texts have no end: give max_new_tokens"):
        Engine(model(*MODELS["endless"][:1], **MODELS["endless"][1])).submit(Ask([1]))


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


def test_prompts_are_read_in_bits_and_the_others_written_meanwhile():
    gpt, read = model(std=0.2), []
    gpt.blocks[0].register_forward_pre_hook(lambda block, inputs: read.append(tuple(inputs[0].shape[:2])))
    engine, greedy = Engine(gpt, 4, prefill_share=5), Sampler(temperature=0, max_new_tokens=9)
    first = engine.submit(Ask([1, 2], greedy))
    assert len(engine.step()[first]) == 2 and read == [(1, 2), (1, 1)]
    second = engine.submit(Ask(list(range(3, 15)), greedy))
    for _ in range(2):
        assert list(engine.step()) == [first]
    assert {ticket: len(events) for ticket, events in engine.step().items()} == {second: 2, first: 1}
    assert read[2:] == [(1, 5), (1, 1), (1, 5), (1, 1), (1, 2), (2, 1)]


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


def test_first_come_first_served():
    """And never is more than the share read at a time, padding included."""
    gpt, read = model(), []
    gpt.blocks[0].register_forward_pre_hook(lambda block, inputs: read.append(tuple(inputs[0].shape[:2])))
    engine = Engine(gpt, 3, prefill_share=7)
    lengths = enumerate((3, 2, 9, 1, 1, 4, 2, 2, 9, 1, 3, 3))
    asks = [Ask([row] * length, Sampler(max_new_tokens=3)) for row, length in lengths]
    tickets, begun = [engine.submit(ask) for ask in asks], []
    assert (engine.live, engine.waiting) == (0, 12)
    while not engine.idle:
        begun += [ticket for ticket in engine.step() if ticket not in begun]
        assert engine.live <= 3
    assert begun == tickets
    assert max(rows * time for rows, time in read) == 7 and (2, 3) in read


def test_who_cancels_is_gone_at_once_wherever_it_was():
    gpt, sampler = model(std=0.2), Sampler(temperature=0, max_new_tokens=12)
    engine = Engine(gpt, 3, prefill_share=4)
    asks = [Ask([row + 1] * 3, sampler, row=row) for row in range(4)] + [Ask([9] * 20, sampler)]
    tickets = [engine.submit(ask) for ask in asks]
    for _ in range(5):
        engine.step()
    assert engine.reading is None and (engine.live, engine.waiting) == (3, 2)
    engine.cancel(tickets[0])  # live
    engine.cancel(tickets[3])  # waiting
    assert (engine.live, engine.waiting) == (2, 1)
    engine.step()
    assert engine.reading is not None and engine.live == 3
    engine.cancel(tickets[4])  # being read
    assert engine.reading is None and (engine.live, engine.waiting) == (2, 0)
    heard = defaultdict(list)
    while not engine.idle:
        for ticket, events in engine.step().items():
            heard[ticket] += words(events)
    assert set(heard) == set(tickets[1:3])
    for ticket in (*tickets, 999):
        engine.cancel(ticket)  # nothing happens
    assert heard[tickets[1]] == by_generate(gpt, asks[1])[-len(heard[tickets[1]]) :]


def refuse(scores, rows):
    if len(rows[0].tokens) > 5:
        raise ValueError("not a sixth token")
    return scores


def spoil(scores, rows):
    return scores * math.nan if len(rows[0].tokens) == 7 else scores


def test_who_fails_fails_alone():
    """For its own function, its bans, its adapter; also if it is read, and would be chosen, together with others."""
    gpt = tuned("gpt2", True)
    for parameter in gpt.prefixes.held["prefix"].parameters():
        parameter.data.fill_(math.nan)
    engine = Engine(gpt, 4, {"broken": "prefix", "style": "ptuning2"}, (lora,))
    plain = Sampler(temperature=0.9, max_new_tokens=12)
    failing = [
        (Ask([1, 2], Sampler(max_new_tokens=12, extra=(refuse,))), 4, "not a sixth token"),
        (Ask([1, 2], Sampler(max_new_tokens=12, extra=(spoil,))), 5, "became NaN or infinite by extra"),
        (Ask([3], Sampler(max_new_tokens=12, banned=range(61))), 0, "every token of row 0 is banned"),
        (Ask([4, 5], plain, adapter="broken"), 0, "logits are NaN or infinite"),
    ]
    asks = [Ask([row] * (row + 1), plain, row=row, adapter=[None, "style"][row % 2]) for row in range(8)]
    for place, (ask, _, _) in enumerate(failing * 2):
        asks.insert(1 + 2 * place % 7, ask)
    for ask, events in zip(asks, drive(engine, asks), strict=True):
        found = [(written, says) for bad, written, says in failing if bad is ask]
        for written, says in found:
            *before, last = events
            assert len(before) == written and all(event.finish is None for event in before)
            assert (last.token, last.finish) == (None, "error") and says in str(last.error)
        if not found:
            check_told(events, ask, by_generate(gpt, ask, {"style": "ptuning2"}.get(ask.adapter)))


def test_who_comes_after_a_row_of_nan_does_not_see_it():
    """A token whose vector is damaged leaves NaN in the cache, where the gap of the next row is: 0 times NaN is NaN."""
    gpt = model("llama", std=0.2)
    gpt.token_embedding.weight.data[7] = math.nan
    usual = Sampler(temperature=0, max_new_tokens=15, banned=(7,))
    asks = [
        Ask([1] * 9, usual),
        Ask([2] * 3, Sampler(temperature=0, forced_first=7, max_new_tokens=15)),
        Ask([3], usual),
        Ask([4, 5], usual),
    ]
    heard = drive(Engine(gpt, 2), asks, arrive=[0, 0, 4, 4])
    assert [len(events) for events in heard] == [15, 2, 15, 15] and heard[1][-1].finish == "error"
    for number in (0, 2, 3):
        check_told(heard[number], asks[number], by_generate(gpt, asks[number]))


def test_functions_of_the_caller_are_asked_once_for_each_token_and_for_one_row():
    """Nobody calls them again because a neighbour has failed: they may remember what they were asked."""
    gpt, asked = model(), []

    def ask_once(scores, rows):
        asked.append((len(rows), rows[0].ticket, len(rows[0].tokens)))
        return refuse(scores, rows)

    sampler = Sampler(max_new_tokens=9, extra=(ask_once,))
    drive(Engine(gpt), [Ask([1, 2], sampler), Ask([1] * 4, sampler)])
    assert sorted(asked) == [(1, 1, n) for n in (2, 3, 4, 5, 6)] + [(1, 2, n) for n in (4, 5, 6)]


def test_memory_is_flat_after_hundreds_of_texts_and_nothing_when_idle():
    """Also if the engine is never idle: one row always lives on, while long and short ones come and go."""
    gpt, draw = model(context=200), random.Random(0)
    engine, sizes, ends = Engine(gpt, 4), [], []
    joined = engine.lanes[None].joined
    for number in range(300):
        long = number % 50 == 9
        text, most = draw.choices(range(61), k=150 if long else draw.randint(1, 9)), draw.randint(4, 9)
        engine.submit(Ask(text, Sampler(max_new_tokens=most)))
        while engine.waiting:
            engine.step()
        sizes.append(joined.nbytes)
        ends.append(joined.length)
        assert engine.live
    entry = 2 * 2 * 32 * 4  # keys and values of two layers of width 32, float32
    assert max(sizes) == 4 * 256 * entry and 2 < sizes.count(max(sizes)) < 100
    assert sizes[40] == sizes[140] == sizes[290] == 4 * 128 * entry
    assert max(ends[20:50]) < 128 and max(ends) < 256
    while not engine.idle:
        engine.step()
    assert joined.nbytes == joined.capacity == joined.length == 0


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
    gpt, ask = tuned("gpt2", True), Ask([1, 2, 3], Sampler(max_new_tokens=6), seed=4)
    mixed.use(gpt, ("lora", "prefix"), lora)
    (events,) = drive(Engine(gpt), [ask])
    assert words(events) == generate(gpt, [[1, 2, 3]], 6, seed=4)[0]
    mixed.use(gpt, None, lora)
    assert words(events) != generate(gpt, [[1, 2, 3]], 6, seed=4)[0]
    lora.merge(gpt, "lora")
    (events,) = drive(Engine(gpt), [ask])
    assert words(events) == generate(gpt, [[1, 2, 3]], 6, seed=4)[0]


@pytest.mark.parametrize("at", [0, 3])
def test_a_model_that_fails_costs_those_that_were_read_and_not_the_engine(at, monkeypatch):
    gpt, sampler = model(std=0.2), Sampler(temperature=0, max_new_tokens=6)
    engine, calls, through = Engine(gpt, 2), [], gpt.through

    def fail(block, *inputs):
        calls.append(block)
        if len(calls) == 2 * at + 2:  # in the second layer of a call
            raise RuntimeError("out of memory")
        return through(block, *inputs)

    monkeypatch.setattr(gpt, "through", fail)
    asks = [Ask([1, 2, row], sampler) for row in range(5)]
    heard = drive(engine, asks)
    failed = [events for events in heard if events[-1].finish == "error"]
    assert len(failed) == 2 and all(str(events[-1].error) == "out of memory" for events in failed)
    for ask, events in zip(asks, heard, strict=True):
        if events not in failed:
            check_told(events, ask, by_generate(gpt, ask))


@pytest.mark.parametrize("at", [1, 3, 10, 17, 28])
def test_want_of_memory_harms_those_that_join_or_all_but_never_a_text(at, monkeypatch):
    """The cache may fail to grow at any of its allocations; then rows end with an error, and the others are right."""
    gpt, sampler, made, new_zeros = model("gpt3", std=0.2), Sampler(max_new_tokens=20), [], torch.Tensor.new_zeros

    def fail(tensor, *size):
        made.append(size)
        if len(made) == at:
            raise RuntimeError("no memory")
        return new_zeros(tensor, *size)

    monkeypatch.setattr(torch.Tensor, "new_zeros", fail)
    asks = [Ask([row] * (5 * row % 18 + 1), sampler, row=row) for row in range(9)]
    asks[0] = Ask([1, 2], Sampler(max_new_tokens=1))  # never joins
    heard = drive(Engine(gpt, 4), asks, arrive=[0, 0, 2, 3, 9, 9, 12, 30, 30])
    failed = [number for number, events in enumerate(heard) if events[-1].finish == "error"]
    assert 1 <= len(failed) <= 4 and 0 not in failed
    for number, (ask, events) in enumerate(zip(asks, heard, strict=True)):
        whole = by_generate(gpt, ask)
        if number in failed:
            assert words(events[:-1]) == whole[: len(events) - 1] and str(events[-1].error) == "no memory"
        else:
            check_told(events, ask, whole)


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


def test_joined_rows_go_on_by_a_token_each_if_there_is_room():
    gpt = model()
    joined, cache = Joined(gpt.config), Cache(gpt.config, 1)
    with torch.inference_mode():
        gpt(torch.tensor([[1, 2]]), cache=cache)
        joined.join(cache, [0, 0])
        with pytest.raises(Error, match="2 rows go on by one token each, found 2 rows of 2"):
            gpt(torch.tensor([[1, 2], [3, 4]]), cache=joined)
        with pytest.raises(Error, match="found 1 rows of 1"):
            gpt(torch.tensor([[1]]), cache=joined)
        while joined.length < joined.capacity:
            gpt(torch.tensor([[1], [3]]), positions=torch.zeros(1, 1, dtype=torch.int64), cache=joined)
        with pytest.raises(Error, match="make room"):
            gpt(torch.tensor([[1], [3]]), cache=joined)
