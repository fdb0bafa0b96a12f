"""Where a served model is: `http(s)://HOST:PORT/v1#MODEL`, as recipes and flags write it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from linn.errors import UserError

FORM = "http://HOST:PORT/v1#MODEL"
"""How an endpoint is written."""


class Address(NamedTuple):
    """A model of a server."""

    url: str
    """Up to and with the version, e.g. `http://127.0.0.1:8000/v1`."""
    model: str
    """The name that the server knows it by."""

    def __str__(self) -> str:
        return f"{shown_url(self.url)}#{self.model}"


def parse_endpoint(text: str) -> Address | None:
    """The address that `text` spells; None where it spells none, but a checkpoint, say.

    Raises UserError for half an address.
    """
    if not text.lower().startswith(("http://", "https://")):
        return None
    url, _, model = text.partition("#")
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        usable = False
    if not usable or not model.strip():
        raise UserError(f"an endpoint is written {FORM}, found {text!r}")
    return Address(url.rstrip("/"), model.strip())


def shown_url(url: str) -> str:
    """The URL as lines and files show it: without a user's name and password."""
    try:
        parts = urlsplit(url)
        if "@" not in parts.netloc:
            return url
    except ValueError:
        return url
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
