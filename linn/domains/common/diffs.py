"""Unified diffs: read, applied, taken back, and made from two states of files (as edits, too)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from linn.domains.common import edits
from linn.domains.common.edits import Edit

_HUNK = re.compile(r"@@ -(\d{1,18})(?:,(\d{1,18}))? \+(\d{1,18})(?:,(\d{1,18}))? @@")


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
    new_start: int
    """Index of the first new line in the file after the diff, from 0."""


@dataclass(frozen=True)
class FileDiff:
    """The hunks of a diff that stand under one pair of file names."""

    old_path: str
    """The file before, without the leading `a/`; empty where the diff makes the file."""
    new_path: str
    """The file after, without the leading `b/`; empty where the diff deletes the file."""
    hunks: tuple[Hunk, ...]
    """In the diff's order, at least one."""


# ---------------------------------------------------------------- reading


def file_diffs(patch: str) -> list[FileDiff]:
    """What a diff does to each file, in its order; raises BadPatch.

    Lines outside hunks are skipped.
    """
    lines = patch.replace("\r\n", "\n").split("\n")
    sections: list[tuple[str, str, list[Hunk]]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1

        # The two name lines count as a pair only: a deleted line "-- x" looks like a name line.
        following = lines[at] if at < len(lines) else ""
        if line.startswith("--- ") and following.startswith("+++ "):
            sections.append((_path(line), _path(following), []))
            at += 1
            continue

        header = _HUNK.match(line)
        if header is None:
            continue
        if not sections or sections[-1][:2] == ("", ""):
            raise BadPatch("a hunk stands before the name of its file")
        hunk, at = _read_hunk(lines, at, header)

        _, _, hunks = sections[-1]
        hunks.append(hunk)

    return [FileDiff(old, new, tuple(hunks)) for old, new, hunks in sections if hunks]


def _path(line: str) -> str:
    """The file that a name line names; empty for `/dev/null`."""
    name = line[4:].split("\t")[0].strip()
    if name == "/dev/null":
        return ""
    return name.removeprefix("a/").removeprefix("b/")


def _read_hunk(lines: Sequence[str], at: int, header: re.Match[str]) -> tuple[Hunk, int]:
    """The hunk whose first line has index `at`, and the index after its last line."""
    # A header leaves a count of 1 out.
    old_line, before, new_line, after = (int(number or 1) for number in header.groups())
    old: list[str] = []
    new: list[str] = []
    while len(old) < before or len(new) < after:
        line = lines[at] if at < len(lines) else None
        if line is None or line[:1] not in ("", " ", "-", "+", "\\"):
            raise BadPatch(
                f"a hunk of {before} old and {after} new lines ends after {len(old)} and {len(new)}"
            )

        # An empty line is an unchanged blank line whose space an editor took away.
        sign = line[:1]
        if sign in ("", " ", "-"):
            old.append(line[1:])
        if sign in ("", " ", "+"):
            new.append(line[1:])
        at += 1

    if (len(old), len(new)) != (before, after):
        raise BadPatch(
            f"a hunk has {len(old)} old and {len(new)} new lines, not {before} and {after}"
        )

    # A side without lines names the line before it, not its first one.
    new_start = new_line - 1 if after else new_line
    hunk = Hunk(
        start=max(0, old_line - 1),
        old=tuple(old),
        new=tuple(new),
        new_start=max(0, new_start),
    )
    return hunk, at


def read(patch: str) -> dict[str, tuple[Hunk, ...]]:
    """The hunks of every changed file by its old path; raises BadPatch.

    A file that the diff makes stands under its new path.
    """
    files: dict[str, tuple[Hunk, ...]] = {}
    for part in file_diffs(patch):
        path = part.old_path or part.new_path
        # A diff may come back to a file.
        earlier = files.get(path, ())
        files[path] = earlier + part.hunks

    if not files:
        raise BadPatch("the patch changes nothing")
    return files


# ---------------------------------------------------------------- applying


def apply(files: Mapping[str, str], patch: str, repo_name: bool = False) -> dict[str, str]:
    """The files after a diff, which must fit line by line; raises BadPatch.

    `repo_name`: the paths of `files` begin with one folder more than the diff's.
    """
    own_paths = {patch_path(path, repo_name): path for path in files}
    changed = dict(files)
    for path, hunks in read(patch).items():
        if path not in own_paths:
            raise BadPatch(f"{path[:100]!r} is not one of the files")
        own = own_paths[path]
        changed[own] = _applied(changed[own], path, hunks)
    return changed


def _applied(text: str, path: str, hunks: Sequence[Hunk]) -> str:
    """A file's text after its hunks; raises BadPatch where one does not fit."""
    line_end = edits.line_end(text)
    lines = text.split(line_end)

    # From the last to the first, so that no hunk moves the lines of the next.
    for hunk in sorted(hunks, key=lambda hunk: hunk.start, reverse=True):
        start = hunk.start
        fits = _put(lines, start, hunk.old, hunk.new)
        if not fits:
            raise BadPatch(f"a hunk does not fit {path[:100]!r} at line {start + 1}")
    return line_end.join(lines)


def _reverted(text: str, path: str, hunks: Sequence[Hunk]) -> str:
    """A file's text before its hunks; raises BadPatch where one does not fit."""
    line_end = edits.line_end(text)
    lines = text.split(line_end)

    # From the last to the first, as above.
    for hunk in sorted(hunks, key=lambda hunk: hunk.new_start, reverse=True):
        start = hunk.new_start
        fits = _put(lines, start, hunk.new, hunk.old)
        if not fits:
            raise BadPatch(f"the patch does not fit {path[:100]!r} at line {start + 1}")
    return line_end.join(lines)


def _put(lines: list[str], start: int, old: tuple[str, ...], new: tuple[str, ...]) -> bool:
    """Put new lines in place of old ones; False where the old ones do not stand there."""
    end = start + len(old)
    if tuple(lines[start:end]) != old:
        return False
    lines[start:end] = new
    return True


def revert(files: Mapping[str, str], patch: str) -> dict[str, str]:
    """The files before a diff that led to `files`; it must fit line by line.

    Raises BadPatch, also where the diff changes nothing.
    """
    changed = dict(files)
    for part in file_diffs(patch):
        path = part.new_path
        if path not in changed:
            raise BadPatch(f"{path[:100]!r} is not one of the files")
        changed[path] = _reverted(changed[path], path, part.hunks)

    if changed == files:
        raise BadPatch("the patch changes nothing")
    return changed


def patch_path(path: str, repo_name: bool) -> str:
    """A file's path as a diff names it; `repo_name`: without the folder that it begins with."""
    return path.partition("/")[2] if repo_name else path


# ---------------------------------------------------------------- making


def diff(before: Mapping[str, str], after: Mapping[str, str], context: int = 3) -> str:
    """A unified diff of the files that differ, with this many unchanged lines around a change.

    A file that one side lacks counts as empty there.
    """
    sections = []
    for path in sorted({*before, *after}):
        old = before.get(path, "")
        new = after.get(path, "")
        if old == new:
            continue
        lines = difflib.unified_diff(
            old.split("\n"),
            new.split("\n"),
            f"a/{path}",
            f"b/{path}",
            n=context,
            lineterm="",
        )
        sections.append("\n".join(lines))
    return "\n".join(sections)


@dataclass(frozen=True)
class _Span:
    """Old lines of a file and the new lines in their place, by index."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int

    def grown(self, last: int) -> _Span:
        """With one more line on each side, where the old file (of `last` lines) has one."""
        before = int(self.old_start > 0)
        after = int(self.old_end < last)
        return _Span(
            old_start=self.old_start - before,
            old_end=self.old_end + after,
            new_start=self.new_start - before,
            new_end=self.new_end + after,
        )

    def joined(self, later: _Span) -> _Span:
        """This span and one that begins inside it, as one."""
        old_end = max(later.old_end, self.old_end)
        return _Span(
            old_start=self.old_start,
            old_end=old_end,
            new_start=self.new_start,
            new_end=later.new_end + old_end - later.old_end,
        )


def edits_between(before: Mapping[str, str], after: Mapping[str, str]) -> list[Edit]:
    """Search/replace edits from one state to the other; each searches for lines found once."""
    every: list[Edit] = []
    for path, old in before.items():
        new = after.get(path, "")
        if old != new:
            line_end = edits.line_end(old)
            every += _file_edits(path, old.split(line_end), new.split(line_end))
    return every


def _file_edits(path: str, old: list[str], new: list[str]) -> list[Edit]:
    """Every change, grown by lines around it until its old lines are found once."""
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    spans = [_Span(*place) for tag, *place in matcher.get_opcodes() if tag != "equal"]
    while True:
        grown = [
            span if _can_be_searched(old, new, span) else span.grown(len(old)) for span in spans
        ]

        # Changes that have grown into each other become one.
        merged: list[_Span] = []
        for span in grown:
            if merged and span.old_start < merged[-1].old_end:
                span = merged.pop().joined(span)
            merged.append(span)

        if merged == spans:
            break
        spans = merged

    return [
        Edit(
            path,
            old="\n".join(old[span.old_start : span.old_end]),
            new="\n".join(new[span.new_start : span.new_end]),
        )
        for span in spans
    ]


def _can_be_searched(old: list[str], new: list[str], span: _Span) -> bool:
    """Whether the span's old lines are found in one place, and there are new ones to write."""
    old_lines = old[span.old_start : span.old_end]
    new_lines = new[span.new_start : span.new_end]
    if not new_lines or not any(line.strip() for line in old_lines):
        return False
    return len(edits.places("\n".join(old), "\n".join(old_lines))) == 1
