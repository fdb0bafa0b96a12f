"""The one reader of rows: what a row of a released layout asks a model.

What `linn render` shows, what a domain trains on and what `linn data` counts all come from here.
A row (paper §10) keeps its conversation in `responses_create_params.input` with `instructions`
and `tools` beside it, in `messages`, or as `prompt` text or `context` turns (HelpSteer3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linn.chat.render import ChatTurn, generation, text_of
from linn.chat.tools import short, tools_of
from linn.chat.turns import OTHER_NAMES, ROLES, check_text_alone, turns_of
from linn.chat.values import decoded
from linn.errors import UserError
from linn.types import Message, Prompt

_INPUT = "responses_create_params.input"

_SWITCHES = ("enable_thinking", "truncate_history_thinking", "add_generation_prompt")
"""Template options that are on or off."""
_MODE_KEYS = ("enable_thinking", "thinking")
"""What templates call their mode."""
_INSTRUCTION_KEYS = ("instructions", "system", "system_prompt")
"""Where rows keep a system text apart from their turns."""


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
    `enable_thinking` does not set one. `render(messages, tools, thinking)` of
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
    if not any(message.content.strip() or message.tool_calls for message in messages):
        raise UserError(f"{where} holds no text; a prompt must ask for something")
    if messages[-1].role == "assistant":
        raise UserError(f"{where} ends with an assistant turn; the last turn must be the user's")
    _check_template_options(conversation)

    mode: bool = conversation.options.get("enable_thinking", thinking)
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
        text += generation(options.get("enable_thinking", True))
    return text


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
        params = {}
    if not isinstance(params, Mapping):
        raise UserError(f"responses_create_params: expected an object, found {short(params)}")

    for place in (params, row):
        check_text_alone(place)
    tools = tools_of(params, row)
    where, items = _input_of(row, params)
    turns = turns_of(items, where, tools)
    inputs = len(turns)
    if instructions := instructions_of(params, row):
        turns.insert(0, ChatTurn("system", instructions))
    return _Conversation(
        turns=turns,
        inputs=inputs,
        where=where,
        tools=tools,
        options=_options(row, params),
    )


def instructions_of(*places: Mapping[str, Any]) -> str:
    """The system text that stands beside a row's turns; empty where there is none.

    UserError where it is no text, or where two differ.
    """
    texts = []
    for place in places:
        for key in _INSTRUCTION_KEYS:
            text = place.get(key)
            if text is None:
                continue
            if not isinstance(text, str):
                raise UserError(f"{key}: expected text, found {short(text)}")
            if text and text not in texts:
                texts.append(text)
    if len(texts) > 1:
        raise UserError(f"instructions: two texts, {short(texts[0])} and {short(texts[1])}")
    return texts[0] if texts else ""


def _input_of(row: Mapping[str, Any], params: Mapping[str, Any]) -> tuple[str, object]:
    """(field, turns) of a row's conversation: the first of its places that holds something.

    UserError where a row has none of the places: its domain writes the prompt from other fields.
    """
    places: list[tuple[str, object]] = [(_INPUT, params.get("input"))]
    for name in ("messages", "prompt", "context"):
        places.append((name, row.get(name)))
    for name, items in places:
        if isinstance(items, str):
            items = _turns_in(items)
        if items:
            return name, items

    if "input" not in params and "messages" not in row:
        raise UserError(
            f"{_INPUT} is missing or empty, and so are messages, prompt and context; "
            "allowed: a list of {role, content}"
        )
    return _INPUT, None


def _turns_in(text: str) -> object:
    """The turns whose JSON text this is, as tables of plain columns keep them; else the text."""
    turns = decoded(text) if text.lstrip().startswith("[") else None
    if not isinstance(turns, list) or not turns:
        return text
    are_turns = all(isinstance(turn, Mapping) and {"role", "type"} & turn.keys() for turn in turns)
    return turns if are_turns else text


def _options(row: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, Any]:
    """Template options, the more specific place winning: metadata, parameters, row."""
    options: dict[str, Any] = {}
    metadata = params.get("metadata")
    if not isinstance(metadata, Mapping):
        metadata = {}
    for place in (metadata, params, row):
        # Requests of OpenAI's client have what is a server's own in `extra_body`.
        body = place.get("extra_body")
        for holder in (body, place) if isinstance(body, Mapping) else (place,):
            options |= _options_in(holder)

    for key in _SWITCHES:
        if key in options:
            options[key] = truth_of(options[key], f"chat_template_kwargs.{key}")
    return options


def _options_in(place: Mapping[str, Any]) -> dict[str, Any]:
    """The template options of one place: its `chat_template_kwargs`, and those beside them."""
    kwargs = place.get("chat_template_kwargs") or {}
    if isinstance(kwargs, str):
        kwargs = decoded(kwargs)
    if not isinstance(kwargs, Mapping):
        value = short(place["chat_template_kwargs"])
        raise UserError(f"chat_template_kwargs: expected an object, found {value}")
    # A null stands for a key that only other rows of a table have.
    options = {key: value for key, value in kwargs.items() if value is not None}
    modes = [options.pop(key) for key in _MODE_KEYS if key in options]
    if place.get("enable_thinking") is not None:
        modes.append(place["enable_thinking"])
    if modes:
        modes = [truth_of(mode, "chat_template_kwargs.enable_thinking") for mode in modes]
        if len(set(modes)) > 1:
            raise UserError("enable_thinking is both true and false; give it once")
        options["enable_thinking"] = modes[0]
    if place.get("add_generation_prompt") is not None:
        options["add_generation_prompt"] = place["add_generation_prompt"]
    return options


def mode_of(row: Mapping[str, Any]) -> bool | None:
    """The mode that a row names; None where it names none."""
    mode: bool | None = _options(row, {}).get("enable_thinking")
    return mode


def truth_of(value: object, where: str) -> bool:
    """A truth value, also as text in any case; UserError for anything else.

    To Python, the text "False" is true.
    """
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return value.strip().lower() == "true"
    if not isinstance(value, bool):
        raise UserError(f"{where} is {short(value)}; allowed: true or false")
    return value


def _prompt_message(turn: ChatTurn, where: str) -> Message:
    """A turn of a prompt. Its content stays as it is, so that it is trained as it is shown."""
    role = ROLES.get(turn.role)
    if role is None:
        allowed = ", ".join([*ROLES, *OTHER_NAMES])
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
