"""Function definitions of a row, in its `tools` field or in its system text, and whether calls keep to them."""

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
"""Braces in a system text that open no JSON object before the rest is left unread; bounds the time that hostile text takes."""


class Signatures:
    """What the functions of one row require."""

    def __init__(self, tools: Sequence[Mapping[str, Any]], system: Sequence[str]) -> None:
        """`tools`: the row's field; `system`: its system texts, read only where a call names what `tools` does not define."""
        self._required = dict(map(_signature, tools))
        self._unread = list(system)

    def check_call(self, call: ToolCall, where: str) -> None:
        """BadRow where a call cannot be read, names no defined function, or leaves a required argument out."""
        if isinstance(call.arguments, str):
            raise BadRow(
                f"{where}: the arguments of {call.name[:60]!r} cannot be read: {call.arguments[:60]!r}",
                "unreadable call",
            )
        while call.name not in self._required and self._unread:
            self._required = dict(of_text(self._unread.pop())) | self._required
        if not self._required:
            raise BadRow(
                f"{where} calls {call.name[:60]!r}, but the row defines no tools",
                "call without tool definitions",
            )
        if call.name not in self._required:
            raise BadRow(
                f"{where} calls {call.name[:60]!r}; defined: {', '.join(self._required)}"[:300],
                "undefined function called",
            )
        if missing := [key for key in self._required[call.name] if key not in call.arguments]:
            raise BadRow(
                f"{where}: {call.name[:60]!r} lacks {', '.join(missing)[:80]}",
                "missing required argument",
            )


def of_field(tools: object) -> list[Mapping[str, Any]]:
    """The definitions of a `tools` field: a list, its JSON text, or a list of JSON texts; BadRow where it is something else."""
    if isinstance(tools, str):
        tools = decoded(tools) if tools.strip() else None
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise BadRow(
            f"tools: expected a list of function definitions or its JSON text, found {type(tools).__name__}",
            "unreadable tools",
        )
    found = []
    for i, tool in enumerate(tools):
        tool = decoded(tool) if isinstance(tool, str) else tool
        if not isinstance(tool, Mapping):
            raise BadRow(
                f"tools[{i}]: expected a function definition, found {type(tool).__name__}",
                "unreadable tools",
            )
        function = tool.get("function", tool)
        if (
            not isinstance(function, Mapping)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise BadRow(f"tools[{i}]: a definition without a name", "unreadable tools")
        parameters = function.get("parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise BadRow(
                f"tools[{i}].parameters: expected an object, found {type(parameters).__name__}",
                "unreadable tools",
            )
        found.append(tool)
    return found


def of_text(system: str) -> Iterator[tuple[str, list[str]]]:
    """(name, required arguments) of every definition in a system text: as the chat template writes them, or as JSON objects."""
    for piece in system.split("<function>")[1:]:
        block, closed, _ = piece.partition("</function>")
        if closed and (name := _NAME.search(block.partition("<parameters>")[0])):
            required = (
                block.rpartition("</parameter>")[2]
                .partition("<required>")[2]
                .partition("</required>")[0]
            )
            yield name[1].strip(), _texts(decoded(required))
    decoder = json.JSONDecoder()
    position = misses = 0
    while misses < _MISSES and (at := _OBJECT.search(system, position)):
        try:
            value, position = decoder.raw_decode(system, at.start())
        except (ValueError, RecursionError):
            misses += 1
            position = at.start() + 1
            continue
        function = value.get("function", value)
        if (
            isinstance(function, Mapping)
            and isinstance(function.get("name"), str)
            and ({"parameters", "description"} & function.keys())
        ):
            yield _signature(value)


def _signature(tool: Mapping[str, Any]) -> tuple[str, list[str]]:
    function = tool.get("function", tool)
    parameters = function.get("parameters")
    return function["name"], _texts(
        parameters.get("required") if isinstance(parameters, Mapping) else []
    )


def _texts(value: object) -> list[str]:
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
