"""Values as JSON has them: of JSON texts, and of texts by the types that a schema declares."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def declared_types(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, set[str]]]:
    """JSON types by function and parameter, as far as the definitions name them."""
    declared: dict[str, dict[str, set[str]]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        if not isinstance(function, Mapping):
            continue
        parameters = function.get("parameters")
        if not isinstance(parameters, Mapping):
            continue
        properties = parameters.get("properties")
        if isinstance(properties, Mapping):
            types = {str(key): types_of(schema) for key, schema in properties.items()}
            declared[str(function.get("name"))] = types
    return declared


def types_of(schema: object) -> set[str]:
    """The JSON types a schema allows: its `type`, and those of its alternatives."""
    if not isinstance(schema, Mapping):
        return set()
    types: set[str] = set()
    named = schema.get("type")
    if isinstance(named, str):
        types.add(named)
    elif isinstance(named, list):
        types |= {name for name in named if isinstance(name, str)}
    for key in ("anyOf", "oneOf"):
        choices = schema.get(key)
        if isinstance(choices, list):
            types = types.union(*map(types_of, choices))
    return types


_PYTHON = {"True": "true", "False": "false", "None": "null"}
"""Values as Python writes them, and as JSON does."""
_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
"""What a JSON type is in Python."""


def typed_value(text: str, types: set[str]) -> Any:
    """A parameter's text as a value of one of these types.

    The text itself where none fits, or where text is allowed.
    """
    if not types or types <= {"string"}:
        return text
    value = decoded(_PYTHON.get(text.strip(), text))
    # Where text is allowed too, null alone means something else than the text "null".
    if "string" in types and value is not None:
        return text
    if isinstance(value, float) and "integer" in types and "number" not in types:
        if value.is_integer():
            return int(value)
        return text
    for name in types:
        # Not isinstance: True is an int.
        if type(value) in _KINDS.get(name, ()):
            return value
    return text


class _NotJson:
    """What `decoded` gives for text that is not JSON: every check for a JSON type refuses it."""


def decoded(text: str) -> Any:
    """The value of a JSON text, or an object that is no JSON value where there is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NotJson()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")
