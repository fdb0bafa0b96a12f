"""Turns as rows write them: OpenAI-style chat turns and Responses API items."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from linn.chat.render import THINK, THINK_END, ChatTurn, parse
from linn.chat.tool_calls import ARGUMENT_KEYS, UnreadableCall, call_of, outside_calls
from linn.chat.tools import schemas_of, short, untyped, without_nulls
from linn.errors import UserError
from linn.types import Message, Role, ToolCall

OTHER_NAMES = {"developer": "system", "function": "tool"}
"""Roles that other protocols name differently."""

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Where chat turns keep a thought apart from their content."""


_MEDIA = ("images", "videos", "audios")
"""Fields of rows and turns that hold what is not text."""
_MEDIA_PARTS = re.compile("image|video|audio|file")
"""Types of content parts that are not text."""


class BadCall(UserError):
    """A call of a turn that cannot be read."""


def to_messages(
    items: object,
    where: str = "input",
    tools: Sequence[Mapping[str, Any]] = (),
    typed: bool = True,
) -> tuple[Message, ...]:
    """OpenAI-style chat turns or Responses API items as `Message`s.

    Thoughts and calls written inside content are taken out of it. `where`: the field that `items`
    come from, for errors. `tools` types the values of XML calls, and tells which nulls are values.
    Not `typed`: XML values stay as they are written, to be written so again.
    """
    written = tools if typed else untyped(tools)
    messages = []
    for turn in turns_of(items, where, tools):
        content = "" if turn.content is None else str(turn.content)
        if turn.role == "assistant":
            messages.append(_parsed(turn, content, written))
        else:
            # A role that nobody knows speaks to the model from outside, as the user does.
            role = ROLES.get(turn.role, "user")
            messages.append(Message(role, content, tool_call_id=turn.call_id))
    return tuple(messages)


def content_text(content: object, where: str, skip_other_parts: bool = False) -> Any:
    """Content as the template takes it: a list of parts becomes the text of its parts.

    Anything but such a list is given back as it is. A part without text is a UserError, or is
    left out with `skip_other_parts`.
    """
    if not isinstance(content, (list, tuple)):
        return content
    if not all(isinstance(part, (str, Mapping)) for part in content):
        return content

    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text", part.get("refusal"))
        # A table fills an image's text in, be it with null or with nothing.
        if not isinstance(part, str) and _MEDIA_PARTS.search(str(part.get("type"))):
            text = None
        if not isinstance(text, str) and skip_other_parts:
            continue
        if not isinstance(text, str):
            raise UserError(
                f"{where}.content: a part of type {part.get('type')!r} holds no text; "
                "the protocol knows text only"
            )
        texts.append(text)
    return "".join(texts)


def check_text_alone(place: Mapping[str, Any], where: str = "") -> None:
    """UserError where a row or a turn holds images and the like beside its text."""
    for key in _MEDIA:
        if place.get(key):
            raise UserError(f"{where}{key}: the protocol knows text only; leave such rows out")


# ---------------------------------------------------------------- turns and items


def turns_of(items: object, where: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[ChatTurn]:
    """Turns of text, chat messages or Responses API items; `where` names the field for errors.

    Of Responses items, reasoning, text and calls that follow each other are one turn. `tools` tells
    which nulls of calls are values.
    """
    if isinstance(items, str):
        return [ChatTurn("user", items)]
    if items is None:
        return []
    if isinstance(items, Mapping) or not isinstance(items, Sequence):
        found = short(items)
        raise UserError(f"{where}: expected text or a list of messages, found {found}")

    schemas = schemas_of(tools)
    turns: list[ChatTurn] = []
    thought_open = False  # The last turn is a thought that what follows may still belong to.
    for i, item in enumerate(items):
        here = f"{where}[{i}]"
        if not isinstance(item, Mapping):
            raise UserError(f"{here}: expected an object, found {short(item)}")
        kind = item.get("type")
        if kind == "function_call":
            _add_call(turns, _tool_call(item, schemas, here))
        elif kind == "function_call_output":
            content = content_text(item.get("output", ""), here)
            turns.append(ChatTurn("tool", content, call_id=_text_or_none(item.get("call_id"))))
        elif kind == "reasoning":
            _add_thought(turns, _thought(item, here), thought_open)
        elif item.get("role") is not None:
            _add_message(turns, _chat_turn(item, schemas, here), thought_open)
        else:
            raise UserError(
                f"{here}: no role, and type {kind!r} is unknown; "
                "known: message, reasoning, function_call, function_call_output"
            )
        thought_open = kind == "reasoning"
    return turns


def _is_assistants(turns: Sequence[ChatTurn]) -> bool:
    return bool(turns) and turns[-1].role == "assistant"


def _add_call(turns: list[ChatTurn], call: ToolCall) -> None:
    """A call belongs to the assistant's turn before it, else it is a turn of its own."""
    if _is_assistants(turns):
        turns[-1] = replace(turns[-1], calls=(*turns[-1].calls, call))
    else:
        turns.append(ChatTurn("assistant", calls=(call,)))


def _add_thought(turns: list[ChatTurn], thought: str, thought_open: bool) -> None:
    """Reasoning items that follow each other are one thought; any other opens a turn."""
    if thought_open and _is_assistants(turns):
        turns[-1] = ChatTurn("assistant", reasoning=f"{turns[-1].reasoning}\n{thought}")
    else:
        turns.append(ChatTurn("assistant", reasoning=thought))


def _add_message(turns: list[ChatTurn], turn: ChatTurn, thought_open: bool) -> None:
    """An assistant's message without a thought takes the thought of the items before it."""
    belongs = thought_open and turn.role == "assistant" and not turn.reasoning
    if belongs and _is_assistants(turns):
        turns[-1] = replace(turn, reasoning=turns[-1].reasoning)
    else:
        turns.append(turn)


def _thought(item: Mapping[str, Any], where: str) -> str:
    texts = []
    for key in ("content", "summary"):
        text = content_text(item.get(key) or [], where)
        # Some servers say the same in both.
        if text and str(text) not in texts:
            texts.append(str(text))
    return "\n".join(texts)


def _chat_turn(
    item: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]], where: str
) -> ChatTurn:
    """An OpenAI-style chat message."""
    check_text_alone(item, f"{where}.")
    entries = _objects(item.get("tool_calls") or ())
    if entries is None:
        found = short(item["tool_calls"])
        raise BadCall(f"{where}.tool_calls: expected a list of objects, found {found}")
    calls = []
    for i, entry in enumerate(entries):
        calls.append(_tool_call(entry, schemas, f"{where}.tool_calls[{i}]"))

    # Before there were tool_calls, a turn had one call of this name.
    if (legacy := item.get("function_call")) is not None:
        if not isinstance(legacy, Mapping):
            raise BadCall(f"{where}.function_call: expected an object, found {short(legacy)}")
        if not calls:
            calls.append(_tool_call(legacy, schemas, f"{where}.function_call"))

    role = str(item["role"])
    return ChatTurn(
        role=OTHER_NAMES.get(role, role),
        content=content_text(item.get("content", ""), where),
        reasoning=_reasoning(item, where),
        calls=tuple(calls),
        call_id=_text_or_none(item.get("tool_call_id")),
    )


def _reasoning(item: Mapping[str, Any], where: str) -> str | None:
    """A turn's thought, where a field of its own holds one."""
    thoughts = []
    for key in REASONING_KEYS:
        thought = item.get(key)
        if thought is None:
            continue
        if not isinstance(thought, str):
            raise UserError(f"{where}.{key}: expected text, found {type(thought).__name__}")
        if thought not in thoughts:
            thoughts.append(thought)
    full = [thought for thought in thoughts if thought]
    if len(full) > 1:
        raise UserError(f"{where}: two thoughts under {' and '.join(REASONING_KEYS)}; give one")
    if full:
        return full[0]
    return "" if thoughts else None


def _tool_call(
    entry: Mapping[str, Any], schemas: Mapping[str, Mapping[str, Any]], where: str
) -> ToolCall:
    """A call of a row, without filled-in nulls.

    JSON text of arguments is read, and kept as text where it is not an object.
    """
    try:
        call = call_of(entry)
    except UnreadableCall as error:
        dot = "." if str(error).startswith("function.") else ": "
        raise BadCall(f"{where}{dot}{error}") from None
    # JSON text came through no table: its nulls are its own.
    if isinstance(call.arguments, str) or not _has_object(entry):
        return call
    return replace(call, arguments=without_nulls(call.arguments, schemas.get(call.name)))


def _has_object(entry: Mapping[str, Any]) -> bool:
    """Whether a call's arguments stand as an object in the row, not as its text."""
    function = entry.get("function")
    inner = function if isinstance(function, Mapping) else entry
    return any(isinstance(inner.get(key), Mapping) for key in ARGUMENT_KEYS)


def _parsed(turn: ChatTurn, content: str, tools: Sequence[Mapping[str, Any]]) -> Message:
    """An assistant's turn, with thought and calls taken out of its content."""
    # A mark in the text says that the model thought, even where one of the two marks is missing.
    marks = outside_calls(content)
    message = parse(content, thinking=THINK in marks or THINK_END in marks, tools=tools)
    if turn.reasoning is not None and turn.reasoning.strip():
        message = replace(message, reasoning=turn.reasoning)
    if turn.calls:
        message = replace(message, tool_calls=turn.calls)
    return message


# ---------------------------------------------------------------- small things


def _objects(value: object) -> tuple[Mapping[str, Any], ...] | None:
    """The objects of a list; None where the value is not a list of objects."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence):
        return None
    if not all(isinstance(entry, Mapping) for entry in value):
        return None
    return tuple(value)


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)
