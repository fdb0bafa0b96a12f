"""Conversations as OpenAI-style rows write them."""

from __future__ import annotations

import copy
from typing import Any

from linn.chat.tools import definitions_of, schemas_of, without_nulls

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "  Weather of a town. ",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {
                "town": {"type": "string", "description": "Name", "title": "Town"},
                "days": {"type": ["integer", "null"], "default": None, "minimum": 1},
                "unit": {"type": "string", "enum": ["°C", "<F>"]},
                "where": {"anyOf": [{"type": "object"}, {"type": "array"}]},
                "any": True,
            },
            "required": ["town"],
            "additionalProperties": False,
        },
    },
}
FLAT = {
    "type": "function",
    "name": "now",
    "description": None,
    "parameters": {"type": "object", "properties": {}, "required": []},
}
BARE = {"type": "function", "function": {"name": "bare"}}


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


def says(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


HISTORY = [
    says("system", "Be brief."),
    says("user", "Hi"),
    says("assistant", "<think>X</think>\nAnswer"),
    says("user", "And now?"),
    says("assistant", "  It is  ", reasoning_content="\nhm\n"),
    says("user", "Weather?"),
    says(
        "assistant",
        None,
        reasoning_content="I call",
        tool_calls=[call("weather", town="Rome", days=3, where={"a": [1, "é"]}, any=None)],
    ),
    says("tool", "sunny", tool_call_id="c1"),
    says("tool", "warm", tool_call_id="c2"),
    says("assistant", "Both.", tool_calls=[call("now"), call("weather", any=True, unit=1.5)]),
    says("tool", "12:00"),
]


def row(messages: Any, tools: Any = (), **options: Any) -> dict[str, Any]:
    """A row of the released layout; `options` are those of the template."""
    made: dict[str, Any] = {
        "responses_create_params": {"input": messages, "tools": list(tools)},
        "chat_template_kwargs": options,
    }
    if "add_generation_prompt" in options:
        made["add_generation_prompt"] = options.pop("add_generation_prompt")
    return made


def filled_out(
    messages: list[dict[str, Any]], tools: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[Any]]:
    """Messages and tools without the nulls that a table filled in, which linn drops."""
    definitions = list(definitions_of(tools))
    schemas = schemas_of(definitions)
    kept = []
    for message in copy.deepcopy(messages):
        for one in message.get("tool_calls") or ():
            function = one["function"]
            if isinstance(function.get("arguments"), dict):
                schema = schemas.get(function["name"])
                function["arguments"] = without_nulls(function["arguments"], schema)
        kept.append(message)
    return kept, definitions
