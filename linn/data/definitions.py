"""Function definitions of a row, and whether calls keep to them.

Definitions stand in the row's `tools` field or in its system text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from linn.chat.tools import allows_null, tools_of
from linn.chat.values import decoded, properties_of
from linn.data.rows import BadRow
from linn.errors import UserError
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

        # A null is an argument only where its schema has one.
        required = self._required[call.name]
        missing = []
        for key, may_be_null in required.items():
            absent = key not in call.arguments
            if absent or (call.arguments[key] is None and not may_be_null):
                missing.append(key)
        if missing:
            raise BadRow(
                f"{where}: {name!r} lacks {', '.join(missing)[:80]}", "missing required argument"
            )


def of_row(row: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The definitions of a row's `tools` field, or of one that others name so.

    A list, its JSON text, or a list of JSON texts. BadRow where it is something else.
    """
    try:
        return tools_of(row)
    except UserError as error:
        raise BadRow(str(error), "unreadable tools") from None


def of_text(system: str) -> Iterator[tuple[str, dict[str, bool]]]:
    """(name, required arguments as `_signature` has them) of every definition in a system text.

    Definitions are written as the chat template writes them, or as JSON objects.
    """
    yield from _xml_definitions(system)
    yield from _json_definitions(system)


def _xml_definitions(system: str) -> Iterator[tuple[str, dict[str, bool]]]:
    for piece in system.split("<function>")[1:]:
        block, closed, _ = piece.partition("</function>")
        name = _NAME.search(block.partition("<parameters>")[0])
        if not closed or name is None:
            continue
        # The function's own list stands behind its parameters, whose schemas may have one too.
        after = block.rpartition("</parameter>")[2]
        required = after.partition("<required>")[2].partition("</required>")[0]
        yield name[1].strip(), dict.fromkeys(_texts(decoded(required)), False)


def _json_definitions(system: str) -> Iterator[tuple[str, dict[str, bool]]]:
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


def _signature(tool: Mapping[str, Any]) -> tuple[str, dict[str, bool]]:
    """A function's name, and its required arguments with whether null is a value of each."""
    function = tool.get("function", tool)
    parameters = function.get("parameters")
    if not isinstance(parameters, Mapping):
        return function["name"], {}
    schemas = properties_of(parameters, parameters)
    required = {}
    for key in _texts(parameters.get("required")):
        required[key] = key in schemas and allows_null(schemas[key], parameters)
    return function["name"], required


def _texts(value: object) -> list[str]:
    if not isinstance(value, list):
        return []
    return [entry for entry in value if isinstance(entry, str)]
