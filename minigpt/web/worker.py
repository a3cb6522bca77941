"""The model's thread: between two steps of the engine it does whatever else asks for the model.

    event loop                                  thread
    run(function)    -- jobs -->                all jobs, in order
    stream(ask)      -- jobs: submit -->        one step of the engine
                     <-- events --              all jobs, ...
    leaving a stream -- jobs: cancel -->

Nobody else may touch the model, so nothing needs a lock. A reader who does not read holds back nothing: his events
wait in a list that cannot become longer than his text.
"""

import asyncio
import queue
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

from minigpt.web.refusals import Refusal


class Worker:
    """Steps an engine on a thread of its own; `None` where there is no model, and only jobs are to be done.

    room: how many texts may be asked for at once, being written or waiting.
    """

    def __init__(self, engine=None, room: int = 80):
        self.engine, self.room = engine, room
        self.asked = 0  # places taken of the room; only the event loop counts
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._channels: dict[int, _Channel] = {}  # ticket -> who listens; only the thread touches it
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self):
        """From the event loop that will ask."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self):
        """After the step at work: what is still being written ends with a Refusal."""
        self._jobs.put(_STOP)
        await asyncio.to_thread(self._thread.join)

    async def run(self, function: Callable, *args) -> Any:
        """function(*args) on the model's thread, between two steps; its result, or what it raised."""
        future = self._loop.create_future()
        self._jobs.put(lambda: self._answer(future, function, args))
        return await future

    def take(self, places: int):
        """Places for so many texts; `Refusal` when there are none. Give them back with `leave`."""
        if self.asked + places > self.room:
            message = f"the server has {self.asked} texts to write and room for {self.room}: ask again in a while"
            raise Refusal(429, message, code="queue_full", headers={"Retry-After": "2"})
        self.asked += places

    def leave(self, places: int):
        self.asked -= places

    async def stream(self, ask) -> AsyncIterator:
        """The events of an ask as they come, one for each token; leaving the loop cancels it.

        Whoever may leave early wraps it in contextlib.aclosing: only then is it cancelled at once.
        """
        channel = _Channel()
        try:
            await self.run(self._submit, ask, channel)
            while True:
                for event in await channel.next():
                    if isinstance(event, Exception):
                        raise event
                    yield event
                    if event.finish is not None:
                        return
        finally:
            if not channel.finished:
                self._jobs.put(lambda: self._cancel(channel))

    # What follows runs on the thread.

    def _submit(self, ask, channel: "_Channel"):
        channel.ticket = self.engine.submit(ask)
        self._channels[channel.ticket] = channel

    def _cancel(self, channel: "_Channel"):
        if self._channels.pop(channel.ticket, None):
            self.engine.cancel(channel.ticket)

    def _work(self):
        while self._do_jobs():
            if self._channels:
                self._step()
        self._fail_all(Refusal(503, "the server is shutting down: ask another one, or later"))

    def _do_jobs(self) -> bool:
        """All that wait; with nothing else to do, the next one, whenever it comes. False at the end."""
        try:
            while True:
                job = self._jobs.get(block=not self._channels)
                if job is _STOP:
                    return False
                job()
        except queue.Empty:
            return True

    def _step(self):
        try:
            found = self.engine.step()
        except Exception as problem:  # a mistake of ours must not leave everyone waiting for ever
            self._fail_all(problem)
            return
        news = [(self._channels[ticket], events) for ticket, events in found.items() if ticket in self._channels]
        for ticket, events in found.items():
            if events and events[-1].finish is not None:
                self._channels.pop(ticket, None)
        self._call(_deliver, news)

    def _fail_all(self, problem: Exception):
        news = [(channel, [problem]) for channel in self._channels.values()]
        for ticket in self._channels:
            self.engine.cancel(ticket)
        self._channels.clear()
        self._call(_deliver, news)

    def _answer(self, future: asyncio.Future, function: Callable, args: tuple):
        try:
            result, problem = function(*args), None
        except Exception as found:
            result, problem = None, found
        self._call(_settle, future, result, problem)

    def _call(self, function: Callable, *args):
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)


_STOP = object()


class _Channel:
    """Events on their way to the event loop, which alone touches this, but for the ticket."""

    def __init__(self):
        self.ticket: int | None = None
        self.events: list = []
        self.arrived = asyncio.Event()
        self.finished = False

    def put(self, events: list):
        self.events += events
        self.finished = self.finished or isinstance(events[-1], Exception) or events[-1].finish is not None
        self.arrived.set()

    async def next(self) -> list:
        await self.arrived.wait()
        self.arrived.clear()
        events, self.events = self.events, []
        return events


def _deliver(news: list[tuple[_Channel, list]]):
    for channel, events in news:
        if events:
            channel.put(events)


def _settle(future: asyncio.Future, result: Any, problem: Exception | None):
    if future.cancelled():
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)
