"""The one reader of conversations: OpenAI-style chat turns, Responses API items, released rows.

What `linn render` shows, what a domain trains on and what `linn data` counts all come from here.
A row (paper §10) keeps its conversation in `responses_create_params.input` with `instructions`
and `tools` beside it, in `messages`, or as `prompt` text or `context` turns (HelpSteer3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from linn.chat.render import THINK, THINK_END, ChatTurn, generation, parse, text_of
from linn.chat.tool_calls import arguments_of, decoded
from linn.errors import UserError
from linn.types import Message, Prompt, Role, ToolCall

_OTHER_NAMES = {"developer": "system", "function": "tool"}
"""Roles that other protocols name differently."""

_ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}

_INPUT = "responses_create_params.input"


# ---------------------------------------------------------------- public


@dataclass(frozen=True)
class Request:
    """What a row asks a model, as it is trained."""

    messages: tuple[Message, ...]
    """The conversation, `instructions` as its first system turn; the last turn is not the
    assistant's. Earlier assistant turns stand as the row writes them: a thought or a call inside
    their content stays there."""
    tools: tuple[Mapping[str, Any], ...]
    """Function definitions that the row shows."""
    thinking: bool
    """Whether the reply opens with a thought."""

    def prompt(self, domain: str, identity: str, hidden: object = None) -> Prompt:
        """The prompt of a domain that shows all of this; `hidden`: what only its grader sees."""
        return Prompt(
            domain=domain,
            id=identity,
            messages=self.messages,
            thinking=self.thinking,
            tools=self.tools,
            hidden=hidden,
        )


def request_of(row: Mapping[str, Any], index: int | None = None, thinking: bool = True) -> Request:
    """The request of a row of a released layout; UserError names the field that is wrong.

    `index`: the row's number, for the error. `thinking`: the mode where the row's
    `chat_template_kwargs.enable_thinking` does not set one. `render(messages, tools, thinking)` of
    the result is `render_row(row)`. A row that cannot be trained as it is shown is refused.
    """
    try:
        return _request_of(row, thinking)
    except UserError as error:
        if index is None:
            raise
        raise UserError(f"row {index}: {error}") from None


def _request_of(row: Mapping[str, Any], thinking: bool) -> Request:
    conversation = _conversation_of(row)
    turns, where = conversation.turns, conversation.where
    if not turns:
        raise UserError(f"{_INPUT} is missing or empty; allowed: a list of {{role, content}}")

    # `instructions` stand before the first turn of the input.
    first = len(turns) - conversation.inputs
    messages = []
    for i, turn in enumerate(turns):
        messages.append(_prompt_message(turn, f"{where}[{i - first}]"))
    if messages[-1].role == "assistant":
        raise UserError(f"{where} ends with an assistant turn; the last turn must be the user's")
    _check_template_options(conversation)

    mode = bool(conversation.options.get("enable_thinking", thinking))
    return Request(messages=tuple(messages), tools=conversation.tools, thinking=mode)


def render_row(row: Mapping[str, Any]) -> str:
    """The text a model would see for a row of a released layout.

    UserError names the field that is wrong. `chat_template_kwargs` and `add_generation_prompt`
    may stand in the row, in its parameters or in their `metadata`. Content that is not text is
    written as Python writes it, as the published template does; training refuses such a row.
    """
    conversation = _conversation_of(row)
    options = conversation.options
    text = text_of(conversation.turns, conversation.tools, conversation.keep_thinking)
    if options.get("add_generation_prompt", True):
        text += generation(bool(options.get("enable_thinking", True)))
    return text


def to_messages(items: object, where: str = "input") -> tuple[Message, ...]:
    """OpenAI-style chat turns or Responses API items as `Message`s.

    Thoughts and calls written inside content are taken out of it. `where`: the field that `items`
    come from, for errors.
    """
    messages = []
    for turn in _turns_of(items, where):
        content = "" if turn.content is None else str(turn.content)
        if turn.role == "assistant":
            messages.append(_parsed(turn, content))
        else:
            # A role that nobody knows speaks to the model from outside, as the user does.
            role = _ROLES.get(turn.role, "user")
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
        if not isinstance(text, str) and skip_other_parts:
            continue
        if not isinstance(text, str):
            raise UserError(
                f"{where}.content: a part of type {part.get('type')!r} holds no text; "
                "the protocol knows text only"
            )
        texts.append(text)
    return "".join(texts)


# ---------------------------------------------------------------- a row's conversation


@dataclass(frozen=True)
class _Conversation:
    """The conversation of a row, as the row writes it."""

    turns: list[ChatTurn]
    """`instructions` as a system turn, then the turns of the input."""
    inputs: int
    """Turns of the input."""
    where: str
    """The field that the input comes from."""
    tools: tuple[Mapping[str, Any], ...]
    """Function definitions."""
    options: Mapping[str, Any]
    """`chat_template_kwargs`, and `add_generation_prompt` where the row names it."""

    @property
    def keep_thinking(self) -> bool:
        """Whether the row wants the thoughts of earlier turns left in place."""
        return not self.options.get("truncate_history_thinking", True)


def _conversation_of(row: Mapping[str, Any]) -> _Conversation:
    params = row.get("responses_create_params")
    if params is None:
        params = {"tools": row.get("tools")}
    if not isinstance(params, Mapping):
        raise UserError(f"responses_create_params: expected an object, found {_short(params)}")

    where, items = _input_of(row, params)
    turns = _turns_of(items, where)
    inputs = len(turns)
    if instructions := params.get("instructions"):
        if not isinstance(instructions, str):
            raise UserError(f"instructions: expected text, found {_short(instructions)}")
        turns.insert(0, ChatTurn("system", instructions))
    return _Conversation(
        turns=turns,
        inputs=inputs,
        where=where,
        tools=_tools_of(params.get("tools")),
        options=_options(row, params),
    )


def _input_of(row: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str, object]:
    """(field, turns) of a row's conversation: the first of its places that holds something.

    UserError where a row has none of the places: its domain writes the prompt from other fields.
    """
    places: list[tuple[str, object]] = [(_INPUT, params.get("input"))]
    for name in ("messages", "prompt", "context"):
        places.append((name, row.get(name)))
    for name, items in places:
        if items:
            return name, items

    if "input" not in params and "messages" not in row:
        raise UserError(
            f"{_INPUT} is missing or empty, and so are messages, prompt and context; "
            "allowed: a list of {role, content}"
        )
    return _INPUT, None


def _tools_of(tools: object) -> tuple[Mapping[str, Any], ...]:
    definitions = _objects(tools or ())
    if definitions is None:
        raise UserError(f"tools: expected a list of function definitions, found {_short(tools)}")
    return definitions


def _options(row: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Template options, the more specific place winning: metadata, parameters, row."""
    options: dict[str, Any] = {}
    metadata = params.get("metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    for place in (metadata, params, row):
        kwargs = place.get("chat_template_kwargs") or {}
        if isinstance(kwargs, str):
            kwargs = decoded(kwargs)
        if not isinstance(kwargs, Mapping):
            value = _short(place["chat_template_kwargs"])
            raise UserError(f"chat_template_kwargs: expected an object, found {value}")
        options.update(kwargs)
        if "add_generation_prompt" in place:
            options["add_generation_prompt"] = place["add_generation_prompt"]
    return options


def _prompt_message(turn: ChatTurn, where: str) -> Message:
    """A turn of a prompt. Its content stays as it is, so that it is trained as it is shown."""
    role = _ROLES.get(turn.role)
    if role is None:
        allowed = ", ".join([*_ROLES, *_OTHER_NAMES])
        raise UserError(f"{where}.role is {turn.role[:40]!r}; allowed: {allowed}")
    content = turn.content
    if content is None and role == "assistant":
        # Turns of calls or of a thought alone have no content.
        content = ""
    if not isinstance(content, str):
        kind = type(content).__name__
        raise UserError(f"{where}.content is {kind}; allowed: text or a list of text parts")
    return Message(
        role=role,
        content=content,
        reasoning=turn.reasoning,
        tool_calls=turn.calls,
        tool_call_id=turn.call_id,
    )


def _check_template_options(conversation: _Conversation) -> None:
    """UserError where options change the text in a way that rollouts do not follow."""
    if not conversation.options.get("add_generation_prompt", True):
        raise UserError("add_generation_prompt is false, but a prompt is there to be answered")
    if conversation.keep_thinking:
        kept = text_of(conversation.turns, conversation.tools, keep_thinking=True)
        cut = text_of(conversation.turns, conversation.tools, keep_thinking=False)
        if kept != cut:
            raise UserError(
                "chat_template_kwargs.truncate_history_thinking is false, but training replaces "
                "the thoughts of turns before the last user turn by empty ones"
            )


# ---------------------------------------------------------------- turns and items


def _turns_of(items: object, where: str) -> list[ChatTurn]:
    """Turns of text, chat messages or Responses API items; `where` names the field for errors.

    Of Responses items, reasoning, text and calls that follow each other are one turn.
    """
    if isinstance(items, str):
        return [ChatTurn("user", items)]
    if items is None:
        return []
    if isinstance(items, Mapping) or not isinstance(items, Sequence):
        found = _short(items)
        raise UserError(f"{where}: expected text or a list of messages, found {found}")

    turns: list[ChatTurn] = []
    thought_open = False  # The last turn is a thought that what follows may still belong to.
    for i, item in enumerate(items):
        here = f"{where}[{i}]"
        if not isinstance(item, Mapping):
            raise UserError(f"{here}: expected an object, found {_short(item)}")
        kind = item.get("type")
        if kind == "function_call":
            _add_call(turns, item)
        elif kind == "function_call_output":
            content = content_text(item.get("output", ""), here)
            turns.append(ChatTurn("tool", content, call_id=_text_or_none(item.get("call_id"))))
        elif kind == "reasoning":
            _add_thought(turns, _thought(item, here), thought_open)
        elif "role" in item:
            _add_message(turns, _chat_turn(item, here), thought_open)
        else:
            raise UserError(
                f"{here}: no role, and type {kind!r} is unknown; "
                "known: message, reasoning, function_call, function_call_output"
            )
        thought_open = kind == "reasoning"
    return turns


def _is_assistants(turns: Sequence[ChatTurn]) -> bool:
    return bool(turns) and turns[-1].role == "assistant"


def _add_call(turns: list[ChatTurn], item: Mapping[str, Any]) -> None:
    """A call belongs to the assistant's turn before it, else it is a turn of its own."""
    call = _tool_call(item, item.get("call_id") or item.get("id"))
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
        if text:
            texts.append(str(text))
    return "\n".join(texts)


def _chat_turn(item: Mapping[str, Any], where: str) -> ChatTurn:
    """An OpenAI-style chat message."""
    reasoning = None
    for key in ("reasoning_content", "reasoning"):
        if isinstance(item.get(key), str):
            reasoning = item[key]
            break

    entries = _objects(item.get("tool_calls") or ())
    if entries is None:
        found = _short(item["tool_calls"])
        raise UserError(f"{where}.tool_calls: expected a list of objects, found {found}")
    calls = [_tool_call(entry.get("function", entry), entry.get("id")) for entry in entries]

    role = str(item["role"])
    return ChatTurn(
        role=_OTHER_NAMES.get(role, role),
        content=content_text(item.get("content", ""), where),
        reasoning=reasoning,
        calls=tuple(calls),
        call_id=_text_or_none(item.get("tool_call_id")),
    )


def _tool_call(function: object, identity: object) -> ToolCall:
    """A call of a row.

    JSON text of arguments is read, and kept as text where it is not an object.
    """
    fields = function if isinstance(function, Mapping) else {}
    return ToolCall(
        name=str(fields.get("name", "")),
        arguments=arguments_of(fields.get("arguments")),
        id=_text_or_none(identity),
    )


def _parsed(turn: ChatTurn, content: str) -> Message:
    """An assistant's turn, with thought and calls taken out of its content."""
    # A mark in the text says that the model thought, even where one of the two marks is missing.
    message = parse(content, thinking=THINK in content or THINK_END in content)
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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
