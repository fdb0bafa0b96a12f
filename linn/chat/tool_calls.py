"""Reading tool calls out of sampled text.

Calls are XML or JSON inside `<tool_call>`; XML values are typed by the declared schemas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from linn.types import ToolCall

CALL, CALL_END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"

_LONGEST_NAME = 1000
"""Characters of a function's or parameter's name; bounds the search for the `>` behind it."""


def read_calls(
    text: str, tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, tuple[ToolCall, ...]]:
    """(the text beside the calls, the calls); never raises, in time linear in the text.

    A call that cannot be read has its own text as arguments, or stays in the text where not even
    a name is there.
    """
    calls: list[ToolCall] = []
    beside: list[str] = []
    reader = _Reader(text, _declared(tools))
    position = 0
    while (start := text.find(CALL, position)) >= 0:
        call, after = reader.read(start + len(CALL))
        if call is None:
            beside.append(text[position:after])
        else:
            between = text[position:start]
            # The newline before the first call belongs to the format; the answer's own ones stay.
            if calls:
                beside.append(between.strip("\n"))
            else:
                beside.append(between.removesuffix("\n"))
            calls.append(call)
        position = after
    if not calls:
        return text, ()
    beside.append(text[position:].strip())
    return "\n".join(piece for piece in beside if piece), tuple(calls)


def arguments_of(value: object) -> Mapping[str, Any] | str:
    """Arguments as a row or a JSON call gives them: an object, or its JSON text.

    Text that holds no object is kept as text.
    """
    if isinstance(value, Mapping):
        return value
    if value is None:
        return {}
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if not text.strip():
        return {}
    arguments = decoded(text)
    return arguments if isinstance(arguments, dict) else text


class _Reader:
    """Reads calls out of one text, forward only: hostile text costs no more than its length."""

    def __init__(self, text: str, types: Mapping[str, Mapping[str, set[str]]]) -> None:
        """`types`: JSON types by function and parameter."""
        self.text = text
        self.types = types
        self.endless = len(text) + 1
        """No parameter value that starts here or later has an end."""

    def read(self, start: int) -> tuple[ToolCall | None, int]:
        """(the call whose inside starts at `start`, the place behind it); None: it has no name."""
        position = self._skip(start)
        if not self.text.startswith(FUNCTION, position):
            return self._read_json(start)
        name, inside = self._name(position + len(FUNCTION))
        if not name:
            return None, inside

        arguments: dict[str, Any] = {}
        types = self.types.get(name, {})
        position = self._skip(inside)
        while self.text.startswith(PARAMETER, position):
            key, position = self._name(position + len(PARAMETER))
            value, position = self._value(position)
            if not key or value is None:
                return self._unread(name, inside, position)
            arguments[key] = _typed(value, types.get(key, set()))
            position = self._skip(position)

        if not self.text.startswith(FUNCTION_END, position):
            return self._unread(name, inside, position)
        after = self._skip(position + len(FUNCTION_END))
        if self.text.startswith(CALL_END, after):
            after += len(CALL_END)
        return ToolCall(name, arguments), after

    def _unread(self, name: str, inside: int, position: int) -> tuple[ToolCall, int]:
        """The call with its own text as arguments; reading stopped at `position`."""
        body, after = self._block(inside, position)
        body = body.rstrip().removesuffix(FUNCTION_END)
        return ToolCall(name, body.removeprefix("\n").removesuffix("\n")), after

    def _read_json(self, start: int) -> tuple[ToolCall | None, int]:
        body, after = self._block(start, start)
        fields = decoded(body)
        name = fields.get("name") if isinstance(fields, dict) else None
        if not isinstance(name, str) or not name:
            return None, after
        return ToolCall(name, arguments_of(fields.get("arguments"))), after

    def _block(self, start: int, position: int) -> tuple[str, int]:
        """(text from `start` to the call's closing mark, place behind the mark).

        The mark is the first at or after `position`; without one the text is all that is left.
        """
        end = self.text.find(CALL_END, position)
        if end < 0:
            return self.text[start:], len(self.text)
        return self.text[start:end], end + len(CALL_END)

    def _skip(self, position: int) -> int:
        """The first place at or after `position` that is not white space."""
        while position < len(self.text) and self.text[position].isspace():
            position += 1
        return position

    def _name(self, start: int) -> tuple[str, int]:
        """(text before the next `>` of this line, place behind it); empty where there is none."""
        end = self.text.find(">", start, start + _LONGEST_NAME)
        if end < 0 or "\n" in self.text[start:end]:
            return "", start
        return self.text[start:end].strip(), end + 1

    def _value(self, start: int) -> tuple[str | None, int]:
        """(the parameter's value that starts here, the place behind its closing mark).

        It ends at the first closing mark that another parameter or the end of the call follows,
        so that a value may hold the mark itself. None where it has no end.
        """
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


# ---------------------------------------------------------------- types


def _declared(tools: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, set[str]]]:
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
            types = {str(key): _types(schema) for key, schema in properties.items()}
            declared[str(function.get("name"))] = types
    return declared


def _types(schema: object) -> set[str]:
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
            types = types.union(*map(_types, choices))
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


def _typed(text: str, types: set[str]) -> Any:
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
