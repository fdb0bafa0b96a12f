"""Tool definitions as OpenAI writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def tool(
    name: str,
    description: str,
    properties: Mapping[str, Mapping[str, Any]],
    required: Iterable[str] = (),
    *,
    closed: bool = False,
) -> dict[str, Any]:
    """The definition of a function that a model may call.

    `properties`: the JSON schema of each parameter (`parameter` writes a plain one). `closed`:
    other parameters are forbidden. The order of the keys is part of the prompt: keep it.
    """
    schema: dict[str, Any] = {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
    }
    if closed:
        schema["additionalProperties"] = False
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


def text_tool(name: str, description: str, *parameters: str) -> dict[str, Any]:
    """A function all of whose parameters are text and required."""
    properties = {name: parameter() for name in parameters}
    return tool(name, description, properties, required=parameters)


def parameter(kind: str = "string", description: str | None = None) -> dict[str, str]:
    """The schema of a parameter of a JSON type, with a description where one is given."""
    if description is None:
        return {"type": kind}
    return {"type": kind, "description": description}
