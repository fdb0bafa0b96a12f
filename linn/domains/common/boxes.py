r"""Answers in a `\boxed{}`: one reader; which boxes count is the caller's rule."""

from __future__ import annotations

import re
from dataclasses import dataclass

_MARK = re.compile(r"\\boxed\{")


@dataclass(frozen=True)
class Box:
    """A closed box of a text."""

    inner: str
    """What it holds, exactly."""
    start: int
    """Index of its backslash."""
    end: int
    """Index after its closing brace."""


def outer_boxes(text: str) -> list[Box]:
    """The boxes in order; those inside a box are part of it.

    A box that never closes ends the search, since all that follows is inside it.
    """
    boxes: list[Box] = []
    for mark in _MARK.finditer(text):
        if boxes and mark.start() < boxes[-1].end:
            continue
        box = _closed(text, mark)
        if box is None:
            break
        boxes.append(box)
    return boxes


def last_box(text: str) -> Box | None:
    """The box that begins last, which may stand inside another; None where it never closes."""
    start = text.rfind("\\boxed{")
    mark = _MARK.match(text, start) if start >= 0 else None
    return None if mark is None else _closed(text, mark)


def flat_boxes(text: str, *, spaced: bool = False, longest: int | None = None) -> list[Box]:
    r"""The boxes that hold no brace, in order; others are passed over.

    `spaced`: space may stand before the brace. `longest`: how many characters a box holds at most.
    """
    mark = r"\\boxed\s*" if spaced else r"\\boxed"
    limit = "" if longest is None else longest
    pattern = rf"{mark}\{{(?P<inner>[^{{}}]{{0,{limit}}})\}}"
    return [
        Box(inner=match["inner"], start=match.start(), end=match.end())
        for match in re.finditer(pattern, text)
    ]


def _closed(text: str, mark: re.Match[str]) -> Box | None:
    """The box that this mark opens, up to the brace that closes it."""
    depth = 1
    for place in range(mark.end(), len(text)):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return Box(inner=text[mark.end() : place], start=mark.start(), end=place + 1)
    return None
