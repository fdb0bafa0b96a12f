"""The project board tools."""

from __future__ import annotations

import re
from typing import Any

from linn.domains.workplace.office.reading import contains
from linn.domains.workplace.office.state import BOARDS, LISTS, TASK_COLUMNS, Office


def get_task(office: Office, /, task_id: Any = None, field: Any = None) -> Any:
    """One field of a task."""
    if not task_id:
        return "Task ID not provided."
    if not field:
        return "Field not provided."
    task = office.tasks.get(task_id)
    if task is None:
        return "Task not found."
    return {field: task[field]} if field in task else "Field not found."


def search_tasks(
    office: Office,
    /,
    task_name: Any = None,
    assigned_to_email: Any = None,
    list_name: Any = None,
    due_date: Any = None,
    board: Any = None,
) -> Any:
    """Tasks that match every argument given."""
    wanted = {"task_name": task_name, "list_name": list_name, "due_date": due_date, "board": board}
    if not any([assigned_to_email, *wanted.values()]):
        return "No search parameters provided."
    if assigned_to_email and not re.match(
        r"[a-zA-Z0-9._%+-]+@[a-zA-Z0-9.-]+\.[a-zA-Z]{2,}$", assigned_to_email[:320]
    ):
        return "Invalid email format for assigned_to_email."

    tests = [(column, contains(value)) for column, value in wanted.items() if value]
    found = [
        task for task in office.tasks.records() if all(test(task[column]) for column, test in tests)
    ]

    return [
        task
        for task in found
        if not assigned_to_email or task["assigned_to_email"].lower() == assigned_to_email.lower()
    ]


def create_task(
    office: Office,
    /,
    task_name: Any = None,
    assigned_to_email: Any = None,
    list_name: Any = None,
    due_date: Any = None,
    board: Any = None,
) -> str:
    """A new task; answers its id."""
    if not all([task_name, assigned_to_email, list_name, due_date, board]):
        return "Missing task details."
    email = assigned_to_email.lower()
    if (
        problem := _task_problem(office, "assigned_to_email", email)
        or _task_problem(office, "list_name", list_name)
        or _task_problem(office, "board", board)
    ):
        return problem

    key = office.tasks.next_id(8)
    office.tasks.add(
        dict(zip(TASK_COLUMNS, (key, task_name, email, list_name, due_date, board), strict=True))
    )

    return key


def delete_task(office: Office, /, task_id: Any = None) -> str:
    """Remove a task."""
    if not task_id:
        return "Task ID not provided."
    if not office.tasks.has(task_id):
        return "Task not found."
    office.tasks.drop(task_id)
    return "Task deleted successfully."


def update_task(
    office: Office, /, task_id: Any = None, field: Any = None, new_value: Any = None
) -> str:
    """Change one field of a task."""
    if not task_id or not field or not new_value:
        return "Task ID, field, or new value not provided."
    value = new_value.lower() if field == "assigned_to_email" else new_value
    if problem := _task_problem(office, field, value):
        return problem
    if not office.tasks.has(task_id):
        return "Task not found."
    if field not in TASK_COLUMNS:
        return "Field not valid."
    office.tasks.set(task_id, field, value)

    return "Task updated successfully."


def _task_problem(office: Office, /, field: Any, value: Any) -> str:
    if field == "board" and value not in BOARDS:
        return "Board not valid. Please choose from: 'Back end', 'Front end', 'Design'."
    if field == "list_name" and value not in LISTS:
        return (
            "List not valid. Please choose from: "
            "'Backlog', 'In Progress', 'In Review', 'Completed'."
        )

    if field == "assigned_to_email" and not any(
        isinstance(row[2], str) and row[2].lower() == value for row in office.tasks.rows
    ):
        return "Assignee email not valid. Please choose from the list of team members."

    return ""
