"""What a chat template does, found by rendering small conversations of unmistakable words.

Nothing goes by a family's name: a template is asked to write a thought, a call, a result, a second
turn, and what comes out says how it does that, or that it cannot.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from linn.chat import calls as conventions
from linn.chat.calls import READERS, Reader
from linn.errors import UserError

Turn = dict[str, Any]
"""A message as templates take it."""
Write = Callable[..., str]
"""`write(turns, tools=None, ask=False, **values)`: the template's text; UserError if it refuses."""

_USER, _ANSWER, _NEXT = "Qwhatq", "Aansweredq", "Qfurtherq"
_SYSTEM, _THOUGHT, _RESULT = "Sbebriefq", "Tponderedq", "Rgavethisq"
_NAME, _KEY, _VALUE = "lookup_it", "placeq", "Vromeq"
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": _NAME,
        "description": "Looks it up.",
        "parameters": {
            "type": "object",
            "properties": {_KEY: {"type": "string", "description": "Where."}},
            "required": [_KEY],
        },
    },
}
"""The definition that templates are asked to write."""

_MARKS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
"""What families write around a thought."""
_OPEN_MARK = re.compile(r"[<\[][^<>\[\]\s]{0,40}\Z")
"""The beginning of a mark at the end of a text."""
_SWITCHES = ("enable_thinking", "thinking")
"""Values by which templates are told whether to think."""
NINE = "call00001"
"""An id that also templates take which want nine letters and digits."""


@dataclass(frozen=True)
class Form:
    """How a template writes a conversation."""

    turn_end: str
    """The token that ends an answer."""
    history_end: str
    """The token that ends an answer that further turns follow; usually the same."""
    switch: Mapping[bool, Mapping[str, Any]]
    """What the template is told in each mode; empty where it has one mode only."""
    opened: Mapping[bool, str]
    """By mode, what the prompt ends with that the template does not write in front of an answer
    (R1: `<think>` and a newline)."""
    has_system: bool = True
    """Whether a system turn can be written."""
    many_turns: bool = True
    """Whether a conversation may go on after an answer."""
    marks: tuple[str, str] | None = None
    """What stands around a thought; None where the template knows no thoughts."""
    thought: Literal["field", "inline", "written"] = "inline"
    """How a thought gets into the text: in a field of its own, within the content, or not by the
    template at all, so that linn writes it where the model would."""
    channels: bool = False
    """Whether thoughts, answers and calls stand in channels (gpt-oss)."""
    cuts_at_user: bool = False
    """Whether thoughts disappear once a user turn follows."""
    reader: Reader | None = None
    """Reads calls; None where calls cannot be written and read."""
    call_end: str = ""
    """The token that ends a turn of calls."""
    calls_alone: bool = False
    """Whether the template leaves out what a turn says beside its calls."""
    text_arguments: bool = False
    """Whether calls take their arguments as JSON text."""
    plain_ids: bool = True
    """Whether ids of calls may be any text."""


def probe(write: Write, specials: Collection[str], eos: Collection[str], source: str) -> Form:
    """The form of a template.

    `specials`: texts of tokens that can end a turn; `eos`: those that the folder's configs name.
    UserError where an ordinary conversation cannot be written, or where no token ends an answer.
    """
    user, answer = {"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}
    asked = write([user], ask=True)
    if _USER not in asked:
        raise UserError("the chat template leaves out what the user says")

    ends = _Ends(specials, eos)
    # An answer at the end may be closed otherwise than one that a turn follows.
    last_tail = _behind(write([user, answer]), _ANSWER)
    try:
        later = write([user, answer, {"role": "user", "content": _NEXT}], ask=True)
        middle_tail = _behind(later, _ANSWER).partition(_NEXT)[0]
    except UserError:
        middle_tail = None
    turn_end, history_end = ends.of(last_tail, middle_tail)
    if not turn_end:
        raise UserError("the chat template ends an answer with no special token")

    form = Form(
        turn_end=turn_end,
        history_end=history_end,
        switch=_switch(write, user, source),
        opened={},
        has_system=_writes_system(write, user),
        many_turns=middle_tail is not None,
        channels="<|channel|>" in source and "<|message|>" in source,
    )
    # Thoughts and calls are tried in the light of what is known so far.
    form = replace(form, opened=_opened(write, form, user, answer))
    form = _with_thoughts(write, form, user, source)
    return _with_calls(write, form, user, ends)


# ---------------------------------------------------------------- turns


class _Ends:
    """Finds the token that ends a turn in what stands behind it."""

    def __init__(self, specials: Collection[str], eos: Collection[str]) -> None:
        self.specials = specials
        self.eos = eos

    def of(self, tail: str, middle: str | None) -> tuple[str, str]:
        """(what ends the last turn, what ends it in a history); empty where nothing does.

        `tail`: what stands behind an answer at the end; `middle`: what stands behind it where a
        user turn follows.
        """
        first = self.first(tail)
        if middle is None:
            return first, first
        # Something may close the text before the turn's own end does (Cohere), and something may
        # follow it at the very end of a conversation (Phi-3).
        for name in sorted(self.eos, key=tail.find):
            if name in tail and name in middle:
                return name, name
        return first, self.first(middle) or first

    def of_call(self, tail: str, turn_end: str) -> str:
        """What ends a turn of calls; `tail`: what stands behind the last argument."""
        places = [(tail.find(name), name) for name in {turn_end, *self.eos} if name in tail]
        return min(places)[1] if places else self.first(tail)

    def first(self, text: str) -> str:
        """The first special token of a text."""
        # Of tokens that begin at one place, the longest.
        places = [(text.find(name), -len(name), name) for name in self.specials if name in text]
        return min(places)[2] if places else ""


def _writes_system(write: Write, user: Turn) -> bool:
    try:
        return _SYSTEM in write([{"role": "system", "content": _SYSTEM}, user], ask=True)
    except UserError:
        return False


def _behind(text: str, word: str) -> str:
    """What stands behind the last place of a word."""
    _, found, after = text.rpartition(word)
    if not found:
        raise UserError("the chat template leaves out what the assistant says")
    return after


# ---------------------------------------------------------------- thoughts


def _switch(write: Write, user: Turn, source: str) -> dict[bool, dict[str, Any]]:
    """What tells the template to think and not to; empty where nothing does."""
    for name in _SWITCHES:
        if name not in source:
            continue
        on, off = (write([user], ask=True, **{name: value}) for value in (True, False))
        if on != off:
            return {True: {name: True}, False: {name: False}}
    # gpt-oss always thinks; the least effort is as near as it comes to not thinking.
    if "reasoning_effort" in source:
        least = {"reasoning_effort": "low"}
        if write([user], ask=True) != write([user], ask=True, **least):
            return {True: {}, False: least}
    return {}


def _opened(write: Write, form: Form, user: Turn, answer: Turn) -> dict[bool, str]:
    opened = {}
    for mode in (True, False):
        values = form.switch.get(mode, {})
        asked = write([user], ask=True, **values)
        whole = write([user, answer], **values)
        opened[mode] = asked[_shared(asked, whole) :]
    return opened


def _with_thoughts(write: Write, form: Form, user: Turn, source: str) -> Form:
    """The form with how thoughts are written and when they are cut."""
    values = form.switch.get(True, {})
    marks = None
    for pair in _MARKS:
        if pair[0] in source or pair[1] in source:
            marks = pair
            break

    # Under both names that families use for the thought's own field.
    field: Turn = {"role": "assistant", "content": _ANSWER}
    field |= {"reasoning_content": _THOUGHT, "thinking": _THOUGHT}
    text = _written(write, [user, field], values)
    if _THOUGHT in text:
        if not form.channels:
            asked = write([user], ask=True, **values)
            marks = _marks_in(text[_shared(asked, text) :]) or marks
        form = replace(form, marks=marks or ("<think>", "</think>"), thought="field")
        thinker = field
    else:
        opening, closing = marks or ("<think>", "</think>")
        content = f"{opening}\n{_THOUGHT}\n{closing}\n\n{_ANSWER}"
        thinker = {"role": "assistant", "content": content}
        # R1 cuts thoughts out of every answer: then linn writes what the model would.
        kept = _THOUGHT in _written(write, [user, thinker], values)
        form = replace(form, marks=marks, thought="inline" if kept else "written")
        if not kept:
            return replace(form, cuts_at_user=True)

    following = [user, thinker, {"role": "user", "content": _NEXT}]
    return replace(form, cuts_at_user=_THOUGHT not in _written(write, following, values))


def _marks_in(reply: str) -> tuple[str, str] | None:
    """What a reply writes around its thought; None where the prompt opened it."""
    before, _, rest = reply.partition(_THOUGHT)
    between = rest.partition(_ANSWER)[0].strip()
    for pair in _MARKS:
        if pair[1] in between:
            return pair
    if not before.strip() or not between:
        return None
    return before.strip(), between


def _shared(text: str, other: str) -> int:
    """How many characters two texts begin with in common; a mark is common as a whole or not."""
    pairs = zip(text, other, strict=False)
    differing = (i for i, (a, b) in enumerate(pairs) if a != b)
    place = next(differing, min(len(text), len(other)))
    if place < len(text):
        # `<think>` and `<tool_call>` share two letters, and nothing.
        opening = _OPEN_MARK.search(text[:place])
        if opening is not None:
            return opening.start()
    return place


def _written(write: Write, turns: Sequence[Turn], values: Mapping[str, Any]) -> str:
    """The template's text; empty where it refuses."""
    try:
        return write(turns, **values)
    except UserError:
        return ""


# ---------------------------------------------------------------- calls


def _with_calls(write: Write, form: Form, user: Turn, ends: _Ends) -> Form:
    """The form with how calls are written and read; unchanged where they cannot be."""
    asked = _tried(lambda: write([user], tools=[TOOL], ask=True))
    if asked is None or _NAME not in asked:
        return form

    # Most templates take an object; some concatenate text and fail on anything else.
    for text_arguments in (False, True):
        found = _calls_as(write, form, user, ends, text_arguments, asked)
        if found is not None:
            return found
    return form


def _calls_as(
    write: Write, form: Form, user: Turn, ends: _Ends, text_arguments: bool, asked: str
) -> Form | None:
    """The form with calls whose arguments are an object or text; None where that fails.

    `asked`: the text before the turn of the call.
    """
    turns = [user, _caller(text_arguments, NINE), _result(NINE)]
    text = _tried(lambda: write(turns[:2], tools=[TOOL]))
    answered = _tried(lambda: write(turns, tools=[TOOL], ask=True))
    if text is None or answered is None or _RESULT not in answered:
        return None

    # Behind the last argument comes whatever closes the call, then the turn's end.
    call_end = ends.of_call(text.rpartition(_VALUE)[2], form.turn_end)
    if not call_end:
        return None
    reply = text[_shared(asked, text) :].rpartition(call_end)[0]
    reader = _reader_of(form, reply)
    if reader is None:
        return None
    # Mistral's templates refuse ids that are not nine letters long.
    loose = [user, _caller(text_arguments, "x"), _result("x")]
    form = replace(
        form,
        reader=reader,
        call_end=call_end,
        text_arguments=text_arguments,
        plain_ids=_tried(lambda: write(loose, tools=[TOOL])) is not None,
    )
    caller = {**turns[1], "content": _ANSWER}
    beside = _tried(lambda: write([user, caller], tools=[TOOL]))
    return replace(form, calls_alone=beside is None or _ANSWER not in beside)


def _reader_of(form: Form, text: str) -> Reader | None:
    """Who reads the call out of the template's own text."""
    # The first that reads the call back as it was written.
    readers: tuple[Reader, ...] = (_of_channels,) if form.channels else READERS
    for reader in readers:
        calls = reader(text, [TOOL])[1]
        if [(call.name, call.arguments) for call in calls] == [(_NAME, {_KEY: _VALUE})]:
            return reader
    return None


def _of_channels(text: str, tools: Sequence[Mapping[str, Any]] = ()) -> conventions.Found:
    _thought, answer, calls = conventions.channels(text)
    return answer, calls


def _caller(text_arguments: bool, identity: str) -> Turn:
    arguments: Any = {_KEY: _VALUE}
    if text_arguments:
        arguments = json.dumps(arguments)
    function = {"name": _NAME, "arguments": arguments}
    call = {"type": "function", "id": identity, "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _result(identity: str) -> Turn:
    return {"role": "tool", "content": _RESULT, "tool_call_id": identity, "name": _NAME}


def _tried(call: Callable[[], str]) -> str | None:
    """The text, or None where the template refuses."""
    try:
        return call()
    except UserError:
        return None
