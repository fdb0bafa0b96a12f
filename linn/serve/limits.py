"""What a client may ask of the server, so that none can take all of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds of one request, and of all together. Beyond them stands the protocol's error."""

    body_bytes: int = 4 * 2**20
    """Bytes of a request."""
    held_bytes: int = 256 * 2**20
    """Bytes of all requests that are being answered; 429 beyond."""
    depth: int = 64
    """Lists and objects within each other."""
    choices: int = 128
    """Replies to one request: `n`, times the prompts of a completion."""
    stops: int = 16
    """Stop strings."""
    stop_characters: int = 256
    """Characters of each."""
    tools: int = 128
    """Function definitions."""
    top_logprobs: int = 20
    """Likely tokens told beside each one."""
    queue: int = 1024
    """Replies that are being written or wait, of all clients together; 429 beyond."""
    connections: int = 2048
    """Connections; 503 beyond."""
    header_s: float = 20.0
    """Seconds in which a connection must have said what it wants."""
    body_s: float = 60.0
    """Seconds in which a request must have come."""
    idle_s: float = 75.0
    """Seconds for which a connection may stand idle between two requests. Clients close theirs
    after less (5 s, or 60), so none is closed just as it is used again."""
    stall_s: float = 60.0
    """Seconds for which a client may leave a stream unread."""
    grace_s: float = 20.0
    """Seconds for which replies go on after SIGTERM, before they end with an error."""
