"""SFT rows: `messages` in OpenAI style, reasoning inline, calls as JSON or XML, tools in a field or in the system text (paper §10.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linn.chat import render as chat
from linn.chat.request import to_messages
from linn.chat.tool_calls import CALL, CALL_END, decoded, read_calls
from linn.data.definitions import Signatures, of_field
from linn.data.rows import BadRow
from linn.errors import UserError
from linn.types import Message, ToolCall

_RESULT = re.compile(rf"{chat.RESULT}\n?(.*?)\n?{chat.RESULT_END}", re.DOTALL)
_RESULTS = re.compile(
    rf"\s*(?:{chat.RESULT}(?:(?!{chat.RESULT}|{chat.RESULT_END}).)*{chat.RESULT_END}\s*)+",
    re.DOTALL,
)
"""Nothing but results, none within another."""
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True)
class Conversation:
    """One row."""

    messages: tuple[Message, ...]
    """Turns in order; the last is the assistant's."""
    tools: tuple[Mapping[str, Any], ...]
    """Function definitions of the row's `tools` field."""
    thinking: bool
    """Whether the last turn opens with a thought."""
    domain: str
    """The row's `domain` or `category`, for metrics."""


def conversation(row: Mapping[str, Any]) -> Conversation:
    """One row as a conversation; BadRow names the field that is wrong. Nothing is repaired or guessed."""
    turns = _turns(row)
    tools = of_field(row.get("tools"))
    for i, turn in enumerate(turns):
        _check_turn(turn, f"messages[{i}]")
    if turns[-1]["role"] != "assistant":
        raise BadRow(
            f"messages[{len(turns) - 1}].role is {turns[-1]['role']!r}; the last turn must be the assistant's",
            "last turn not the assistant's",
        )
    placed = list(_results_apart(turns))
    try:
        messages = to_messages([turn for _, turn in placed], where="messages")
    except UserError as error:
        raise BadRow(str(error), "no content") from None
    _check_calls(placed, messages, tools)
    domain = row.get("domain") or row.get("category") or ""
    return Conversation(messages, tuple(tools), bool(messages[-1].reasoning), str(domain))


def _turns(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    turns = row.get("messages")
    if isinstance(turns, str):
        turns = decoded(turns)
    if not isinstance(turns, list) or not turns:
        raise BadRow(
            f"messages: expected a list of {{role, content}}; the row has {', '.join(map(str, row)) or 'nothing'}"[
                :200
            ],
            "no messages",
        )
    for i, turn in enumerate(turns):
        if not isinstance(turn, Mapping):
            raise BadRow(
                f"messages[{i}]: expected an object with role and content, found {type(turn).__name__}",
                "not a chat turn",
            )
        if turn.get("type") not in (None, "message"):
            raise BadRow(
                f"messages[{i}].type is {str(turn['type'])[:40]!r}; give turns of role and content",
                "not a chat turn",
            )
        if turn.get("role") not in _ROLES:
            raise BadRow(
                f"messages[{i}].role is {str(turn.get('role'))[:40]!r}; allowed: {', '.join(_ROLES)}",
                "unknown role",
            )
    return turns


def _check_turn(turn: Mapping[str, Any], where: str) -> None:
    """One turn by itself: content that is text, calls that can be read, a thought with both its ends."""
    content, role = turn.get("content"), turn["role"]
    calls = turn.get("tool_calls")
    if calls is not None and not isinstance(calls, list):
        raise BadRow(
            f"{where}.tool_calls: expected a list, found {type(calls).__name__}", "unreadable call"
        )
    if calls and role != "assistant":
        raise BadRow(
            f"{where}.tool_calls: only the assistant calls, found role {role!r}",
            "call by another than the assistant",
        )
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise BadRow(
                f"{where}.content: a part holds no text; the protocol knows text only", "no content"
            )
        content = "".join(map(str, texts))
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise BadRow(
            f"{where}.content: expected text, found {'null' if content is None else type(content).__name__}",
            "no content",
        )
    if mark := next((mark for mark in (chat.START, chat.END) if mark in content), None):
        raise BadRow(
            f"{where}.content holds {mark}, which only the chat template may write",
            "control token in the text",
        )
    if role == "user" and not content.strip():
        raise BadRow(f"{where}.content is empty", "no content")
    if role == "assistant":
        _check_assistant(turn, content, where)


def _check_assistant(turn: Mapping[str, Any], content: str, where: str) -> None:
    before, opened, _ = content.partition(chat.THINK)
    thought, closed, answer = content.rpartition(chat.THINK_END)
    if opened and not closed:
        raise BadRow(
            f"{where}.content: {chat.THINK} without {chat.THINK_END}", "thought without an end"
        )
    if opened and before.strip() and len(before) < len(thought):
        raise BadRow(
            f"{where}.content: text before {chat.THINK}; a turn opens with its thought",
            "text before the thought",
        )
    for key in ("reasoning_content", "reasoning"):
        told = turn.get(key)
        if told is not None and not isinstance(told, str):
            raise BadRow(
                f"{where}.{key}: expected text, found {type(told).__name__}", "unreadable reasoning"
            )
        if (
            told
            and told.strip()
            and closed
            and thought.removeprefix(before + opened).strip() != told.strip()
        ):
            raise BadRow(f"{where}.{key}: another thought stands in the content", "two thoughts")
    said = answer if closed else content
    if CALL in said or CALL_END in said:
        beside, _ = read_calls(said)
        if CALL in beside or CALL_END in beside:
            raise BadRow(f"{where}.content: a {CALL} that cannot be read", "unreadable call")
        if beside.strip() != said.partition(CALL)[0].strip():
            raise BadRow(
                f"{where}.content: text after a call; only another call may follow one",
                "prose after a call",
            )
    if not said.strip() and not turn.get("tool_calls"):
        raise BadRow(f"{where}.content: neither an answer nor a call", "no content")


def _results_apart(turns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(place in the row, turn). After calls, a user or tool turn of `<tool_response>` blocks and nothing else becomes a tool turn a block.

    So the released rows write results; as user turns they would end the step, and the thoughts before them would be cut and not trained.
    """
    called = False
    for i, turn in enumerate(turns):
        content = turn.get("content")
        if turn["role"] == "assistant":
            called = bool(turn.get("tool_calls")) or CALL in str(content)
        elif called and isinstance(content, str) and _RESULTS.fullmatch(content):
            for told in _RESULT.findall(content):
                yield i, {**turn, "role": "tool", "content": told}
            continue
        elif turn["role"] not in ("tool", "function"):
            called = False
        yield i, turn


def _check_calls(
    placed: Sequence[tuple[int, Mapping[str, Any]]],
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
) -> None:
    """Calls against definitions, results against calls."""
    signatures = Signatures(tools, [m.content for m in messages if m.role == "system"])
    open_calls: list[ToolCall] | None = None
    for (i, turn), message in zip(placed, messages, strict=True):
        where = f"messages[{i}]"
        if message.role == "tool":
            if not open_calls:
                raise BadRow(f"{where}: a tool turn answers no call", "tool turn without a call")
            ids = [call.id for call in open_calls]
            if (
                message.tool_call_id is not None
                and None not in ids
                and message.tool_call_id not in ids
            ):
                raise BadRow(
                    f"{where}.tool_call_id is {message.tool_call_id[:40]!r}; the open calls are {', '.join(map(str, ids))[:80]}",
                    "tool turn without a call",
                )
            open_calls.pop(ids.index(message.tool_call_id) if message.tool_call_id in ids else 0)
            continue
        open_calls = list(message.tool_calls)
        if message.role != "assistant":
            continue
        _written_once(turn, message, where)
        for j, call in enumerate(message.tool_calls):
            at = (
                f"{where}.tool_calls[{j}]"
                if turn.get("tool_calls")
                else f"{where}.content: call {j + 1}"
            )
            signatures.check_call(call, at)


def _written_once(turn: Mapping[str, Any], message: Message, where: str) -> None:
    """Calls of `tool_calls` have names, and the content holds no others."""
    field = turn.get("tool_calls") or []
    told = (
        to_messages([{"role": "assistant", "content": turn.get("content") or ""}])[0].tool_calls
        if field
        else ()
    )
    if told and [(c.name, c.arguments) for c in told] != [
        (c.name, c.arguments) for c in message.tool_calls
    ]:
        raise BadRow(f"{where}: calls in content and others in tool_calls", "unreadable call")
    for j, entry in enumerate(field):
        function = entry.get("function", entry) if isinstance(entry, Mapping) else None
        if (
            not isinstance(function, Mapping)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise BadRow(
                f"{where}.tool_calls[{j}].function.name: expected the name of a function",
                "unreadable call",
            )
