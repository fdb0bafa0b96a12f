"""Function definitions of rows, and the nulls that a table filled in.

A table (Arrow, Parquet) has every column in every row. So a row that came through one holds a null
for each key that only other rows have: as a parameter, it was never defined; as an argument, never
given. Such nulls are dropped. A null that a definition allows is a value and stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from linn.chat.values import decoded, items_of, properties_of, types_of
from linn.errors import UserError

TOOL_KEYS = ("tools", "tool_defs", "tool_definitions", "functions")
"""Fields in which rows keep function definitions; linn's own name comes first."""

_OTHER_SCHEMAS = ("input_schema", "inputSchema")
"""What other protocols (Anthropic, MCP) call `parameters`."""


def tools_of(*places: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The definitions of the first of these places (a row's parameters, the row) that has some.

    A list of objects, its JSON text, or a list of JSON texts. UserError names the field that is
    wrong, or two that differ.
    """
    found: dict[str, tuple[Mapping[str, Any], ...]] = {}
    for place in places:
        for key in TOOL_KEYS:
            definitions = definitions_of(place.get(key), key)
            if definitions:
                found.setdefault(key, definitions)

    if not found:
        return ()
    first, *others = found
    for other in others:
        if found[other] != found[first]:
            raise UserError(f"tools: {first} and {other} define other functions; give one of them")
    return found[first]


def definitions_of(value: object, where: str = "tools") -> tuple[Mapping[str, Any], ...]:
    """The definitions of one field, without filled-in nulls; empty where there are none."""
    tools = value
    if isinstance(tools, str):
        tools = decoded(tools) if tools.strip() else None
    if tools is None:
        return ()
    if isinstance(tools, (str, Mapping)) or not isinstance(tools, Sequence):
        raise UserError(
            f"{where}: expected a list of function definitions or its JSON text, "
            f"found {short(value)}"
        )

    definitions: list[Mapping[str, Any]] = []
    for i, tool in enumerate(tools):
        definition = decoded(tool) if isinstance(tool, str) else tool
        if not isinstance(definition, Mapping):
            raise UserError(f"{where}[{i}]: expected a function definition, found {short(tool)}")
        definitions.append(_definition(definition, f"{where}[{i}]"))
    return tuple(definitions)


def untyped(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The functions' and parameters' names alone, under which every XML value stays text."""
    names: list[Mapping[str, Any]] = []
    for name, schema in schemas_of(tools).items():
        properties: dict[str, Any] = {key: {} for key in properties_of(schema, schema)}
        names.append({"name": name, "parameters": {"properties": properties}})
    return names


def schemas_of(tools: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The schema of every function's arguments, by the function's name."""
    schemas = {}
    for tool in tools:
        function = tool.get("function", tool)
        if isinstance(function, Mapping) and isinstance(function.get("name"), str):
            parameters = function.get("parameters")
            schemas[function["name"]] = parameters if isinstance(parameters, Mapping) else {}
    return schemas


def without_nulls(value: Any, schema: object = None, root: object = None) -> Any:
    """A call's arguments, or a part of them, without the nulls that `schema` does not allow.

    Keys that no schema names have no null of their own: they are dropped at any depth. Elements of
    lists stay, since a table fills in keys alone. `root`: where references of the schema are looked
    up; None: in `schema` itself.
    """
    root = schema if root is None else root
    if isinstance(value, Mapping):
        properties = properties_of(schema, root)
        kept = {}
        for key, item in value.items():
            own = properties.get(key)
            if item is None and (key not in properties or not allows_null(own, root)):
                continue
            kept[key] = without_nulls(item, own, root)
        return kept
    if isinstance(value, list):
        items = items_of(schema, root)
        return [without_nulls(item, items, root) for item in value]
    return value


def _definition(tool: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """A definition, and the function within it, without nulls and with an object of parameters."""
    kept = {key: value for key, value in tool.items() if value is not None}
    if isinstance(kept.get("function"), Mapping):
        kept["function"] = _definition(kept["function"], where)
        return kept
    if not isinstance(kept.get("name"), str) or not kept["name"]:
        raise UserError(f"{where}: a definition without a name; linn knows functions only")
    for other in _OTHER_SCHEMAS:
        if other in kept and "parameters" not in kept:
            kept = {"parameters" if key == other else key: kept[key] for key in kept}
    if "parameters" in kept:
        # Tables of plain columns keep a schema as its JSON text.
        value = kept["parameters"]
        parameters = decoded(value) if isinstance(value, str) else value
        if not isinstance(parameters, Mapping):
            raise UserError(f"{where}.parameters: expected an object, found {short(value)}")
        kept["parameters"] = _schema(parameters)
    return kept


def _schema(schema: Any) -> Any:
    """A JSON schema without filled-in nulls, down to its parts."""
    if not isinstance(schema, Mapping):
        return schema
    kept = {}
    for key, value in schema.items():
        if value is None:
            if key not in ("default", "const") or not allows_null(schema):
                continue
        elif key in ("properties", "$defs", "definitions") and isinstance(value, Mapping):
            value = {name: _schema(part) for name, part in value.items() if part is not None}
        elif key in ("items", "additionalProperties", "not"):
            value = _schema(value)
        elif key in ("anyOf", "oneOf", "allOf") and isinstance(value, list):
            value = [_schema(part) for part in value]
        kept[key] = value
    return kept


def allows_null(schema: object, root: object = None) -> bool:
    """Whether null is a value under a schema; one without types allows everything.

    `root`: where references of the schema are looked up.
    """
    types = types_of(schema, root)
    return not types or "null" in types


def short(value: object) -> str:
    """A value as an error shows it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
