"""What of a row reaches neither a prompt nor training: for `linn data`, so that nothing is lost
without a word."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from linn.chat.tools import TOOL_KEYS
from linn.chat.turns import REASONING_KEYS
from linn.data.layouts import present

_PARAMETERS = {
    "input",
    "instructions",
    "metadata",
    "chat_template_kwargs",
    "add_generation_prompt",
    "enable_thinking",
    "extra_body",
    *TOOL_KEYS,
}
"""What is read of `responses_create_params`."""
_TURN = {
    "role",
    "content",
    "tool_calls",
    "function_call",
    "tool_call_id",
    "type",
    "id",
    "status",
    "from",
    "value",
    *REASONING_KEYS,
}
"""What is read of a chat turn, and what says nothing."""
_OPTIONS = {"enable_thinking", "thinking", "truncate_history_thinking", "add_generation_prompt"}
_SAID: tuple[Any, ...] = (None, "", [], {}, False)
"""Values that ask for nothing."""


def unused(row: Mapping[str, Any]) -> list[str]:
    """Names of a row's fields that are not used, and `filled-in nulls` where some were dropped."""
    return list(dict.fromkeys(_unused(present(row))))


def _unused(row: Mapping[str, Any]) -> Iterator[str]:
    params = row.get("responses_create_params")
    if isinstance(params, Mapping):
        for key, value in params.items():
            if key not in _PARAMETERS and value not in _SAID:
                yield f"responses_create_params.{key}"

    # The first of these places is the conversation.
    asks = isinstance(params, Mapping) and params.get("input")
    for key in ("messages", "prompt", "context"):
        if asks and row.get(key):
            yield key
        asks = asks or row.get(key)

    for place in (row, params):
        kwargs = place.get("chat_template_kwargs") if isinstance(place, Mapping) else None
        if isinstance(kwargs, Mapping):
            for key, value in kwargs.items():
                if key not in _OPTIONS and value is not None:
                    yield f"chat_template_kwargs.{key}"

    for turn in _turns(row):
        is_item = turn.get("type") not in (None, "message")
        for key, value in turn.items():
            if not is_item and key not in _TURN and value not in _SAID:
                yield f"{key} of a turn"

    if any(_holds_null(value) for value in _of_tables(row)):
        yield "filled-in nulls"


def _turns(row: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    params = row.get("responses_create_params")
    places = [row.get(key) for key in ("messages", "conversations", "context", "prompt")]
    if isinstance(params, Mapping):
        places.append(params.get("input"))
    for turns in places:
        if isinstance(turns, list):
            yield from (turn for turn in turns if isinstance(turn, Mapping))


def _of_tables(row: Mapping[str, Any]) -> Iterator[Any]:
    """The parts of a row in which nulls are dropped."""
    params = row.get("responses_create_params")
    for place in (row, params):
        if isinstance(place, Mapping):
            yield from (place[key] for key in TOOL_KEYS if key in place)
    for turn in _turns(row):
        calls = turn.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, Mapping):
                yield call.get("function", call)
        if isinstance(turn.get("arguments"), Mapping):
            yield turn["arguments"]


def _holds_null(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(part is None or _holds_null(part) for part in value.values())
    return isinstance(value, list) and any(map(_holds_null, value))
