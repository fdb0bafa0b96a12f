"""What stands between a connection and an answer: key, limits, the queue, clients that leave.

ASGI in the raw where it matters: a client that goes away must be noticed while its answer is being
made, and one that reads nothing must not be waited for.
"""

from __future__ import annotations

import asyncio
import hmac
import time
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from contextlib import aclosing, nullcontext, suppress
from typing import Any, Protocol

from linn.serve.errors import CLOSING, ApiError, api_error
from linn.serve.limits import Limits
from linn.serve.metrics import Metrics
from linn.serve.models import Models, Served
from linn.serve.wire import event, json_bytes
from linn.terminal import echo

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_SSE = (b"content-type", b"text/event-stream; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_LARGE = 64 * 2**10
"""Bytes of a request that waits for its turn to be read: to read a megabyte of text and cut it into
tokens takes 300 MB, and many at once would take that many times."""


class Answer(Protocol):
    """The answer to one request, whole or in events."""

    async def whole(self) -> tuple[dict[str, Any], int]:
        """(the object, tokens made)."""
        ...

    def events(self) -> AsyncGenerator[tuple[bytes, int], None]:
        """(what is sent, tokens made since the last)."""
        ...


Begin = Callable[[bytes], Awaitable[tuple[Answer, Served, int, int, bool]]]
"""A body to (answer, model, replies, prompt tokens, whether it is streamed); raises ApiError."""


class Service:
    """All that requests share."""

    def __init__(
        self, models: Models, limits: Limits, key: str | None = None, thinking: bool = True
    ) -> None:
        """`key`: what clients must send; None: nothing. `thinking`: the mode of who names none."""
        self.models = models
        self.limits = limits
        self.thinking = thinking
        self.metrics = Metrics()
        self.open = 0
        """Replies that are being written or wait."""
        self.held = 0
        """Bytes of the requests that are being answered."""
        self.closing = False
        """Whether the server takes no new requests."""
        self.aborting = False
        """Whether those that run end with an error."""
        self._key = None if key is None else key.encode()
        self._tasks: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        """Of large requests, one is read at a time."""

    def abort(self) -> None:
        """End what runs, each with an error."""
        self.aborting = True
        for task in self._tasks:
            task.cancel()

    # ------------------------------------------------------------ one request

    async def answer(self, scope: Scope, receive: Receive, send: Send, begin: Begin) -> None:
        """Answer one request. Who leaves is noticed, and its answer is given up."""
        exchange = _Exchange(scope, send, self.limits)
        body = bytearray()
        try:
            await self._admit(scope, receive, body)
            await self._answer_or_leave(receive, exchange, begin, body)
        except ApiError as error:
            if error.status == 413:
                await self._discard(receive)
            await exchange.refuse(error)
        finally:
            self.held -= len(body)
        self._count(scope, exchange)

    async def _answer_or_leave(
        self, receive: Receive, exchange: _Exchange, begin: Begin, body: bytearray
    ) -> None:
        # Two tasks: whoever ends first ends the other.
        work = asyncio.create_task(self._work(exchange, begin, body))
        gone = asyncio.create_task(_gone(receive))
        self._tasks.add(work)
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.metrics.gone.inc()
        finally:
            self._tasks.discard(work)
            for task in (work, gone):
                task.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _count(self, scope: Scope, exchange: _Exchange) -> None:
        self.metrics.requests.labels(scope["path"], str(exchange.status or 499)).inc()

    async def _work(self, exchange: _Exchange, begin: Begin, body: bytearray) -> None:
        """Answer or refuse; whatever happens, the client is told."""
        try:
            await self._make(exchange, begin, body)
        except asyncio.CancelledError:
            # Cancelled because the client left, or because the server ends?
            if not self.aborting:
                raise
            await exchange.refuse(CLOSING)
        except TimeoutError:
            exchange.status = exchange.status or 408  # it reads nothing: there is nobody to tell
        except Exception as error:
            if not isinstance(error, ApiError) and api_error(error).status == 500:
                echo(f"linn serve: {''.join(traceback.format_exception(error))}", err=True)
            await exchange.refuse(api_error(error))

    async def _make(self, exchange: _Exchange, begin: Begin, body: bytearray) -> None:
        since = time.monotonic()
        async with self._turn if len(body) > _LARGE else nullcontext():
            answer, served, count, read, is_stream = await begin(bytes(body))
        send = self._stream if is_stream else self._send_whole
        # In this order: who waits for a model to be read stands in the queue too.
        with self._queued(count):
            async with self.models.use(served):
                self.metrics.loaded.set(len(self.models.loaded))
                self.metrics.read.labels(served.name).inc(read)
                await send(exchange, answer, served, since)
        self.metrics.whole.observe(time.monotonic() - since)

    async def _send_whole(
        self, exchange: _Exchange, answer: Answer, served: Served, since: float
    ) -> None:
        content, tokens = await answer.whole()
        self.metrics.made.labels(served.name).inc(tokens)
        await exchange.json(200, content)

    async def _stream(
        self, exchange: _Exchange, answer: Answer, served: Served, since: float
    ) -> None:
        made = self.metrics.made.labels(served.name)
        is_first = True
        async with aclosing(answer.events()) as events:
            async for sent, tokens in events:
                made.inc(tokens)
                if tokens and is_first:
                    is_first = False
                    self.metrics.first.observe(time.monotonic() - since)
                await exchange.stream(sent)
        await exchange.end()

    def _queued(self, count: int) -> _Queued:
        if self.open + count > self.limits.queue:
            raise ApiError(
                429,
                f"{self.open} replies are being written or wait; try again later",
                code="queue_full",
            )
        return _Queued(self, count)

    # ------------------------------------------------------------ before it

    async def _admit(self, scope: Scope, receive: Receive, body: bytearray) -> None:
        """Read the body of a request that may be answered; raises ApiError."""
        headers = {name.lower(): value for name, value in scope["headers"]}
        self.check_key(headers)
        if self.closing:
            raise CLOSING
        # No page of the web may send this to a server on the reader's own machine unasked.
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if kind != b"application/json":
            raise ApiError(415, "content-type: expected application/json")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length[:20]) > self.limits.body_bytes:
            raise self._too_long()
        try:
            async with asyncio.timeout(self.limits.body_s):
                await self._read(receive, body)
        except TimeoutError:
            raise ApiError(
                408, f"the request did not come within {self.limits.body_s:g} s"
            ) from None

    def check_key(self, headers: dict[bytes, bytes]) -> None:
        """ApiError where a key is wanted and another was sent."""
        if self._key is None:
            return
        word, _, sent = headers.get(b"authorization", b"").partition(b" ")
        # In a time that does not depend on where the two differ.
        # `compare_digest` of bytes: a header may hold anything.
        same = hmac.compare_digest(sent.strip(), self._key)
        if not same or word.lower() != b"bearer":
            raise ApiError(401, "no such API key: send Authorization: Bearer KEY", None, "bad_key")

    async def _read(self, receive: Receive, body: bytearray) -> None:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "the connection ended within the request")
            part = message.get("body", b"")
            body += part
            self.held += len(part)
            if len(body) > self.limits.body_bytes:
                raise self._too_long()
            # Each is small, and together they would fill the memory.
            if self.held > self.limits.held_bytes:
                raise ApiError(429, "too much is asked at once; try again later", code="queue_full")
            if not message.get("more_body"):
                return

    async def _discard(self, receive: Receive) -> None:
        """Read on for a while: who is still sending would see the connection break, not why."""
        left = 8 * self.limits.body_bytes
        with suppress(TimeoutError):
            async with asyncio.timeout(self.limits.body_s):
                while left > 0:
                    message = await receive()
                    left -= len(message.get("body", b"")) + 1
                    if not message.get("more_body"):
                        return

    def _too_long(self) -> ApiError:
        most = self.limits.body_bytes
        return ApiError(413, f"a request of over {most:,} bytes", code="too_long")


class _Queued:
    """Counts replies from here to the end of the block."""

    def __init__(self, service: Service, count: int) -> None:
        self._service = service
        self._count = count

    def __enter__(self) -> None:
        self._add(self._count)

    def __exit__(self, *_: object) -> None:
        self._add(-self._count)

    def _add(self, count: int) -> None:
        self._service.open += count
        self._service.metrics.open.set(self._service.open)


class _Exchange:
    """What is sent in answer to one request."""

    def __init__(self, scope: Scope, send: Send, limits: Limits) -> None:
        self._send_to = send
        self._limits = limits
        self._is_responses = str(scope["path"]).endswith("/responses")
        self.status = 0
        """What was sent; 0: nothing yet."""
        self._ended = False

    async def json(self, status: int, content: Any) -> None:
        """A whole answer."""
        body = json_bytes(content)
        headers = [_JSON, (b"content-length", str(len(body)).encode())]
        if status in (429, 503):
            headers.append((b"retry-after", b"1"))
        await self._start(status, headers)
        await self._send({"type": "http.response.body", "body": body})
        self._ended = True

    async def stream(self, content: bytes) -> None:
        """A part of a stream."""
        if not self.status:
            await self._start(200, [_SSE, (b"cache-control", b"no-cache")])
        if content:
            await self._send({"type": "http.response.body", "body": content, "more_body": True})

    async def end(self) -> None:
        """The end of a stream."""
        await self._send({"type": "http.response.body", "body": b""})
        self._ended = True

    async def refuse(self, error: ApiError) -> None:
        """An error, within the stream where one has begun."""
        # Behind a whole answer nothing can be told any more.
        if self._ended:
            return
        if not self.status:
            await self.json(error.status, error.body)
            return
        if self._is_responses:
            told = {"type": "error", "sequence_number": 0, **error.body["error"]}
            await self.stream(event(told, "error"))
        else:
            await self.stream(event(error.body))
        await self.end()

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        # A client that does not read holds its rows for so long and no longer.
        async with asyncio.timeout(self._limits.stall_s):
            await self._send_to(message)


async def _gone(receive: Receive) -> None:
    """Returns when the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass
