"""What a served model answers: whole, or piece by piece."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

from linn.chat.tool_calls import arguments_of
from linn.types import Message, ToolCall


@dataclass(frozen=True)
class TokenLogprob:
    """One token of an answer, as the server tells of it."""

    token: str
    """Its text."""
    logprob: float
    """Its log-prob under the server's distribution; servers differ in whether it is tempered."""


@dataclass(frozen=True)
class Answer:
    """One assistant turn."""

    content: str = ""
    """Its text as the server gives it, which may hold a thought where the server parses none out;
    empty where there is none."""
    reasoning: str | None = None
    """Its thought, where the server tells thoughts and text apart."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Its calls, in order; arguments that are no JSON object stay text."""
    finish_reason: str | None = None
    """The server's word: `stop`, `length` (cut off), `tool_calls`, `content_filter`, …"""
    model: str | None = None
    """The model that answered, by the server's account."""
    prompt_tokens: int | None = None
    """Tokens of the prompt, where the server counts them."""
    completion_tokens: int | None = None
    """Tokens of the answer, its thought included, where the server counts them."""
    logprobs: tuple[TokenLogprob, ...] | None = None
    """One entry per token of the answer, where they were asked for and the server gives them."""

    @property
    def is_cut_off(self) -> bool:
        """Whether a limit of tokens came before its end."""
        return self.finish_reason == "length"

    @property
    def message(self) -> Message:
        """It as a turn of a conversation."""
        return Message("assistant", self.content, self.reasoning, self.tool_calls)


@dataclass(frozen=True)
class CallPart:
    """A piece of a tool call; the pieces of equal `index` make one call."""

    index: int
    """Which call of the turn, from 0."""
    id: str | None = None
    """Comes once, mostly with the first piece."""
    name: str = ""
    """A piece of the function's name; mostly all of it, with the first piece."""
    arguments: str = ""
    """A piece of the JSON text of its arguments."""


@dataclass(frozen=True)
class Delta:
    """A piece of an answer."""

    content: str = ""
    """More of the text."""
    reasoning: str = ""
    """More of the thought."""
    calls: tuple[CallPart, ...] = ()
    """More of the calls."""
    finish_reason: str | None = None
    """With the last piece: see `Answer`."""
    model: str | None = None
    """See `Answer`."""
    prompt_tokens: int | None = None
    """See `Answer`; mostly with the last piece."""
    completion_tokens: int | None = None
    """See `Answer`; mostly with the last piece."""
    logprobs: tuple[TokenLogprob, ...] = ()
    """Those of the tokens of this piece."""

    @property
    def is_empty(self) -> bool:
        """Whether it brings nothing, as a first piece that only names the role."""
        brings = (self.content, self.reasoning, self.calls, self.logprobs, self.finish_reason)
        return not any(brings) and self.completion_tokens is None

    @staticmethod
    def of(answer: Answer) -> Delta:
        """A whole answer as the only piece."""
        calls = []
        for index, call in enumerate(answer.tool_calls):
            arguments = call.arguments
            if not isinstance(arguments, str):
                arguments = json.dumps(arguments, ensure_ascii=False)
            calls.append(CallPart(index, call.id, call.name, arguments))
        return Delta(
            content=answer.content,
            reasoning=answer.reasoning or "",
            calls=tuple(calls),
            finish_reason=answer.finish_reason,
            model=answer.model,
            prompt_tokens=answer.prompt_tokens,
            completion_tokens=answer.completion_tokens,
            logprobs=answer.logprobs or (),
        )


_SAID_ONCE = ("finish_reason", "model", "prompt_tokens", "completion_tokens")
"""What pieces say of the answer as a whole; the last word counts."""


async def whole(deltas: AsyncIterator[Delta]) -> Answer:
    """The answer that the pieces make."""
    content, reasoning = [], []
    parts: list[CallPart] = []
    logprobs: list[TokenLogprob] = []
    known: dict[str, Any] = {}
    async for delta in deltas:
        content.append(delta.content)
        reasoning.append(delta.reasoning)
        parts += delta.calls
        logprobs += delta.logprobs
        for name in _SAID_ONCE:
            value = getattr(delta, name)
            if value is not None:
                known[name] = value

    return Answer(
        content="".join(content),
        reasoning="".join(reasoning) or None,
        tool_calls=calls_of(parts),
        logprobs=tuple(logprobs) or None,
        **known,
    )


def calls_of(parts: Sequence[CallPart]) -> tuple[ToolCall, ...]:
    """The calls that the pieces make, in the order of their indices."""
    # Pieces of several calls may alternate.
    pieces: dict[int, list[CallPart]] = {}
    for part in parts:
        pieces.setdefault(part.index, []).append(part)
    return tuple(_call(pieces[index]) for index in sorted(pieces))


def _call(parts: list[CallPart]) -> ToolCall:
    """One call of its pieces, in the order in which they came."""
    name = "".join(part.name for part in parts)
    written = "".join(part.arguments for part in parts)

    # Some servers repeat the id with every piece, so it is not put together.
    identity = None
    for part in parts:
        if part.id is not None:
            identity = part.id
            break
    return ToolCall(name, arguments_of(written), identity)
