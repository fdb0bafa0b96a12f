"""Server-sent events, as far as streamed completions use them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from linn.endpoint.refusals import TryAgain

LONGEST_LINE = 1 << 20
"""Bytes of one line; a longer one is no piece of an answer."""
LONGEST_STREAM = 256 << 20
"""Bytes of one stream."""
DONE = "[DONE]"
"""The last event's data."""


async def events_of(parts: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The data of every event. TryAgain for a line or a stream without an end."""
    line = bytearray()
    data: list[str] = []
    count = 0
    async for part in parts:
        count += len(part)
        *ended, rest = part.split(b"\n")
        for piece in ended:
            line += piece
            text = line.decode("utf-8", "replace").rstrip("\r")
            line.clear()

            # An empty line ends an event; comments and other fields say nothing here.
            if text.startswith("data:"):
                data.append(text.removeprefix("data:").removeprefix(" "))
            elif not text and data:
                yield "\n".join(data)
                data.clear()
        line += rest
        if len(line) > LONGEST_LINE or count > LONGEST_STREAM:
            raise TryAgain("a stream without an end")

    # Some servers close without the empty line.
    if line.startswith(b"data:"):
        data.append(line.decode("utf-8", "replace").removeprefix("data:").strip())
    if data:
        yield "\n".join(data)
