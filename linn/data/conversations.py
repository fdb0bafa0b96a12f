"""SFT rows (paper §10.1): `messages` in OpenAI style.

Reasoning stands inline, calls are JSON or XML, tools stand in a field or in the system text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linn.chat import render as chat
from linn.chat.request import instructions_of, mode_of
from linn.chat.tool_calls import CALL, CALL_END, outside_calls, read_calls
from linn.chat.turns import REASONING_KEYS, BadCall, check_text_alone, content_text, to_messages
from linn.chat.values import decoded
from linn.data.definitions import Signatures, of_row
from linn.data.layouts import as_messages
from linn.data.rows import BadRow
from linn.errors import UserError
from linn.types import Message, ToolCall

_RESULT = re.compile(rf"{chat.RESULT}\n?(.*?)\n?{chat.RESULT_END}", re.DOTALL)
_RESULTS = re.compile(
    rf"\s*(?:{chat.RESULT}(?:(?!{chat.RESULT}|{chat.RESULT_END}).)*{chat.RESULT_END}\s*)+",
    re.DOTALL,
)
"""Nothing but results, none within another."""
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


_WEIGHTS = ("weight", "train", "loss")
"""Keys by which rows say that a turn is not trained."""


@dataclass(frozen=True)
class Conversation:
    """One row."""

    messages: tuple[Message, ...]
    """Turns in order; the last is the assistant's."""
    tools: tuple[Mapping[str, Any], ...]
    """Function definitions of the row's `tools` field."""
    thinking: bool
    """Whether the last turn opens with a thought."""
    domain: str
    """The row's `domain` or `category`, for metrics."""


def conversation(row: Mapping[str, Any]) -> Conversation:
    """One row as a conversation; BadRow names the field that is wrong.

    Nothing is repaired or guessed. ShareGPT, Alpaca, and rows of a prompt and a completion are read
    as well.
    """
    row = as_messages(row)
    try:
        check_text_alone(row)
    except UserError as error:
        raise BadRow(str(error), "not text alone") from None
    turns = _turns(row)
    tools = of_row(row)
    for i, turn in enumerate(turns):
        _check_turn(turn, f"messages[{i}]")
    last = turns[-1]["role"]
    if last != "assistant":
        raise BadRow(
            f"messages[{len(turns) - 1}].role is {last!r}; the last turn must be the assistant's",
            "last turn not the assistant's",
        )

    placed = list(_results_apart(turns))
    try:
        messages = to_messages([turn for _, turn in placed], "messages", tools, typed=False)
    except BadCall as error:
        raise BadRow(str(error), "unreadable call") from None
    except UserError as error:
        raise BadRow(str(error), "no content") from None

    _check_mode(row, thinking=bool(messages[-1].reasoning))
    system = _system_beside(row, messages)
    _check_calls(placed, messages, tools, system)
    if system:
        messages = (Message("system", system), *messages)

    return Conversation(
        messages=messages,
        tools=tools,
        thinking=bool(messages[-1].reasoning),
        domain=str(row.get("domain") or row.get("category") or ""),
    )


def _check_mode(row: Mapping[str, Any], thinking: bool) -> None:
    """The mode that a row names must not deny the thought of its last turn."""
    try:
        mode = mode_of(row)
    except UserError as error:
        raise BadRow(str(error), "unreadable mode") from None
    if thinking and mode is False:
        raise BadRow(
            "chat_template_kwargs.enable_thinking is false, but the last turn has a thought",
            "thought in a row without thinking",
        )


def _system_beside(row: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """The system text that a row keeps beside its turns; empty where they hold it too."""
    try:
        system = instructions_of(row)
    except UserError as error:
        raise BadRow(str(error), "unreadable instructions") from None
    first = messages[0]
    if first.role != "system" or not system:
        return system
    if first.content.strip() != system.strip():
        raise BadRow(
            "messages[0] is a system turn, and another system text stands beside the turns",
            "two system texts",
        )
    return ""


def _turns(row: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The turns of a row, of known roles."""
    turns = row.get("messages")
    if isinstance(turns, str):
        turns = decoded(turns)
    if not isinstance(turns, list) or not turns:
        fields = ", ".join(map(str, row)) or "nothing"
        message = f"messages: expected a list of {{role, content}}; the row has {fields}"
        raise BadRow(message[:200], "no messages")

    for i, turn in enumerate(turns):
        where = f"messages[{i}]"
        if not isinstance(turn, Mapping):
            kind = type(turn).__name__
            raise BadRow(
                f"{where}: expected an object with role and content, found {kind}",
                "not a chat turn",
            )

        if turn.get("type") not in (None, "message"):
            kind = str(turn["type"])[:40]
            raise BadRow(
                f"{where}.type is {kind!r}; give turns of role and content", "not a chat turn"
            )

        if turn.get("role") not in _ROLES:
            role = str(turn.get("role"))[:40]
            raise BadRow(f"{where}.role is {role!r}; allowed: {', '.join(_ROLES)}", "unknown role")

    return [_with_calls(turn) for turn in turns]


def _with_calls(turn: Mapping[str, Any]) -> Mapping[str, Any]:
    """A turn whose one call stands under `function_call`, as before there were several."""
    if turn.get("function_call") is None or turn.get("tool_calls"):
        return turn
    return {**turn, "tool_calls": [turn["function_call"]]}


# ---------------------------------------------------------------- one turn by itself


def _check_turn(turn: Mapping[str, Any], where: str) -> None:
    """Content that is text, calls that can be read, a thought with both its ends."""
    role = turn["role"]
    calls = turn.get("tool_calls")

    if calls is not None and not isinstance(calls, list):
        raise BadRow(
            f"{where}.tool_calls: expected a list, found {type(calls).__name__}", "unreadable call"
        )

    if calls and role != "assistant":
        raise BadRow(
            f"{where}.tool_calls: only the assistant calls, found role {role!r}",
            "call by another than the assistant",
        )

    for key in _WEIGHTS:
        # 0 and False ask for the same; linn trains every turn of the assistant.
        if role == "assistant" and turn.get(key) in (0, 0.0):
            raise BadRow(
                f"{where}.{key} is {turn[key]}: linn trains every assistant turn; "
                "end the row before it, or leave the row out",
                "turn that is not to be trained",
            )

    content = _checked_content(turn, where)
    if role == "user" and not content.strip():
        raise BadRow(f"{where}.content is empty", "no content")
    if role == "assistant":
        _check_thought(turn, content, where)
        _check_answer(turn, content, where)


def _checked_content(turn: Mapping[str, Any], where: str) -> str:
    """The text of a turn; it holds none of the marks that end and open turns."""
    try:
        content = content_text(turn.get("content"), where)
    except UserError as error:
        raise BadRow(str(error), "no content") from None

    if content is None and turn.get("tool_calls"):
        content = ""
    if not isinstance(content, str):
        kind = "null" if content is None else type(content).__name__
        raise BadRow(f"{where}.content: expected text, found {kind}", "no content")

    for mark in (chat.START, chat.END):
        if mark in content:
            raise BadRow(
                f"{where}.content holds {mark}, which only the chat template may write",
                "control token in the text",
            )

    return content


def _check_thought(turn: Mapping[str, Any], content: str, where: str) -> None:
    """A thought opens its turn, has an end, and stands in one place."""
    # An argument of a call may hold either mark as text.
    marks = outside_calls(content)
    start, end = marks.find(chat.THINK), marks.rfind(chat.THINK_END)
    opened, closed = start >= 0, end >= 0

    if opened and not closed:
        raise BadRow(
            f"{where}.content: {chat.THINK} without {chat.THINK_END}", "thought without an end"
        )

    if opened and content[:start].strip() and start < end:
        raise BadRow(
            f"{where}.content: text before {chat.THINK}; a turn opens with its thought",
            "text before the thought",
        )

    thoughts = []
    if closed:
        inside = start + len(chat.THINK) if 0 <= start < end else 0
        thoughts.append(content[inside:end].strip())
    for key in REASONING_KEYS:
        reasoning = turn.get(key)
        if reasoning is None:
            continue
        if not isinstance(reasoning, str):
            kind = type(reasoning).__name__
            raise BadRow(f"{where}.{key}: expected text, found {kind}", "unreadable reasoning")

        if reasoning.strip() and thoughts and reasoning.strip() != thoughts[0]:
            place = "in the content" if closed else "in another field"
            raise BadRow(f"{where}.{key}: another thought stands {place}", "two thoughts")
        if reasoning.strip():
            thoughts.append(reasoning.strip())


def _check_answer(turn: Mapping[str, Any], content: str, where: str) -> None:
    """What follows the thought: an answer, or calls that can be read and that end the turn."""
    end = outside_calls(content).rfind(chat.THINK_END)
    answer = content if end < 0 else content[end + len(chat.THINK_END) :]
    if end >= 0 and answer.lstrip().startswith(chat.THINK):
        raise BadRow(
            f"{where}.content: {chat.THINK} without {chat.THINK_END}", "thought without an end"
        )
    if CALL in answer or CALL_END in answer:
        beside, _ = read_calls(answer)
        if CALL in beside or CALL_END in beside:
            raise BadRow(f"{where}.content: a {CALL} that cannot be read", "unreadable call")
        if beside.strip() != answer.partition(CALL)[0].strip():
            raise BadRow(
                f"{where}.content: text after a call; only another call may follow one",
                "prose after a call",
            )

    if not answer.strip() and not turn.get("tool_calls"):
        raise BadRow(f"{where}.content: neither an answer nor a call", "no content")


# ---------------------------------------------------------------- turns together


def _results_apart(turns: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(place in the row, turn), results of calls as tool turns.

    After calls, a user or tool turn of `<tool_response>` blocks and nothing else becomes one tool
    turn per block. So the released rows write results; as user turns they would end the step, and
    the thoughts before them would be cut and not trained.
    """
    called = False
    for i, turn in enumerate(turns):
        content = turn.get("content")
        if turn["role"] == "assistant":
            called = bool(turn.get("tool_calls")) or CALL in str(content)
        elif called and isinstance(content, str) and _RESULTS.fullmatch(content):
            for result in _RESULT.findall(content):
                yield i, {**turn, "role": "tool", "content": result}
            continue
        elif turn["role"] not in ("tool", "function"):
            called = False

        yield i, turn


def _check_calls(
    placed: Sequence[tuple[int, Mapping[str, Any]]],
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]],
    system: str,
) -> None:
    """Calls against definitions, results against calls; `system`: a text beside the turns."""
    texts = [message.content for message in messages if message.role == "system"]
    signatures = Signatures(tools, [system, *texts])
    open_calls: list[ToolCall] = []

    for (i, turn), message in zip(placed, messages, strict=True):
        where = f"messages[{i}]"
        if message.role == "tool":
            _answer_call(open_calls, message, where)
            continue

        open_calls = list(message.tool_calls)
        if message.role != "assistant":
            continue
        _check_written_once(turn, message, where)
        for j, call in enumerate(message.tool_calls):
            if turn.get("tool_calls"):
                place = f"{where}.tool_calls[{j}]"
            else:
                place = f"{where}.content: call {j + 1}"
            signatures.check_call(call, place)


def _answer_call(open_calls: list[ToolCall], message: Message, where: str) -> None:
    """Take the call that a tool turn answers out of those without an answer."""
    if not open_calls:
        raise BadRow(f"{where}: a tool turn answers no call", "tool turn without a call")
    ids = [call.id for call in open_calls]
    answered = message.tool_call_id
    if answered in ids:
        open_calls.pop(ids.index(answered))
        return

    if answered is not None and None not in ids:
        known = ", ".join(map(str, ids))[:80]
        raise BadRow(
            f"{where}.tool_call_id is {answered[:40]!r}; the open calls are {known}",
            "tool turn without a call",
        )

    # Without ids, results come in the order of the calls.
    open_calls.pop(0)


def _check_written_once(turn: Mapping[str, Any], message: Message, where: str) -> None:
    """The content holds no other calls than `tool_calls`."""
    entries = turn.get("tool_calls")
    if not entries:
        return
    alone = {"role": "assistant", "content": turn.get("content") or ""}
    in_content = to_messages([alone])[0].tool_calls
    if in_content and not _same_calls(in_content, message.tool_calls):
        raise BadRow(f"{where}: calls in content and others in tool_calls", "unreadable call")


def _same_calls(calls: Sequence[ToolCall], others: Sequence[ToolCall]) -> bool:
    """Whether names and arguments are equal; ids stand in one of the two places only."""
    return [(c.name, c.arguments) for c in calls] == [(c.name, c.arguments) for c in others]
