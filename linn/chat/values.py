"""Values as JSON has them: of JSON texts, and of texts by the types that a schema declares."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
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
        schemas = properties_of(parameters, parameters)
        types = {key: types_of(schema, parameters) for key, schema in schemas.items()}
        declared[str(function.get("name"))] = types
    return declared


_TYPE_NAMES = {
    "int": "integer",
    "float": "number",
    "double": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
    "str": "string",
    "none": "null",
}
"""Types as released definitions name them besides, in small letters."""


def types_of(schema: object, root: object = None) -> set[str]:
    """The JSON types a schema allows: its own, and those of what it refers to or combines.

    `root`: the schema in which its references (`#/$defs/…`) are looked up.
    """
    types: set[str] = set()
    for part in _parts(schema, root):
        named = part.get("type")
        names = named if isinstance(named, list) else [named]
        own = {_type_name(name) for name in names if isinstance(name, str)}
        # Values that are listed have their types, where none is named.
        listed = part.get("enum")
        if not own and isinstance(listed, list):
            own = set(map(_type_of, listed))
        if not own and "const" in part:
            own = {_type_of(part["const"])}
        if own and part.get("nullable") is True:
            own.add("null")
        types |= own
    return types


def properties_of(schema: object, root: object = None) -> dict[str, Any]:
    """The schemas of an object's keys, those that it refers to or combines included."""
    properties: dict[str, Any] = {}
    for part in _parts(schema, root):
        own = part.get("properties")
        if isinstance(own, Mapping):
            properties = {**{str(key): value for key, value in own.items()}, **properties}
    return properties


def items_of(schema: object, root: object = None) -> object:
    """The schema of a list's elements; None where none is given."""
    for part in _parts(schema, root):
        if isinstance(part.get("items"), Mapping):
            return part["items"]
    return None


def _parts(schema: object, root: object) -> Iterator[Mapping[str, Any]]:
    """A schema, what its `$ref` names, and its alternatives, each once."""
    waiting = [schema]
    seen = set()
    while waiting:
        part = waiting.pop(0)
        if not isinstance(part, Mapping) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        waiting.append(_referred(part.get("$ref"), root))
        for key in ("anyOf", "oneOf", "allOf"):
            choices = part.get(key)
            if isinstance(choices, list):
                waiting += choices


def _referred(reference: object, root: object) -> object:
    """What `#/$defs/NAME` names within `root`; None where it names nothing there."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    place = root
    for step in reference.split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        place = place.get(name) if isinstance(place, Mapping) else None
    return place


def _type_name(name: str) -> str:
    lower = name.lower()
    return _TYPE_NAMES.get(lower, lower)


def _type_of(value: object) -> str:
    """The JSON type of a value."""
    for name, kinds in _KINDS.items():
        if type(value) in kinds:
            return name
    return "string"


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
    """The value of a JSON text, or an object that is no JSON value where there is none.

    Two values for one key, NaN and numbers beyond every float are not JSON here: nobody can say
    which value is meant, and none of them can be written back.
    """
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return _NotJson()


def decoded_at(text: str, start: int) -> tuple[Any, int]:
    """(the JSON value that begins behind white space at `start`, the place behind it).

    The place is `start` where there is no value.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return _NotJson(), start
    return value, end


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    return fields if len(fields) == len(pairs) else _refuse("an object that repeats a key")


_DECODER = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse,
    parse_float=_finite,
)
