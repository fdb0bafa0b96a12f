"""Fenced blocks of an answer: one reader, and which lines fence a block is the caller's rule."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

_MOST_ENDS = 8
"""Closing fences that are tried as the end of one block."""


@dataclass(frozen=True)
class FenceRule:
    """Which lines open and close a block. Both patterns must match a whole line."""

    opening: re.Pattern[str]
    """Its group `ticks` holds the fence; its group `mark`, where it has one, the text behind it."""
    closing: re.Pattern[str]
    """Its group `ticks` holds the fence; a fence shorter than the opening one does not close."""
    least: int = 0
    """Lines that a block has at least; a closing fence that comes earlier is one of them."""


ANY_FENCE = FenceRule(
    opening=re.compile(r"\s*(?P<ticks>`{3,}(?=[^`]*$)|~{3,})(?P<mark>.*)"),
    closing=re.compile(r"\s*(?P<ticks>`+|~+)\s*"),
)
"""Fences of three ticks or tildes or more: CommonMark's, without its limit on indentation."""


@dataclass(frozen=True)
class Block:
    """A fenced block that is closed."""

    mark: str
    """What stands behind the opening fence."""
    lines: tuple[str, ...]
    """The lines between the fences, without their ends."""

    @property
    def text(self) -> str:
        """The lines, each with its end."""
        return "".join(f"{line}\n" for line in self.lines)


def blocks(
    text: str,
    rule: FenceRule = ANY_FENCE,
    is_whole: Callable[[Block], bool] = lambda block: True,
) -> Iterator[Block]:
    """The closed blocks of a text in order; a block that never closes ends the search.

    The lines of an indented block lose as much indentation as its opening fence has, as in
    CommonMark, where the first of them has as much. `is_whole`: whether a block may end there. A
    fence in a string of a program closes nothing: if the block is not whole at its first closing
    fence, but at one of the next few, it ends at that one.
    """
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opening = rule.opening.fullmatch(lines[at])
        at += 1
        if opening is None:
            continue

        # What follows an open block is inside it, other fences too.
        ends = list(itertools.islice(_closings(lines, at, rule, opening["ticks"]), _MOST_ENDS))
        if not ends:
            return

        mark = opening.groupdict().get("mark") or ""
        indent = len(opening.string) - len(opening.string.lstrip())
        readings = [Block(mark, _outdented(lines[at:end], indent)) for end in ends]
        which = next((which for which, block in enumerate(readings) if is_whole(block)), 0)
        yield readings[which]
        at = ends[which] + 1


def _closings(lines: list[str], start: int, rule: FenceRule, ticks: str) -> Iterator[int]:
    """The indices of the lines that can close the block whose lines begin at `start`."""
    for index in range(start + rule.least, len(lines)):
        closing = rule.closing.fullmatch(lines[index])
        if closing is None or not closing["ticks"].startswith(ticks):
            continue
        yield index


def _outdented(lines: list[str], indent: int) -> tuple[str, ...]:
    """The lines of a block without the indentation of its fence."""
    first = next(filter(str.strip, lines), "")
    if not indent or first[:indent].strip():
        return tuple(lines)

    shorter = []
    for line in lines:
        own = len(line) - len(line.lstrip())
        shorter.append(line[min(indent, own) :])
    return tuple(shorter)
