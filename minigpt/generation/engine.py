"""Texts that are asked for at any time, written together: one step of the model is a token for each of them.

Shapes: B rows being written, V vocabulary.

    submit(ask) -> ticket    waiting, in the order they came
    step()                   read a bit of the next prompts;  one token for each row    -> {ticket: its new events}
    cancel(ticket)           it is gone at once

A step that is shared costs little more than one of a single row, for the weights are read once: so eight texts at once
are written several times as fast as one after another. What a row says is what `generate` writes of its prompt alone,
with its seed and adapter, whoever else is there: rows are padded to each other in one cache (joining.py), every row has
its own sampler and random stream, and adapters act row by row (tuning/mixed.py).

There are no threads here: whoever has some calls everything from one of them. Between two steps the model is as its
owner left it, and may be used. Enter `serving(model)` and `lora.serving(model)` before, and stay: an engine does not.
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from itertools import count
from types import ModuleType

from torch import Tensor

from minigpt.errors import Error, nearest
from minigpt.generation.asking import Ask, Event, Row, answer, choosing
from minigpt.generation.checks import check_prompt, context_of, end_tokens
from minigpt.generation.lanes import Lane, Reading, make_lanes
from minigpt.generation.sampling import row_generator
from minigpt.model import GPT
from minigpt.tuning import mixed

__all__ = ["Ask", "Engine", "Event"]

PREFILL_SHARE = 256  # tokens of prompts that are read between two steps: as long as that the others wait


class Engine:
    """At most `max_rows` texts at a time, the others wait.

    names    what an ask says -> what it means to `mixed.rows`: {"radiology": "adapter1"}. With none the model is used
             as it stands; else each row has what it asks for and nothing more, and who asks for none gets the base
    others   methods that this library does not know: (lora,)

    What cannot be mixed, as DoRA, has steps of its own. What a row raises is the end of that row alone; if the model
    itself raises, of the rows that it was reading.

    >>> from minigpt import GPTConfig
    >>> from minigpt.generation import generate
    >>> model = GPT(GPTConfig(n_layers=1, n_heads=2, d_model=32, vocab_size=100, context=16))
    >>> engine = Engine(model)
    >>> tickets = [engine.submit(Ask([1, 2, 3])), engine.submit(Ask([4], seed=1))]
    >>> [event.token for event in engine.step()[tickets[1]]] == generate(model, [[4]], 2, seed=1)[0]
    True
    """

    def __init__(
        self,
        model: GPT,
        max_rows: int = 16,
        names: Mapping[str, mixed.Names] | None = None,
        others: tuple[ModuleType, ...] = (),
        prefill_share: int = PREFILL_SHARE,
    ):
        for name, value in (("max_rows", max_rows), ("prefill_share", prefill_share)):
            if type(value) is not int or value < 1:
                raise Error(f"Engine: {name} is {value!r}: give a whole number of at least 1")
        self.model, self.max_rows, self.share = model, max_rows, prefill_share
        self.names = dict(names or {})
        self.lanes = make_lanes(model, self.names, others)
        self.queue: deque[Row] = deque()
        self.reading: Reading | None = None
        self.tickets = count(1)

    @property
    def live(self) -> int:
        """Texts that are read or written."""
        return sum(len(lane.rows) for lane in self._lanes) + (len(self.reading.rows) if self.reading else 0)

    @property
    def waiting(self) -> int:
        return len(self.queue)

    @property
    def idle(self) -> bool:
        return not (self.live or self.waiting)

    def submit(self, ask: Ask) -> int:
        """The ticket of a new text; or `Error`, before anything is read, if it cannot be written."""
        if ask.adapter not in self.lanes:
            raise Error(f"there is no adapter {ask.adapter!r}: {nearest(str(ask.adapter), self.names)}")
        names = self.names.get(ask.adapter)
        given = mixed.begin(self.model, [names], [ask.prompt])[0] if names else ask.prompt
        end_tokens(self.model, ask.sampler.ends)
        with self.lanes[ask.adapter].working([names]):
            context = context_of(self.model)
            tokens = check_prompt(self.model, given, ask.row, ask.sampler.max_new_tokens or 1)
        limit = context + 1
        if ask.sampler.max_new_tokens is not None:
            limit = min(limit, len(tokens) + ask.sampler.max_new_tokens)
        elif self.model.config.endless:
            raise Error("the model's texts have no end: give max_new_tokens")
        generator = row_generator(ask.seed, ask.row)
        row = Row(next(self.tickets), ask, names, tokens, len(tokens), limit, generator, choosing(ask.sampler))
        self.queue.append(row)
        return row.ticket

    def cancel(self, ticket: int):
        """This text is not written on; nothing happens if it has ended."""
        self.queue = deque(row for row in self.queue if row.ticket != ticket)
        for lane in self._lanes:
            lane.leave({ticket})
        if self.reading:
            self.reading.rows = [row for row in self.reading.rows if row.ticket != ticket]
            self.reading = self.reading if self.reading.rows else None

    def step(self) -> dict[int, list[Event]]:
        """What is new of each text: a token of each that is written, two where its prompt has just been read."""
        events: dict[int, list[Event]] = defaultdict(list)
        if self.reading is None:
            self._begin()
        if self.reading is not None:
            self._read(events)
        for lane in self._lanes:
            if lane.rows:
                self._write(lane, events)
        return dict(events)

    def _begin(self):
        """Read the next prompts: the first that waits, and those after it that fit into one chunk with it."""
        rows, texts, longest = [], set(), 0
        while self.queue and self.live + len(rows) < self.max_rows:
            row = self.queue[0]
            wider, more = max(longest, len(row.tokens)), texts | {(row.names, *row.tokens)}
            if rows and (self._lane(row) is not self._lane(rows[0]) or len(more) * wider > self.share):
                break
            rows.append(self.queue.popleft())
            texts, longest = more, wider
        if rows:
            self.reading = Reading(self._lane(rows[0]), rows, self.share)

    def _read(self, events: dict[int, list[Event]]):
        reading = self.reading
        try:
            logits = reading.read()
        except Exception as problem:
            self.reading = None
            self._fail(reading.rows, problem, events)
            return
        if logits is None:
            return
        self.reading = None
        if not (going := self._tell(reading.rows, logits, events)):
            return
        try:
            reading.lane.join(reading, going)
        except Exception as problem:  # no memory for them: the others are as before
            self._fail(going, problem, events)

    def _write(self, lane: Lane, events: dict[int, list[Event]]):
        try:
            logits = lane.step()
        except Exception as problem:
            self._fail(lane.rows, problem, events)
            lane.leave({row.ticket for row in lane.rows})
            return
        going = self._tell(lane.rows, logits, events)
        lane.leave({row.ticket for row in lane.rows} - {row.ticket for row in going})

    def _tell(self, rows: list[Row], logits: Tensor, events: dict[int, list[Event]]) -> list[Row]:
        """Choose the next tokens; the rows that go on."""
        going = []
        for row, event in zip(rows, answer(rows, logits), strict=True):
            events[row.ticket].append(event)
            if event.finish is None:
                going.append(row)
        return going

    def _fail(self, rows: list[Row], problem: Exception, events: dict[int, list[Event]]):
        for row in rows:
            events[row.ticket].append(Event(None, finish="error", error=problem))

    def _lane(self, row: Row) -> Lane:
        return self.lanes[row.ask.adapter]

    @property
    def _lanes(self) -> list[Lane]:
        return list(dict.fromkeys(self.lanes.values()))
