"""A judge behind an OpenAI-compatible endpoint: `POST …/chat/completions`, many at a time, patient with a busy server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from linn.errors import InfrastructureError
from linn.judges.panel import JUDGE_SAMPLING, answer_of
from linn.types import Message, Sampling

if TYPE_CHECKING:
    import httpx

_TRIES = 6
"""Requests for one answer before the endpoint counts as down."""
_LONGEST_WAIT_S = 60.0
"""Between two tries, whatever the server asks for."""
_LONGEST = 16 << 20
"""Bytes of a reply that are read; a longer one is no chat completion."""


@dataclass(frozen=True)
class EndpointJudge:
    """A model served elsewhere. Timeouts, hang-ups, 429 and 5xx are tried again with growing pauses; other refusals are final."""

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
    """Before the second try; doubles with every further one."""

    def answer(self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]) -> list[str]:
        """See `Judge`. InfrastructureError names the URL and what the server last did."""
        return asyncio.run(self._all(conversations, seeds))

    async def _all(
        self, conversations: Sequence[Sequence[Message]], seeds: Sequence[int]
    ) -> list[str]:
        import httpx

        room = asyncio.Semaphore(self.concurrency)
        limits = httpx.Limits(
            max_connections=self.concurrency, max_keepalive_connections=self.concurrency
        )
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        async with httpx.AsyncClient(
            headers=headers, limits=limits, timeout=None
        ) as client:  # one limit over the whole request, below

            async def one(messages: Sequence[Message], seed: int) -> str:
                async with room:
                    return await self._ask(client, messages, seed)

            tasks = [
                asyncio.ensure_future(one(m, seed))
                for m, seed in zip(conversations, seeds, strict=True)
            ]
            try:
                return list(await asyncio.gather(*tasks))
            except BaseException:
                for task in tasks:
                    task.cancel()
                raise

    async def _ask(self, client: httpx.AsyncClient, messages: Sequence[Message], seed: int) -> str:
        import httpx

        body = {
            "model": self.model, "messages": [{"role": m.role, "content": m.content} for m in messages], "seed": seed % 2**31,
            "temperature": self.how.temperature, "top_p": self.how.top_p, "max_tokens": self.how.max_tokens,
        }  # fmt: skip
        pause, cause = self.pause_s, ""
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(min(pause, _LONGEST_WAIT_S))
                pause = self.pause_s * 2**attempt
            try:
                async with asyncio.timeout(self.timeout_s):
                    reply, said = await _post(
                        client, f"{self.url.rstrip('/')}/chat/completions", _sendable(body)
                    )
            except TimeoutError:
                cause = f"no answer within {self.timeout_s:g} s"
                continue
            except (httpx.TransportError, httpx.DecodingError) as error:
                cause = f"{type(error).__name__}: {error}".rstrip(": ")
                continue
            except (httpx.InvalidURL, UnicodeError) as error:
                raise InfrastructureError(
                    f"judge {self.url}: no usable address ({error})"
                ) from None
            if reply.status_code == 429 or reply.status_code >= 500:
                cause = f"status {reply.status_code}: {_excerpt(said)}"
                pause = max(pause, _seconds(reply.headers.get("retry-after")))
                continue
            if reply.status_code != 200:
                raise InfrastructureError(
                    f"judge {self.url}: refused with status {reply.status_code}: {_excerpt(said)}"
                )
            text = _answer(said)
            if text is not None:
                return text
            cause = f"no chat completion, but {_excerpt(said)!r}"
        raise InfrastructureError(
            f"judge {self.url}: {cause} ({_TRIES} tries); start it again, then give the same command again"
        )


async def _post(client: httpx.AsyncClient, url: str, body: Any) -> tuple[httpx.Response, bytes]:
    """The response and as much of its body as is read."""
    said = bytearray()
    async with client.stream("POST", url, json=body) as reply:
        async for part in reply.aiter_bytes():
            said += part
            if len(said) > _LONGEST:
                break
    return reply, bytes(said[:_LONGEST])


def _answer(said: bytes) -> str | None:
    """The answer of a chat completion, empty where it was cut off; None where the body is none."""
    try:
        choice = json.loads(said)["choices"][0]
        content = choice["message"].get("content")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None
    if isinstance(content, list):
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if content is not None and not isinstance(content, str):
        return None
    return "" if content is None or choice.get("finish_reason") == "length" else answer_of(content)


def _sendable(value: Any) -> Any:
    """Halves of surrogate pairs, which a model may write and JSON over UTF-8 cannot carry, become `?`."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {key: _sendable(inner) for key, inner in value.items()}
    return [_sendable(inner) for inner in value] if isinstance(value, list) else value


def _excerpt(said: bytes) -> str:
    return " ".join(said[:2000].decode(errors="replace").split())[:200] or "nothing more"


def _seconds(header: str | None) -> float:
    """A `Retry-After` in seconds; its date form is not read."""
    return float(header) if header is not None and header.isdecimal() else 0.0
