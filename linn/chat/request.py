"""The conversation of a released row: `responses_create_params.input` as messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linn.errors import UserError
from linn.types import Message, Role

_ROLES: dict[str, Role] = {
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
        role = _ROLES.get(said) if isinstance(said, str) else None
        if role is None:
            raise UserError(f"{where}[{place}].role is {said!r}; allowed: {', '.join(_ROLES)}")
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
