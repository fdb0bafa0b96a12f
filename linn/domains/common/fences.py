"""Fenced blocks of an answer: one reader, and which lines fence a block is the caller's rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass


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
    opening=re.compile(r"\s*(?P<ticks>`{3,})(?P<mark>[^`]*)"),
    closing=re.compile(r"\s*(?P<ticks>`+)\s*"),
)
"""Fences of three ticks or more: CommonMark's, without its limit on indentation."""


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


def blocks(text: str, rule: FenceRule = ANY_FENCE) -> Iterator[Block]:
    """The closed blocks of a text in order; a block that never closes ends the search."""
    lines = text.split("\n")
    at = 0
    while at < len(lines):
        opening = rule.opening.fullmatch(lines[at])
        at += 1
        if opening is None:
            continue

        # What follows an open block is inside it, other fences too.
        ticks = len(opening["ticks"])
        end = _closing(lines, at, rule, ticks)
        if end is None:
            return

        mark = opening.groupdict().get("mark") or ""
        yield Block(mark, tuple(lines[at:end]))
        at = end + 1


def _closing(lines: list[str], start: int, rule: FenceRule, ticks: int) -> int | None:
    """The index of the line that closes the block whose lines begin at `start`."""
    for index in range(start + rule.least, len(lines)):
        closing = rule.closing.fullmatch(lines[index])
        if closing is not None and len(closing["ticks"]) >= ticks:
            return index
    return None
