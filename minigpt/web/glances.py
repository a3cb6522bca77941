"""Questions about the model, asked while it writes: none of them keeps the texts of others waiting for long.

    a question      read, read, read             one reading at a time between two steps of the engine
    another               read, read             they take turns, a reading each
    one too many    429

What is found becomes JSON on a thread of its own: a matrix for each head is a million digits.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from minigpt.tuning import mixed
from minigpt.web.answering import while_connected
from minigpt.web.refusals import Refusal
from minigpt.web.studio import Studio

MOST = 32  # questions at once


class Glances:
    """Of one studio, from its event loop."""

    def __init__(self, studio: Studio):
        self.studio, self.asked, self._turn = studio, 0, asyncio.Semaphore(1)

    async def answer(self, request: Request, work: Coroutine[Any, Any, dict]) -> Response:
        """What `work` finds, as JSON. It ends early if the client leaves, and is refused if too many wait."""
        if self.asked >= MOST:
            work.close()
            message = f"{self.asked} questions about the model are being answered, and more do not fit: ask again soon"
            raise Refusal(429, message, code="queue_full", headers={"Retry-After": "2"})
        self.asked += 1
        try:
            return await asyncio.to_thread(JSONResponse, await while_connected(request, work))
        finally:
            self.asked -= 1

    async def read(self, model: str, ids: list[int], function: Callable, *args) -> Any:
        """function(the model, ids, ...) with the adapter of that name, whose virtual tokens stand in front of ids."""
        return await self.run(_beside, self.studio, model, ids, function, *args)

    async def run(self, function: Callable, *args) -> Any:
        """function(...) on the model's thread, when it is its turn; until it is done no other's is."""
        await self._turn.acquire()
        work = asyncio.ensure_future(self.studio.worker.run(function, *args))
        work.add_done_callback(self._next)
        return await asyncio.shield(work)  # who leaves does not end what the thread has begun

    def _next(self, work: asyncio.Future):
        self._turn.release()
        if not work.cancelled():
            work.exception()  # nobody may be left to hear of it


def _beside(studio: Studio, model: str, ids: list[int], function: Callable, *args) -> Any:
    attached = studio.attached(model)
    (whole,) = mixed.begin(studio.model, [attached], [ids])
    with studio.beside(attached):
        return function(studio.model, whole, *args)
