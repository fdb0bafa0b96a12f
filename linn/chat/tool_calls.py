"""Reading tool calls out of sampled text: XML or JSON inside `<tool_call>`, typed by the declared schemas."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from linn.types import ToolCall

CALL, CALL_END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"


def read_calls(
    text: str, tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, tuple[ToolCall, ...]]:
    """What a text says beside its calls, and the calls; never raises, in time linear in the text.

    A call that cannot be read has its own text as arguments, or stays in what is said where not even a name is there.
    """
    calls: list[ToolCall] = []
    said: list[str] = []
    reader = _Reader(text, _declared(tools))
    position = 0
    while (found := text.find(CALL, position)) >= 0:
        call, after = reader.read(found + len(CALL))
        if call is None:
            said.append(text[position:after])
        else:
            between = text[position:found]
            said.append(between.strip("\n") if calls else between.removesuffix("\n"))
            calls.append(call)
        position = after
    if not calls:
        return text, ()
    said.append(text[position:].strip())
    return "\n".join(piece for piece in said if piece), tuple(calls)


def arguments_of(value: object) -> Mapping[str, Any] | str:
    """Arguments as a row or a JSON call gives them: an object, or text that is read where it holds one and else kept."""
    if isinstance(value, Mapping):
        return value
    if value is None:
        return {}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    read = decoded(text) if text.strip() else {}
    return read if isinstance(read, dict) else text


class _Reader:
    """Reads calls out of one text, forward only, so that hostile text costs no more than its length."""

    def __init__(self, text: str, types: Mapping[str, Mapping[str, set[str]]]) -> None:
        self.text = text
        self.types = types
        self.endless = len(text) + 1
        """No parameter value that starts here or later ends."""

    def read(self, start: int) -> tuple[ToolCall | None, int]:
        """The call whose inside starts at `start`, or None, and where to go on."""
        position = self._skip(start)
        if not self.text.startswith(FUNCTION, position):
            return self._read_json(start)
        name, position = self._attribute(position + len(FUNCTION))
        if not name:
            return None, position
        inside = position
        arguments: dict[str, Any] = {}
        while True:
            position = self._skip(position)
            if self.text.startswith(FUNCTION_END, position):
                after = self._skip(position + len(FUNCTION_END))
                return ToolCall(name, arguments), after + len(CALL_END) if self.text.startswith(
                    CALL_END, after
                ) else after
            if not self.text.startswith(PARAMETER, position):
                break
            key, position = self._attribute(position + len(PARAMETER))
            value, position = self._parameter(position)
            if not key or value is None:
                break
            arguments[key] = _typed(value, self.types.get(name, {}).get(key, set()))
        body, after = self._block(inside, position)
        return ToolCall(
            name, body.rstrip().removesuffix(FUNCTION_END).removeprefix("\n").removesuffix("\n")
        ), after

    def _read_json(self, start: int) -> tuple[ToolCall | None, int]:
        body, after = self._block(start, start)
        told = decoded(body)
        if not isinstance(told, dict) or not isinstance(told.get("name"), str) or not told["name"]:
            return None, after
        return ToolCall(told["name"], arguments_of(told.get("arguments"))), after

    def _block(self, start: int, position: int) -> tuple[str, int]:
        """The text from `start` to the closing mark of the call at or after `position`, and the place behind the mark."""
        end = self.text.find(CALL_END, position)
        return (
            (self.text[start:], len(self.text))
            if end < 0
            else (self.text[start:end], end + len(CALL_END))
        )

    def _skip(self, position: int) -> int:
        while position < len(self.text) and self.text[position].isspace():
            position += 1
        return position

    def _attribute(self, start: int) -> tuple[str, int]:
        """What stands before the next `>` of this line, and the place behind it; empty where there is none."""
        end = self.text.find(">", start, start + 1000)
        if end < 0 or "\n" in self.text[start:end]:
            return "", start
        return self.text[start:end].strip(), end + 1

    def _parameter(self, start: int) -> tuple[str | None, int]:
        """The value that starts here; it ends at the first closing mark that another parameter or the end of the call follows."""
        if start >= self.endless:
            return None, start
        end = start
        while (end := self.text.find(PARAMETER_END, end)) >= 0:
            after = self._skip(end + len(PARAMETER_END))
            if self.text.startswith((PARAMETER, FUNCTION_END), after):
                return self.text[start:end].removeprefix("\n").removesuffix("\n"), after
            end = after
        self.endless = start
        return None, start


def _declared(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, set[str]]]:
    """Types by function and parameter, as far as the definitions tell."""
    declared: dict[str, dict[str, set[str]]] = {}
    for tool in tools:
        function = tool.get("function", tool)
        parameters = function.get("parameters") if isinstance(function, Mapping) else None
        properties = parameters.get("properties") if isinstance(parameters, Mapping) else None
        if isinstance(properties, Mapping):
            declared[str(function.get("name"))] = {
                str(key): _types(schema) for key, schema in properties.items()
            }
    return declared


def _types(schema: object) -> set[str]:
    """The JSON types a schema allows: its `type`, or those of its alternatives."""
    if not isinstance(schema, Mapping):
        return set()
    told = schema.get("type")
    types = (
        {told}
        if isinstance(told, str)
        else {t for t in told if isinstance(t, str)}
        if isinstance(told, list)
        else set()
    )
    for key in ("anyOf", "oneOf"):
        for choice in schema[key] if isinstance(schema.get(key), list) else ():
            types |= _types(choice)
    return types


_PYTHON = {"True": "true", "False": "false", "None": "null"}
_KINDS: dict[str, tuple[type, ...]] = {
    "integer": (int,), "number": (int, float), "boolean": (bool,), "array": (list,), "object": (dict,), "null": (type(None),)
}  # fmt: skip


def _typed(text: str, types: set[str]) -> Any:
    """A parameter's text as a value of one of these types; the text itself where none fits or text is allowed."""
    if not types or (types <= {"string"}):
        return text
    value = decoded(_PYTHON.get(text.strip(), text))
    if "string" in types and value is not None:
        return text
    if (
        isinstance(value, float)
        and "number" not in types
        and "integer" in types
        and value.is_integer()
    ):
        return int(value)
    kinds = [kind for name in types for kind in _KINDS.get(name, ())]
    return value if type(value) in kinds else text


class _Unreadable:
    """What `decoded` gives for text that is no JSON; no JSON type, so every check for one refuses it."""


def decoded(text: str) -> Any:
    """The value of a JSON text, or an object that is no JSON value where there is none."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _Unreadable()


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no JSON")
