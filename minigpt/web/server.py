"""Who listens: a socket, uvicorn, and an end that cuts nobody off.

At the first Ctrl-C or SIGTERM new requests are told to go elsewhere (503), and what was begun has some seconds to end;
at the second, or when they are over, what is still being written ends with an error. /healthz says "closing" meanwhile.
"""

import ipaddress
import os
import socket
import sys
from functools import partial
from pathlib import Path

import uvicorn

from minigpt.errors import Error
from minigpt.web.app import make_app
from minigpt.web.connection import Connection
from minigpt.web.studio import Studio

SENDING = 256 << 10  # bytes that the system keeps for a client who does not read: else megabytes, until it is noticed


class Server(uvicorn.Server):
    """uvicorn's server of a studio."""

    def __init__(self, app, studio: Studio, greeting: str = ""):
        limits = studio.limits
        config = uvicorn.Config(
            app,
            http=partial(Connection, limits=limits),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=int(limits.idle),
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self.studio, self.greeting, self.patience = studio, greeting, None

    async def startup(self, sockets=None):
        await super().startup(sockets)
        if self.started and self.greeting:
            print(self.greeting, flush=True)

    def handle_exit(self, sig, frame):
        self.patience = 0 if self.studio.closing else self.studio.limits.goodbye
        self.studio.closing = True

    async def on_tick(self, counter: int) -> bool:
        if self.patience is not None and not self.should_exit:
            self.patience -= 0.1
            if not self.server_state.tasks or self.patience <= 0:
                await self.studio.worker.stop()
                self.should_exit = True
        return await super().on_tick(counter)


def serve(studio: Studio, listener: socket.socket, token: str | None = None, names=(), quiet: bool = False):
    """Answer until told to stop."""
    host, port = listener.getsockname()[:2]
    if not ipaddress.ip_address(host).is_loopback:
        who = "whoever knows the token" if token else "EVERYONE who reaches it, as there is no --token-file,"
        print(f"listening at {host}: {who} can use this model, over an open line", file=sys.stderr)
    local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    address = f"http://{f'[{local}]' if ':' in local else local}:{port}/"
    greeting = f"open {address} (Ctrl-C ends)" + "; clients must send the token" * (token is not None)
    Server(make_app(studio, token, names, quiet), studio, greeting).run(sockets=[listener])
    print("stopped", file=sys.stderr)


def listen(host: str, port: int) -> socket.socket:
    """A socket at this address; `Error` if it is taken, or not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SENDING)  # its connections inherit it
        listener.bind(address)
    except OSError as problem:
        raise Error(
            f"cannot listen at {host}, port {port}: {problem.strerror or problem}: give another --port, or --port 0"
        ) from None
    return listener


def read_token(file: Path | None) -> str | None:
    """The token of a file, or of MINIGPT_TOKEN; never of the command line, which everyone on the machine can read."""
    try:
        token = os.environ.get("MINIGPT_TOKEN") if file is None else file.read_text("ascii")
    except (OSError, UnicodeDecodeError) as problem:
        raise Error(
            f"{file}: cannot read the token: {getattr(problem, 'strerror', None) or 'it is not ASCII'}"
        ) from None
    if token is None:
        return None
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise Error(f"{file or 'MINIGPT_TOKEN'}: holds no token: write one line of letters, digits and signs")
    return token
