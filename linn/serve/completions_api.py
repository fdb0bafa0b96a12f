"""`/v1/completions`: texts continued, and texts scored (`echo` with `logprobs`)."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from linn.engine.protocol import Token
from linn.serve.errors import ApiError
from linn.serve.generate import Ask, Piece, Whole, side_by_side, wholes
from linn.serve.models import Served
from linn.serve.requests import CompletionRequest
from linn.serve.wire import DONE, TokenTexts, event, new_id, usage


class CompletionAnswer:
    """The answer to one completion request."""

    def __init__(self, request: CompletionRequest, served: Served, asks: Sequence[Ask]) -> None:
        """Raises ApiError for what goes together with a stream no more than with the protocol."""
        if request.stream and request.echo:
            raise ApiError(400, "echo is not streamed", "echo", "unsupported")
        if request.max_tokens == 0 and not request.echo:
            raise ApiError(400, "max_tokens: 0 makes sense with echo alone", "max_tokens")
        self.request = request
        self.served = served
        self.asks = asks
        self._texts = TokenTexts(served.codec, request.return_tokens_as_token_ids)
        self._head = {
            "id": new_id("cmpl-"),
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }

    async def whole(self) -> tuple[dict[str, Any], int]:
        """(the object, tokens made)."""
        replies = [Whole(finish="length") for _ in self.asks]
        if self.request.max_tokens:
            replies = await wholes(self.served.streams, self.served.codec, self.asks)
        # Scored one after the other: each takes a forward over the whole text.
        prompts = [await self._prompt(ask) for ask in self.asks]
        choices = []
        for index, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            choices.append(self._choice(index, prompt, reply))
        made = sum(len(reply.tokens) for reply in replies)
        return {**self._head, "choices": choices, "usage": usage(self.asks, made)}, made

    async def _prompt(self, ask: Ask) -> list[Token]:
        """The prompt's tokens with log-probs, where they are told."""
        if not self.request.echo:
            return []
        if self.request.logprobs is None:
            return [Token(one, 0.0) for one in ask.ids]
        return await self.served.streams.score(ask.ids, ask.how.top)

    def _choice(self, index: int, prompt: Sequence[Token], reply: Whole) -> dict[str, Any]:
        before = self.served.codec.decode([token.id for token in prompt])
        choice: dict[str, Any] = {
            "index": index,
            "text": before + reply.text,
            "logprobs": None,
            "finish_reason": reply.finish,
        }
        if self.request.logprobs is not None:
            choice["logprobs"] = self._logprobs([*prompt, *reply.tokens], 0, bool(prompt))
        if self.request.return_token_ids:
            choice["token_ids"] = [token.id for token in reply.tokens]
            choice["prompt_token_ids"] = list(self.asks[index].ids)
        return choice

    def _logprobs(self, tokens: Sequence[Token], offset: int, is_start: bool) -> dict[str, Any]:
        """As the protocol has them: `offset` is where in the text they begin."""
        texts: list[str] = []
        offsets: list[int] = []
        values: list[float | None] = []
        tops: list[dict[str, float] | None] = []
        for place, token in enumerate(tokens):
            text = self._texts.text(token.id)
            texts.append(text)
            offsets.append(offset)
            offset += len(text)
            # Nothing precedes the first token of a text: it has no probability.
            if is_start and place == 0:
                values.append(None)
                tops.append(None)
                continue
            values.append(max(token.logprob, -9999.0))
            likely = {self._texts.text(one): value for one, value in token.top}
            # The sampled one is among them, whatever its rank.
            tops.append(likely | {text: max(likely.get(text, token.logprob), token.logprob)})
        return {
            "tokens": texts,
            "token_logprobs": values,
            "top_logprobs": tops if self.request.logprobs else None,
            "text_offset": offsets,
        }

    async def events(self) -> AsyncGenerator[tuple[bytes, int], None]:
        """(what is sent, tokens made since the last)."""
        made = 0
        offsets = [0] * len(self.asks)
        pieces = side_by_side(self.served.streams, self.served.codec, self.asks)
        async with aclosing(pieces):
            async for new in pieces:
                sent, tokens = b"", 0
                for index, piece in new:
                    sent += self._chunk(index, piece, offsets[index])
                    tokens += len(piece.tokens)
                    offsets[index] += len(piece.text)
                yield sent, tokens
                made += tokens
        options = self.request.stream_options
        if options is not None and options.include_usage:
            yield event({**self._head, "choices": [], "usage": usage(self.asks, made)}), 0
        yield DONE, 0

    def _chunk(self, index: int, piece: Piece, offset: int) -> bytes:
        """A piece as it is sent, if it says anything; `offset`: where its text begins."""
        if not (piece.text or piece.finish or self.request.logprobs is not None):
            return b""
        choice: dict[str, Any] = {
            "index": index,
            "text": piece.text,
            "logprobs": None,
            "finish_reason": piece.finish,
        }
        if self.request.logprobs is not None and piece.tokens:
            choice["logprobs"] = self._logprobs(piece.tokens, offset, False)
        if self.request.return_token_ids:
            choice["token_ids"] = [token.id for token in piece.tokens]
        return event({**self._head, "choices": [choice]})
