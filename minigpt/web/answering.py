"""From asks to an answer: whole as JSON, or in pieces as server-sent events, as long as the client is there.

data: {"choices": [{"text": "患", ...}], ...}\\n\\n     a chunk;  data: [DONE]\\n\\n     the end
"""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from minigpt.errors import Error
from minigpt.web.refusals import Refusal, mistake
from minigpt.web.shapes import Shape, usage
from minigpt.web.studio import Studio
from minigpt.web.telling import Piece, Telling, join
from minigpt.web.writing import Writing

HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # a proxy should not collect the pieces


async def respond(request: Request, studio: Studio, shape: Shape, asks: Sequence, read: int) -> Response:
    """The texts of the asks in this shape; `read` tokens of prompts are told in the usage."""
    session = Session(studio, shape, asks, read)
    await session.writing.begin()
    if shape.asking.stream:
        return EventStream(session)
    try:
        return JSONResponse(await while_connected(request, session.whole()))
    finally:
        session.writing.close()


class Session:
    """The texts of one request, as they come and as a whole."""

    def __init__(self, studio: Studio, shape: Shape, asks: Sequence, read: int):
        self.shape, self.read, self.writing = shape, read, Writing(studio, asks)
        tokenizer, stop = studio.tokenizer, shape.asking.stop
        begun = [sum(len(piece.text) for piece in shape.begin(place)) for place in range(len(asks))]
        self.tellings = [Telling(tokenizer, stop, tokenizer.eot, at) for at in begun]

    async def pieces(self) -> AsyncIterator[list[tuple[int, Piece]]]:
        async with aclosing(self.writing.events()) as arriving:
            async for events in arriving:
                yield [(place, piece) for place, event in events if (piece := self._tell(place, event))]

    def _tell(self, place: int, event) -> Piece | None:
        telling = self.tellings[place]
        if telling.done:
            return None
        if event.finish == "error":
            raise event.error
        piece = telling.push(event)
        if telling.done and event.finish is None:
            self.writing.drop(place)
        return piece

    async def whole(self) -> dict:
        pieces: list[list[Piece]] = [self.shape.begin(place) for place in range(self.shape.texts)]
        async with aclosing(self.pieces()) as arriving:
            async for found in arriving:
                for place, piece in found:
                    pieces[place].append(piece)
        choices = [self.shape.whole(index, join(each)) for index, each in enumerate(pieces)]
        return self.shape.envelope(choices, chunk=False) | {"usage": self.usage()}

    async def chunks(self) -> AsyncIterator[str]:
        """Server-sent events; what goes wrong is one of them, as the status is long sent."""
        try:
            if begun := "".join(self._chunk(first) for i in range(self.shape.texts) for first in self.shape.first(i)):
                yield begun
            async with aclosing(self.pieces()) as arriving:
                async for found in arriving:
                    news = [(place, piece) for place, piece in found if piece.text or piece.tokens or piece.finish]
                    if news:
                        yield "".join(self._chunk(self.shape.part(place, piece)) for place, piece in news)
            if self.shape.asking.usage:
                yield sse(self.shape.envelope([], chunk=True) | {"usage": self.usage()})
            yield "data: [DONE]\n\n"
        except Refusal as refusal:
            yield sse(refusal.body)
        except Error as problem:
            yield sse(Refusal(400, str(problem)).body)
        except Exception as problem:
            yield sse(mistake(problem).body)

    def _chunk(self, choice: dict) -> str:
        return sse(self.shape.envelope([choice], chunk=True))

    def usage(self) -> dict:
        return usage(self.read, sum(telling.written for telling in self.tellings))


class EventStream(StreamingResponse):
    """The chunks of a session. When the client leaves, writing stops."""

    def __init__(self, session: Session):
        super().__init__(session.chunks(), media_type="text/event-stream", headers=HEADERS)
        self.session = session

    async def __call__(self, scope, receive, send):
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.session.writing.close()

    async def stream_response(self, send):
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


async def while_connected(request: Request, work: Coroutine):
    """What `work` returns; it is cancelled when the client leaves."""
    task, left = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait((task, left), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Refusal(499, "the client left before it was answered")
        return task.result()
    finally:
        for each in (task, left):
            each.cancel()
        await asyncio.gather(task, left, return_exceptions=True)


async def _left(request: Request):
    while (await request.receive())["type"] != "http.disconnect":
        pass


def sse(found: dict) -> str:
    """
    >>> sse({"text": "患"})
    'data: {"text":"患"}\\n\\n'
    """
    return f"data: {json.dumps(found, ensure_ascii=False, separators=(',', ':'), allow_nan=False)}\n\n"
