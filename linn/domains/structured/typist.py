"""The text of XML and CSV as the types that a schema asks for.

Both formats hold nothing but text. A schema may ask for a type by a reference, by one of several
alternatives, by a list of types or by the values themselves; a text is read as whatever is valid.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from linn.domains.structured.closing import resolved

_MOST_ALTERNATIVES = 64
_INTEGER = re.compile(r"[+-]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_JSON_TYPES: Mapping[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    type(None): "null",
    list: "array",
    dict: "object",
}

Check = Callable[[Any, Any], bool]
"""(value, schema) -> whether the value keeps the schema."""


class Typist:
    """Reads the texts of one document as the types of its schema."""

    def __init__(self, root: Any, is_valid: Check) -> None:
        self._root = root
        self._is_valid = is_valid

    def xml(self, value: Any, schema: Any) -> Any:
        """What an XML parser gave (texts, None, lists, objects), typed."""
        return self._first_valid(self._xml_readings(value, schema))

    def xml_document(self, value: Any, schema: Any) -> Any:
        """A whole document, an object of its root element, typed.

        A document has one root. Where the schema asks for several properties, or for a list, they
        stand in the root, whose name is then free.
        """
        ((_, inner),) = value.items()
        typed = self.xml(value, schema)
        is_named = any(
            len(each.get("properties") or ()) == 1 for each in self._alternatives(schema)
        )
        if is_named or self._is_valid(typed, schema):
            return typed
        return self._first_valid(iter([(typed, schema), (self.xml(inner, schema), schema)]))

    def csv(self, rows: list[dict[str, Any]], schema: Any) -> list[dict[str, Any]]:
        """The rows of a table, typed."""
        tables = [each["items"] for each in self._alternatives(schema) if "items" in each]
        items: Any = tables[0] if tables else {}
        return [self._first_valid(self._csv_readings(row, items)) for row in rows]

    def _first_valid(self, readings: Iterator[tuple[Any, Any]]) -> Any:
        """The first of some (value, schema) that is valid, else the first; its value."""
        kept = None
        for value, schema in readings:
            if kept is None:
                kept = (value,)
            if self._is_valid(value, schema):
                return value
        assert kept is not None, "a schema always has an alternative"
        return kept[0]

    def _xml_readings(self, value: Any, schema: Any) -> Iterator[tuple[Any, Any]]:
        for each in self._alternatives(schema):
            if _is_array(each):
                for items in _xml_items(value):
                    yield [self.xml(*pair) for pair in _with_schemas(items, each)], each
            elif _is_object(each) and (value is None or isinstance(value, dict)):
                yield self._members(value or {}, each, self.xml), each
            elif value is None:
                yield _nothing(each), each
            else:
                yield _scalar(value, each.get("type")), each

    def _csv_readings(self, row: dict[str, Any], schema: Any) -> Iterator[tuple[Any, Any]]:
        for each in self._alternatives(schema):
            yield self._members(row, each, self._csv_cell), each

    def _csv_cell(self, cell: Any, schema: Any) -> Any:
        """A cell; an empty one is nothing where the schema allows that, else an empty text."""
        readings = []
        for each in self._alternatives(schema):
            if each.get("type") == "null" and not cell:
                return None
            readings.append((_scalar(cell, each.get("type")), each))
        return self._first_valid(iter(readings))

    def _members(
        self, value: Mapping[str, Any], schema: Any, read: Callable[[Any, Any], Any]
    ) -> dict[str, Any]:
        """The members of an object, each by the schema of its name."""
        known = schema.get("properties") or {}
        other = schema.get("additionalProperties")
        return {
            key: read(part, known.get(key, other) if key in known or other else {})
            for key, part in value.items()
        }

    # -------------------------------------------------- alternatives

    def _alternatives(self, schema: Any) -> list[dict[str, Any]]:
        """The schema as alternatives without references, each of one type or of none."""
        found: list[dict[str, Any]] = []
        for each in self._parts(schema, frozenset()):
            found += _by_type(each)
            if len(found) >= _MOST_ALTERNATIVES:
                break
        return found[:_MOST_ALTERNATIVES] or [{}]

    def _parts(self, schema: Any, seen: frozenset[str]) -> Iterator[dict[str, Any]]:
        """The same, types aside: each alternative holds what stands beside it."""
        if not isinstance(schema, dict):
            yield {}
            return
        rest = dict(schema)

        if "$ref" in rest:
            name = str(rest.pop("$ref"))
            target = resolved(self._root, name)
            if target is None or name in seen:
                yield rest
                return
            yield from self._parts(_merged(target, rest), seen | {name})
            return

        for word in ("anyOf", "oneOf"):
            branches = rest.pop(word, None)
            if isinstance(branches, list) and branches:
                for branch in branches:
                    yield from self._parts(_merged(branch, rest), seen)
                return

        if isinstance(rest.get("allOf"), list):
            together = rest.pop("allOf")
            for part in together:
                rest = _merged(part, rest)
            yield from self._parts(rest, seen)
            return
        yield rest


def _merged(schema: Any, other: dict[str, Any]) -> dict[str, Any]:
    """Two schemas of one value; where both say something, the second's word counts."""
    if not isinstance(schema, dict):
        return other
    merged = {**schema, **other}
    for word in ("properties", "required"):
        first, second = schema.get(word), other.get(word)
        if isinstance(first, dict) and isinstance(second, dict):
            merged[word] = {**first, **second}
        elif isinstance(first, list) and isinstance(second, list):
            merged[word] = [*first, *second]
    # Two lists of parts cannot be one: they are put together.
    if "allOf" in schema and "allOf" in other:
        merged["allOf"] = [*schema["allOf"], *other["allOf"]]
    return merged


def _by_type(schema: dict[str, Any]) -> list[dict[str, Any]]:
    """A schema of several types, or of listed values, as one schema per type."""
    types = schema.get("type")
    if types is None and ("enum" in schema or "const" in schema):
        values = schema.get("enum", [schema.get("const")])
        listed = values if isinstance(values, list) else []
        types = list(dict.fromkeys(_JSON_TYPES.get(type(value), "string") for value in listed))
    if isinstance(types, list):
        return [{**schema, "type": each} for each in types]
    return [schema]


def _is_array(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "array" or ("type" not in schema and "items" in schema)


def _is_object(schema: dict[str, Any]) -> bool:
    return schema.get("type") == "object" or ("type" not in schema and "properties" in schema)


# ---------------------------------------------------------------- values


def _xml_items(value: Any) -> list[list[Any]]:
    """The items of a list, as they may be meant: one after the other, or in one element.

    `<tags><tag>a</tag><tag>b</tag></tags>` is a list of two; so is `<tag>a</tag><tag>b</tag>`.
    """
    if value is None:
        return [[]]
    if isinstance(value, list):
        return [value]
    if isinstance(value, dict) and len(value) == 1:
        (inner,) = value.values()
        return [inner if isinstance(inner, list) else [inner], [value]]
    return [[value]]


def _with_schemas(items: list[Any], schema: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Each item with its schema."""
    first = schema.get("prefixItems") or []
    rest = schema.get("items", {})
    return [(item, first[at] if at < len(first) else rest) for at, item in enumerate(items)]


def _nothing(schema: dict[str, Any]) -> Any:
    """An empty element: an empty text where a text is wanted."""
    return "" if schema.get("type") == "string" else None


def _scalar(text: Any, kind: Any) -> Any:
    """A text as a type; as it is where it cannot be read so, and then invalid."""
    if not isinstance(text, str):
        return text
    bare = text.strip()
    if kind in ("integer", "number") and _INTEGER.fullmatch(bare):
        return int(bare)
    if kind == "number" and _NUMBER.fullmatch(bare):
        return float(bare)
    if kind == "boolean":
        return _BOOLEANS.get(bare.lower(), text)
    if kind == "null" and not bare:
        return None
    return text
