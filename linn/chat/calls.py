"""Tool calls as model families write them, read out of sampled text.

A reader takes what follows a turn's thought and gives (the text beside the calls, the calls). Which
of them a template speaks is found by reading what the template itself writes (`probe.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linn.chat.tool_calls import read_calls
from linn.types import ToolCall

Found = tuple[str, tuple[ToolCall, ...]]
"""The text beside the calls, and the calls."""
Reader = Callable[[str, Sequence[Mapping[str, Any]]], Found]

_DECODER = json.JSONDecoder()


def in_lists(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """`[TOOL_CALLS] [{"name", "arguments", "id"}, …]` (Mistral), `<|tool_call|>[…]` (Granite 3)."""
    for mark in ("[TOOL_CALLS]", "<|tool_call|>"):
        before, found, after = text.partition(mark)
        if not found:
            continue
        entries = _json_at(after, _skipped(after, 0))[0]
        if isinstance(entries, Mapping):
            entries = [entries]
        if not isinstance(entries, list):
            continue
        calls = [_call_of(entry) for entry in entries]
        if calls and None not in calls:
            return before.strip(), tuple(call for call in calls if call is not None)
    return text, ()


_NAMED = re.compile(r"\[TOOL_CALLS\]\s*([\w.:-]{1,256})(?:\[CALL_ID\](\w+))?(?:\[ARGS\])?(?=\s*\{)")


def by_name(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """`[TOOL_CALLS]name[ARGS]{…}`, one after the other (newer Mistral)."""
    return _each(text, _NAMED)


_DEEPSEEK = re.compile(
    r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?"
    r"(?P<name>[\w.:-]{1,256})(?:<｜tool▁sep｜>)?\s*(?:```json\s*)?(?=\{)"
)
_KIMI = re.compile(
    r"(?:<\|tool_calls_section_begin\|>)?<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?"
    r"(?P<name>[\w.-]{1,256}):\d+)\s*<\|tool_call_argument_begin\|>\s*(?=\{)"
)


def deepseek(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """Calls between DeepSeek's marks."""
    return _each(text, _DEEPSEEK)


def kimi(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """Calls between Kimi's marks."""
    return _each(text, _KIMI)


def bare(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """The whole text is `{"name", "parameters"}` (Llama 3), perhaps behind `<|python_tag|>`."""
    inside = text.strip().removeprefix("<|python_tag|>")
    value, end = _json_at(inside, _skipped(inside, 0))
    # An answer in JSON is no call: it has a name of a function, arguments and nothing else.
    if not isinstance(value, Mapping) or inside[end:].strip():
        return text, ()
    if not value.keys() <= {"name", "parameters", "arguments", "type"} or len(value) < 2:
        return text, ()
    call = _call_of(value)
    if call is None or not tools:
        return text, ()
    return "", (call,)


READERS: tuple[Reader, ...] = (read_calls, in_lists, by_name, bare, deepseek, kimi)
"""In the order in which they are tried."""


# ---------------------------------------------------------------- gpt-oss

_START = "<|start|>"
_CHANNEL = re.compile(
    r"(?P<head>[^<]{0,300})(?:<\|channel\|>(?P<channel>[^<]{0,300}))?(?:<\|constrain\|>[^<]{0,40})?"
    r"<\|message\|>"
)
_ENDS = re.compile(r"<\|(?:end|return|call)\|>")
_TO = re.compile(r"to=functions\.([\w.-]{1,256})")


def channels(text: str) -> tuple[str | None, str, tuple[ToolCall, ...]]:
    """(thought, answer, calls) of a gpt-oss turn, which begins just behind `<|start|>assistant`.

    The thought stands in channel `analysis`, the answer in `final`, calls in `commentary` with
    `to=functions.NAME`. Text without channels is an answer.
    """
    thoughts: list[str] = []
    answers: list[str] = []
    calls: list[ToolCall] = []
    for number, part in enumerate(text.split(_START)):
        head = _CHANNEL.match(part)
        if head is None:
            # Before the first mark: nothing was opened. Behind one: a turn that was cut off.
            if number == 0 and part.strip():
                answers.append(_ENDS.split(part)[0])
            continue
        body = _ENDS.split(part[head.end() :])[0]
        opening = head.group()
        name = _TO.search(opening)
        if name is not None:
            value = _json_at(body, _skipped(body, 0))[0]
            arguments = value if isinstance(value, dict) else body
            calls.append(ToolCall(name[1], arguments))
        elif (head["channel"] or "").startswith("analysis"):
            thoughts.append(body)
        else:
            answers.append(body)
    thought = "\n".join(thoughts).strip()
    return thought or None, "\n".join(answers).strip(), tuple(calls)


# ---------------------------------------------------------------- shared parts


def _each(text: str, opening: re.Pattern[str]) -> Found:
    """Calls that each begin with `opening` and go on with JSON arguments."""
    calls: list[ToolCall] = []
    first = len(text)
    position = 0
    while (match := opening.search(text, position)) is not None:
        arguments, position = _json_at(text, _skipped(text, match.end()))
        if not isinstance(arguments, Mapping):
            position = max(position, match.end())
            continue
        groups = match.groupdict() or {"name": match[1], "id": match[2]}
        calls.append(ToolCall(groups["name"], dict(arguments), groups.get("id")))
        first = min(first, match.start())
    return text[:first].strip() if calls else text, tuple(calls)


def _call_of(entry: object) -> ToolCall | None:
    """A JSON object as a call; None where it is none."""
    if not isinstance(entry, Mapping):
        return None
    function = entry.get("function", entry)
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(name, str) or not name:
        return None
    arguments = function.get("arguments", function.get("parameters", {}))
    if isinstance(arguments, str):
        value = _json_at(arguments, 0)[0]
        arguments = value if isinstance(value, Mapping) else arguments
    if not isinstance(arguments, (Mapping, str)):
        return None
    identity = entry.get("id")
    return ToolCall(name, arguments, identity if isinstance(identity, str) else None)


def _json_at(text: str, start: int) -> tuple[Any, int]:
    """(the JSON value that begins there, the place behind it); (None, start) without one."""
    try:
        value, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return None, start
    return value, end


def _skipped(text: str, start: int) -> int:
    while start < len(text) and text[start].isspace():
        start += 1
    return start
