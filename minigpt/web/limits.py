"""How much of everything a client may ask for, and for how long."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bytes, seconds and counts; each is a bound on what one client can cost the others."""

    body: int = 1 << 20  # bytes of a request
    upload: float = 30.0  # seconds until its body is there
    request: float = 600.0  # seconds until a text is written
    unread: float = 30.0  # seconds that a client may leave what it was sent unread
    idle: float = 10.0  # seconds that a connection may wait for its next request
    connections: int = 1000  # open at once
    choices: int = 16  # texts that one request may ask for
    goodbye: float = 20.0  # seconds that a text has to end when the server is told to
