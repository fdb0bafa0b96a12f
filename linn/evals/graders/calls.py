"""Function calls against lists of allowed values: the AST part of the Berkeley leaderboard (BFCL).

A row holds the functions, the conversation and, for every expected call, the values that each
argument may have; an empty text among them means that the argument may be left out. A row without
expected calls earns by a reply that calls nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from linn.chat.turns import to_messages
from linn.domains.base import Domain
from linn.errors import UserError
from linn.types import Prompt, Reply, ToolCall, Verdict

_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": "string"}
"""The rows' own words for types, as JSON schema has them."""
_VALUES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
"""What Python makes of a value of each type."""
_LOOSE = re.compile(r"[ ,./\-_*^]")
"""What makes no difference between two texts."""


@dataclass(frozen=True)
class Expected:
    """What the grader knows of a row: the prompt's `hidden`."""

    functions: tuple[Mapping[str, Any], ...]
    """The definitions, as the row has them."""
    calls: tuple[tuple[str, Mapping[str, Sequence[Any]]], ...]
    """(function, allowed values by argument) of each call; empty: none is to be made."""


class Calls(Domain):
    """One or several calls, in any order; reward 1 iff they are the expected ones."""

    name: ClassVar[str] = "calls"

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`question` (turns, of which the first exchange counts), `function`, `ground_truth`."""
        where = f"row {index}"
        functions = row.get("function")
        turns = row.get("question")
        if not isinstance(functions, list) or not isinstance(turns, list) or not turns:
            raise UserError(f"{where}: needs question (a list of turns) and function (a list)")
        if isinstance(turns[0], list):
            turns = turns[0]
        calls = []
        for entry in row.get("ground_truth") or ():
            if not isinstance(entry, Mapping) or len(entry) != 1:
                raise UserError(f"{where}: ground_truth must hold one function a call")
            ((function, values),) = entry.items()
            calls.append((function, values))
        return Prompt(
            domain=self.name,
            id=str(index),
            messages=to_messages(turns, "question"),
            tools=tuple(definition(function) for function in functions),
            hidden=Expected(tuple(functions), tuple(calls)),
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """See the module; the first mistake is named."""
        expected = prompt.hidden
        assert isinstance(expected, Expected), prompt.hidden
        made = [call for message in reply.messages for call in message.tool_calls]
        fault = faults_of(expected, made)
        return Verdict(float(not fault), fault)

    def gold(self, prompt: Prompt) -> Reply:
        """Rows hold values, of which any counts; see the tests."""
        raise UserError("benchmark grader calls: rows hold no replies")


GRADER = Calls


def definition(function: Mapping[str, Any]) -> dict[str, Any]:
    """A row's function as an OpenAI-style definition."""
    return {
        "type": "function",
        "function": {
            "name": function["name"],
            "description": function.get("description", ""),
            "parameters": _schema(function.get("parameters") or {}),
        },
    }


def _schema(value: Any) -> Any:
    """A schema with JSON schema's own words for types."""
    if isinstance(value, list):
        return [_schema(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    schema = {key: _schema(inner) for key, inner in value.items() if key != "optional"}
    kind = value.get("type")
    if isinstance(kind, str):
        schema["type"] = _TYPES.get(kind, kind.lower())
    return schema


def faults_of(expected: Expected, made: Sequence[ToolCall]) -> str:
    """What is wrong with the calls of a reply; empty where nothing is."""
    if not expected.calls:
        return f"called {made[0].name[:60]}, where nothing fits" if made else ""
    if len(made) != len(expected.calls):
        return f"{len(made)} calls, {len(expected.calls)} expected"
    # In any order: each expected call takes one of those that are left.
    left = list(made)
    for name, allowed in expected.calls:
        faults = [_fault(expected.functions, name, allowed, call) for call in left]
        if "" not in faults:
            return faults[0] if len(faults) == 1 else f"no call is the expected one of {name}"
        left.pop(faults.index(""))
    return ""


def _fault(
    functions: Sequence[Mapping[str, Any]],
    name: str,
    allowed: Mapping[str, Sequence[Any]],
    call: ToolCall,
) -> str:
    """What is wrong with one call against one expected call."""
    # Some protocols take no dots in a function's name.
    if call.name not in (name, name.replace(".", "_")):
        return f"{call.name[:60]!r} is called, not {name}"
    if not isinstance(call.arguments, Mapping):
        return f"{name}: its arguments are not readable"
    function = next((each for each in functions if each["name"] == name), functions[0])
    parameters = function.get("parameters") or {}
    properties = parameters.get("properties") or {}
    for key in parameters.get("required") or ():
        if key not in call.arguments:
            return f"{name}: {key} is missing"
    # What is given must be allowed; then, what may not be left out must be given.
    for key, value in call.arguments.items():
        if key not in properties or key not in allowed:
            return f"{name}: {key[:60]!r} is no argument of it"
        if not _is_allowed(value, allowed[key], properties[key]):
            return f"{name}: {key} is {str(value)[:60]!r}"
    for key, values in allowed.items():
        if key not in call.arguments and "" not in values:
            return f"{name}: {key} is left out"
    return ""


def _is_allowed(value: Any, allowed: Sequence[Any], declared: Mapping[str, Any]) -> bool:
    """Whether a value has its declared type and is one of those allowed.

    Where the allowed values are of another type, they stand for a variable: then that type counts.
    """
    kind: Any = _VALUES.get(str(declared.get("type")), str)
    # JSON writes a whole number without its point.
    if declared.get("type") == "float" and type(value) is int:
        value = float(value)
    # "" among the allowed values says that the argument may be left out.
    known = next((type(each) for each in allowed if each != ""), None)
    variable = known is not None and known is not kind
    if type(value) is not kind:
        return known is not None and type(value) is known and value in allowed

    within = None
    if declared.get("type") in ("array", "tuple"):
        items = declared.get("items") or {}
        within = _VALUES.get(str(items.get("type")), str)
        if not _items_fit(value, allowed, within):
            return False
    if variable:
        return value in allowed
    if kind is dict:
        return any(_same_keys(value, each) for each in allowed if each != "")
    if kind is list and within is dict:
        return any(_same_list(value, each) for each in allowed)
    if kind is str:
        texts = [_loose(each) for each in allowed if isinstance(each, str)]
        return _loose(value) in texts
    if kind is list:
        lists = [[_loose(item) for item in each] for each in allowed if not isinstance(each, str)]
        return [_loose(item) for item in value] in [*lists, *([] if "" not in allowed else [[]])]
    return value in allowed


def _items_fit(value: Sequence[Any], allowed: Sequence[Any], within: type) -> bool:
    """Whether the items of a list have the declared type, or that of an allowed list's items."""
    for each in allowed:
        if not isinstance(each, list):
            return True
        kinds = {type(item) for item in each if item != ""}
        if all(type(item) is within or type(item) in kinds for item in value):
            return True
    return False


def _same_keys(value: Mapping[str, Any], allowed: Any) -> bool:
    """Whether an object has allowed values at allowed keys; a key with "" may be left out."""
    if not isinstance(allowed, Mapping):
        return False
    for key, inner in value.items():
        if key not in allowed or _loose(inner) not in [_loose(each) for each in allowed[key]]:
            return False
    return all(key in value or "" in values for key, values in allowed.items())


def _same_list(value: Sequence[Any], allowed: Any) -> bool:
    if not isinstance(allowed, list) or len(value) != len(allowed):
        return False
    return all(
        isinstance(one, Mapping) and _same_keys(one, other)
        for one, other in zip(value, allowed, strict=True)
    )


def _loose(value: Any) -> Any:
    """A text without what makes no difference; anything else as it is."""
    if not isinstance(value, str):
        return value
    return _LOOSE.sub("", value).lower().replace("'", '"')
