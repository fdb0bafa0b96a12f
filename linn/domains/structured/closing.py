"""A JSON schema closed: every property that it names is required, and no other is allowed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_IN_PLACE = ("allOf", "anyOf", "oneOf")
"""Words that hold a list of schemas of the same value."""
_BRANCHES = ("if", "then", "else")
_HOLDERS = ("items", "contains", "additionalProperties", "unevaluatedItems")
"""Words that hold a schema of what is inside a value."""
_DEFINITIONS = ("$defs", "definitions")


def closed(schema_text: str) -> Any:
    """The schema closed wherever a value can stand: inside lists and alternatives too.

    Schemas of one value that are put together (`$ref` beside properties, `allOf`) are closed
    together: each of them must let the others' properties pass. Raises what reading the text does.
    """
    schema = json.loads(schema_text)
    _Closer(schema).close(schema)
    return schema


def resolved(root: Any, reference: Any) -> Any:
    """What a reference within a schema (`#/$defs/count`) names; None for others."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    value = root
    for part in filter(None, reference[1:].split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and name in value:
            value = value[name]
        elif isinstance(value, list) and name.isdigit() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


class _Closer:
    """Closes the schemas of one document, each once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._seen: set[int] = set()

    def close(self, schema: Any) -> None:
        """Close a schema that describes the whole of some value."""
        if not isinstance(schema, dict):
            return
        self._open_up(schema)

        # Alternatives that are the whole of a schema are closed each for itself, so that one of
        # them does not let the other's properties pass.
        alternatives = [part for word in ("anyOf", "oneOf") for part in _list(schema.get(word))]
        alone = "properties" not in schema and "$ref" not in schema and "allOf" not in schema
        if alternatives and alone:
            for part in alternatives:
                self.close(part)
        elif self._is_composed(schema) and self._names_properties(schema, set()):
            schema["unevaluatedProperties"] = False
        elif "properties" in schema:
            schema["additionalProperties"] = False

    def _open_up(self, schema: dict[str, Any]) -> None:
        """Require the properties of a schema, and close what is inside the value."""
        if id(schema) in self._seen:
            return
        self._seen.add(id(schema))

        if not isinstance(schema.get("properties", {}), dict):
            raise TypeError("properties must be an object")
        if "properties" in schema:
            schema["required"] = list(schema["properties"])
            schema.pop("additionalProperties", None)
        for part in self._inside(schema):
            self.close(part)
        for part in _in_place(schema):
            if isinstance(part, dict):
                self._open_up(part)
        for word in _DEFINITIONS:
            for part in _values(schema.get(word)):
                if isinstance(part, dict):
                    self._open_up(part)

    def _inside(self, schema: dict[str, Any]) -> Iterator[Any]:
        """Schemas of the values that a value holds."""
        for word in ("properties", "patternProperties"):
            yield from _values(schema.get(word))
        for word in _HOLDERS:
            yield schema.get(word)
        for word in ("prefixItems", "items"):
            yield from _list(schema.get(word))

    def _is_composed(self, schema: dict[str, Any]) -> bool:
        """Whether other schemas of the same value stand in it."""
        return "$ref" in schema or any(True for _ in _in_place(schema))

    def _names_properties(self, schema: Any, seen: set[int]) -> bool:
        """Whether a schema, or one of the same value that stands in it, names properties."""
        if not isinstance(schema, dict) or id(schema) in seen:
            return False
        seen.add(id(schema))
        if isinstance(schema.get("properties"), dict):
            return True
        parts = [*_in_place(schema), resolved(self._root, schema.get("$ref"))]
        return any(self._names_properties(part, seen) for part in parts)


def _in_place(schema: dict[str, Any]) -> Iterator[Any]:
    """The schemas of the same value that stand in a schema; references aside."""
    for word in _IN_PLACE:
        yield from _list(schema.get(word))
    for word in _BRANCHES:
        if word in schema:
            yield schema[word]
    yield from _values(schema.get("dependentSchemas"))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else []
