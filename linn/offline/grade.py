"""Offline grading: rows and replies in, verdicts out (graders.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from linn.chat.request import to_messages
from linn.data.agents import is_for, owner
from linn.data.rows import BadRow, Lines, object_of
from linn.data.tally import Tally, fault
from linn.domains.base import Domain
from linn.errors import UserError
from linn.judges.panel import Judges, Siblings
from linn.play.rollout import reply_of
from linn.types import Prompt, Reply, Verdict

_ROLES = ("assistant", "tool", "user", "system")
"""Who speaks in a reply."""


async def grade(
    domain: Domain,
    rows: Path,
    replies: Path,
    broken: Tally | None = None,
    judges: Judges | None = None,
    progress: Callable[[float, int], None] = lambda share, line: None,
) -> Iterator[dict[str, Any]]:
    """One verdict a reply, in order: {"row", "reply", "reward", "note"}. A broken line raises UserError naming file and line.

    Replies are read and verified as the result is iterated; what a model judges is asked before.

    With a tally `broken`, broken lines keep their index, are skipped, and are counted there by reason. Rows of other domains are no fault
    unless a reply answers one. A domain that a model judges has all its questions asked first, each reply as a group of one.
    `progress` hears the share of the replies read, and the line.
    """
    found = _prompts_and_replies(domain, rows, replies, broken, progress)
    if domain.judged:
        entries = list(found)
        asked = [Siblings(domain, prompt, [reply]) for _, _, prompt, reply in entries]
        judged = await (judges or Judges()).verdicts(asked, 0)
        graded = zip(entries, judged, strict=True)
    else:
        graded = ((entry, None) for entry in found)  # type: ignore[assignment]
    return (_graded(domain, *entry, verdicts) for entry, verdicts in graded)


def _graded(
    domain: Domain,
    index: int,
    line: int,
    prompt: Prompt,
    reply: Reply,
    verdicts: Sequence[Verdict] | None,
) -> dict[str, Any]:
    verdict = domain.verify(prompt, reply) if verdicts is None else verdicts[0]
    return {"row": index, "reply": line, "reward": verdict.reward, "note": verdict.note}


def _prompts_and_replies(
    domain: Domain,
    rows: Path,
    replies: Path,
    broken: Tally | None,
    progress: Callable[[float, int], None],
) -> Iterator[tuple[int, int, Prompt, Reply]]:
    """(row, line, prompt, reply) of every reply that can be graded."""
    prompts: list[Prompt | str] = []
    for where, index, row in _numbered(rows, broken):
        found: Prompt | str = where
        if row is not None:
            try:
                found = domain.from_row(row, index)
            except UserError as error:
                found = f"{where}: {fault(error)[0]}"
                if not _of_others(row, domain):
                    _wrong(where, error, broken)
        prompts.append(found)
    for where, line, entry in _numbered(replies, broken, progress):
        if entry is None:
            continue
        try:
            index, reply = reply_from(entry)
            if not 0 <= index < len(prompts):
                raise UserError(f"row is {index}, but {rows} has {len(prompts)} rows")
            if isinstance(prompt := prompts[index], str):
                raise UserError(f"row {index} cannot be graded: {prompt}")
        except UserError as error:
            _wrong(where, error, broken)
            continue
        yield index, line, prompt, reply


def _numbered(
    path: Path,
    broken: Tally | None,
    progress: Callable[[float, int], None] = lambda share, line: None,
) -> Iterator[tuple[str, int, dict[str, Any] | None]]:
    """("FILE line N", 0-based index, row) of every line that is not blank; None for one that is no JSON object, where that is allowed."""
    lines = Lines(path)
    for index, (line, raw) in enumerate(lines):
        progress(lines.share, line)
        where, row = f"{path} line {line}", None
        try:
            row = object_of(raw)
        except BadRow as error:
            _wrong(where, error, broken)
        yield where, index, row


def _of_others(row: Mapping[str, Any], domain: Domain) -> bool:
    try:
        return not is_for(owner(row), domain.name)
    except BadRow:
        return False


def _wrong(where: str, error: UserError, broken: Tally | None) -> None:
    message, reason = fault(error)
    if broken is None:
        raise UserError(f"{where}: {message}") from None
    broken.add_bad(reason, f"{where}: {message}")


def reply_from(entry: Mapping[str, Any]) -> tuple[int, Reply]:
    """(row, reply) of one line of a replies file: `text`, or OpenAI `messages`.

    UserError names the field that is wrong.
    """
    index = entry.get("row")
    if not isinstance(index, int) or isinstance(index, bool):
        raise UserError(f"row must be the 0-based index of a row, found {index!r}")

    text, turns = entry.get("text"), entry.get("messages")
    if isinstance(text, str):
        turns = [{"role": "assistant", "content": text}]
    if not isinstance(turns, list):
        raise UserError("text (a string) or messages (a list) is needed")
    for i, turn in enumerate(turns):
        _check_turn(turn, f"messages[{i}]")
    return index, reply_of(to_messages(turns, where="messages"))


def _check_turn(turn: object, where: str) -> None:
    """UserError where a turn of a reply has no known role, or a call without a name."""
    if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
        raise UserError(f"{where}.role must be assistant, tool, user or system")
    calls = turn.get("tool_calls") or []
    if not isinstance(calls, list):
        raise UserError(f"{where}.tool_calls must be a list, found {type(calls).__name__}")
    for i, call in enumerate(calls):
        function = call.get("function", call) if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise UserError(f"{where}.tool_calls[{i}].function.name must be the name of a function")
