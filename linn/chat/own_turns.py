"""Messages as chat templates take them: dictionaries of role, content, calls and ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from linn.chat.probe import Form, Turn
from linn.errors import UserError
from linn.types import Message, ToolCall

REMEDY = "template: nemotron writes every conversation in linn's own protocol"
"""What to do where a template refuses."""


def turns_of(messages: Sequence[Message], form: Form) -> list[Turn]:
    """Messages as a template of this form takes them; UserError for what it cannot take.

    Calls and results that carry no id are numbered, and answer each other in order.
    """
    turns: list[Turn] = []
    waiting: list[tuple[str, str]] = []  # (id, name) of the calls without a result
    count = 0
    for message in _without_system(messages, form):
        turn: Turn = {"role": message.role, "content": message.content}
        if message.role == "assistant" and message.reasoning:
            _add_thought(turn, message, form)
        if message.tool_calls:
            calls = [_call(call, count + i, form) for i, call in enumerate(message.tool_calls)]
            count += len(calls)
            turn["tool_calls"] = calls
            waiting = [(call["id"], call["function"]["name"]) for call in calls]
        if message.role == "tool":
            turn["tool_call_id"], turn["name"] = _answered(message, waiting)
        turns.append(turn)
    return turns


def definition(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A definition as templates take it: `{"type": "function", "function": {…}}`."""
    if isinstance(tool.get("function"), Mapping):
        return tool
    function = {key: value for key, value in tool.items() if key != "type"}
    return {"type": "function", "function": function}


def harmless(message: Message) -> Message:
    """A message of the same shape that no template refuses for what it says."""
    if message.role != "assistant":
        return message
    calls = []
    for call in message.tool_calls:
        if isinstance(call.arguments, str):
            call = replace(call, arguments={})
        calls.append(call)
    content = message.content
    if not content and not calls:
        content = "-"
    return replace(message, content=content, reasoning=None, tool_calls=tuple(calls))


def _without_system(messages: Sequence[Message], form: Form) -> Sequence[Message]:
    """The messages; where no system turn can be written, its text opens the first user turn."""
    if form.has_system or not messages or messages[0].role != "system":
        return messages
    system, *others = messages
    if not others or others[0].role != "user":
        raise UserError(f"the chat template takes no system turn without a user's; {REMEDY}")
    content = f"{system.content}\n\n{others[0].content}"
    return [replace(others[0], content=content), *others[1:]]


def _add_thought(turn: Turn, message: Message, form: Form) -> None:
    if form.thought == "written":
        return
    if form.thought == "inline":
        opening, closing = form.marks or ("<think>", "</think>")
        turn["content"] = f"{opening}\n{message.reasoning}\n{closing}\n\n{message.content}"
        return
    # A call of gpt-oss's has room for one text beside it.
    if form.channels and message.tool_calls and message.content:
        turn["content"] = f"{message.reasoning}\n{message.content}"
        return
    # Templates read the thought under one of two names.
    turn["reasoning_content"] = message.reasoning
    turn["thinking"] = message.reasoning


def _call(call: ToolCall, number: int, form: Form) -> dict[str, Any]:
    arguments: Any = call.arguments
    if isinstance(arguments, str) and not form.text_arguments:
        raise UserError(
            f"a call of {call.name!r} whose arguments are no JSON object: {arguments[:60]!r}"
        )
    if not isinstance(arguments, str) and form.text_arguments:
        arguments = json.dumps(dict(arguments), ensure_ascii=False)

    identity = call.id
    nine = identity is not None and len(identity) == 9 and identity.isalnum()
    if not identity or not (nine or form.plain_ids):
        identity = f"call{number % 100_000:05d}"
    function = {"name": call.name, "arguments": arguments}
    return {"type": "function", "id": identity, "function": function}


def _answered(message: Message, waiting: list[tuple[str, str]]) -> tuple[str, str]:
    """(id, name) of the call that a result answers: by its id, else the first that waits."""
    for i, (identity, name) in enumerate(waiting):
        if identity == message.tool_call_id:
            del waiting[i]
            return identity, name
    if waiting:
        return waiting.pop(0)
    return message.tool_call_id or "call00000", ""
