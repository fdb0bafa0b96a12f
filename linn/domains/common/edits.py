"""Search/replace edits: read them from an answer, apply them to files, or say in one line why not."""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linn.errors import UserError

_OPEN, _CLOSE = "<solution>", "</solution>"
_SEARCH, _MIDDLE, _REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_MOST_EDITS = 200
_LONGEST_ANSWER = 1 << 20


class BadEdit(ValueError):
    """An edit that cannot be read or applied; the text says why."""


@dataclass(frozen=True)
class Edit:
    """Replace some lines of a file by others."""

    path: str
    """The file, relative, as the task names it."""
    old: str
    """Lines that are there, without the last line's end."""
    new: str | None
    """Lines to put in their place; empty: one blank line, None: none at all."""


def block(edit: Edit) -> str:
    """The edit as an answer writes it, in its own fenced block."""
    new = "" if edit.new is None else f"{edit.new}\n"
    return f"```python\n### {edit.path}\n{_SEARCH}\n{edit.old}\n{_MIDDLE}\n{new}{_REPLACE}\n```"


def parse(text: str, strict: bool = False) -> list[Edit]:
    """The edits after the first `<solution>`, up to the next mark of its kind; raises BadEdit.

    Each stands in a fenced block of its own: `### path`, the search mark, old lines, the dividing line, new lines, the replace mark. As in the
    reference (nemo-gym's `swerl_gen`), there must be lines, if only a blank one, on both sides of the first dividing line, and a block that is
    no edit is passed over. `strict`: no new lines are a deletion, and every mark must belong to an edit. A block said twice counts once.
    """
    if len(text) > _LONGEST_ANSWER:
        raise BadEdit("the answer is too long")
    if _OPEN not in text or _CLOSE not in text:
        raise BadEdit("no <solution> … </solution>")
    lines = text.split(_OPEN)[1].split(_CLOSE)[0].replace("\r\n", "\n").split("\n")
    middles = [at for at, line in enumerate(lines) if line == _MIDDLE]
    ends = [at for at, line in enumerate(lines) if line.startswith(_REPLACE) and _closes(lines, at)]
    edits: list[Edit] = []
    at = 0
    while at < len(lines):
        found = (
            _read_block(lines, at, middles, ends, 0 if strict else 1)
            if "```" in lines[at]
            else None
        )
        if found is None:
            at += 1
            continue
        edit, at = found
        edits.append(edit)
        if len(edits) > _MOST_EDITS:
            raise BadEdit(f"more than {_MOST_EDITS} edits")
    if not edits:
        raise BadEdit("no edits")
    if strict and any(
        sum(line.strip() == mark for line in lines) != len(edits)
        for mark in (_SEARCH, _MIDDLE, _REPLACE)
    ):
        raise BadEdit("there are marks that belong to no edit, or an edit holds marks of another")
    return list(dict.fromkeys(edits))


def _closes(lines: list[str], at: int) -> bool:
    """Whether a fence follows the replace mark of this line, blank lines aside."""
    rest = lines[at][len(_REPLACE) :] or next(
        (line for line in lines[at + 1 : at + 100] if line), ""
    )
    return rest.startswith("```")


def _read_block(
    lines: list[str], at: int, middles: list[int], ends: list[int], least: int
) -> tuple[Edit, int] | None:
    """The edit whose fence opens on this line, with the line after it; None where there is none. `least`: lines on each side."""
    path = lines[at + 1][4:] if at + 1 < len(lines) and lines[at + 1].startswith("### ") else ""
    start = next(
        (index for index in range(at + 2, min(at + 100, len(lines))) if lines[index].strip()), None
    )
    if not path.strip() or start is None or lines[start].lstrip() != _SEARCH:
        return None
    middle = _first(middles, start + 1 + least)
    end = None if middle is None else _first(ends, middle + 1 + least)
    if middle is None or end is None:
        return None
    old, new = lines[start + 1 : middle], lines[middle + 1 : end]
    closing = next(index for index in range(end, len(lines)) if "```" in lines[index])
    return Edit(path, "\n".join(old), "\n".join(new) if new else None), closing + 1


def _first(numbers: list[int], least: int) -> int | None:
    """The first of these ascending numbers that is not below `least`."""
    index = bisect.bisect_left(numbers, least)
    return numbers[index] if index < len(numbers) else None


def apply(files: Mapping[str, str], edits: list[Edit], strict: bool = False) -> dict[str, str]:
    """The files after the edits; raises BadEdit.

    As in the reference, old lines are looked for in the files as they were, from the beginning of a line on, and the first place counts,
    whatever other edits do there. `strict`: they must not be blank, must be found once (as whole lines, or else as the beginning of some),
    and no two edits may touch the same text. All edits together must change a line. A file that is not there may not be made. A file whose
    lines end in CR LF keeps them so.
    """
    spans: dict[str, list[tuple[int, Edit]]] = {}
    for edit in edits:
        check_path(edit.path)
        if edit.path not in files:
            raise BadEdit(f"{_short(edit.path)} is not one of the files")
        if edit.old == edit.new:
            raise BadEdit("an edit changes nothing")
        text = _text(files[edit.path])
        found = places(text, edit.old)
        if not found:
            raise BadEdit(f"the search text is not found in {_short(edit.path)}")
        if strict:
            found = _only(text, edit, found)
            if any(
                found[0] < at + 1 + len(other.old) and at < found[0] + 1 + len(edit.old)
                for at, other in spans.get(edit.path, [])
            ):
                raise BadEdit("two edits touch the same line")
        spans.setdefault(edit.path, []).append((found[0], edit))
    changed = dict(files)
    for path, parts in spans.items():
        text = "\n" + _text(files[path])
        for at, edit in sorted(parts, key=lambda part: part[0], reverse=True):
            text = (
                text[:at]
                + ("" if edit.new is None else "\n" + edit.new)
                + text[at + 1 + len(edit.old) :]
            )
        changed[path] = text[1:].replace("\n", line_end(files[path]))
    if all(changed[path].splitlines() == files[path].splitlines() for path in spans):
        raise BadEdit("the edits change nothing")
    return changed


def places(text: str, old: str) -> list[int]:
    """Where old lines begin in a text, whether they end with a line or within one."""
    text, old = "\n" + text, "\n" + old
    found, at = [], text.find(old)
    while at >= 0:
        found.append(at)
        at = text.find(old, at + 1)
    return found


def _only(text: str, edit: Edit, found: list[int]) -> list[int]:
    """The one place that an edit can mean: whole lines go before beginnings of lines."""
    if not edit.old.strip():
        raise BadEdit("an edit must search for something")
    whole = [
        at for at in found if text[(end := at + len(edit.old)) : end + 1] in ("", "\n")
    ] or found
    if len(whole) != 1:
        raise BadEdit(
            f"the search text is found {len(whole)} times in {_short(edit.path)}, not once"
        )
    return whole


def _text(content: str) -> str:
    """A file's content with its lines ended by LF."""
    return content.replace("\r\n", "\n") if line_end(content) == "\r\n" else content


def line_end(text: str) -> str:
    """What ends the lines of a file: CR LF where every line does, else LF."""
    return "\r\n" if "\n" in text and text.count("\n") == text.count("\r\n") else "\n"


def check_path(path: str) -> None:
    """Refuse paths that are absolute, climb, or hide odd characters; raises BadEdit."""
    parts = path.split("/")
    if (
        path.startswith("/")
        or "\\" in path
        or not path.isprintable()
        or any(part in ("", ".", "..") for part in parts)
    ):
        raise BadEdit(f"path {_short(path)} is not a plain relative path")


def _short(path: str) -> str:
    return repr(path if len(path) <= 60 else path[:60] + "…")


def files_of(value: Any, where: str) -> dict[str, str]:
    """Files by path from a row's field, which may be an object, its JSON text, or a list of {file_path, content}; raises UserError."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise UserError(f"{where} is not JSON") from None
    if isinstance(value, list) and all(
        isinstance(item, Mapping) and isinstance(item.get("file_path"), str) for item in value
    ):
        listed, value = value, {item["file_path"]: item.get("content") for item in value}
        if len(value) < len(listed):
            raise UserError(f"{where} names a file twice")
    if (
        not isinstance(value, Mapping)
        or not value
        or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items())
    ):
        raise UserError(f"{where} must map paths to texts, at least one")
    for path in value:
        try:
            check_path(path)
        except BadEdit as error:
            raise UserError(f"{where}: {error}") from None
    return dict(value)
