"""Unified diffs: which files they change, files after them, diffs and search/replace edits between two states of files."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linn.domains.common import edits
from linn.domains.common.edits import Edit

_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")


class BadPatch(ValueError):
    """A diff that cannot be read or does not fit the files; the text says why."""


@dataclass(frozen=True)
class Hunk:
    """One place of a file: the lines there, the lines afterwards."""

    start: int
    """Index of the first old line, from 0."""
    old: tuple[str, ...]
    """Lines before."""
    new: tuple[str, ...]
    """Lines after."""


def read(patch: str) -> dict[str, tuple[Hunk, ...]]:
    """The hunks of every changed file by its old path (its new one where the file is new); raises BadPatch."""
    files: dict[str, list[Hunk]] = {}
    path = old_path = ""
    lines = patch.replace("\r\n", "\n").split("\n")
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("--- ") and at < len(lines) and lines[at].startswith("+++ "):
            old_path, path = _path(line), _path(lines[at])
            at += 1
        elif match := _HUNK.match(line):
            if not path and not old_path:
                raise BadPatch("a hunk stands before the name of its file")
            hunk, at = _hunk(lines, at, *(int(number or 1) for number in match.groups()))
            files.setdefault(old_path or path, []).append(hunk)
    if not files:
        raise BadPatch("the patch changes nothing")
    return {name: tuple(hunks) for name, hunks in files.items()}


def _path(line: str) -> str:
    name = line[4:].split("\t")[0].strip()
    return "" if name == "/dev/null" else name.removeprefix("a/").removeprefix("b/")


def _hunk(lines: Sequence[str], at: int, line: int, before: int, after: int) -> tuple[Hunk, int]:
    """The hunk that begins at `at`: `before` old lines from line `line` (from 1), `after` new ones; and where it ends."""
    old: list[str] = []
    new: list[str] = []
    while len(old) < before or len(new) < after:
        sign, text = (lines[at][:1], lines[at][1:]) if at < len(lines) else ("end", "")
        if sign not in ("", " ", "-", "+", "\\"):
            raise BadPatch(
                f"a hunk of {before} old and {after} new lines ends after {len(old)} and {len(new)}"
            )
        if sign in ("", " ", "-"):
            old.append(text)
        if sign in ("", " ", "+"):
            new.append(text)
        at += 1
    if (len(old), len(new)) != (before, after):
        raise BadPatch(
            f"a hunk has {len(old)} old and {len(new)} new lines, not {before} and {after}"
        )
    return Hunk(max(0, line - 1), tuple(old), tuple(new)), at


def apply(files: Mapping[str, str], patch: str, repo_name: bool = False) -> dict[str, str]:
    """The files after a diff, which must fit line by line; raises BadPatch. `repo_name`: paths of `files` begin with a folder more."""
    names = {path.partition("/")[2] if repo_name else path: path for path in files}
    changed = dict(files)
    for path, hunks in read(patch).items():
        if path not in names:
            raise BadPatch(f"{path[:100]!r} is not one of the files")
        own = names[path]
        ends = edits.line_end(changed[own])
        lines = changed[own].split(ends)
        for hunk in sorted(hunks, key=lambda hunk: hunk.start, reverse=True):
            if tuple(lines[hunk.start : hunk.start + len(hunk.old)]) != hunk.old:
                raise BadPatch(f"a hunk does not fit {path[:100]!r} at line {hunk.start + 1}")
            lines[hunk.start : hunk.start + len(hunk.old)] = hunk.new
        changed[own] = ends.join(lines)
    return changed


def diff(before: Mapping[str, str], after: Mapping[str, str], context: int = 3) -> str:
    """A unified diff of the files that differ."""
    parts = []
    for path in sorted({*before, *after}):
        old, new = before.get(path, ""), after.get(path, "")
        if old != new:
            found = difflib.unified_diff(
                old.split("\n"), new.split("\n"), f"a/{path}", f"b/{path}", n=context, lineterm=""
            )
            parts.append("\n".join(found))
    return "\n".join(parts)


def edits_between(before: Mapping[str, str], after: Mapping[str, str]) -> list[Edit]:
    """Search/replace edits that lead from one state to the other; each searches for lines found once."""
    found: list[Edit] = []
    for path in before:
        if before[path] != after.get(path, ""):
            ends = edits.line_end(before[path])
            found += _file_edits(path, before[path].split(ends), after.get(path, "").split(ends))
    return found


def _file_edits(path: str, old: list[str], new: list[str]) -> list[Edit]:
    """Every change, grown by lines around it until its old lines are found once; changes that meet become one."""
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    spans = [(i, j, k, m) for tag, i, j, k, m in blocks if tag != "equal"]
    while True:
        grown = [
            span
            if _fit(old, old[span[0] : span[1]], new[span[2] : span[3]])
            else _grown(span, len(old))
            for span in spans
        ]
        met: list[tuple[int, int, int, int]] = []
        for i, j, k, m in grown:
            if met and i < met[-1][1]:
                before = met.pop()
                end = max(j, before[1])
                i, j, k, m = before[0], end, before[2], m + end - j
            met.append((i, j, k, m))
        if met == spans:
            return [Edit(path, "\n".join(old[i:j]), "\n".join(new[k:m])) for i, j, k, m in spans]
        spans = met


def _grown(span: tuple[int, int, int, int], lines: int) -> tuple[int, int, int, int]:
    """A span of old and new lines with one more line on each side, where there is one."""
    i, j, k, m = span
    before, after = int(i > 0), int(j < lines)
    return i - before, j + after, k - before, m + after


def _fit(lines: list[str], old: list[str], new: list[str]) -> bool:
    """Whether old lines can be searched for, in one place, and there are new ones to write."""
    return (
        any(line.strip() for line in old)
        and bool(new)
        and len(edits.places("\n".join(lines), "\n".join(old))) == 1
    )
