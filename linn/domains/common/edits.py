"""Search/replace edits: read from an answer and applied to files, or refused in one line."""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linn.errors import UserError

_OPEN, _CLOSE = "<solution>", "</solution>"
_SEARCH, _MIDDLE, _REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_MOST_EDITS = 200
_LONGEST_ANSWER = 1 << 20
_MOST_BLANK = 100
"""Lines that are looked through for the search mark, or for the fence that closes an edit."""
_MOST_CUTS = 20
"""Lines of an edit that are tried as its dividing line; of more, the first one divides."""


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


# ---------------------------------------------------------------- reading


def parse(text: str, strict: bool = False, files: Mapping[str, str] | None = None) -> list[Edit]:
    """The edits after the first `<solution>`, up to the next mark of its kind; raises BadEdit.

    Each stands in a fenced block of its own: `### path`, the search mark, old lines, the dividing
    line, new lines, the replace mark. As in the reference (nemo-gym's `swerl_gen`), there must be
    lines, if only a blank one, on both sides of the dividing line, and a block that is not an edit
    is passed over. `strict`: no new lines are a deletion, and every mark must belong to an edit.
    A block that is repeated counts once.

    Old and new lines may hold lines of seven `=` (headings are underlined so). Then the dividing
    line is the last one before which the old lines are found in `files`. Without `files` it is the
    first one, as in the reference.
    """
    if len(text) > _LONGEST_ANSWER:
        raise BadEdit("the answer is too long")
    if _OPEN not in text or _CLOSE not in text:
        raise BadEdit("no <solution> … </solution>")
    solution = text.split(_OPEN)[1].split(_CLOSE)[0]
    lines = solution.replace("\r\n", "\n").split("\n")

    reader = _Reader(lines, files or {}, least=0 if strict else 1)
    edits: list[Edit] = []
    outside: list[str] = []
    at = 0
    while at < len(lines):
        read = reader.edit_at(at)
        if read is None:
            outside.append(lines[at])
            at += 1
            continue
        edit, at = read
        edits.append(edit)
        if len(edits) > _MOST_EDITS:
            raise BadEdit(f"more than {_MOST_EDITS} edits")

    if not edits:
        raise BadEdit("no edits")
    if strict:
        _check_marks(outside, edits)
    return list(dict.fromkeys(edits))


def _check_marks(outside: Sequence[str], edits: Sequence[Edit]) -> None:
    """Raises BadEdit where a mark stands outside the edits, or one edit holds another's.

    A file may hold such lines itself: then they stand among the old lines, and may among the new.
    """
    stray = any(line.strip() in (_SEARCH, _MIDDLE, _REPLACE) for line in outside)
    for edit in edits:
        old, new = edit.old.split("\n"), (edit.new or "").split("\n")
        for mark in (_SEARCH, _REPLACE):
            stray = stray or new.count(mark) > old.count(mark)
        # A dividing line that is there twice is none of the text, unless it replaces an underline.
        stray = stray or (new[0] == _MIDDLE and any(map(str.isalnum, old[-1])))
    if stray:
        raise BadEdit("there are marks that belong to no edit, or an edit holds marks of another")


class _Reader:
    """Reads the fenced edits of one answer.

    The places of the marks are noted once: a hostile answer may open a block on each of its lines.
    """

    def __init__(self, lines: list[str], files: Mapping[str, str], least: int) -> None:
        """`files`: where old lines are looked for to find the dividing line; empty: the first one
        divides. `least`: how many lines each side of an edit has at least.
        """
        self.lines = lines
        self.files = files
        self.least = least
        self.middles = [at for at, line in enumerate(lines) if line == _MIDDLE]
        self.ends = [
            at for at, line in enumerate(lines) if line.startswith(_REPLACE) and self._closes(at)
        ]

    def _closes(self, at: int) -> bool:
        """Whether a fence follows the replace mark of this line, blank lines aside."""
        rest = self.lines[at][len(_REPLACE) :]
        if not rest:
            rest = next((line for line in self.lines[at + 1 : at + _MOST_BLANK] if line), "")
        return rest.startswith("```")

    def edit_at(self, at: int) -> tuple[Edit, int] | None:
        """The edit whose fence opens on this line, with the index of the line after its block.

        None where no edit begins here.
        """
        lines = self.lines
        if "```" not in lines[at] or at + 1 == len(lines):
            return None
        heading = lines[at + 1]
        path = heading[4:] if heading.startswith("### ") else ""
        if not path.strip():
            return None

        marks = self._marks_from(at + 2)
        if marks is None:
            return None
        search, middle, end = marks
        middle = self._dividing(path, search, middle, end)

        # No new lines are a deletion, one blank new line is not.
        new = None
        if end > middle + 1:
            new = "\n".join(lines[middle + 1 : end])

        # `ends` holds only marks that a fence follows.
        closing = end
        while "```" not in lines[closing]:
            closing += 1
        return Edit(path, self._old(search, middle), new), closing + 1

    def _old(self, search: int, middle: int) -> str:
        """The old lines of an edit that is divided at `middle`."""
        return "\n".join(self.lines[search + 1 : middle])

    def _dividing(self, path: str, search: int, first: int, end: int) -> int:
        """Which line divides the edit: the last of those before which the old lines are found.

        Old lines that go over a line of `=` and yet stand in the file just so are no chance. Where
        none is found, and for a file that is not there, `first` divides.
        """
        begin = bisect.bisect_left(self.middles, first)
        stop = bisect.bisect_right(self.middles, end - 1 - self.least)
        cuts = self.middles[begin:stop]
        if path not in self.files or not 1 < len(cuts) <= _MOST_CUTS:
            return first

        text = _text(self.files[path])
        for middle in reversed(cuts):
            if places(text, self._old(search, middle)):
                return middle
        return first

    def _marks_from(self, start: int) -> tuple[int, int, int] | None:
        """Where the search mark, the first possible dividing line and the replace mark stand."""
        search = self._first_filled(start)
        if search is None or self.lines[search].lstrip() != _SEARCH:
            return None

        # Old lines come between, then new ones: `least` of each.
        least = 1 + self.least
        middle = _first_from(self.middles, search + least)
        if middle is None:
            return None
        end = _first_from(self.ends, middle + least)
        if end is None:
            return None

        return search, middle, end

    def _first_filled(self, start: int) -> int | None:
        """The index of the first line from here on that is not blank, if it is near."""
        stop = min(start - 2 + _MOST_BLANK, len(self.lines))
        for index in range(start, stop):
            if self.lines[index].strip():
                return index
        return None


def _first_from(numbers: list[int], least: int) -> int | None:
    """The first of these ascending numbers that is not below `least`."""
    index = bisect.bisect_left(numbers, least)
    return numbers[index] if index < len(numbers) else None


# ---------------------------------------------------------------- applying


def apply(files: Mapping[str, str], edits: list[Edit], strict: bool = False) -> dict[str, str]:
    """The files after the edits; raises BadEdit.

    As in the reference, old lines are looked for in the files as they were, from the beginning of a
    line on, and the first place counts, whatever other edits do there. `strict`: they must not be
    blank, must be found once (as whole lines, or else as the beginning of some), and no two edits
    may touch the same text. All edits together must change a line. Edits cannot make a file. A file
    whose lines end in CR LF keeps them so.
    """
    located: dict[str, list[tuple[int, Edit]]] = {}
    for edit in edits:
        place = _place_of(edit, files, strict)
        others = located.setdefault(edit.path, [])
        if strict:
            _check_apart(place, edit, others)
        others.append((place, edit))

    changed = dict(files)
    for path, parts in located.items():
        before = files[path]
        text = _replaced(_text(before), parts)
        changed[path] = text.replace("\n", line_end(before))

    # Edits can cancel out, or change only how the last line ends.
    for path in located:
        if changed[path].splitlines() != files[path].splitlines():
            return changed
    raise BadEdit("the edits change nothing")


def _check_apart(place: int, edit: Edit, others: list[tuple[int, Edit]]) -> None:
    """Raises BadEdit where the edit's old lines touch another's."""
    for other_place, other in others:
        if _touch(place, edit, other_place, other):
            raise BadEdit("two edits touch the same line")


def _place_of(edit: Edit, files: Mapping[str, str], strict: bool) -> int:
    """Where the edit's old lines begin in its file (see `places`); raises BadEdit."""
    check_path(edit.path)
    if edit.path not in files:
        raise BadEdit(f"{_short(edit.path)} is not one of the files")
    if edit.old == edit.new:
        raise BadEdit("an edit changes nothing")

    text = _text(files[edit.path])
    matches = places(text, edit.old)
    if not matches:
        raise BadEdit(f"the search text is not found in {_short(edit.path)}")

    # As in the reference, the first of several places counts.
    if not strict:
        return matches[0]
    return _only_place(text, edit, matches)


def _touch(place: int, edit: Edit, other_place: int, other: Edit) -> bool:
    """Whether the old lines of two edits of a file share text or an end of line."""
    end = place + 1 + len(edit.old)
    other_end = other_place + 1 + len(other.old)
    return place < other_end and other_place < end


def _replaced(text: str, parts: list[tuple[int, Edit]]) -> str:
    """A file's text after its edits; each stands beside the place of its old lines."""
    text = "\n" + text  # so that every line begins with an end of line, as `places` counts
    for at, edit in sorted(parts, key=lambda part: part[0], reverse=True):
        new = "" if edit.new is None else "\n" + edit.new
        text = text[:at] + new + text[at + 1 + len(edit.old) :]
    return text[1:]


def places(text: str, old: str) -> list[int]:
    """Where old lines begin in a text, whether they end with a line or within one."""
    # A line end before both: then a match begins a line, and its index is that of its line.
    text, old = "\n" + text, "\n" + old
    matches = []
    at = text.find(old)
    while at >= 0:
        matches.append(at)
        at = text.find(old, at + 1)
    return matches


def _only_place(text: str, edit: Edit, matches: list[int]) -> int:
    """The one place that an edit can mean: whole lines go before beginnings of lines.

    Raises BadEdit where there are several.
    """
    if not edit.old.strip():
        raise BadEdit("an edit must search for something")

    whole = []
    for at in matches:
        end = at + len(edit.old)
        if text[end : end + 1] in ("", "\n"):
            whole.append(at)

    candidates = whole or matches
    if len(candidates) != 1:
        count = len(candidates)
        raise BadEdit(f"the search text is found {count} times in {_short(edit.path)}, not once")
    return candidates[0]


# ---------------------------------------------------------------- files and paths


def _text(content: str) -> str:
    """A file's content with its lines ended by LF."""
    return content.replace("\r\n", "\n") if line_end(content) == "\r\n" else content


def line_end(text: str) -> str:
    """What ends the lines of a file: CR LF where every line does, else LF."""
    return "\r\n" if "\n" in text and text.count("\n") == text.count("\r\n") else "\n"


def check_path(path: str) -> None:
    """Refuse paths that are absolute, climb, or hide odd characters; raises BadEdit."""
    climbs = any(part in ("", ".", "..") for part in path.split("/"))
    if climbs or path.startswith("/") or "\\" in path or not path.isprintable():
        raise BadEdit(f"path {_short(path)} is not a plain relative path")


def _short(path: str) -> str:
    return repr(path if len(path) <= 60 else path[:60] + "…")


def files_of(value: Any, where: str) -> dict[str, str]:
    """Files by path from a row's field; raises UserError.

    The field is an object, its JSON text, or a list of `{file_path, content}`.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise UserError(f"{where} is not JSON") from None

    if isinstance(value, list) and all(map(_is_listed_file, value)):
        by_path = {item["file_path"]: item.get("content") for item in value}
        if len(by_path) < len(value):
            raise UserError(f"{where} names a file twice")
        value = by_path

    if not value or not _is_files(value):
        raise UserError(f"{where} must map paths to texts, at least one")

    # The paths are written below a folder later: none may leave it.
    for path in value:
        try:
            check_path(path)
        except BadEdit as error:
            raise UserError(f"{where}: {error}") from None
    return dict(value)


def _is_files(value: Any) -> bool:
    """Whether a value maps texts to texts."""
    if not isinstance(value, Mapping):
        return False
    return all(
        isinstance(path, str) and isinstance(content, str) for path, content in value.items()
    )


def _is_listed_file(item: Any) -> bool:
    """Whether an item of a list names a file."""
    return isinstance(item, Mapping) and isinstance(item.get("file_path"), str)
