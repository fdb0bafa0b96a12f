"""Requests about the project board."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from linn.domains.workplace.office.generate import PARTS, TODAY
from linn.domains.workplace.office.state import BOARDS, LISTS
from linn.domains.workplace.office.table import Record
from linn.domains.workplace.tasks.desk import Desk, Unfit, first_name, only, several

_NAMES = (
    "Test the {}",
    "Rework the {}",
    "Measure the {}",
    "Clean up the {}",
    "Draft a plan for the {}",
)


def tasks_of(desk: Desk, person: str, **wanted: Any) -> list[Record]:
    """A colleague's tasks."""
    return list(
        desk.look(
            "project_management_search_tasks", assigned_to_email=desk.address(person), **wanted
        )
    )


def overdue(tasks: list[Record]) -> list[Record]:
    """Those that were due before today and are not completed."""
    return [
        task for task in tasks if task["due_date"] < str(TODAY) and task["list_name"] != "Completed"
    ]


def add(desk: Desk, address: str) -> tuple[str, str]:
    """Put a new task on a board for an address: (`'its name'`, where and until when)."""
    name, board, row, day = (
        desk.pick(_NAMES).format(desk.pick(PARTS)),
        desk.pick(BOARDS),
        desk.pick(LISTS[:2]),
        desk.workday(),
    )
    desk.do(
        "project_management_create_task",
        task_name=name,
        assigned_to_email=address,
        list_name=row,
        due_date=str(day),
        board=board,
    )
    return f"'{name}'", desk.pick(
        (
            f"in the {row} list of the {board} board, due {desk.day_name(day)}",
            f"on the {board} board ({row}), to be done by {desk.day_name(day)}",
        )
    )


def create(desk: Desk) -> str:
    """A new task for a colleague."""
    person = desk.pick(desk.people)
    name, where = add(desk, desk.address(person))
    return desk.pick(
        (
            f"create a task {name} for {first_name(person)} {where}",
            f"assign {first_name(person)} a new task {name} {where}",
        )
    )


def _named(desk: Desk) -> tuple[Record, str]:
    """A colleague's only task of its name: the task, in words."""
    task = desk.pick(desk.office.tasks.records())
    person = task["assigned_to_email"]
    matches = only(tasks_of(desk, person, task_name=task["task_name"]))
    return matches, f"{first_name(person)}'s task '{task['task_name']}'"


def move(desk: Desk) -> str:
    """A named task to another list."""
    task, wording = _named(desk)
    row = desk.pick([name for name in LISTS if name != task["list_name"]])
    desk.do(
        "project_management_update_task", task_id=task["task_id"], field="list_name", new_value=row
    )
    return desk.pick((f"move {wording} to {row}", f"put {wording} into the {row} list"))


def give(desk: Desk) -> str:
    """A named task to another colleague."""
    task, wording = _named(desk)
    other = desk.pick([person for person in desk.people if person != task["assigned_to_email"]])
    desk.do(
        "project_management_update_task",
        task_id=task["task_id"],
        field="assigned_to_email",
        new_value=desk.address(other),
    )
    return f"give {wording} to {first_name(other)}"


def delete(desk: Desk) -> str:
    """A named task off the board."""
    task, wording = _named(desk)
    desk.do("project_management_delete_task", task_id=task["task_id"])
    return f"delete {wording}"


def next_list(desk: Desk) -> str:
    """A task known by its id one list on."""
    key = desk.pick(desk.office.tasks.rows)[0]
    now = desk.look(
        "project_management_get_task_information_by_id", task_id=key, field="list_name"
    )["list_name"]
    if now == LISTS[-1]:
        raise Unfit("it is completed")
    desk.do(
        "project_management_update_task",
        task_id=key,
        field="list_name",
        new_value=LISTS[LISTS.index(now) + 1],
    )

    return f"move task {key} one list on (the order is {', '.join(LISTS)})"


def postpone(desk: Desk) -> str:
    """A task known by its id due some days later."""
    key, days = desk.pick(desk.office.tasks.rows)[0], desk.rng.randint(2, 12)
    due = desk.look("project_management_get_task_information_by_id", task_id=key, field="due_date")[
        "due_date"
    ]
    new = date.fromisoformat(due) + timedelta(days=days)
    desk.do(
        "project_management_update_task",
        task_id=key,
        field="due_date",
        new_value=str(new),
    )

    return desk.pick(
        (
            f"postpone the due date of task {key} by {days} days",
            f"give task {key} {days} more days than it has now until it is due",
        )
    )


def move_all(desk: Desk) -> str:
    """A colleague's tasks of one list to another."""
    person, (one, other) = desk.pick(desk.people), desk.rng.sample(LISTS, 2)
    for task in several(tasks_of(desk, person, list_name=one)):
        desk.do(
            "project_management_update_task",
            task_id=task["task_id"],
            field="list_name",
            new_value=other,
        )
    return f"move all of {first_name(person)}'s tasks that are in {one} to {other}"


def delete_completed(desk: Desk) -> str:
    """A colleague's, or a board's, completed tasks off the board."""
    person = desk.pick(desk.people)
    for task in several(tasks_of(desk, person, list_name="Completed")):
        desk.do("project_management_delete_task", task_id=task["task_id"])
    return desk.pick(
        (
            f"delete all tasks that {first_name(person)} has completed",
            f"remove {first_name(person)}'s completed tasks",
        )
    )


def relieve(desk: Desk) -> str:
    """A colleague's overdue tasks to another."""
    person, other = desk.two_people()
    matches = several(overdue(tasks_of(desk, person)))
    address = desk.address(other)

    for task in matches:
        desk.do(
            "project_management_update_task",
            task_id=task["task_id"],
            field="assigned_to_email",
            new_value=address,
        )

    return (
        f"reassign all of {first_name(person)}'s overdue tasks (due before today, not yet "
        f"completed) to {first_name(other)}"
    )


def to_less_busy(desk: Desk) -> str:
    """A new task for whichever of two colleagues has fewer that are not completed."""
    one, other = desk.two_people()
    counts = [
        sum(task["list_name"] != "Completed" for task in tasks_of(desk, person))
        for person in (one, other)
    ]
    if counts[0] == counts[1]:
        raise Unfit("both are as busy")
    name, where = add(desk, one if counts[0] < counts[1] else other)

    return (
        f"create a task {name} {where}, for {first_name(one)} or {first_name(other)}, whoever has "
        "fewer tasks that are not completed"
    )


def has_overdue(desk: Desk) -> tuple[str, bool]:
    """Whether a colleague has so many overdue tasks."""
    person, bar = desk.pick(desk.people), desk.rng.randint(1, 4)
    return (
        f"{first_name(person)} has at least {bar} overdue task{'s' * (bar > 1)} (due before "
        "today, not yet completed)",
        (len(overdue(tasks_of(desk, person))) >= bar),
    )


def is_in(desk: Desk) -> tuple[str, bool]:
    """Whether a task known by its id is in a list."""
    key, row = desk.pick(desk.office.tasks.rows)[0], desk.pick(LISTS)
    now = desk.look(
        "project_management_get_task_information_by_id", task_id=key, field="list_name"
    )["list_name"]
    row = now if desk.rng.random() < 0.3 else row
    return f"task {key} is in the {row} list", now == row


CLAUSES = (
    create,
    move,
    give,
    delete,
    next_list,
    postpone,
    move_all,
    delete_completed,
    relieve,
    to_less_busy,
)
CONDITIONS = (has_overdue, is_in)
