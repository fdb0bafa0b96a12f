"""A model behind an OpenAI-compatible server as one that speaks in a conversation."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from linn.chat.stream import Delta
from linn.endpoint.answer import CallPart, calls_of
from linn.endpoint.client import Endpoint
from linn.serve.session import Part
from linn.types import Message, Sampling


class Remote:
    """See `linn.serve.session.Speaker`; within `async with endpoint` alone."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def say(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        thinking: bool,
        how: Sampling,
        seed: int,
    ) -> AsyncGenerator[Part, None]:
        """See `Speaker`. The server counts tokens, and only at the end."""
        # A server that does not know the key passes it over, or refuses it by name.
        extra = None if thinking else {"chat_template_kwargs": {"enable_thinking": False}}
        finish = "stop"
        calls: list[CallPart] = []
        saying = self._endpoint.stream(messages, how, seed, tools or None, extra)
        async with aclosing(saying) as pieces:
            async for piece in pieces:
                calls += piece.calls
                finish = piece.finish_reason or finish
                tokens = piece.completion_tokens or 0
                yield Part(Delta(piece.reasoning, piece.content), tokens=tokens)
        yield Part(Delta(calls=calls_of(calls)), finish)
