"""The model's thread: between two steps of the engine it does whatever else asks for the model.

    event loop                                  thread
    run(function)      -- jobs -->              jobs, in order
    ask([...])         -- jobs: submit -->      one step of the engine
                       <-- events --            jobs, ...
    cancel(channel)    -- jobs: cancel -->

Nobody else may touch the model, so nothing needs a lock. A reader who does not read holds back nothing: his events
wait in a list that cannot become longer than his texts.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from minigpt.web.refusals import Refusal

STOP = object()  # the last job
BUSY = "the server has {} things to do, and room for {}: ask again in a while"


class Worker:
    """Steps an engine on a thread of its own; `None` where there is no model, and only jobs are to be done.

    room: how many texts may be asked for at once, being written or waiting.
    """

    def __init__(self, engine=None, room: int = 80):
        self.engine, self.room = engine, room
        self.asked, self.running = 0, 0  # texts and functions that wait or are at work; only the event loop counts
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._channels: dict[int, tuple[Channel, int]] = {}  # ticket -> who listens; only the thread touches it
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self):
        """From the event loop that will ask."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self):
        """After the step at work: what is still being written ends with a `Refusal`."""
        self._jobs.put((STOP, ()))
        await asyncio.to_thread(self._thread.join)

    async def run(self, function: Callable, *args) -> Any:
        """function(*args) on the model's thread, between two steps; its result, or what it raised."""
        if self.running >= self.room:
            raise Refusal(429, BUSY.format(self.running, self.room), code="queue_full", headers={"Retry-After": "2"})
        future = self._loop.create_future()
        self.running += 1
        try:
            self._jobs.put((self._answer, (future, function, args)))
            return await future
        finally:
            self.running -= 1

    def take(self, places: int):
        """Places for so many texts; `Refusal` when there are none. Give them back with `leave`."""
        if self.asked + places > self.room:
            raise Refusal(429, BUSY.format(self.asked, self.room), code="queue_full", headers={"Retry-After": "2"})
        self.asked += places

    def leave(self, places: int):
        self.asked -= places

    async def ask(self, asks: Sequence) -> "Channel":
        """All of them are to be written; what the engine refuses is raised, and none of them is."""
        channel = Channel(len(asks))
        try:
            await self.run(self._submit, asks, channel)
        except BaseException:
            self.cancel(channel)
            raise
        return channel

    def cancel(self, channel: "Channel", place: int | None = None):
        """No more events of this text, or of all."""
        if place is not None:
            channel.open.discard(place)
        if place is not None or channel.open:
            self._jobs.put((self._cancel, (channel, place)))

    # What follows runs on the thread.

    def _submit(self, asks: Sequence, channel: "Channel"):
        for place, ask in enumerate(asks):
            ticket = self.engine.submit(ask)
            channel.tickets[place] = ticket
            self._channels[ticket] = channel, place

    def _cancel(self, channel: "Channel", place: int | None):
        for ticket in list(channel.tickets.values()) if place is None else [channel.tickets[place]]:
            if self._channels.pop(ticket, None):
                self.engine.cancel(ticket)

    def _work(self):
        while self._do_jobs():
            if self._channels:
                self._step()
        self._fail_all(Refusal(503, "the server is shutting down: ask another one, or later"))

    def _do_jobs(self) -> bool:
        """Those that wait now; with nothing else to do, the next one, whenever it comes. False at the end.

        What comes meanwhile waits for a step: somebody who asks again as soon as he is answered holds back no text.
        """
        waiting = max(self._jobs.qsize(), 0 if self._channels else 1)
        return all(self._do(*self._jobs.get()) for _ in range(waiting))

    @staticmethod
    def _do(job: Callable, args: tuple) -> bool:
        """In a frame of its own: waiting for the next job should not keep the last one's arguments."""
        if job is not STOP:
            job(*args)
        return job is not STOP

    def _step(self):
        try:
            found = self.engine.step()
        except Exception as problem:  # a mistake of ours must not leave everyone waiting for ever
            self._fail_all(problem)
            return
        news = []
        for ticket, events in found.items():
            if ticket in self._channels:
                news.append((*self._channels[ticket], events))
                if events and events[-1].finish is not None:
                    del self._channels[ticket]
        self._call(_deliver, news)

    def _fail_all(self, problem: Exception):
        for ticket in self._channels:
            self.engine.cancel(ticket)
        channels = {id(channel): channel for channel, _ in self._channels.values()}
        self._channels.clear()
        self._call(_fail, list(channels.values()), problem)

    def _answer(self, future: asyncio.Future, function: Callable, args: tuple):
        if future.cancelled():  # the client has left
            return
        try:
            result, problem = function(*args), None
        except Exception as found:
            result, problem = None, found
        self._call(_settle, future, result, problem)

    def _call(self, function: Callable, *args):
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)


class Channel:
    """Events of several texts on their way to the event loop, which alone touches this, but for the tickets."""

    def __init__(self, texts: int):
        self.tickets: dict[int, int] = {}
        self.open = set(range(texts))  # those that are still being written
        self.problem: Exception | None = None
        self._events: list[tuple[int, Any]] = []
        self._arrived = asyncio.Event()

    @property
    def finished(self) -> bool:
        return self.problem is None and not self.open and not self._events  # a problem is still to be told

    async def next(self) -> list[tuple[int, Any]]:
        """What came since the last call, in pairs (text, event); waits for the first."""
        await self._arrived.wait()
        self._arrived.clear()
        if self.problem is not None:
            raise self.problem
        events, self._events = self._events, []
        return events

    def put(self, place: int, events: list):
        if place not in self.open or not events:
            return
        self._events += [(place, event) for event in events]
        if events[-1].finish is not None:
            self.open.discard(place)
        self._arrived.set()

    def fail(self, problem: Exception):
        self.problem = problem
        self.open.clear()
        self._arrived.set()


def _deliver(news: list[tuple[Channel, int, list]]):
    for channel, place, events in news:
        channel.put(place, events)


def _fail(channels: list[Channel], problem: Exception):
    for channel in channels:
        channel.fail(problem)


def _settle(future: asyncio.Future, result: Any, problem: Exception | None):
    if future.cancelled():
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)
