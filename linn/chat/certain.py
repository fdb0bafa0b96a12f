"""linn's protocol read while a reply comes: what of it is certain, whatever follows.

A stream cannot take words back, so it ends a thought at the first mark that can end it. `parse`,
by which replies are graded, goes by the last.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from linn.chat.render import END, THINK, THINK_END, answered, divided, thought_of
from linn.chat.stream import may_become, settled
from linn.chat.tool_calls import CALL, CALL_END, FUNCTION, outside_calls
from linn.types import Message

_REOPENS = re.compile(rf"\s*+{THINK}")
_CALLS = re.compile(rf"\s*+(?:\{{|{FUNCTION})")
"""What follows the opening mark of a call that may be one."""


def read(text: str, thinking: bool = True, tools: Sequence[Mapping[str, Any]] = ()) -> Message:
    """As `parse`, but as a stream has to: a thought ends at the first mark that can end it.

    A mark behind which a thought opens again ends none. In the mode without thoughts, a text that
    does not begin with a mark is an answer, whatever comes. Differs from `parse` in replies that
    close their thought twice, or one that they never opened.
    """
    text = text.split(END, 1)[0]
    if not thinking and not text.lstrip().startswith((THINK, THINK_END)):
        return answered(text, None, tools)
    end = -1
    for mark in re.finditer(THINK_END, outside_calls(text)):
        if not _REOPENS.match(text, mark.end()):
            end = mark.start()
            break
    return divided(text, end, tools)


def certain(text: str, thinking: bool = True) -> tuple[str, str]:
    """What `read` will give of a text that begins so, whatever follows: (thought, content)."""
    text, ended, _ = text.partition(END)
    if not ended:
        text = settled(text, (END,))
    inside = text.lstrip()
    # It may still become a mark.
    if may_become(inside, THINK) or may_become(inside, THINK_END):
        return "", ""
    if not thinking and not inside.startswith((THINK, THINK_END)):
        return "", _certain_answer(text)

    end, is_certain = _first_end(text)
    if end < 0:
        return thought_of(settled(text, (THINK, THINK_END))) or "", ""
    thought = thought_of(text[:end])
    if not is_certain:
        return thought or "", ""
    answer = text[end + len(THINK_END) :]
    if thought is not None:
        answer = answer.removeprefix("\n")
    return thought or "", _certain_answer(answer)


def _first_end(text: str) -> tuple[int, bool]:
    """(the first place where a thought may end or -1, whether it does whatever follows)."""
    doubt = _first_call(text)
    for mark in re.finditer(THINK_END, text):
        if mark.start() > doubt:
            return mark.start(), False
        if not _REOPENS.match(text, mark.end()):
            # What follows may still become the mark of another thought.
            is_certain = not may_become(text[mark.end() :].lstrip(), THINK)
            return mark.start(), is_certain
    return -1, False


def _first_call(text: str) -> int:
    """Where the first call begins that may hold marks as text; the text's length without one."""
    position = 0
    while (start := text.find(CALL, position)) >= 0:
        inside = start + len(CALL)
        if _CALLS.match(text, inside):
            return start
        # It only looks like one: it goes as far as its closing mark.
        close = text.find(CALL_END, inside)
        if close < 0:
            break
        position = close + len(CALL_END)
    return len(text)


def _certain_answer(text: str) -> str:
    """What of an answer stays as it is, up to its first call."""
    text = settled(text.split(CALL, 1)[0], (CALL,))
    return text.removesuffix("\n")
