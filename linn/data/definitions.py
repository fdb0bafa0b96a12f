"""Function definitions of a row, and whether calls keep to them.

Definitions stand in the row's `tools` field or in its system text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linn.chat.tool_calls import decoded
from linn.data.rows import BadRow
from linn.types import ToolCall

_NAME = re.compile(r"<name>([^<]+)</name>")
_OBJECT = re.compile(r'\{\s*"')
_MISSES = 200
"""Braces in a system text that open no JSON object before the rest is left unread.

Bounds the time that hostile text takes."""


class Signatures:
    """What the functions of one row require."""

    def __init__(self, tools: Sequence[Mapping[str, Any]], system: Sequence[str]) -> None:
        """`tools`: the row's field; `system`: its system texts.

        The texts are read only where a call names what `tools` does not define.
        """
        self._required = dict(map(_signature, tools))
        self._unread = list(system)

    def check_call(self, call: ToolCall, where: str) -> None:
        """BadRow where a call does not keep to a definition.

        It cannot be read, names no defined function, or leaves a required argument out.
        """
        name = call.name[:60]
        if isinstance(call.arguments, str):
            raise BadRow(
                f"{where}: the arguments of {name!r} cannot be read: {call.arguments[:60]!r}",
                "unreadable call",
            )

        while call.name not in self._required and self._unread:
            # What is known already wins over a later text.
            self._required = dict(of_text(self._unread.pop())) | self._required

        if not self._required:
            raise BadRow(
                f"{where} calls {name!r}, but the row defines no tools",
                "call without tool definitions",
            )

        if call.name not in self._required:
            message = f"{where} calls {name!r}; defined: {', '.join(self._required)}"
            raise BadRow(message[:300], "undefined function called")

        missing = [key for key in self._required[call.name] if key not in call.arguments]
        if missing:
            raise BadRow(
                f"{where}: {name!r} lacks {', '.join(missing)[:80]}", "missing required argument"
            )


def of_field(tools: object) -> list[Mapping[str, Any]]:
    """The definitions of a `tools` field: a list, its JSON text, or a list of JSON texts.

    BadRow where it is something else.
    """
    if isinstance(tools, str):
        tools = decoded(tools) if tools.strip() else None
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise BadRow(
            "tools: expected a list of function definitions or its JSON text, "
            f"found {type(tools).__name__}",
            "unreadable tools",
        )

    definitions = []
    for i, tool in enumerate(tools):
        definition = decoded(tool) if isinstance(tool, str) else tool
        _check_definition(definition, f"tools[{i}]")
        definitions.append(definition)

    return definitions


def _check_definition(tool: object, where: str) -> None:
    if not isinstance(tool, Mapping):
        kind = type(tool).__name__
        raise BadRow(f"{where}: expected a function definition, found {kind}", "unreadable tools")

    function = tool.get("function", tool)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        raise BadRow(f"{where}: a definition without a name", "unreadable tools")
    parameters = function.get("parameters")
    if parameters is not None and not isinstance(parameters, Mapping):
        kind = type(parameters).__name__
        raise BadRow(f"{where}.parameters: expected an object, found {kind}", "unreadable tools")


def of_text(system: str) -> Iterator[tuple[str, list[str]]]:
    """(name, required arguments) of every definition in a system text.

    Definitions are written as the chat template writes them, or as JSON objects.
    """
    yield from _xml_definitions(system)
    yield from _json_definitions(system)


def _xml_definitions(system: str) -> Iterator[tuple[str, list[str]]]:
    for piece in system.split("<function>")[1:]:
        block, closed, _ = piece.partition("</function>")
        name = _NAME.search(block.partition("<parameters>")[0])
        if not closed or name is None:
            continue
        # The function's own list stands behind its parameters, whose schemas may have one too.
        after = block.rpartition("</parameter>")[2]
        required = after.partition("<required>")[2].partition("</required>")[0]
        yield name[1].strip(), _texts(decoded(required))


def _json_definitions(system: str) -> Iterator[tuple[str, list[str]]]:
    decoder = json.JSONDecoder()
    position = misses = 0
    while misses < _MISSES:
        start = _OBJECT.search(system, position)
        if start is None:
            return
        try:
            value, position = decoder.raw_decode(system, start.start())
        except (ValueError, RecursionError):
            misses += 1
            position = start.start() + 1
            continue

        if _is_definition(value.get("function", value)):
            yield _signature(value)


def _is_definition(function: object) -> bool:
    """Whether an object defines a function; calls and examples have a name as well."""
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return False
    return "parameters" in function or "description" in function


def _signature(tool: Mapping[str, Any]) -> tuple[str, list[str]]:
    function = tool.get("function", tool)
    parameters = function.get("parameters")
    required = parameters.get("required") if isinstance(parameters, Mapping) else []
    return function["name"], _texts(required)


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [entry for entry in value if isinstance(entry, str)]
