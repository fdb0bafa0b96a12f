"""`/v1/chat/completions`: answers whole and in pieces."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from linn.serve.generate import Ask, Piece, Whole, side_by_side, wholes
from linn.serve.models import Served
from linn.serve.requests import ChatRequest
from linn.serve.wire import DONE, TokenTexts, chat_call, event, new_id, token_fields, usage


class ChatAnswer:
    """The answer to one chat request."""

    def __init__(self, request: ChatRequest, served: Served, asks: Sequence[Ask]) -> None:
        self.request = request
        self.served = served
        self.asks = asks
        self._texts = TokenTexts(served.codec, request.return_tokens_as_token_ids)
        self._head = {
            "id": new_id("chatcmpl-"),
            "created": int(time.time()),
            "model": served.name,
        }

    async def whole(self) -> tuple[dict[str, Any], int]:
        """(the object, tokens made)."""
        replies = await wholes(self.served.streams, self.served.codec, self.asks)
        choices = [self._choice(index, reply) for index, reply in enumerate(replies)]
        made = sum(len(reply.tokens) for reply in replies)
        answer = {**self._head, "object": "chat.completion", "choices": choices}
        answer["usage"] = usage(self.asks, made)
        if self.request.return_token_ids:
            answer["prompt_token_ids"] = list(self.asks[0].ids)
        return answer, made

    def _choice(self, index: int, reply: Whole) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": reply.content}
        if reply.thought and self.request.include_reasoning:
            message["reasoning_content"] = reply.thought
        if reply.calls:
            message["content"] = reply.content or None
            message["tool_calls"] = [chat_call(call) for call in reply.calls]
        choice: dict[str, Any] = {
            "index": index,
            "message": message,
            "logprobs": None,
            "finish_reason": reply.finish,
        }
        if self.request.logprobs:
            choice["logprobs"] = {"content": self._texts.entries(reply.tokens), "refusal": None}
        if self.request.return_token_ids:
            message.update(token_fields(self.asks[index], reply))
            choice["token_ids"] = message["generation_token_ids"]
        return choice

    async def events(self) -> AsyncGenerator[tuple[bytes, int], None]:
        """(what is sent, tokens made since the last)."""
        # Clients take the role from the first piece, and only from there. It goes with the first
        # tokens: what fails before them is an error with a status of its own.
        sent = b"".join(self._first_chunk(index) for index in range(len(self.asks)))
        made = 0
        calls = [0] * len(self.asks)
        pieces = side_by_side(self.served.streams, self.served.codec, self.asks)
        async with aclosing(pieces):
            async for new in pieces:
                tokens = 0
                for index, piece in new:
                    sent += self._chunk(index, piece, calls[index])
                    tokens += len(piece.tokens)
                    calls[index] += len(piece.delta.calls)
                yield sent, tokens
                sent = b""
                made += tokens

        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield event({**self._chunk_of([]), "usage": usage(self.asks, made)}), 0
        yield DONE, 0

    @property
    def _tells_tokens(self) -> bool:
        return self.request.logprobs or self.request.return_token_ids

    def _delta(self, piece: Piece, calls: int) -> dict[str, Any]:
        delta: dict[str, Any] = {}
        if piece.delta.thought and self.request.include_reasoning:
            delta["reasoning_content"] = piece.delta.thought
        if piece.delta.content:
            delta["content"] = piece.delta.content
        if piece.delta.calls:
            numbered = enumerate(piece.delta.calls, calls)
            delta["tool_calls"] = [chat_call(call, index) for index, call in numbered]
        return delta

    def _first_chunk(self, index: int) -> bytes:
        delta = {"role": "assistant", "content": ""}
        chunk = self._chunk_of([_choice_of(index, delta)])
        if self.request.return_token_ids:
            chunk["prompt_token_ids"] = list(self.asks[index].ids)
        return event(chunk)

    def _chunk(self, index: int, piece: Piece, calls: int) -> bytes:
        """A piece as it is sent, if it says anything; `calls`: how many came before."""
        delta = self._delta(piece, calls)
        # Log-probs belong to tokens, whose text may still be held back.
        tells_tokens = bool(piece.tokens) and self._tells_tokens
        if not (delta or piece.finish or tells_tokens):
            return b""
        choice = _choice_of(index, delta, piece.finish)
        if self.request.logprobs and piece.tokens:
            entries = self._texts.entries(piece.tokens)
            choice["logprobs"] = {"content": entries, "refusal": None}
        if self.request.return_token_ids:
            choice["token_ids"] = [token.id for token in piece.tokens]
        return event(self._chunk_of([choice]))

    def _chunk_of(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}


def _choice_of(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}
