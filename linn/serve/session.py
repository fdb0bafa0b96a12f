"""A conversation with a model, whoever shows it: history, replies in pieces, the loop of tools."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from linn import files
from linn.chat.codec import Codec
from linn.chat.stream import Delta
from linn.engine.protocol import Streams
from linn.errors import UserError
from linn.serve.functions import Functions
from linn.serve.generate import Ask, reply
from linn.serve.wire import chat_call
from linn.types import Message, Prompt, Sampling, ToolCall

MOST_STEPS = 16
"""Rounds of calls in one answer, so that a model that calls for ever comes to an end."""

_STOPPED = "error: the user stopped it"
"""The result of a call that was not carried out."""


@dataclass(frozen=True)
class Part:
    """What a reply adds, and in the last part how it ended."""

    delta: Delta
    """Thought, content and calls."""
    finish: str | None = None
    """`stop`, `length` or `tool_calls` in the last part."""
    tokens: int = 0
    """Tokens that this part brought; 0 where nobody counts them."""


class Speaker(Protocol):
    """Who answers: a checkpoint or a server."""

    def say(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        thinking: bool,
        how: Sampling,
        seed: int,
    ) -> AsyncGenerator[Part, None]:
        """The parts of the next turn. Who closes this generator gives the reply up."""
        ...


class Checkpoint:
    """A checkpoint that speaks by its template."""

    def __init__(self, streams: Streams, codec: Codec, context: int) -> None:
        self._streams = streams
        self._codec = codec
        self._context = context

    async def say(
        self,
        messages: Sequence[Message],
        tools: Sequence[dict[str, Any]],
        thinking: bool,
        how: Sampling,
        seed: int,
    ) -> AsyncGenerator[Part, None]:
        """See `Speaker`; UserError where the conversation has grown over the context."""
        prompt = Prompt("chat", "", tuple(messages), thinking, tuple(tools))
        ids = self._codec.prompt_ids(prompt)
        room = self._context - len(ids)
        if room < 1:
            raise UserError(
                f"the conversation has {len(ids)} tokens and the model takes {self._context}; "
                "/clear begins anew"
            )
        how = replace(how, max_tokens=min(how.max_tokens, room), stop=self._codec.stops)
        ask = Ask(tuple(ids), how, seed, thinking=thinking, tools=tools)
        async with aclosing(reply(self._streams, self._codec, ask)) as pieces:
            async for piece in pieces:
                yield Part(piece.delta, piece.finish, len(piece.tokens))


@dataclass(frozen=True)
class Step:
    """Something that happened in an answer."""

    kind: str
    """`thought`, `content`, `call`, `result`, `end` or `cut`."""
    text: str = ""
    """Its text; of `end` and `cut`, why."""
    call: ToolCall | None = None
    """Of a call, and of its result."""
    tokens: int = 0
    """Sampled since the last step."""


class Session:
    """A conversation: what was said, and in which mode and with which tools it goes on."""

    def __init__(
        self,
        speaker: Speaker,
        how: Sampling,
        system: str = "",
        functions: Functions | None = None,
        thinking: bool = True,
        seed: int | None = None,
    ) -> None:
        """`seed`: of all replies; None: one that nobody knows."""
        self._speaker = speaker
        self._functions = functions
        self._seed = secrets.randbits(48) if seed is None else seed
        self._count = 0
        self.how = how
        self.system = system
        self.thinking = thinking
        self.messages: list[Message] = []
        """What was said, the system text aside."""

    @property
    def tools(self) -> list[dict[str, Any]]:
        """Definitions that the model is shown."""
        return [dict(one) for one in self._functions.definitions] if self._functions else []

    # ------------------------------------------------------------ turns

    async def ask(self, text: str) -> AsyncGenerator[Step, None]:
        """The user says something, and the model answers, calls included.

        Who closes this generator in the middle keeps what the model has said so far. What cannot
        be asked (UserError: it is too long, say) is not part of the conversation.
        """
        before = list(self.messages)
        # Many templates refuse two turns of the user in a row: one that got no answer goes along.
        if before and before[-1].role == "user":
            text = f"{self.messages.pop().content}\n\n{text}"
        self.messages.append(Message("user", text))
        asked = len(self.messages)
        try:
            async with aclosing(self._answer()) as steps:
                async for step in steps:
                    yield step
        except UserError:
            if len(self.messages) == asked:
                self.messages = before
            raise

    async def retry(self) -> AsyncGenerator[Step, None]:
        """Another answer to what the user said last; UserError where that was nothing."""
        places = [i for i, message in enumerate(self.messages) if message.role == "user"]
        if not places:
            raise UserError("nothing was said yet")
        del self.messages[places[-1] + 1 :]
        async with aclosing(self._answer()) as steps:
            async for step in steps:
                yield step

    async def _answer(self) -> AsyncGenerator[Step, None]:
        for _ in range(MOST_STEPS):
            calls: tuple[ToolCall, ...] = ()
            async with aclosing(self._turn()) as steps:
                async for step in steps:
                    yield step
            calls = self.messages[-1].tool_calls
            # Definitions alone: whoever reads this answers the call.
            if not calls or self._functions is None or not self._functions.runs:
                return
            done = 0
            try:
                for call in calls:
                    result = await asyncio.to_thread(self._functions.call, call)
                    self.messages.append(Message("tool", result, tool_call_id=call.id))
                    done += 1
                    yield Step("result", result, call)
            finally:
                # Stopped in between: servers refuse a history with a call that has no result.
                for call in calls[done:]:
                    self.messages.append(Message("tool", _STOPPED, tool_call_id=call.id))
        yield Step("cut", f"{MOST_STEPS} rounds of calls")

    async def _turn(self) -> AsyncGenerator[Step, None]:
        """One turn of the model, which is in the history at its end, however it ends."""
        # Another seed for every turn, so that a retry says something else.
        self._count += 1
        thought, content = "", ""
        calls: tuple[ToolCall, ...] = ()
        history = list(self.messages)
        if self.system:
            history.insert(0, Message("system", self.system))
        saying = self._speaker.say(
            history, self.tools, self.thinking, self.how, self._seed + self._count
        )
        try:
            async with aclosing(saying) as parts:
                async for part in parts:
                    thought += part.delta.thought
                    content += part.delta.content
                    calls += part.delta.calls
                    if part.delta.thought:
                        yield Step("thought", part.delta.thought, tokens=part.tokens)
                    if part.delta.content or (part.tokens and not part.delta.thought):
                        yield Step("content", part.delta.content, tokens=part.tokens)
                    for call in part.delta.calls:
                        yield Step("call", call=call)
                    if part.finish is not None:
                        yield Step("end", part.finish)
        finally:
            # Also where the user stopped it: the model goes on from what was seen.
            said = Message("assistant", content, thought or None, calls)
            if content or thought or calls:
                self.messages.append(said)

    # ------------------------------------------------------------ the whole

    def clear(self) -> None:
        """Forget what was said."""
        self.messages = []

    def save(self, path: Path) -> None:
        """Write the conversation as a row that `linn render` and `linn data` read.

        UserError where the file cannot be written.
        """
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": self.system})
        for message in self.messages:
            messages.append(_row_of(message))
        row: dict[str, Any] = {"messages": messages}
        if self._functions:
            row["tools"] = self.tools
        row["chat_template_kwargs"] = {"enable_thinking": self.thinking}
        try:
            files.write_jsonl(path, [row])
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; take another file") from None


def _row_of(message: Message) -> dict[str, Any]:
    row: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning:
        row["reasoning_content"] = message.reasoning
    if message.tool_calls:
        row["tool_calls"] = [chat_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    return row
