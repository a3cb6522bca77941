"""Who is refused, waits, leaves or fails: nobody else notices, and memory is what it was."""

import math
import random
from collections import defaultdict

import pytest
import torch
from engines import MODELS, by_generate, check_told, drive, words
from helpers import model
from mixing import tuned

import lora
from minigpt import Error
from minigpt.cache import Cache
from minigpt.generation.engine import Ask, Engine
from minigpt.generation.joining import Joined
from minigpt.generation.sampling import Sampler


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
