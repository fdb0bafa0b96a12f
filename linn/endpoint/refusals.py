"""What a server does instead of answering: what another try may change, and what is final."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from linn.errors import InfrastructureError

if TYPE_CHECKING:
    import httpx


class TryAgain(Exception):
    """This try failed in a way that the next one may not: the server is busy, starting or gone."""

    def __init__(self, cause: str, wait_s: float = 0.0) -> None:
        super().__init__(cause)
        self.wait_s = wait_s
        """Seconds that the server asks to be left alone."""


class BadRequest(InfrastructureError):
    """The server refuses this request and may take others: it is too long for its context, say."""


_BUSY = (408, 425, 429)
"""What passes by, beside every 5xx."""
_ABOUT_THE_REQUEST = (400, 413, 422)
"""What the server says of one request alone."""


def check_status(response: httpx.Response, body: bytes, label: str, key_help: str) -> None:
    """Nothing for 200. Raises TryAgain, BadRequest, or InfrastructureError with what to do.

    `label`: who was asked. `key_help`: what to do about the key.
    """
    status = response.status_code
    found = f"status {status}: {excerpt(body)}"
    if status == 200:
        return
    if status in _BUSY or status >= 500:
        raise TryAgain(found, seconds_of(response.headers.get("retry-after")))
    if status in _ABOUT_THE_REQUEST:
        raise BadRequest(f"{label}: refused a request with {found}")
    if status in (401, 403):
        raise InfrastructureError(f"{label}: refused with {found}; {key_help}")

    # Followed, a redirect would send the key and the texts to whom nobody named.
    if response.is_redirect:
        target = response.headers.get("location", "")[:200]
        raise InfrastructureError(
            f"{label}: refused with status {status}: it is elsewhere, at {target!r}; "
            "name that address"
        )
    raise InfrastructureError(f"{label}: refused with {found}")


def unknown_model(label: str, model: str, served: list[str], body: bytes) -> InfrastructureError:
    """A 404: the server does not know the model, or is no such server."""
    found = f"{label}: refused with status 404: {excerpt(body)}"
    if not served:
        return InfrastructureError(
            f"{found}; it lists no models either: "
            "is this the address of its API, with /v1 at the end?"
        )
    shown = ", ".join(served[:8])
    if len(served) > 8:
        shown += f" and {len(served) - 8} more"
    if model in served:
        return InfrastructureError(f"{found}; it lists {model!r}, but not for chat completions")
    return InfrastructureError(f"{found}; it serves {shown}, not {model!r}")


def broken_connection(error: httpx.HTTPError, label: str) -> Exception:
    """What a failure below HTTP means: mostly that it is worth another try."""
    cause: BaseException | None = error
    while cause is not None:
        # Neither a certificate nor a protocol changes by waiting.
        if isinstance(cause, ssl.SSLCertVerificationError):
            return InfrastructureError(
                f"{label}: its certificate is not trusted ({cause.verify_message}); "
                "name the authority's file in SSL_CERT_FILE, or another address"
            )
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return InfrastructureError(f"{label}: does not speak TLS; write http:// in its address")
        cause = cause.__cause__ or cause.__context__
    return TryAgain(f"{type(error).__name__}: {error}".rstrip(": "))


def excerpt(body: bytes) -> str:
    """The beginning of a body, in one line."""
    words = body[:2000].decode(errors="replace").split()
    return " ".join(words)[:200] or "nothing more"


def seconds_of(header: str | None) -> float:
    """A `Retry-After` in seconds; its date form is not read."""
    if header is None or not header.isdecimal():
        return 0.0
    return float(header)
