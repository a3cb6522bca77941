"""The texts of one request, from asking until the last token: places in the queue, tokens, time, and leaving early."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from minigpt.web.refusals import Refusal
from minigpt.web.studio import Studio


class Writing:
    """Several asks at once.

    Whatever happens, `close` is called at the end: what is still being written then stops, and the places are free.
    """

    def __init__(self, studio: Studio, asks: Sequence):
        self.studio, self.asks = studio, asks
        self.began, self.places, self.channel = time.monotonic(), 0, None
        self._last: dict[int, float] = {}  # when each text had its latest token

    async def begin(self) -> "Writing":
        """`Refusal` when the queue is full, `Error` for what the model cannot read."""
        worker = self.studio.worker
        worker.take(len(self.asks))
        self.places = len(self.asks)
        try:
            self.channel = await worker.ask(self.asks)
        except BaseException:
            self.close()
            raise
        self.studio.meters.tokens.labels("prompt").inc(sum(len(ask.prompt) for ask in self.asks))
        return self

    async def events(self) -> AsyncIterator[list]:
        """What is new, in lists of pairs (which ask, event)."""
        end = asyncio.get_running_loop().time() + self.studio.limits.request
        while not self.channel.finished:
            try:
                async with asyncio.timeout_at(end):
                    events = await self.channel.next()
            except TimeoutError:
                message = f"not finished after {self.studio.limits.request:g} seconds: ask for fewer tokens"
                raise Refusal(504, message, code="timeout") from None
            self._measure(events)
            yield events

    def drop(self, place: int):
        """No more of this text is wanted: a stop string was met."""
        self.studio.worker.cancel(self.channel, place)

    def close(self):
        if self.channel is not None:
            self.studio.worker.cancel(self.channel)
        self.studio.worker.leave(self.places)
        self.places, self.channel = 0, None

    def _measure(self, events: list):
        now, meters = time.monotonic(), self.studio.meters
        for place, _ in events:
            last = self._last.get(place)
            (meters.first if last is None else meters.each).observe(now - (self.began if last is None else last))
            self._last[place] = now
        meters.tokens.labels("written").inc(len(events))
