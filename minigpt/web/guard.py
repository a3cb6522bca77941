"""Who may ask, before anyone is answered; and a line of the log for every request.

A web page from elsewhere must not drive a server on this machine. Its browser would send the requests, so that they
come from here; two things give them away:

    Origin    says where the page that asks is from: another origin than this server's may not POST
    Host      says which name was asked for. A page may point its own name at 127.0.0.1 (DNS rebinding), and is then of
              one origin with this server; but the name stays its own. Served are addresses, localhost, the name that
              the server was told, and, with a token, all: such a page does not know the token

With a token, everything but /healthz and the files that a page is made of asks for `Authorization: Bearer TOKEN`.
No texts are logged: what notes hold is nobody's business.
"""

import hmac
import ipaddress
import sys
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders

from minigpt.web.refusals import Refusal
from minigpt.web.studio import Studio

OPEN = ("/", "/healthz", "/runs", "/favicon.ico")
SAFE = ("GET", "HEAD", "OPTIONS")
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
SECURE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Content-Security-Policy": POLICY}


class Guard:
    """An ASGI application around another: lets in, counts, logs, and puts the headers on that keep a browser safe."""

    def __init__(self, app, studio: Studio, token: str | None = None, names: tuple[str, ...] = (), quiet: bool = True):
        self.app, self.studio, self.token, self.quiet = app, studio, token, quiet
        self.names = {"localhost", *(name.lower() for name in names)}

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began, status = time.monotonic(), 0

        async def sending(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURE)
            await send(message)

        try:
            try:
                self.check(scope["method"], scope["path"], Headers(scope=scope))
            except Refusal as refusal:
                return await refusal.response()(scope, receive, sending)
            await self.app(scope, receive, sending)
        finally:
            self._note(scope, status, time.monotonic() - began)

    def check(self, method: str, path: str, headers: Headers):
        """`Refusal` for whoever may not."""
        host = headers.get("host", "")
        if not self.token and not self._is_known(host):
            message = f"this server is not known as {host!r:.80}: ask for its address, or start it with --host-name"
            raise Refusal(403, message, code="unknown_host")
        origin = headers.get("origin")
        if origin is not None and method not in SAFE and urlsplit(origin).netloc.lower() != host.lower():
            raise Refusal(403, f"a page of {origin!r:.80} may not ask this server", code="foreign_origin")
        if self.token and not self._is_open(path):
            given = headers.get("authorization", "").removeprefix("Bearer ").encode()
            if not hmac.compare_digest(given, self.token.encode()):
                message = "the token is missing or wrong: send Authorization: Bearer TOKEN"
                raise Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        if self.studio.closing and path != "/healthz":
            raise Refusal(503, "the server is shutting down: ask another one, or later", headers={"Retry-After": "30"})

    def _is_known(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        return name in self.names or _is_address(name)

    @staticmethod
    def _is_open(path: str) -> bool:
        return path in OPEN or path.startswith("/static/")

    def _note(self, scope, status: int, seconds: float):
        route = scope.get("route")
        name = getattr(route, "path", "") or "other"
        self.studio.meters.requests.labels(name, str(status)).inc()
        if not self.quiet:
            told = f"{scope['method']} {scope['path'][:120]!r} {status or 'left'} {seconds:.3f} s"
            print(time.strftime("%H:%M:%S"), told, file=sys.stderr, flush=True)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
