"""Tool calls as model families write them, read out of sampled text.

A reader takes what follows a turn's thought and gives (the text beside the calls, the calls). Which
of them a template speaks is found by reading what the template itself writes (`probe.py`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from linn.chat.stream import may_become, settled
from linn.chat.tool_calls import (
    ARGUMENT_KEYS,
    CALL,
    UnreadableCall,
    arguments_of,
    call_of,
    read_calls,
)
from linn.chat.values import decoded_at
from linn.types import ToolCall

Found = tuple[str, tuple[ToolCall, ...]]
"""The text beside the calls, and the calls."""
Reader = Callable[[str, Sequence[Mapping[str, Any]]], Found]


def in_lists(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """`[TOOL_CALLS] [{"name", "arguments", "id"}, …]` (Mistral), `<|tool_call|>[…]` (Granite 3)."""
    for mark in ("[TOOL_CALLS]", "<|tool_call|>"):
        before, found, after = text.partition(mark)
        if not found:
            continue
        entries, end = decoded_at(after, 0)
        if isinstance(entries, Mapping):
            entries = [entries]
        if not isinstance(entries, list):
            continue
        calls = [_call_of(entry) for entry in entries]
        if calls and None not in calls:
            beside = _joined([before, after[end:]])
            return beside, tuple(call for call in calls if call is not None)
    return text, ()


_NAMED = re.compile(r"\[TOOL_CALLS\]\s*([\w.:-]{1,256})(?:\[CALL_ID\](\w+))?(?:\[ARGS\])?(?=\s*\{)")

_NO_END = re.compile("")


def by_name(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """`[TOOL_CALLS]name[ARGS]{…}`, one after the other (newer Mistral)."""
    return _each(text, _NAMED, _NO_END)


_DEEPSEEK = re.compile(
    r"(?:<｜tool▁calls▁begin｜>\s*)?<｜tool▁call▁begin｜>(?:function<｜tool▁sep｜>)?"
    r"(?P<name>[\w.:-]{1,256})(?:<｜tool▁sep｜>)?\s*(?:```json\s*)?(?=\{)"
)
_DEEPSEEK_END = re.compile(r"\s*(?:```\s*)?(?:<｜tool▁call▁end｜>\s*)?(?:<｜tool▁calls▁end｜>)?")
_KIMI = re.compile(
    r"(?:<\|tool_calls_section_begin\|>)?<\|tool_call_begin\|>\s*(?P<id>(?:functions\.)?"
    r"(?P<name>[\w.-]{1,256}):\d+)\s*<\|tool_call_argument_begin\|>\s*(?=\{)"
)
_KIMI_END = re.compile(r"\s*(?:<\|tool_call_end\|>\s*)?(?:<\|tool_calls_section_end\|>)?")


def deepseek(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """Calls between DeepSeek's marks."""
    return _each(text, _DEEPSEEK, _DEEPSEEK_END)


def kimi(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """Calls between Kimi's marks."""
    return _each(text, _KIMI, _KIMI_END)


def bare(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> Found:
    """The whole text is `{"name", "parameters"}` (Llama 3), perhaps behind `<|python_tag|>`."""
    inside = text.strip().removeprefix(_PYTHON_TAG)
    value, end = decoded_at(inside, 0)
    # An answer in JSON is no call: it has a name of a function, arguments and nothing else.
    if not isinstance(value, Mapping) or inside[end:].strip():
        return text, ()
    if not value.keys() <= {"name", "type", *ARGUMENT_KEYS}:
        return text, ()
    if value.keys().isdisjoint(ARGUMENT_KEYS):
        return text, ()
    call = _call_of(value)
    if call is None or not tools:
        return text, ()
    return "", (call,)


READERS: tuple[Reader, ...] = (read_calls, in_lists, by_name, bare, deepseek, kimi)
"""In the order in which they are tried."""

_OPENINGS: dict[Reader, tuple[str, ...]] = {
    read_calls: (CALL,),
    in_lists: ("[TOOL_CALLS]", "<|tool_call|>"),
    by_name: ("[TOOL_CALLS]",),
    deepseek: ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
    kimi: ("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
}
"""What the calls of each reader begin with."""
_PYTHON_TAG = "<|python_tag|>"


def before_calls(text: str, reader: Reader | None) -> str:
    """What of an answer stands beside its calls whatever follows: all up to the first opening."""
    if reader is bare:
        # The whole answer is a call or none of it is.
        start = text.lstrip()
        is_open = start.startswith(("{", _PYTHON_TAG)) or may_become(start, _PYTHON_TAG)
        return "" if is_open else text
    openings = _OPENINGS.get(reader, ()) if reader is not None else ()
    for opening in openings:
        text = text.split(opening, 1)[0]
    return settled(text, openings)


# ---------------------------------------------------------------- gpt-oss

_START = "<|start|>"
_CHANNEL = re.compile(
    r"(?P<head>[^<]{0,300})(?:<\|channel\|>(?P<channel>[^<]{0,300}))?(?:<\|constrain\|>[^<]{0,40})?"
    r"<\|message\|>"
)
_ENDS = re.compile(r"<\|(?:end|return|call)\|>")
_TO = re.compile(r"to=(?:functions\.)?([\w.-]{1,256})")


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
            # A call that was cut off before its arguments is no call without any.
            arguments = arguments_of(body) if body.strip() else body
            calls.append(ToolCall(name[1], arguments))
        elif (head["channel"] or "").startswith("analysis"):
            thoughts.append(body)
        else:
            answers.append(body)
    thought = "\n".join(thoughts).strip()
    return thought or None, "\n".join(answers).strip(), tuple(calls)


def channels_so_far(text: str) -> tuple[str, str]:
    """(thought, answer) of a turn that begins so, whatever follows."""
    before, started, part = text.rpartition(_START)
    if _CHANNEL.match(part) is None:
        # Nobody knows yet which channel this part is of.
        text = before + started
    if not text:
        return "", ""
    thought, answer, _ = channels(settled(text, (_START, "<|end|>", "<|return|>", "<|call|>")))
    return thought or "", answer


# ---------------------------------------------------------------- shared parts


def _each(text: str, opening: re.Pattern[str], closing: re.Pattern[str]) -> Found:
    """Calls that each begin with `opening`, go on with JSON arguments and end with `closing`.

    Arguments that cannot be read are kept as text, which no function takes.
    """
    calls: list[ToolCall] = []
    beside: list[str] = []
    position = 0
    while (match := opening.search(text, position)) is not None:
        beside.append(text[position : match.start()])
        arguments, position = decoded_at(text, match.end())
        if not isinstance(arguments, Mapping):
            # What follows is this call's up to the next one.
            following = opening.search(text, match.end())
            position = following.start() if following else len(text)
            arguments = text[match.end() : position].strip()
        groups = match.groupdict() or {"name": match[1], "id": match[2]}
        calls.append(ToolCall(groups["name"], arguments, groups.get("id")))
        end = closing.match(text, position)
        position = end.end() if end else position
    if not calls:
        return text, ()
    return _joined([*beside, text[position:]]), tuple(calls)


def _joined(pieces: Sequence[str]) -> str:
    """What stands beside calls, without the white space around it."""
    return "\n".join(piece.strip() for piece in pieces if piece.strip())


def _call_of(entry: object) -> ToolCall | None:
    """A JSON object as a call; None where not even a name is there.

    One whose arguments cannot be told has its own text as arguments.
    """
    if not isinstance(entry, Mapping):
        return None
    try:
        return call_of(entry)
    except UnreadableCall:
        name = entry.get("name")
        if not isinstance(name, str) or not name:
            return None
        return ToolCall(name, json.dumps(entry, ensure_ascii=False))
