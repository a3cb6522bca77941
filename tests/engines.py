"""What the engine's tests share: models, asks, who comes and goes when, and what `generate` writes of one alone."""

import random
from collections import defaultdict

from mixing import alone

from minigpt.generation import generate
from minigpt.generation.engine import Ask, Engine, Event
from minigpt.generation.sampling import Sampler
from minigpt.tuning import mixed

MODELS = {
    "learned": ("gpt2", {}),
    "post-norm": ("gpt1", {}),
    "window": ("gpt3", {}),
    "strided": ("gpt2", {"window": 4, "pattern": "strided", "banded_layers": (0,)}),
    "grouped": ("llama", {}),
    "mixture": ("mixture", {}),
    "sinks": ("llama", {"window": 4, "sinks": 2, "banded_layers": (1,)}),
    "endless": ("llama", {"context": 9, "window": 6, "sinks": 3, "banded_layers": (0, 1)}),
}


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
