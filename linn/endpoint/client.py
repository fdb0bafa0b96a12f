"""The client: many requests at once, patient with a busy server, never silent, never for ever."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from linn.endpoint.address import shown_url
from linn.endpoint.answer import Answer, Delta
from linn.endpoint.events import DONE, events_of
from linn.endpoint.refusals import (
    BadRequest,
    TryAgain,
    broken_connection,
    check_status,
    excerpt,
    unknown_model,
)
from linn.endpoint.waiting import FIRST_LINE_S, Wait, Waits, duration
from linn.endpoint.wire import read_answer, read_delta, read_models, request_body
from linn.errors import InfrastructureError
from linn.terminal import aside
from linn.types import Message, Sampling

if TYPE_CHECKING:
    import httpx

__all__ = ["BadRequest", "Endpoint"]

_LONGEST_WAIT_S = 60.0
"""Longest pause between two tries, whatever the server asks for."""
_LONGEST_BODY = 16 << 20
"""Bytes of a response that are read; a longer one is not a chat completion."""
_CONNECT_S = 60.0
"""Seconds that making a connection may take."""
_ASIDE_S = 10.0
"""Seconds that a question about the server may take, such as which models it has."""

_T = TypeVar("_T")


class Endpoint:
    """A model behind an OpenAI-compatible server.

    An async context manager, which keeps the connections; entered again while open, it is shared.
    Timeouts, hang-ups, 408, 425, 429, 5xx and what is no completion are tried again after pauses
    that double. Other refusals are final: an InfrastructureError in one line that says what to do,
    or its BadRequest where the server refuses this request and may take others.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None = None,
        *,
        name: str = "endpoint",
        key_name: str = "key_env",
        concurrency: int = 64,
        timeout_s: float = 1800.0,
        deadline_s: float | None = None,
        silence_s: float = 300.0,
        tries: int = 6,
        pause_s: float = 1.0,
        reasoning_key: str | None = "reasoning_content",
        heartbeat_s: float = FIRST_LINE_S,
        say: Callable[[str], None] = aside,
    ) -> None:
        """See the attributes; `key` is sent as a bearer token."""
        self.url = url.rstrip("/")
        """Up to and with the version, e.g. `http://127.0.0.1:8000/v1`."""
        self.model = model
        """The name that the server knows it by."""
        self.label = f"{name} {shown_url(self.url)}"
        """How every line begins: what the server is to the user, and where."""
        self.key_name = key_name
        """Where the key comes from: a variable, or the flag or key that names one."""
        self.concurrency = concurrency
        """Requests under way at once, at most."""
        self.timeout_s = timeout_s
        """Seconds that one try may take, to the last byte of its answer."""
        self.deadline_s = 2 * timeout_s + _LONGEST_WAIT_S if deadline_s is None else deadline_s
        """Seconds that one answer may take, all tries and pauses together.

        By default two tries that hang: one hang may be chance.
        """
        self.silence_s = silence_s
        """Seconds without a byte after which an answer that has begun counts as broken off."""
        self.tries = tries
        """Requests for one answer before the server counts as down."""
        self.pause_s = pause_s
        """Pause before the second try."""
        self.reasoning_key = reasoning_key
        """Under which earlier turns' thoughts are sent; None leaves them out."""
        self.heartbeat_s = heartbeat_s
        """Seconds of waiting before a line is said; from line to line it doubles."""
        self.say = say
        """Takes a line for a person."""

        self._key = key
        self._waits = Waits(self.label, say)
        self._users = 0
        self._named_models: set[str] = set()

    # ------------------------------------------------------------ connections

    async def __aenter__(self) -> Self:
        # Of this event loop: the next one finds everything made anew.
        if self._users == 0:
            self._client = self._new_client()
            self._slots = asyncio.Semaphore(self.concurrency)
            self._teller = asyncio.create_task(self._waits.tell(self.heartbeat_s))
        self._users += 1
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._users -= 1
        if self._users == 0:
            self._teller.cancel()
            await self._client.aclose()

    def _new_client(self) -> httpx.AsyncClient:
        """A client without limits of its own but on connecting. InfrastructureError, see below."""
        import httpx

        try:
            host = httpx.URL(self.url).host
            host.encode("idna")
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InfrastructureError(f"{self.label}: no usable address ({error})") from None

        headers = {"accept-encoding": "identity"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        if not (self._key or "").isascii() or not (self._key or "").isprintable():
            raise InfrastructureError(
                f"{self.label}: the key that {self.key_name} gives holds characters that no "
                "request can carry; set it anew"
            )
        limits = httpx.Limits(
            max_connections=self.concurrency,
            max_keepalive_connections=self.concurrency,
        )
        timeout = httpx.Timeout(None, connect=_CONNECT_S)
        return httpx.AsyncClient(headers=headers, limits=limits, timeout=timeout)

    # ------------------------------------------------------------ whole answers

    async def complete(
        self,
        messages: Sequence[Message],
        how: Sampling,
        seed: int,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> Answer:
        """The answer to one conversation.

        `tools`: OpenAI-style function definitions. `extra`: more keys of the request, e.g.
        `{"logprobs": True}`; a None takes one out. Whether a server keeps to seeds is its own
        affair.
        """
        body = self._body(messages, how, seed, tools, extra)

        # A request keeps its slot through all tries, so that a busy server is not asked more.
        with self._waits.asked():
            async with self._slots:
                with self._waits.sent() as wait:
                    answer = await self._patiently(lambda: self._whole(body), wait)
        self._note_model(answer.model)
        return answer

    def _body(
        self,
        messages: Sequence[Message],
        how: Sampling,
        seed: int,
        tools: Sequence[Mapping[str, Any]] | None,
        extra: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        assert self._users, "an Endpoint is used within `async with`"
        return request_body(self.model, messages, how, seed, tools, extra, self.reasoning_key)

    async def _whole(self, body: dict[str, Any]) -> Answer:
        """One try. Raises TryAgain or, if another would not help, InfrastructureError."""
        async with self._posted(body) as response:
            content = await self._content(response)
        answer = read_answer(content)
        if answer is None:
            raise TryAgain(f"no chat completion, but {excerpt(content)!r}")
        return answer

    # ------------------------------------------------------------ streams

    async def stream(
        self,
        messages: Sequence[Message],
        how: Sampling,
        seed: int,
        tools: Sequence[Mapping[str, Any]] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[Delta, None]:
        """The answer to one conversation, piece by piece as the server sends it.

        Before the first piece a failure is tried again, as in `complete`; an answer that breaks
        off later is an InfrastructureError. `contextlib.aclosing` makes the server stop where the
        caller does. `whole` puts the pieces together.
        """
        body = self._body(messages, how, seed, tools, extra)
        body = {"stream_options": {"include_usage": True}, **body, "stream": True}

        with self._waits.asked():
            async with self._slots:
                with self._waits.sent() as wait:
                    first, rest = await self._patiently(lambda: self._begun(body), wait)
                self._note_model(first.model)
                yield first
                async with aclosing(rest):
                    async for piece in self._rest(rest):
                        yield piece

    async def _begun(self, body: dict[str, Any]) -> tuple[Delta, AsyncGenerator[Delta, None]]:
        """One try: the first piece of a stream, and the others to come."""
        pieces = self._pieces(body)
        try:
            return await anext(pieces), pieces
        except StopAsyncIteration:
            raise TryAgain("an empty stream") from None
        except BaseException:
            await pieces.aclose()
            raise

    async def _rest(self, pieces: AsyncIterator[Delta]) -> AsyncIterator[Delta]:
        """The pieces, within `timeout_s` from here; what breaks off is an error by now."""
        ends = asyncio.get_running_loop().time() + self.timeout_s
        while True:
            try:
                async with asyncio.timeout_at(ends):
                    piece = await anext(pieces, None)
            except TryAgain as error:
                raise InfrastructureError(f"{self.label}: broke off: {error}") from None
            except TimeoutError:
                raise InfrastructureError(
                    f"{self.label}: not done within {self.timeout_s:g} s"
                ) from None
            if piece is None:
                return
            yield piece

    async def _pieces(self, body: dict[str, Any]) -> AsyncGenerator[Delta, None]:
        """The pieces of one streamed answer that say anything. TryAgain if it breaks off."""
        finished = False
        async with self._posted(body) as response:
            if "json" in response.headers.get("content-type", ""):
                # A server that does not stream answers as a whole.
                content = await self._content(response)
                answer = read_answer(content)
                if answer is None:
                    raise TryAgain(f"no chat completion, but {excerpt(content)!r}")
                yield Delta.of(answer)
                return

            async with aclosing(events_of(self._parts(response))) as events:
                async for data in events:
                    if data.strip() == DONE:
                        return
                    piece = read_delta(data)
                    if piece is None:
                        raise TryAgain(f"no piece of an answer, but {excerpt(data.encode())!r}")
                    finished = finished or piece.finish_reason is not None
                    if not piece.is_empty:
                        yield piece
        if not finished:
            raise TryAgain("the stream ended before the answer")

    # ------------------------------------------------------------ requests

    async def _patiently(self, once: Callable[[], Awaitable[_T]], wait: Wait) -> _T:
        """What `once` gives, after as many tries as it takes and is allowed."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        ends = began + self.deadline_s
        number = 0
        while True:
            number += 1
            limit_s = min(self.timeout_s, ends - loop.time())
            # A try may take what is left to the answer, and no more.
            try:
                async with asyncio.timeout(limit_s):
                    return await once()
            except TryAgain as error:
                cause = error
            except TimeoutError:
                late = f"{self.timeout_s:g} s"
                if limit_s < self.timeout_s:
                    late = f"{self.deadline_s:g} s in all"
                cause = TryAgain(f"no answer within {late}")

            # The pause doubles with each try, unless the server asks for a longer one.
            wait.trouble = f"try {number}: {cause}"
            pause = min(max(self.pause_s * 2 ** (number - 1), cause.wait_s), _LONGEST_WAIT_S)
            if number == self.tries or loop.time() + pause >= ends:
                break
            await asyncio.sleep(pause)

        tries = "1 try" if number == 1 else f"{number} tries"
        took = duration(loop.time() - began)
        raise InfrastructureError(
            f"{self.label}: {cause} ({tries} in {took}); "
            "see that it runs, then give the same command again"
        )

    @asynccontextmanager
    async def _posted(self, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response to a request, its status checked, its body still to be read."""
        import httpx

        url = f"{self.url}/chat/completions"
        try:
            async with self._client.stream("POST", url, json=body) as response:
                if response.status_code != 200:
                    await self._check_refusal(response)
                yield response
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise broken_connection(error, self.label) from None

    async def _check_refusal(self, response: httpx.Response) -> None:
        """Raises what a status other than 200 means."""
        content = await self._content(response)
        if response.status_code == 404:
            served = await self.models()
            raise unknown_model(self.label, self.model, served, content)

        key_help = f"it wants a key: give one by {self.key_name}"
        if self._key:
            key_help = f"the key that {self.key_name} gives is not the one it wants"
        check_status(response, content, self.label, key_help)

    async def models(self) -> list[str]:
        """The names of the models that the server lists; empty if it lists none."""
        import httpx

        # Asked for a refusal's words alone: whatever goes wrong here says nothing more.
        with contextlib.suppress(httpx.HTTPError, TimeoutError, TryAgain):
            async with asyncio.timeout(_ASIDE_S):
                async with self._client.stream("GET", f"{self.url}/models") as response:
                    return read_models(await self._content(response))
        return []

    async def _content(self, response: httpx.Response) -> bytes:
        """The body, up to `_LONGEST_BODY`."""
        content = bytearray()
        async with aclosing(self._parts(response)) as parts:
            async for part in parts:
                content += part
                if len(content) > _LONGEST_BODY:
                    break
        return bytes(content[:_LONGEST_BODY])

    async def _parts(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """The body as it comes. TryAgain if it stops coming."""
        parts = response.aiter_bytes()
        # Before the first byte the server may compute, or let the request queue.
        limit_s = None
        while True:
            try:
                async with asyncio.timeout(limit_s):
                    part = await anext(parts, None)
            except TimeoutError:
                raise TryAgain(f"silent for {self.silence_s:g} s amid its answer") from None
            if part is None:
                return
            yield part
            limit_s = self.silence_s

    def _note_model(self, model: str | None) -> None:
        """Say once where a server answers by another model than was asked for."""
        if model is None or model == self.model or model in self._named_models:
            return
        self._named_models.add(model)
        # `gpt-4o` is answered by `gpt-4o-2024-08-06`, a path by its last part.
        if model.startswith(self.model) or self.model.endswith(model):
            return
        self.say(f"{self.label}: asked for {self.model}, it says that {model} answers")
