"""Requests on their way into a live batch, and when they join it.

A join is a prefill, and the prefill of one short prompt takes a small model as long as two decode
steps of all its rows. A server that lets everybody in at once prefills in every step, and half of
its work is that. So those who come wait for each other, for a few steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from linn.types import Sampling

SHARE = 4
"""One of so many rows: when as many requests wait, they join."""
APART = 8
"""Decode steps from one join to the next, after which whoever waits joins all the same."""


@dataclass(frozen=True)
class Arrival:
    """A request that has no row yet."""

    number: int
    """What its sender calls it."""
    ids: Sequence[int]
    """The prompt."""
    how: Sampling
    """How it is sampled."""
    seed: int
    """Decides its draws."""


class Arrivals:
    """Those that wait for a row of one batch, oldest first."""

    def __init__(self, capacity: int) -> None:
        """`capacity`: rows of the batch."""
        self._capacity = capacity
        self._waiting: list[Arrival] = []
        self._due = 0
        """How many of the oldest may join now."""
        self._steps = APART
        """Since the last join."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def numbers(self) -> list[int]:
        """Of those that wait."""
        return [one.number for one in self._waiting]

    def add(self, arrival: Arrival) -> None:
        """A request came."""
        self._waiting.append(arrival)

    def drop(self, number: int) -> None:
        """Forget a request, if it waits."""
        for place, one in enumerate(self._waiting):
            if one.number == number:
                del self._waiting[place]
                self._due -= place < self._due
                return

    def joining(self, live: int) -> list[Arrival]:
        """Takes out those that join before the next step; `live`: rows that are decoded.

        Asked once a step. Each of those who wait joins after `APART` steps at the latest, as soon
        as there are rows, but for one step more for every other length of prompt.
        """
        self._steps += 1
        ready = min(len(self._waiting), self._capacity - live)
        is_enough = ready >= max(1, live // SHARE)
        if not self._due and ready > 0 and (is_enough or self._steps >= APART):
            self._due = ready
        if not self._due:
            return []

        # Many families prefill prompts in a rectangle: a short one would cost as much as a long.
        oldest = self._waiting[0]
        group = [one for one in self._waiting[: self._due] if _alike(one, oldest)]
        taken = {one.number for one in group}
        self._waiting = [one for one in self._waiting if one.number not in taken]
        self._due -= len(group)
        self._steps = 0
        return group


def _alike(one: Arrival, other: Arrival) -> bool:
    """Whether two prompts fill a rectangle, more or less."""
    short, long = sorted((len(one.ids), len(other.ids)))
    return long <= 2 * short + 64
