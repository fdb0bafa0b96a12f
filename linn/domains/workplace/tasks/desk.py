"""Where a task of the full level is made: its request in words grows beside the calls that fulfil
it, each made as it is written down.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any, TypeVar

from linn.domains.workplace.office import tools
from linn.domains.workplace.office.generate import TODAY
from linn.domains.workplace.office.state import Office
from linn.domains.workplace.office.table import Record
from linn.types import ToolCall

T = TypeVar("T")
_HOURS = {
    9: "9 am",
    10: "10 am",
    11: "11 am",
    12: "noon",
    13: "1 pm",
    14: "2 pm",
    15: "3 pm",
    16: "4 pm",
}
_LENGTHS = {
    "30": ("30 minutes", "half an hour"),
    "45": ("45 minutes", "three quarters of an hour"),
    "60": ("60 minutes", "an hour", "one hour"),
    "90": ("90 minutes", "an hour and a half"),
}


class Unfit(Exception):
    """The office at hand does not allow the task that was begun (nothing matches, or not one thing
    alone); another is drawn.
    """


class Desk:
    """An office being worked in: looks things up and changes them, remembering every call."""

    def __init__(self, office: Office, rng: random.Random) -> None:
        self.office = office.copy()
        self.rng = rng
        self.calls: list[ToolCall] = []
        self.people = list(office.directory)

    # ------------------------------------------------ calls

    def look(self, tool: str, **arguments: Any) -> Any:
        """Call a tool that only reads; its answer."""
        assert tool in tools.READS, tool
        self.calls.append(ToolCall(tool, arguments))
        return tools.call(self.office, tool, arguments)

    def do(self, tool: str, **arguments: Any) -> None:
        """Call a tool that changes a table; Unfit where it changes nothing."""
        assert tool in tools.WRITES, tool
        before = self.office.copy()
        tools.call(self.office, tool, arguments)
        if self.office.same(before):
            raise Unfit(f"{tool} changes nothing")
        self.calls.append(ToolCall(tool, arguments))

    def search(self, tool: str, **query: Any) -> list[Record]:
        """All that a search with pages finds: where one page is not enough, a page for all is asked
        for.
        """
        answer = self.look(tool, **query)
        if isinstance(answer, str):
            return []
        counts = answer["pagination"]
        if counts["total_pages"] > 1:
            # The other total is named after what was searched for.
            (total,) = (
                count
                for name, count in counts.items()
                if name.startswith("total_") and name != "total_pages"
            )
            answer = self.look(tool, **query, page_size=total)

        (matches,) = (value for name, value in answer.items() if name != "pagination")

        return list(matches)

    def address(self, person: str) -> str:
        """Look a colleague's address up by first name."""
        matches = self.look("company_directory_find_email_address", name=first_name(person))
        if matches != [person]:
            raise Unfit(f"{person} is not the only one of that name")
        return person

    # ------------------------------------------------ choices

    def pick(self, choices: Sequence[T]) -> T:
        """One of several."""
        return self.rng.choice(choices)

    def two_people(self) -> tuple[str, str]:
        """Two colleagues' addresses."""
        one, other = self.rng.sample(self.people, 2)
        return one, other

    def workday(self, low: int = 1, high: int = 28) -> date:
        """A working day between `low` and `high` days from now."""
        days = [TODAY + timedelta(days=ahead) for ahead in range(low, high + 1)]
        return self.pick([day for day in days if day.weekday() < 5])

    def day(self, low: int, high: int) -> date:
        """A day between `low` and `high` days from now."""
        return TODAY + timedelta(days=self.rng.randint(low, high))

    # ------------------------------------------------ words

    def day_name(self, day: date) -> str:
        """A day in words that mean no other day."""
        ways = [
            str(day),
            f"{day:%B} {day.day}",
            f"{day.day} {day:%B}",
            f"{day:%A}, {day:%B} {day.day}",
        ]
        ahead = (day - TODAY).days
        near = {-1: "yesterday", 0: "today", 1: "tomorrow"}.get(ahead)

        if near:
            # People mostly say it so: three times as likely as each of the others.
            ways += [near] * 3
        elif 2 <= ahead <= 6:
            ways.append(f"the coming {day:%A}")

        return self.pick(ways)

    def on(self, day: date) -> str:
        """`on` a day, or `tomorrow` alone."""
        text = self.day_name(day)
        return text if text in ("yesterday", "today", "tomorrow") else f"on {text}"

    def at(self, hour: int, half: bool) -> str:
        """A time of the working day."""
        ways = [f"at {hour:02d}:{'30' if half else '00'}"]
        return self.pick(ways if half else [*ways, f"at {_HOURS[hour]}"])

    def time(self) -> tuple[str, str]:
        """(`HH:MM:SS`, in words): early enough that 90 minutes end by 18:00."""
        hour, half = self.rng.randint(9, 16), self.rng.random() < 0.5
        return f"{hour:02d}:{'30' if half else '00'}:00", self.at(hour, half)

    def length(self) -> tuple[str, str]:
        """(minutes as digits, in words)."""
        minutes = self.pick(list(_LENGTHS))
        return minutes, self.pick(_LENGTHS[minutes])


Clause = Callable[[Desk], str]
"""Does one thing at a desk and says what, as a request without a stop: `email Gita …`."""
Condition = Callable[[Desk], tuple[str, bool]]
"""Looks at a desk whether something holds: (`I got …`, whether)."""


def first_name(person: str) -> str:
    """A colleague's first name, as people write it."""
    return person.split(".")[0].title()


def only(matches: Sequence[T]) -> T:
    """The one match; Unfit where there is none, or more."""
    if len(matches) != 1:
        raise Unfit(f"{len(matches)} match, not one")
    return matches[0]


def several(matches: Sequence[T], most: int = 6) -> Sequence[T]:
    """The matches, from two to `most`; Unfit otherwise."""
    if not 2 <= len(matches) <= most:
        raise Unfit(f"{len(matches)} match")
    return matches


def extreme(matches: Sequence[Record], column: str, last: bool) -> Record:
    """The record with the least (`last`: greatest) value in a column; Unfit where there is none or
    two share it.
    """
    if not matches:
        raise Unfit("none match")
    best = (max if last else min)(record[column] for record in matches)
    return only([record for record in matches if record[column] == best])
