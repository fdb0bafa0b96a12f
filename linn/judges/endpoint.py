"""A judge behind an OpenAI-compatible endpoint: many requests at once, patient with a busy one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linn.chat.render import answer_of
from linn.chat.turns import content_text
from linn.errors import InfrastructureError, task_group
from linn.judges.model import JUDGE_SAMPLING
from linn.types import Message, Sampling

if TYPE_CHECKING:
    import httpx

_TRIES = 6
"""Requests for one answer before the endpoint counts as down."""
_LONGEST_WAIT_S = 60.0
"""Longest pause between two tries, whatever the server asks for."""
_LONGEST_BODY = 16 << 20
"""Bytes of a response that are read; a longer one is not a chat completion."""


class _TryAgain(Exception):
    """This try failed in a way that the next one may not: the server is busy, starting or gone."""

    def __init__(self, cause: str, wait_s: float = 0.0) -> None:
        super().__init__(cause)
        self.wait_s = wait_s
        """Seconds that the server asks to be left alone."""


@dataclass(frozen=True)
class EndpointJudge:
    """A model served elsewhere.

    Timeouts, hang-ups, 429 and 5xx are tried again with growing pauses; other refusals are final.
    """

    url: str
    """Up to and with the version, e.g. `http://127.0.0.1:8000/v1`."""
    model: str
    """The name that the server knows it by."""
    how: Sampling = JUDGE_SAMPLING
    """Temperature, top-p and the limit of tokens, reasoning included."""
    retries: int = 3
    """See `Judge`."""
    concurrency: int = 64
    """Requests under way at once, at most."""
    timeout_s: float = 1800.0
    """Seconds that one request may take."""
    key: str | None = field(default=None, repr=False)
    """Sent as a bearer token."""
    pause_s: float = 1.0
    """Pause before the second try; it doubles with every further one."""

    async def answer(
        self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]
    ) -> list[str]:
        """See `Judge`. InfrastructureError names the URL and what the server last did."""
        import httpx

        # Connections are kept, since each question may take several requests.
        slots = asyncio.Semaphore(self.concurrency)
        limits = httpx.Limits(
            max_connections=self.concurrency,
            max_keepalive_connections=self.concurrency,
        )
        headers = {}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"

        # A question keeps its slot through all tries, so that a busy server is not asked more.
        async def answer_to(messages: Sequence[Message], seed: int) -> str:
            async with slots:
                return await self._ask(client, messages, seed)

        # No limit of httpx's own: `_try` limits the whole request.
        client = httpx.AsyncClient(headers=headers, limits=limits, timeout=None)
        tasks = []
        async with client, task_group() as group:
            for messages, seed in zip(conversations, seeds, strict=True):
                tasks.append(group.create_task(answer_to(messages, seed)))
        return [task.result() for task in tasks]

    async def _ask(self, client: httpx.AsyncClient, messages: Sequence[Message], seed: int) -> str:
        """The answer to one conversation, after as many tries as it takes and is allowed."""
        body = {
            "model": self.model,
            "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
            "seed": seed % 2**31,  # servers take no more than 32 bits
            "temperature": self.how.temperature,
            "top_p": self.how.top_p,
            "max_tokens": self.how.max_tokens,
        }

        # The pause doubles with each try, unless the server asks for a longer one.
        cause, wait_s = "", 0.0
        for attempt in range(_TRIES):
            if attempt:
                pause = max(self.pause_s * 2 ** (attempt - 1), wait_s)
                await asyncio.sleep(min(pause, _LONGEST_WAIT_S))
            try:
                return await self._try(client, _sendable(body))
            except _TryAgain as error:
                cause, wait_s = str(error), error.wait_s
        raise InfrastructureError(
            f"judge {self.url}: {cause} ({_TRIES} tries); "
            "start it again, then give the same command again"
        )

    async def _try(self, client: httpx.AsyncClient, body: Any) -> str:
        """One request. Raises _TryAgain or, if another try would not help, InfrastructureError."""
        import httpx

        url = f"{self.url.rstrip('/')}/chat/completions"
        try:
            async with asyncio.timeout(self.timeout_s):
                response, content = await _post(client, url, body)
        except TimeoutError:
            raise _TryAgain(f"no answer within {self.timeout_s:g} s") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            cause = f"{type(error).__name__}: {error}".rstrip(": ")
            raise _TryAgain(cause) from None
        except (httpx.InvalidURL, UnicodeError) as error:
            raise InfrastructureError(f"judge {self.url}: no usable address ({error})") from None

        # Busy or starting (429, 5xx) passes by; any other refusal stays one.
        status = response.status_code
        excerpt = _excerpt(content)
        if status == 429 or status >= 500:
            wait_s = _seconds(response.headers.get("retry-after"))
            raise _TryAgain(f"status {status}: {excerpt}", wait_s)
        if status != 200:
            raise InfrastructureError(f"judge {self.url}: refused with status {status}: {excerpt}")

        answer = _answer(content)
        if answer is None:
            raise _TryAgain(f"no chat completion, but {excerpt!r}")
        return answer


async def _post(client: httpx.AsyncClient, url: str, body: Any) -> tuple[httpx.Response, bytes]:
    """The response, and its body up to `_LONGEST_BODY`."""
    content = bytearray()
    async with client.stream("POST", url, json=body) as response:
        async for part in response.aiter_bytes():
            content += part
            if len(content) > _LONGEST_BODY:
                break
    return response, bytes(content[:_LONGEST_BODY])


def _answer(body: bytes) -> str | None:
    """The answer of a chat completion, empty if it was cut off; None if `body` is not one."""
    try:
        choice = json.loads(body)["choices"][0]
        content = choice["message"].get("content")
        finish = choice.get("finish_reason")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None

    # Some servers answer in parts, as requests may be written.
    content = content_text(content, "message", skip_other_parts=True)
    if content is None:  # the limit came within the reasoning
        return ""
    if not isinstance(content, str):
        return None
    if finish == "length":
        return ""
    return answer_of(content)


def _sendable(value: Any) -> Any:
    """The value with every half of a surrogate pair as `?`.

    A model may write such halves; JSON over UTF-8 cannot carry them.
    """
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _sendable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_sendable(inner) for inner in value]
    return value


def _excerpt(body: bytes) -> str:
    words = body[:2000].decode(errors="replace").split()
    return " ".join(words)[:200] or "nothing more"


def _seconds(header: str | None) -> float:
    """A `Retry-After` in seconds; its date form is not read."""
    if header is None or not header.isdecimal():
        return 0.0
    return float(header)
