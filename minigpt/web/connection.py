"""One connection: what a client may cost before and after its request, which applications do not see.

Limited are the connections that are open, the seconds that the head of a request may take, and the seconds that a
client may leave unread what it was sent. What is no HTTP is answered as everything else: a status and one sentence.
"""

import asyncio
import json

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from minigpt.web.limits import Limits
from minigpt.web.refusals import Refusal


class Connection(H11Protocol):
    """uvicorn's protocol with limits."""

    def __init__(self, *args, limits: Limits, **more):
        super().__init__(*args, **more)
        self.limits = limits
        self.slow: asyncio.TimerHandle | None = None  # runs while the head of a request is not complete
        self.unread: asyncio.TimerHandle | None = None  # runs while the client does not read

    def connection_made(self, transport):
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self.refuse(Refusal(503, f"the server has {self.limits.connections} connections open: come again later"))
            return
        self.slow = self.loop.call_later(self.limits.idle, self.time_out)

    def connection_lost(self, exc):
        self.stop_clock("slow")
        self.stop_clock("unread")
        super().connection_lost(exc)

    def data_received(self, data: bytes):
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self.stop_clock("slow")
        elif self.slow is None:
            self.slow = self.loop.call_later(self.limits.idle, self.time_out)

    def pause_writing(self):
        super().pause_writing()
        self.unread = self.loop.call_later(self.limits.unread, self.transport.abort)

    def resume_writing(self):
        super().resume_writing()
        self.stop_clock("unread")

    def stop_clock(self, name: str):
        if (clock := getattr(self, name)) is not None:
            clock.cancel()
            setattr(self, name, None)

    def time_out(self):
        if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
            self.refuse(Refusal(408, f"no request was complete after {self.limits.idle:g} seconds"))

    def send_400_response(self, msg: str):
        self.refuse(Refusal(400, "this is no HTTP request that can be understood: send HTTP/1.1 as it is specified"))

    def refuse(self, refusal: Refusal):
        """Answer past the application, and close."""
        body = json.dumps(refusal.body).encode()
        head = f"HTTP/1.1 {refusal.status} Refused\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.transport.write(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.transport.close()
