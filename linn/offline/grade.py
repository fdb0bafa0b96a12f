"""Offline grading: rows and replies in, verdicts out (graders.md)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.chat.turns import to_messages
from linn.data.agents import is_for, owner
from linn.data.layouts import present
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
    """One verdict per reply, in order: {"row", "reply", "reward", "note"}.

    With `"undecided": true` where no answer of the judge could be read: the reward means nothing.

    Replies are read and verified as the result is iterated; a model that judges is asked before.

    A broken line raises UserError naming file and line. With a tally `broken`, broken lines keep
    their index, are skipped, and are counted there by reason. A row of another domain is a fault
    only if a reply answers it. A domain that a model judges has all its questions asked first,
    each reply as a group of one. `progress` hears the share of the replies read, and the line.
    """
    entries = _entries(domain, rows, replies, broken, progress)
    if not domain.judged:
        return (_graded(domain, entry, None) for entry in entries)

    # The judge is asked once for all, so the replies have to be there first.
    waiting = list(entries)
    siblings = [Siblings(domain, entry.prompt, [entry.reply]) for entry in waiting]
    judged = await (judges or Judges()).verdicts(siblings, 0)
    pairs = zip(waiting, judged, strict=True)

    return (_graded(domain, entry, verdicts) for entry, verdicts in pairs)


@dataclass(frozen=True)
class _Entry:
    """A reply that can be graded."""

    row: int
    """Index of the row it answers."""
    line: int
    """Index of the reply."""
    prompt: Prompt
    """The row as a prompt."""
    reply: Reply
    """The reply as graders see it."""


def _graded(domain: Domain, entry: _Entry, verdicts: Sequence[Verdict] | None) -> dict[str, Any]:
    """`verdicts`: the judge's, of a group of one; None: the domain verifies."""
    if verdicts is None:
        verdict = domain.verify(entry.prompt, entry.reply)
    else:
        verdict = verdicts[0]

    graded = {
        "row": entry.row,
        "reply": entry.line,
        "reward": verdict.reward,
        "note": verdict.note,
    }
    if verdict.undecided:
        graded["undecided"] = True
    return graded


def _entries(
    domain: Domain,
    rows: Path,
    replies: Path,
    broken: Tally | None,
    progress: Callable[[float, int], None],
) -> Iterator[_Entry]:
    """Every reply that can be graded, in order."""
    prompts = _prompts(domain, rows, broken)
    for where, line, fields in _numbered(replies, broken, progress):
        if fields is None:
            continue
        try:
            index = row_of(fields)
            if not 0 <= index < len(prompts):
                raise UserError(f"row is {index}, but {rows} has {len(prompts)} rows")
            prompt = prompts[index]
            # A broken row hurts only those who answer it.
            if isinstance(prompt, str):
                raise UserError(f"row {index} cannot be graded: {prompt}")
            reply = reply_from(fields, prompt.tools)
        except UserError as error:
            _count_or_raise(where, error, broken)
            continue

        yield _Entry(
            row=index,
            line=line,
            prompt=prompt,
            reply=reply,
        )


def _prompts(domain: Domain, rows: Path, broken: Tally | None) -> list[Prompt | str]:
    """A prompt per row; text where there is none: file and line, and why."""
    prompts: list[Prompt | str] = []
    for where, index, row in _numbered(rows, broken):
        if row is None:
            prompts.append(where)
            continue

        try:
            prompts.append(domain.from_row(row, index))
        except UserError as error:
            message, _ = fault(error)
            prompts.append(f"{where}: {message}")
            # Released blends hold rows of several domains in one file.
            if not _is_anothers(row, domain):
                _count_or_raise(where, error, broken)

    return prompts


def _numbered(
    path: Path,
    broken: Tally | None,
    progress: Callable[[float, int], None] = lambda share, line: None,
) -> Iterator[tuple[str, int, dict[str, Any] | None]]:
    """("FILE line N", 0-based index, row) of every line that is not blank.

    None for a line that is no JSON object, where that is allowed.
    """
    lines = Lines(path)
    for index, (line, raw) in enumerate(lines):
        progress(lines.share, line)
        where = f"{path} line {line}"
        row = None

        try:
            row = present(object_of(raw))
        except BadRow as error:
            _count_or_raise(where, error, broken)

        yield where, index, row


def _is_anothers(row: Mapping[str, Any], domain: Domain) -> bool:
    """Whether another domain is to read the row; not where that cannot be known."""
    try:
        return not is_for(owner(row), domain.name)
    except BadRow:
        return False


def _count_or_raise(where: str, error: UserError, broken: Tally | None) -> None:
    message, reason = fault(error)
    if broken is None:
        raise UserError(
            f"{where}: {message}; --skip-bad counts such lines and leaves them out"
        ) from None
    broken.add_bad(reason, f"{where}: {message}")


def row_of(entry: Mapping[str, Any]) -> int:
    """Which row a line of a replies file answers; UserError where it does not say."""
    index = entry.get("row")
    # True is an int in Python, and would be row 1.
    if not isinstance(index, int) or isinstance(index, bool):
        raise UserError(f"row must be the 0-based index of a row, found {index!r}")
    return index


def reply_from(entry: Mapping[str, Any], tools: Sequence[Mapping[str, Any]] = ()) -> Reply:
    """The reply of one line of a replies file: `text`, or OpenAI `messages`.

    `tools` types the values of its XML calls, as in a rollout. UserError names the field that is
    wrong.
    """
    text, turns = entry.get("text"), entry.get("messages")
    if isinstance(text, str):
        turns = [{"role": "assistant", "content": text}]
    if not isinstance(turns, list):
        raise UserError("text (a string) or messages (a list) is needed")
    for i, turn in enumerate(turns):
        _check_turn(turn, f"messages[{i}]")

    return reply_of(to_messages(turns, where="messages", tools=tools))


def _check_turn(turn: object, where: str) -> None:
    """UserError where a turn of a reply has no known role."""
    if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES:
        raise UserError(f"{where}.role must be assistant, tool, user or system")
