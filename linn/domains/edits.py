"""Search/replace edits: read them from an answer, apply them to files, or say in one line why not."""

from __future__ import annotations

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
    """Replace some whole lines of a file by others."""

    path: str
    """The file, relative, as the task names it."""
    old: str
    """Lines that are there, without the last line's end."""
    new: str
    """Lines to put in their place."""


def block(edit: Edit) -> str:
    """The edit as an answer writes it, in its own fenced block."""
    return f"```python\n### {edit.path}\n{_SEARCH}\n{edit.old}\n{_MIDDLE}\n{edit.new}\n{_REPLACE}\n```"


def parse(text: str) -> list[Edit]:
    """The edits between the last `<solution>` and the `</solution>` after it; raises BadEdit.

    Each stands in a fenced block of its own: `### path`, the search mark, old lines, the dividing line, new lines, the replace mark.
    Text outside the blocks is ignored, a block that is no edit is an error, a block said twice counts once.
    """
    if len(text) > _LONGEST_ANSWER:
        raise BadEdit("the answer is too long")
    start = text.rfind(_OPEN)
    end = text.find(_CLOSE, start)
    if start < 0 or end < 0:
        raise BadEdit("no <solution> … </solution>")
    lines = text[start + len(_OPEN) : end].replace("\r\n", "\n").split("\n")
    edits: list[Edit] = []
    at = 0
    while at < len(lines):
        if lines[at].lstrip().startswith("```"):
            edit, at = _parse_block(lines, at + 1)
            edits.append(edit)
            if len(edits) > _MOST_EDITS:
                raise BadEdit(f"more than {_MOST_EDITS} edits")
        else:
            at += 1
    if not edits:
        raise BadEdit("no edits")
    return list(dict.fromkeys(edits))


def _parse_block(lines: list[str], at: int) -> tuple[Edit, int]:
    def find(mark: str, start: int, what: str) -> int:
        for index in range(start, len(lines)):
            if lines[index].rstrip() == mark:
                return index
        raise BadEdit(f"{what} is missing")

    if at >= len(lines) or not lines[at].startswith("### ") or not lines[at][4:].strip():
        raise BadEdit("a block must begin with ### and a path")
    path = lines[at][4:].strip()
    if at + 1 >= len(lines) or lines[at + 1].rstrip() != _SEARCH:
        raise BadEdit(f"{_SEARCH} must follow the path")
    stop = find(_REPLACE, at + 2, _REPLACE)
    middles = [index for index in range(at + 2, stop) if lines[index].rstrip() == _MIDDLE]
    if len(middles) != 1:
        raise BadEdit(f"an edit needs exactly one line {_MIDDLE}")
    old, new = lines[at + 2 : middles[0]], lines[middles[0] + 1 : stop]
    if any(line.rstrip() == _SEARCH for line in [*old, *new]):
        raise BadEdit("one block holds two edits")
    close = stop + 1
    while close < len(lines) and not lines[close].strip():
        close += 1
    if close >= len(lines) or lines[close].strip() != "```":
        raise BadEdit("the block is not closed")
    return Edit(path, "\n".join(old), "\n".join(new)), close + 1


def apply(files: Mapping[str, str], edits: list[Edit]) -> dict[str, str]:
    """The files after the edits; raises BadEdit.

    Old lines are looked for in the files as they were, whole lines, character for character, and must be found exactly once; two edits
    may not touch the same line; all edits together must change something. A file that is not there may not be made. A file whose lines
    end in CR LF keeps them so.
    """
    spans: dict[str, list[tuple[int, int, list[str]]]] = {}
    for edit in edits:
        check_path(edit.path)
        if edit.path not in files:
            raise BadEdit(f"{_short(edit.path)} is not one of the files")
        there, old = files[edit.path].split(line_end(files[edit.path])), edit.old.split("\n")
        if not edit.old.strip():
            raise BadEdit("an edit must search for something")
        found = [at for at in range(len(there) - len(old) + 1) if there[at] == old[0] and there[at : at + len(old)] == old]
        if len(found) != 1:
            raise BadEdit(f"the search text is found {len(found)} times in {_short(edit.path)}, not once")
        if edit.old == edit.new:
            raise BadEdit("an edit changes nothing")
        span = (found[0], found[0] + len(old), edit.new.split("\n") if edit.new else [])
        if any(span[0] < end and start < span[1] for start, end, _ in spans.get(edit.path, [])):
            raise BadEdit("two edits touch the same line")
        spans.setdefault(edit.path, []).append(span)
    changed = dict(files)
    for path, parts in spans.items():
        ends = line_end(changed[path])
        lines = changed[path].split(ends)
        for start, end, new in sorted(parts, key=lambda part: part[0], reverse=True):
            lines[start:end] = new
        changed[path] = ends.join(lines)
    if changed == dict(files):
        raise BadEdit("the edits change nothing")
    return changed


def line_end(text: str) -> str:
    """What ends the lines of a file: CR LF where every line does, else LF."""
    return "\r\n" if "\n" in text and text.count("\n") == text.count("\r\n") else "\n"


def check_path(path: str) -> None:
    """Refuse paths that are absolute, climb, or hide odd characters; raises BadEdit."""
    parts = path.split("/")
    if path.startswith("/") or "\\" in path or not path.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise BadEdit(f"path {_short(path)} is not a plain relative path")


def _short(path: str) -> str:
    return repr(path if len(path) <= 60 else path[:60] + "…")


def files_of(value: Any, where: str) -> dict[str, str]:
    """Files by path from a row's field, which may be an object, its JSON text, or a list of {file_path, content}; raises UserError."""
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise UserError(f"{where} is not JSON") from None
    if isinstance(value, list) and all(isinstance(item, Mapping) and isinstance(item.get("file_path"), str) for item in value):
        listed, value = value, {item["file_path"]: item.get("content") for item in value}
        if len(value) < len(listed):
            raise UserError(f"{where} names a file twice")
    if not isinstance(value, Mapping) or not value or not all(isinstance(k, str) and isinstance(v, str) for k, v in value.items()):
        raise UserError(f"{where} must map paths to texts, at least one")
    for path in value:
        try:
            check_path(path)
        except BadEdit as error:
            raise UserError(f"{where}: {error}") from None
    return dict(value)
