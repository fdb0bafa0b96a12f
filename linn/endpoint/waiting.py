"""What a person hears while a server computes: how many answers came, how long the oldest waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

FIRST_LINE_S = 15.0
"""Seconds that a request may wait before anything is said."""
_LONGEST_PAUSE_S = 300.0
"""Seconds between two lines at most. The pause doubles: long waits must not fill a log."""


@dataclass
class Wait:
    """One request under way."""

    began: float
    """When it was sent first, by the monotonic clock."""
    trouble: str = ""
    """What its last try failed of, if one did."""


class Waits:
    """The requests of one endpoint: those that were asked, and those that wait."""

    def __init__(self, name: str, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._open: dict[int, Wait] = {}
        self._asked = 0
        self._answered = 0
        self._pending = 0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """A request from when it is asked for, be it still in the queue, to its end."""
        # The counts are of one round: they start anew when nobody waits any more.
        if not self._pending:
            self._asked = self._answered = 0
        self._asked += 1
        self._pending += 1
        try:
            yield
            self._answered += 1
        finally:
            self._pending -= 1

    @contextmanager
    def sent(self) -> Iterator[Wait]:
        """A request from when it is sent first to its end, all its tries included."""
        wait = Wait(time.monotonic())
        self._open[id(wait)] = wait
        try:
            yield wait
        finally:
            del self._open[id(wait)]

    async def tell(self, first_line_s: float = FIRST_LINE_S) -> None:
        """For ever: say a line while a request waits, again after pauses that double."""
        pause = first_line_s
        next_line = 0.0
        while True:
            # Looked at more often than told, so that the first line comes in time.
            await asyncio.sleep(first_line_s / 5)
            line = self.line(first_line_s)
            if not line:
                pause, next_line = first_line_s, 0.0
                continue
            now = time.monotonic()
            if now >= next_line:
                self._say(line)
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                next_line = now + pause

    def line(self, least_s: float = 0.0) -> str:
        """What is waited for; empty if nothing has been for that long."""
        if not self._open:
            return ""
        oldest = min(self._open.values(), key=lambda wait: wait.began)
        seconds = time.monotonic() - oldest.began
        if seconds < least_s:
            return ""

        # How far it is, how long it takes, and what is wrong, if something is.
        answers = f"{self._answered} of {self._asked} answers"
        line = f"{self._name}: {answers}, the oldest waits {duration(seconds)}"
        if oldest.trouble:
            line += f" ({oldest.trouble})"
        return line


def duration(seconds: float) -> str:
    """`40 s`, `2 min 10 s`, `1 h 5 min`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
