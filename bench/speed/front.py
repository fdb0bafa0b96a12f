"""The server without its processes: `python -m bench.speed.front [--piece 9]`.

Real uvicorn, the real application and real connections over streams that cost nothing, which tell
`--piece` tokens every 20 ms. What is left is the work for HTTP, JSON, templates and text. Prints
the server's CPU time by piece, token and request; the clients are a process of their own.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from linn.checkpoints import BASES
from linn.engine.protocol import Token
from linn.serve import server
from linn.serve.limits import Limits
from linn.serve.models import Models
from linn.serve.service import Service
from linn.types import Sampling

TEXT = "First 12 + 5 = 17, then 17 - 3 = 14.</think>\nThe answer is \\boxed{14}, and nothing else."


class FreeStreams:
    """Says the same to everybody."""

    def __init__(self, piece: int) -> None:
        self._piece = piece
        self._tick: asyncio.Event | None = None
        self.said: list[Token] = []
        """The tokens of every reply."""
        self.tokens = self.pieces = 0

    async def _next(self) -> None:
        """All streams go on at the same time, as behind one message of a process."""
        # No clock runs while nobody waits: it would be counted as work.
        if self._tick is None:
            self._tick = asyncio.Event()
            asyncio.get_running_loop().call_later(0.02, self._go_on)
        await self._tick.wait()

    def _go_on(self) -> None:
        assert self._tick is not None
        self._tick.set()
        self._tick = None

    async def open(self) -> None:
        """Nothing is read."""

    async def close(self) -> None:
        """Nothing is forgotten."""

    async def stream(
        self, ids: Sequence[int], how: Sampling, seed: int, is_whole: bool = False
    ) -> AsyncGenerator[Sequence[Token], None]:
        """The reply in pieces."""
        size = len(self.said) if is_whole else self._piece
        for start in range(0, len(self.said), size):
            await self._next()
            piece = self.said[start : start + size]
            self.tokens += len(piece)
            self.pieces += 1
            yield piece


class FreeEngine:
    """An engine that has nothing but these streams."""

    def __init__(self, streams: FreeStreams) -> None:
        self._streams = streams

    def streams_of(self, folder: Path) -> FreeStreams:
        """The same for every checkpoint."""
        return self._streams


async def ask(port: int, number: int, replies: int, is_stream: bool) -> None:
    """One client: its requests, one after the other, on one connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    content = f"Request {number}: what is {number} + {number % 7}?"
    fields = {"messages": [{"role": "user", "content": content}], "stream": is_stream}
    body = json.dumps({**fields, "max_tokens": 48, "seed": number}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\nuser-agent: bench\r\n"
        f"accept: */*\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    for _ in range(replies):
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        if is_stream:
            assert b"[DONE]" in await reader.readuntil(b"\r\n0\r\n\r\n")
            continue
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))
    writer.close()


async def until_it_answers(port: int) -> None:
    """Returns when somebody may connect: the socket is bound before uvicorn listens at it."""
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return


async def all_clients(port: int, clients: int, replies: int, is_stream: bool) -> None:
    """What the process of the clients does."""
    await asyncio.gather(*(ask(port, number, replies, is_stream) for number in range(clients)))


async def measure(given: argparse.Namespace) -> None:
    """Both kinds of reply."""
    streams = FreeStreams(given.piece)
    engine: Any = FreeEngine(streams)
    models = Models({"tiny-0": BASES / "tiny-0"}, engine)
    ids = models.find(None).codec.encode(TEXT)
    streams.said = [Token(one, -0.5) for one in ids]
    listening = server._socket("127.0.0.1", 0)
    serving = asyncio.create_task(server._serve(Service(models, Limits()), listening, "127.0.0.1"))
    await until_it_answers(listening.getsockname()[1])

    for kind in ("stream", "whole"):
        for replies in (1, given.replies):
            streams.tokens = streams.pieces = 0
            begun = time.process_time()
            words = [str(listening.getsockname()[1]), str(given.clients), str(replies), kind]
            command = [sys.executable, "-m", "bench.speed.front", "--as-clients", *words]
            process = await asyncio.create_subprocess_exec(*command)
            assert await process.wait() == 0
            seconds = time.process_time() - begun
        counts = streams.tokens, streams.pieces, given.clients * given.replies
        token, piece, request = (seconds / count * 1e6 for count in counts)
        print(f"{kind}: {token:.0f} us per token, {piece:.0f} a piece, {request:.0f} a request")

    os.kill(os.getpid(), signal.SIGTERM)
    await serving


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--replies", type=int, default=4, help="of each client")
    parser.add_argument("--piece", type=int, default=9, help="tokens told at a time")
    parser.add_argument("--as-clients", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.as_clients is None:
        asyncio.run(measure(given))
        return
    port, clients, replies, kind = given.as_clients
    asyncio.run(all_clients(int(port), int(clients), int(replies), kind == "stream"))


if __name__ == "__main__":
    main()
