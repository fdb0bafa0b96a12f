"""One reply, piece by piece: tokens to text, text to thought, content and calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from linn.chat.codec import Codec
from linn.chat.stream import Delta, ReplyStream, StopStrings, TextStream
from linn.chat.template import Tools
from linn.engine.protocol import Streams, Token
from linn.types import Sampling, ToolCall


@dataclass(frozen=True)
class Ask:
    """One reply that is asked for."""

    ids: tuple[int, ...]
    """The prompt."""
    how: Sampling
    """How it is sampled; its stops are ids."""
    seed: int
    """Decides its draws."""
    stops: tuple[str, ...] = ()
    """Strings that end it, and are no part of it."""
    chat: bool = True
    """Whether thought and calls are read out of its text."""
    thinking: bool = True
    """The mode in which it was asked for."""
    tools: Tools = ()
    """What it may call."""


@dataclass(frozen=True)
class Piece:
    """What came at once of a reply."""

    tokens: tuple[Token, ...]
    """Tokens, the one that ended the turn included."""
    text: str
    """Their text, as far as it is certain."""
    delta: Delta
    """What of the text is thought, content and calls."""
    finish: str | None = None
    """In the last piece: `stop`, `length` or `tool_calls`."""


async def reply(
    streams: Streams, codec: Codec, ask: Ask, is_whole: bool = False
) -> AsyncGenerator[Piece, None]:
    """The pieces of a reply. Who closes this generator drops the request.

    `is_whole`: nobody reads it before its end.
    """
    text = TextStream(codec.tokenizer)
    stops = StopStrings(ask.stops)
    reading = ReplyStream(codec.template, ask.thinking, ask.tools)
    finish = "length"
    # Stop strings are found here, and free a row: so tokens are told as they come.
    at_end = is_whole and not ask.stops
    async with aclosing(streams.stream(ask.ids, ask.how, ask.seed, at_end)) as stream:
        async for new in stream:
            used = len(new)
            ids = [token.id for token in new]
            # The token that ends a turn is counted, and is no part of its text.
            if ids[-1] in ask.how.stop:
                finish = "stop"
                ids.pop()
            if not ask.stops:
                told = text.feed(ids)
            else:
                told, used = _up_to_stop(text, stops, ids, used)
            delta = reading.feed(told) if ask.chat else Delta()
            yield Piece(tuple(new[:used]), told, delta)
            if stops.found:
                break

    # At the end nothing more can come: what was held back is text.
    told = stops.feed(text.finish())
    told += stops.finish()
    if stops.found:
        finish = "stop"
    delta = Delta()
    if ask.chat:
        first, last = reading.feed(told), reading.finish()
        delta = Delta(first.thought + last.thought, first.content + last.content, last.calls)
    if delta.calls and finish == "stop":
        finish = "tool_calls"
    yield Piece((), told, delta, finish)


def _up_to_stop(
    text: TextStream, stops: StopStrings, ids: Sequence[int], used: int
) -> tuple[str, int]:
    """(text of `ids` up to a stop string, tokens that it took; `used` where there is none)."""
    told = ""
    # Token by token: those behind a stop string are no part of the reply.
    for place, one in enumerate(ids, 1):
        told += stops.feed(text.feed([one]))
        if stops.found:
            return told, place
    return told, used


@dataclass
class Whole:
    """A reply, all pieces together."""

    tokens: list[Token] = field(default_factory=list)
    """Its tokens."""
    text: str = ""
    """Their text."""
    thought: str = ""
    """Its thought."""
    content: str = ""
    """Its content."""
    calls: tuple[ToolCall, ...] = ()
    """Its calls."""
    finish: str = ""
    """Why it ended."""

    def add(self, piece: Piece) -> None:
        """The next piece."""
        self.tokens += piece.tokens
        self.text += piece.text
        self.thought += piece.delta.thought
        self.content += piece.delta.content
        self.calls += piece.delta.calls
        self.finish = piece.finish or self.finish


async def whole(streams: Streams, codec: Codec, ask: Ask) -> Whole:
    """A reply at once."""
    gathered = Whole()
    async with aclosing(reply(streams, codec, ask, is_whole=True)) as pieces:
        async for piece in pieces:
            gathered.add(piece)
    return gathered


async def wholes(streams: Streams, codec: Codec, asks: Sequence[Ask]) -> list[Whole]:
    """Several replies at once; the first error ends them all."""
    tasks = [asyncio.create_task(whole(streams, codec, ask)) for ask in asks]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        await _end(tasks)


async def side_by_side(
    streams: Streams, codec: Codec, asks: Sequence[Ask]
) -> AsyncGenerator[list[tuple[int, Piece]], None]:
    """Pieces of several replies, each with its reply's number: all that came since the last."""
    # Bounded: a client that reads slowly must not fill the memory.
    came: asyncio.Queue[tuple[int, Piece] | Exception] = asyncio.Queue(64)

    async def pump(index: int, ask: Ask) -> None:
        try:
            async with aclosing(reply(streams, codec, ask)) as pieces:
                async for piece in pieces:
                    await came.put((index, piece))
        except Exception as error:
            await came.put(error)

    # Side by side, so that siblings share a prefill.
    tasks = [asyncio.create_task(pump(index, ask)) for index, ask in enumerate(asks)]
    left = len(tasks)
    try:
        while left:
            new = [await came.get()]
            while not came.empty():
                new.append(came.get_nowait())
            pieces: list[tuple[int, Piece]] = []
            for one in new:
                if isinstance(one, Exception):
                    # What came before it is told before it.
                    if pieces:
                        yield pieces
                    raise one
                pieces.append(one)
                left -= one[1].finish is not None
            yield pieces
    finally:
        await _end(tasks)


async def _end(tasks: Sequence[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
