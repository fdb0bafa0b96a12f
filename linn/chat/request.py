"""Reading conversations: OpenAI-style chat turns, Responses API items, and rows of the released layouts (paper §10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from linn.chat.render import Turn, conversation, generation, parse
from linn.chat.tool_calls import arguments_of, decoded
from linn.errors import UserError
from linn.types import Message, Role, ToolCall


def render_row(row: Mapping[str, Any]) -> str:
    """The text a model would see for a row of the released layout (paper §10); UserError names the field that is wrong.

    Reads `responses_create_params` (`input`, `instructions`, `tools`) or, in SFT rows, `messages` and `tools`; then
    `chat_template_kwargs` and `add_generation_prompt`, in the row, in its parameters or in their `metadata`.
    """
    params = row.get("responses_create_params")
    if params is None:
        params = {"input": row.get("messages", ()), "tools": row.get("tools")}
    if not isinstance(params, Mapping):
        raise UserError(f"responses_create_params: expected an object, found {_short(params)}")
    turns = _turns_of(params.get("input"))
    if params.get("instructions"):
        turns.insert(0, Turn("system", str(params["instructions"])))
    tools = params.get("tools") or ()
    if (
        isinstance(tools, (str, Mapping))
        or not isinstance(tools, Sequence)
        or not all(isinstance(t, Mapping) for t in tools)
    ):
        raise UserError(f"tools: expected a list of function definitions, found {_short(tools)}")
    options = _options(row, params)
    text = "".join(
        piece
        for piece, _ in conversation(
            turns, tools, not options.get("truncate_history_thinking", True)
        )
    )
    return (
        text + generation(bool(options.get("enable_thinking", True)))
        if options.get("add_generation_prompt", True)
        else text
    )


def to_messages(items: object) -> tuple[Message, ...]:
    """OpenAI-style chat turns or Responses API items as `Message`s; thoughts and calls written inside content are taken out of it."""
    found = []
    for turn in _turns_of(items):
        content = "" if turn.content is None else str(turn.content)
        if turn.role == "assistant":
            told = parse(content, thinking=False)
            reasoning = (
                turn.reasoning
                if isinstance(turn.reasoning, str) and turn.reasoning.strip()
                else told.reasoning
            )
            found.append(
                Message("assistant", told.content, reasoning, turn.calls or told.tool_calls)
            )
        else:
            found.append(Message(_ROLES.get(turn.role, "user"), content, tool_call_id=turn.answers))
    return tuple(found)


_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


def _turns_of(items: object) -> list[Turn]:
    """Turns of a row's input: text, chat messages, Responses API items. Reasoning, text and calls that follow each other are one turn."""
    if isinstance(items, str):
        return [Turn("user", items)]
    if items is None:
        return []
    if isinstance(items, Mapping) or not isinstance(items, Sequence):
        raise UserError(f"input: expected text or a list of messages, found {_short(items)}")
    turns: list[Turn] = []
    joinable = (
        False  # The last turn came from a Responses item that what follows may still belong to.
    )
    for i, item in enumerate(items):
        if not isinstance(item, Mapping):
            raise UserError(f"input[{i}]: expected an object, found {_short(item)}")
        kind = item.get("type")
        last = turns[-1] if turns and turns[-1].role == "assistant" else None
        if kind == "function_call":
            call = _tool_call(item, item.get("call_id") or item.get("id"))
            if last is None:
                turns.append(Turn("assistant", calls=(call,)))
            else:
                turns[-1] = Turn("assistant", last.content, last.reasoning, (*last.calls, call))
            joinable = False
        elif kind == "function_call_output":
            turns.append(
                Turn(
                    "tool", _content(item.get("output", ""), i), answers=_name(item.get("call_id"))
                )
            )
        elif kind == "reasoning":
            thought = "\n".join(
                t
                for t in (
                    _content(item.get("content") or [], i),
                    _content(item.get("summary") or [], i),
                )
                if t
            )
            if last is not None and joinable:
                turns[-1] = Turn("assistant", reasoning=f"{last.reasoning}\n{thought}")
            else:
                turns.append(Turn("assistant", reasoning=thought))
            joinable = True
        elif "role" in item:
            turn = _chat_turn(item, i)
            if turn.role == "assistant" and last is not None and joinable and not turn.reasoning:
                turns[-1] = Turn("assistant", turn.content, last.reasoning, turn.calls)
            else:
                turns.append(turn)
            joinable = False
        else:
            raise UserError(
                f"input[{i}]: no role, and type {kind!r} is unknown; known: message, reasoning, function_call, function_call_output"
            )
    return turns


def _chat_turn(item: Mapping[str, Any], i: int) -> Turn:
    """An OpenAI-style chat message."""
    reasoning = next(
        (item[key] for key in ("reasoning_content", "reasoning") if isinstance(item.get(key), str)),
        None,
    )
    calls = item.get("tool_calls") or ()
    if (
        isinstance(calls, (str, Mapping))
        or not isinstance(calls, Sequence)
        or not all(isinstance(c, Mapping) for c in calls)
    ):
        raise UserError(f"input[{i}].tool_calls: expected a list of objects, found {_short(calls)}")
    content = _content(item.get("content", ""), i)
    told = tuple(_tool_call(call.get("function", call), call.get("id")) for call in calls)
    return Turn(str(item["role"]), content, reasoning, told, _name(item.get("tool_call_id")))


def _tool_call(function: object, identity: object) -> ToolCall:
    """A call of a row; JSON text of arguments is read, and kept as text where it is not an object."""
    fields = function if isinstance(function, Mapping) else {}
    return ToolCall(
        str(fields.get("name", "")), arguments_of(fields.get("arguments")), _name(identity)
    )


def _content(content: object, i: int) -> Any:
    """Content as the template takes it; a list of parts becomes the text of its parts."""
    if not isinstance(content, (list, tuple)) or not all(
        isinstance(part, (str, Mapping)) for part in content
    ):
        return content
    texts = []
    for part in content:
        text = part if isinstance(part, str) else part.get("text", part.get("refusal"))
        if not isinstance(text, str):
            raise UserError(
                f"input[{i}].content: a part of type {part.get('type')!r} holds no text; the protocol knows text only"
            )
        texts.append(text)
    return "".join(texts)


def _options(row: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Template options, the more specific place winning: metadata, parameters, row."""
    options: dict[str, Any] = {}
    metadata = params.get("metadata")
    for place in (metadata if isinstance(metadata, Mapping) else {}, params, row):
        told = place.get("chat_template_kwargs") or {}
        if isinstance(told, str):
            told = decoded(told)
        if not isinstance(told, Mapping):
            raise UserError(
                f"chat_template_kwargs: expected an object, found {_short(place['chat_template_kwargs'])}"
            )
        options.update(told)
        if "add_generation_prompt" in place:
            options["add_generation_prompt"] = place["add_generation_prompt"]
    return options


def _name(value: object) -> str | None:
    return None if value is None else str(value)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_PROMPT_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}


def request_messages(row: Mapping[str, Any], index: int) -> tuple[Message, ...]:
    """The turns the model is shown; `index` is the row's number, for the error. Raises UserError naming the field that is wrong.

    Content may be text or a list of text parts; a `developer` turn counts as a system turn; bare text counts as one user turn.
    Rows without an input may give their text as `prompt` or their turns as `context` (HelpSteer3).
    """
    where = f"row {index}: responses_create_params.input"
    params = row.get("responses_create_params")
    turns = (
        (params.get("input") if isinstance(params, Mapping) else None)
        or row.get("prompt")
        or row.get("context")
    )
    if isinstance(turns, str):
        turns = [{"role": "user", "content": turns}]
    if not isinstance(turns, list) or not turns:
        raise UserError(f"{where} is missing or empty; allowed: a list of {{role, content}}")
    messages: list[Message] = []
    for place, turn in enumerate(turns):
        said = turn.get("role") if isinstance(turn, Mapping) else None
        role = _PROMPT_ROLES.get(said) if isinstance(said, str) else None
        if role is None:
            raise UserError(
                f"{where}[{place}].role is {said!r}; allowed: {', '.join(_PROMPT_ROLES)}"
            )
        messages.append(Message(role, _text(turn.get("content"), f"{where}[{place}].content")))
    if messages[-1].role == "assistant":
        raise UserError(f"{where} ends with an assistant turn; the last turn must be the user's")
    return tuple(messages)


def request_tools(row: Mapping[str, Any], index: int) -> tuple[Mapping[str, Any], ...]:
    """The definitions of `responses_create_params.tools`, none where there are none."""
    params = row.get("responses_create_params")
    tools = (params.get("tools") if isinstance(params, Mapping) else None) or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise UserError(f"row {index}: responses_create_params.tools must be a list of definitions")
    return tuple(tools)


def _text(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(
        isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    raise UserError(f"{where} is {type(content).__name__}; allowed: text or a list of text parts")
