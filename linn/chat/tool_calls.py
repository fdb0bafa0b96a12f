"""Reading tool calls out of sampled text.

Calls are XML or JSON inside `<tool_call>`; XML values are typed by the declared schemas. What could
be read in two ways is not guessed at: the call then has its own text as arguments, which no
function takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linn.chat.values import declared_types, decoded, typed_value
from linn.types import ToolCall

CALL, CALL_END = "<tool_call>", "</tool_call>"
FUNCTION, FUNCTION_END = "<function=", "</function>"
PARAMETER, PARAMETER_END = "<parameter=", "</parameter>"

ARGUMENT_KEYS = ("arguments", "parameters", "args", "input", "params", "kwargs")
"""Where calls keep their arguments; every word but the first is another protocol's."""
_ABOUT_CALLS = {"name", "type", "id", "call_id", "tool_call_id", "index", "status", "function"}
"""Keys of a call that say nothing of its arguments."""
_LONGEST_NAME = 1000
"""Characters of a function's or parameter's name; bounds the search for the `>` behind it."""

_LONGEST_INDENT = 200
"""White space around a mark that is alone on its line."""

_TAG = re.compile(rf"{PARAMETER_END}|{PARAMETER}|{FUNCTION_END}|{CALL}")
_OPENER = re.compile(
    rf"{CALL}\s*+(?:{FUNCTION}[^<>\n]{{1,{_LONGEST_NAME}}}+>\s*+(?:{PARAMETER}|{FUNCTION_END})"
    r'|\{\s*+"name")'
)
"""What can only be the beginning of the next call."""
_STRAY = re.compile(rf"{PARAMETER_END}|{FUNCTION_END}")
_WRONG_END = re.compile(r"</[^<>\n]{0,100}>?\s*\Z")
"""A closing mark that is not the parameter's, at the end of a value without one."""
_JSON_PART = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\Z)|[{}\[\]<]', re.DOTALL)
"""What an object's end depends on; `<` stands in no JSON outside of strings."""


class UnreadableCall(ValueError):
    """A call whose name or arguments cannot be told; the message says why."""


def read_calls(
    text: str, tools: Sequence[Mapping[str, Any]] = ()
) -> tuple[str, tuple[ToolCall, ...]]:
    """(the text beside the calls, the calls); never raises, in time linear in the text.

    A call that cannot be read has its own text as arguments, or stays in the text where not even
    a name is there.
    """
    calls: list[ToolCall] = []
    beside: list[str] = []
    position = 0
    for found in _found(text, tools):
        between = text[position : found.start]
        # The newline before the first call belongs to the format; the answer's own ones stay.
        if calls:
            beside.append(between.strip("\n"))
        else:
            beside.append(between.removesuffix("\n"))
        calls.append(found.call)
        position = found.end
    if not calls:
        return text, ()
    beside.append(text[position:].strip())
    return "\n".join(piece for piece in beside if piece), tuple(calls)


def outside_calls(text: str) -> str:
    """The text with every call that can be read blanked, in place: offsets stay.

    A mark inside an argument (`</think>`) is part of the argument and no mark of the turn.
    """
    if CALL not in text:
        return text
    pieces = []
    position = 0
    for found in _found(text, ()):
        if isinstance(found.call.arguments, str):
            continue
        pieces += [text[position : found.start], " " * (found.end - found.start)]
        position = found.end
    return "".join([*pieces, text[position:]])


def call_of(fields: Mapping[str, Any]) -> ToolCall:
    """A call as a row or a JSON call gives it; UnreadableCall where it could lose arguments.

    `name`, and the arguments under one of ARGUMENT_KEYS; OpenAI's object with `function` around
    them is read too. Nulls count as absent.
    """
    function = fields.get("function")
    inner = function if isinstance(function, Mapping) else fields
    name = inner.get("name")
    if isinstance(function, str):
        if name not in (None, function):
            raise UnreadableCall(f"two names, {str(name)[:60]!r} and {function[:60]!r}")
        name = function
    if not isinstance(name, str) or not name:
        raise UnreadableCall("function.name: expected the name of a function")

    given = [inner[key] for key in ARGUMENT_KEYS if inner.get(key) is not None]
    if len(given) > 1 and any(value != given[0] for value in given):
        keys = [key for key in ARGUMENT_KEYS if inner.get(key) is not None]
        raise UnreadableCall(f"arguments under {' and '.join(keys)}")
    known = _ABOUT_CALLS.union(ARGUMENT_KEYS)
    rest = [key for key in inner if key not in known and inner[key] is not None]
    # An empty object beside other keys is no sign that the function takes nothing.
    if not any(given) and rest:
        raise UnreadableCall(f"no arguments, but {', '.join(map(str, rest))[:80]}; expected them")
    identity = fields.get("call_id") or fields.get("id") or inner.get("id")
    return ToolCall(
        name=name,
        arguments=arguments_of(given[0] if given else None),
        id=None if identity is None else str(identity),
    )


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


# ---------------------------------------------------------------- the reader


@dataclass(frozen=True)
class _Found:
    """A call and its place."""

    call: ToolCall
    start: int
    """Where its opening mark begins."""
    end: int
    """The place behind its closing mark."""


def _found(text: str, tools: Sequence[Mapping[str, Any]]) -> Iterator[_Found]:
    """The calls of a text, in order."""
    reader = _Reader(text, declared_types(tools))
    position = 0
    while (start := text.find(CALL, position)) >= 0:
        call, position = reader.read(start + len(CALL))
        if call is not None:
            yield _Found(call, start, position)


class _Unread(Exception):
    """An XML call that cannot be read; raised and caught within the reader."""

    def __init__(self, position: int, limit: int | None = None) -> None:
        self.position = position
        """Its closing mark is the first from here on."""
        self.limit = limit
        """Where the next call begins, if that is why."""


class _Reader:
    """Reads calls out of one text, forward only: hostile text costs no more than its length.

    A value is looked for up to the next call's beginning alone, so no text is searched twice.
    """

    def __init__(self, text: str, types: Mapping[str, Mapping[str, set[str]]]) -> None:
        """`types`: JSON types by function and parameter."""
        self.text = text
        self.types = types

    def read(self, start: int) -> tuple[ToolCall | None, int]:
        """(the call whose inside starts at `start`, the place behind it); None: it has no name."""
        position = self._skip(start)
        if not self.text.startswith(FUNCTION, position):
            return self._read_json(start, position)
        name, inside = self._name(position + len(FUNCTION))
        if not name:
            return None, inside
        try:
            return self._read_xml(name, inside)
        except _Unread as stop:
            body, after = self._block(inside, stop.position, stop.limit)
            body = body.rstrip().removesuffix(FUNCTION_END)
            return ToolCall(name, body.removeprefix("\n").removesuffix("\n")), after

    def _read_xml(self, name: str, inside: int) -> tuple[ToolCall, int]:
        arguments: dict[str, Any] = {}
        declared = self.types.get(name, {})
        unclosed = False
        position = self._skip(inside)
        while self.text.startswith(PARAMETER, position):
            key, start = self._name(position + len(PARAMETER))
            # Of two values for one parameter, nobody can say which is meant.
            if not key or key in arguments:
                raise _Unread(start)
            value = _Value(self, key, start, declared, arguments)
            text, position = value.read()
            # After one value without its end, marks within another are no text with certainty.
            if unclosed and PARAMETER_END in text:
                raise _Unread(position)
            unclosed = unclosed or value.unclosed
            arguments[key] = typed_value(text, declared.get(key, set()))
            position = self._skip(position)

        if not self.text.startswith(FUNCTION_END, position):
            raise _Unread(position)
        after = self._skip(position + len(FUNCTION_END))
        if self.text.startswith(CALL_END, after):
            after += len(CALL_END)
        elif after < len(self.text) and not self.text.startswith(CALL, after):
            raise _Unread(after)
        self._check_rest(after)
        return ToolCall(name, arguments), after

    def _check_rest(self, after: int) -> None:
        """Marks of a call behind its end: it ended too early, within a value that shows marks."""
        limit = self.text.find(CALL, after)
        if limit < 0:
            limit = len(self.text)
        strays = [mark.end() for mark in _STRAY.finditer(self.text, after, limit)]
        if strays:
            raise _Unread(strays[-1])

    def _read_json(self, start: int, position: int) -> tuple[ToolCall | None, int]:
        """JSON ends where JSON says, whatever marks its strings hold."""
        end = self._json_end(position)
        fields = decoded(self.text[position:end]) if end is not None else None
        if end is None or not isinstance(fields, dict):
            return None, self._block(start, start)[1]

        after = self._skip(end)
        if self.text.startswith(CALL_END, after):
            after += len(CALL_END)
        elif after < len(self.text):
            return None, self._block(start, end)[1]
        try:
            return call_of(fields), after
        except UnreadableCall:
            name = fields.get("name")
            if not isinstance(name, str) or not name:
                return None, after
            return ToolCall(name, self.text[position:end]), after

    def _json_end(self, start: int) -> int | None:
        """The place behind the object that starts here; None where there is none."""
        if not self.text.startswith("{", start):
            return None
        depth = 0
        for part in _JSON_PART.finditer(self.text, start):
            mark = part[0]
            if mark == "<":
                return None
            if mark in "{[":
                depth += 1
            elif mark in "}]":
                depth -= 1
            if depth == 0:
                return part.end()
        return None

    def _block(self, start: int, position: int, limit: int | None = None) -> tuple[str, int]:
        """(text from `start` to the call's closing mark, place behind the mark).

        The mark is the first at or after `position`, before `limit`; without one the text is all
        that is left.
        """
        end = self.text.find(CALL_END, position, limit)
        if end < 0:
            end = len(self.text) if limit is None else limit
            return self.text[start:end], end
        return self.text[start:end], end + len(CALL_END)

    def _skip(self, position: int) -> int:
        """The first place at or after `position` that is not white space."""
        while position < len(self.text) and self.text[position].isspace():
            position += 1
        return position

    def _name(self, start: int) -> tuple[str, int]:
        """(text before the next `>` of this line, place behind it); empty where there is none."""
        end = self.text.find(">", start, start + _LONGEST_NAME)
        if end < 0 or "\n" in self.text[start:end] or "<" in self.text[start:end]:
            return "", start
        return self.text[start:end].strip(), end + 1


class _Value:
    """One parameter's value while its end is looked for.

    Marks may stand in it as text. Which are text follows from their lines: a call whose values
    have lines of their own has its marks on lines of their own.
    """

    def __init__(
        self,
        reader: _Reader,
        key: str,
        start: int,
        declared: Mapping[str, Any],
        before: Mapping[str, Any],
    ) -> None:
        """`declared`, `before`: the function's parameters, and those that have a value already."""
        self.reader = reader
        self.text = reader.text
        self.key = key
        self.start = start
        self.declared = declared
        self.before = before
        self.in_lines = self.text.startswith("\n", start)
        """Whether the value begins on a line of its own."""
        self.unclosed = False
        """Whether it ended without its closing mark."""

    def read(self) -> tuple[str, int]:
        """(the value, the place where reading goes on); raises _Unread."""
        for tag in _TAG.finditer(self.text, self.start):
            place = tag.start()
            if tag[0] == CALL:
                if _OPENER.match(self.text, place):
                    raise _Unread(self.start, limit=place)
            elif tag[0] == PARAMETER_END:
                if self._closes(place, tag.end()):
                    return self._value(place), tag.end()
            elif self._ends_at(tag[0], place, tag.end()):
                self.unclosed = True
                value = self._value(place)
                if PARAMETER_END in value or _WRONG_END.search(value[-200:]):
                    raise _Unread(place)
                return value, place
        raise _Unread(self.start)

    def _value(self, end: int) -> str:
        return self.text[self.start : end].removeprefix("\n").removesuffix("\n")

    def _closes(self, start: int, end: int) -> bool:
        """Whether a closing mark is this value's: another parameter or the call's end follows."""
        after = self.reader._skip(end)
        if self.text.startswith(PARAMETER, after):
            name, behind = self.reader._name(after + len(PARAMETER))
            own_lines = self._begins_line(start) or self._begins_line(after)
            return bool(name) and (own_lines or not self.in_lines or self._ends_line(behind))
        if self.text.startswith(FUNCTION_END, after):
            return self._begins_line(start) or self._ends_call(after)
        return False

    def _ends_at(self, mark: str, start: int, end: int) -> bool:
        """Whether a value without its closing mark ends at the mark of what follows it.

        Raises _Unread where that could be so and could be not.
        """
        if mark == FUNCTION_END:
            return self._ends_call(start)

        name, behind = self.reader._name(end)
        if not name:
            return False
        begins, ends = self._begins_line(start), self._ends_line(behind)
        within_line = self.in_lines and not begins and not ends
        is_new = name != self.key and name not in self.before
        if within_line or (self.declared and name not in self.declared and not (begins and ends)):
            return False
        if self.declared:
            certain = is_new and name in self.declared
        else:
            certain = is_new and self.in_lines and begins and ends
        # A value in one line may show the mark of a parameter that it has itself.
        if not certain and not self.in_lines and not is_new:
            return False
        if not certain:
            raise _Unread(self.start)
        return True

    def _ends_call(self, start: int) -> bool:
        """Whether the function's closing mark at `start` is the last but the call's own."""
        after = self.reader._skip(start + len(FUNCTION_END))
        return after >= len(self.text) or self.text.startswith((CALL_END, CALL), after)

    def _begins_line(self, place: int) -> bool:
        """Whether only white space stands before `place` on its line, within this value."""
        before = self.text[max(self.start, place - _LONGEST_INDENT) : place]
        _, newline, line = before.rpartition("\n")
        return bool(newline) and not line.strip()

    def _ends_line(self, place: int) -> bool:
        """Whether only white space follows `place` on its line."""
        line, newline, _ = self.text[place : place + _LONGEST_INDENT].partition("\n")
        return bool(newline) and not line.strip()
