"""Tasks of the full level: requests put together from clauses and conditions, refused where they
could be read in two ways.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from linn.domains.workplace.office import tools
from linn.domains.workplace.office.state import Office
from linn.domains.workplace.tasks import board as board_tasks
from linn.domains.workplace.tasks import calendar as calendar_tasks
from linn.domains.workplace.tasks import customers as customer_tasks
from linn.domains.workplace.tasks import joint as joint_tasks
from linn.domains.workplace.tasks import mail as mail_tasks
from linn.domains.workplace.tasks import website as website_tasks
from linn.domains.workplace.tasks.desk import Clause, Condition, Desk, Unfit
from linn.types import ToolCall

Form = Literal["one", "two", "first, then", "if, else", "if, anyway"]
_GROUPS = ("email", "calendar", "analytics", "project_management", "customer_relationship_manager")
"""Tool groups: how their tools' names begin, and their categories in the released rows."""
_MODULES = (mail_tasks, calendar_tasks, website_tasks, board_tasks, customer_tasks)
_CLAUSES: Sequence[Sequence[Clause]] = (
    *(module.CLAUSES for module in _MODULES),
    joint_tasks.CLAUSES,
)
_CONDITIONS: Sequence[Condition] = tuple(
    condition for module in _MODULES for condition in module.CONDITIONS
)
_MOST_CALLS = 24
_FORMS: Mapping[Form, int] = {
    "one": 50,
    "two": 12,
    "first, then": 10,
    "if, else": 16,
    "if, anyway": 12,
}
"""How often each form is drawn, in percent."""


_IN_ORDER = (
    "First {}. Then {}.",
    "Please first {}; after that, {}.",
    "Two things, in this order: {}. After that, {}.",
)
_TOGETHER = (
    "Please {}. Also, {}.",
    "{}. Besides, {}.",
    "Two things: {}, and {}.",
    "I need you to {}. Could you also {}?",
)
_EITHER = ("If {}, {}; otherwise, {}.", "Check whether {}: if so, {}; if not, {}.")
_ANYWAY = ("If {}, {}. In any case, {}.", "If {}, {}. Whether or not that is so, {}.")


@dataclass(frozen=True)
class OfficeRequest:
    """A request and one right way to fulfil it."""

    text: str
    """What the user says."""
    calls: tuple[ToolCall, ...]
    """Look-ups and changes, in an order that works."""
    category: str
    """The tool group, or `multi` where several are needed."""
    form: Form
    """How the request is put together."""


@dataclass(frozen=True)
class _Part:
    text: str
    calls: tuple[ToolCall, ...]
    office: Office


def draw(office: Office, rng: random.Random) -> OfficeRequest:
    """A task for an office; draws until one fits. Its calls change the office, whatever its
    condition says.
    """
    while True:
        try:
            task = _draw(office, rng)
        except Unfit:
            continue
        if len(task.calls) <= _MOST_CALLS and not made(office, task.calls).same(office):
            return task


def _draw(office: Office, rng: random.Random) -> OfficeRequest:
    (form,) = rng.choices(list(_FORMS), list(_FORMS.values()))
    if form == "one":
        part = _part(office, _chosen(rng), rng.random())
        return _task(_asked(part.text, rng), (part,), form)

    seeds = rng.random(), rng.random()
    one, other = _chosen(rng), _chosen(rng)
    if form == "first, then":
        # The second clause sees the office as the first one leaves it.
        first = _part(office, one, seeds[0])
        second = _part(first.office, other, seeds[1])
        text = rng.choice(_IN_ORDER)
        return _task(text.format(first.text, second.text), (first, second), form)

    if form == "two":
        first, second = _independent(office, one, other, seeds)
        text = rng.choice(_TOGETHER)
        return _task(_capital(text.format(first.text, second.text)), (first, second), form)

    desk = Desk(office, random.Random(rng.random()))
    condition, holds = rng.choice(_CONDITIONS)(desk)
    looked = _Part("", tuple(desk.calls), office)

    if form == "if, else":
        # Only one of the two is carried out, so each begins with the office as it is.
        first, second = _part(office, one, seeds[0]), _part(office, other, seeds[1])
        text = rng.choice(_EITHER).format(condition, first.text, second.text)
        return _task(text, (looked, first if holds else second), form)

    first, second = _independent(office, one, other, seeds)
    text = rng.choice(_ANYWAY).format(condition, first.text, second.text)
    parts = (looked, first, second) if holds else (looked, second)

    return _task(text, parts, form)


def _chosen(rng: random.Random) -> Clause:
    """A clause: every module of them as often."""
    return rng.choice(rng.choice(_CLAUSES))


def _part(office: Office, clause: Clause, seed: float) -> _Part:
    """A clause carried out; Unfit where the order of its changes would matter, since the request
    names none.
    """
    desk = Desk(office, random.Random(seed))
    text = clause(desk)
    changes = _changes(desk.calls)
    orders = [changes[::-1]]

    for at in range(len(changes) - 1):
        swapped = list(changes)
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        orders.append(swapped)

    if not all(made(office, order).same(desk.office) for order in orders):
        raise Unfit("the order of its changes matters")
    if desk.office.same(office):
        raise Unfit("it changes nothing")

    return _Part(text, tuple(desk.calls), desk.office)


def _independent(
    office: Office, one: Clause, other: Clause, seeds: tuple[float, float]
) -> tuple[_Part, _Part]:
    """Two clauses that say and do the same in either order; Unfit where they do not."""
    first, second = _part(office, one, seeds[0]), _part(office, other, seeds[1])
    # Each again, in the office that the other has left.
    second_after = _part(first.office, other, seeds[1])
    first_after = _part(second.office, one, seeds[0])

    for before, after in ((first, first_after), (second, second_after)):
        if (before.text, _changes(before.calls)) != (after.text, _changes(after.calls)):
            raise Unfit("one changes what the other is about")

    if not second_after.office.same(first_after.office):
        raise Unfit("the order of the two matters")

    return first, second


def _changes(calls: Sequence[ToolCall]) -> list[ToolCall]:
    return [call for call in calls if call.name in tools.WRITES]


def made(office: Office, calls: Sequence[ToolCall]) -> Office:
    """The office after these calls."""
    office = office.copy()
    for call in calls:
        assert not isinstance(call.arguments, str)
        tools.call(office, call.name, call.arguments)
    return office


def _task(text: str, parts: Sequence[_Part], form: Form) -> OfficeRequest:
    calls = tuple(call for part in parts for call in part.calls)
    groups = [group for group in _GROUPS if any(call.name.startswith(group) for call in calls)]
    category = groups[0] if len(groups) == 1 else "multi"
    return OfficeRequest(text, calls, category, form)


def _asked(clause: str, rng: random.Random) -> str:
    """A clause as a request."""
    ways = (
        "{}.",
        "Please {}.",
        "Can you {}?",
        "Could you please {}?",
        "I need you to {}.",
        "{}, please.",
        "I would like you to {}.",
    )
    return _capital(rng.choice(ways).format(clause))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
