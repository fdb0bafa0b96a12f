"""Requests that lead from one table to another."""

from __future__ import annotations

from linn.domains.workplace.office.generate import TOPICS
from linn.domains.workplace.tasks import board as board_tasks
from linn.domains.workplace.tasks import calendar as calendar_tasks
from linn.domains.workplace.tasks import customers as customer_tasks
from linn.domains.workplace.tasks import mail as mail_tasks
from linn.domains.workplace.tasks.desk import Desk, Unfit, extreme, first_name, only, several


def cancel_and_tell(desk: Desk) -> str:
    """Cancel the next meeting with a colleague and write to them."""
    person = desk.pick(desk.people)
    event = extreme(calendar_tasks.coming(desk, person), "event_start", last=False)
    desk.do("calendar_delete_event", event_id=event["event_id"])
    return (
        f"cancel my next meeting with {first_name(person)} and send them an email "
        f"{mail_tasks.write(desk, event['participant_email'])}"
    )


def tell_first_of_day(desk: Desk) -> str:
    """Write to whoever the first or last meeting of a day is with."""
    day, last = desk.workday(), desk.rng.random() < 0.5
    event = extreme(calendar_tasks.of_day(desk, day), "event_start", last)
    wording = mail_tasks.write(desk, event["participant_email"])
    return (
        f"send an email to the colleague of my {'last' if last else 'first'} meeting "
        f"{desk.on(day)} {wording}"
    )


def tell_assignee(desk: Desk) -> str:
    """Write to whoever has the only task of a name."""
    name = desk.pick(desk.office.tasks.records())["task_name"]
    task = only(desk.look("project_management_search_tasks", task_name=name))
    return (
        f"find out who works on the task '{name}' and send them an email "
        f"{mail_tasks.write(desk, task['assigned_to_email'])}"
    )


def cancel_with_assignee(desk: Desk) -> str:
    """Cancel the next meeting with whoever has the only task of a name."""
    name = desk.pick(desk.office.tasks.records())["task_name"]
    task = only(desk.look("project_management_search_tasks", task_name=name))
    event = extreme(
        calendar_tasks.coming(desk, task["assigned_to_email"]), "event_start", last=False
    )
    desk.do("calendar_delete_event", event_id=event["event_id"])
    return f"cancel my next meeting with the colleague who works on the task '{name}'"


def meet_in_charge(desk: Desk) -> str:
    """Meet the colleague in charge of a customer."""
    customer = customer_tasks.named(desk)
    long, name, when = calendar_tasks.book(desk, customer["assigned_to_email"])
    return (
        f"book a meeting {name} of {long} {when} with the colleague in charge of the customer "
        f"{customer['customer_name']}"
    )


def meet_sender(desk: Desk) -> str:
    """Meet whoever wrote last about a topic."""
    topic = desk.pick(TOPICS)
    matches = desk.search("email_search_emails", query=topic)
    email = extreme(
        [
            e
            for e in matches
            if e["inbox/outbox"] == "inbox" and e["subject"].endswith(f" the {topic}")
        ],
        "sent_datetime",
        last=True,
    )
    long, name, when = calendar_tasks.book(desk, email["sender/recipient"])

    return (
        f"schedule {long} {when}, called {name}, with whoever sent me the latest email about the "
        f"{topic}"
    )


def task_for_customer(desk: Desk) -> str:
    """A task for the colleague in charge of a customer, and the customer followed up."""
    customer, day = customer_tasks.named(desk), desk.workday()
    if not desk.office.tasks.rows or all(
        row[2] != customer["assigned_to_email"] for row in desk.office.tasks.rows
    ):
        raise Unfit("the board does not know this colleague")

    name, where = board_tasks.add(desk, customer["assigned_to_email"])
    customer_tasks.update(desk, customer, "follow_up_by", str(day))

    return (
        f"set the follow-up date of the customer {customer['customer_name']} to "
        f"{desk.day_name(day)} and give the colleague in charge of that "
        f"customer a new task {name} {where}"
    )


def won(desk: Desk) -> str:
    """A customer's status changed and the colleague in charge told."""
    customer, status = customer_tasks.named(desk), desk.pick(("Won", "Lost", "Qualified"))
    customer_tasks.update(desk, customer, "status", status)
    wording = mail_tasks.write(desk, customer["assigned_to_email"])
    return (
        f"set the customer {customer['customer_name']} to {status} and let the colleague in "
        f"charge know by email {wording}"
    )


def overdue_talk(desk: Desk) -> str:
    """A colleague's overdue tasks to another list, and a meeting about them."""
    person = desk.pick(desk.people)
    for task in several(board_tasks.overdue(board_tasks.tasks_of(desk, person)), most=5):
        if task["list_name"] != "In Review":
            desk.do(
                "project_management_update_task",
                task_id=task["task_id"],
                field="list_name",
                new_value="In Review",
            )

    long, name, when = calendar_tasks.book(desk, person)

    return (
        f"move all of {first_name(person)}'s overdue tasks (due before today, not yet completed) "
        f"to In Review and book {long} with "
        f"{first_name(person)} {when}, called {name}"
    )


def leave(desk: Desk) -> str:
    """A colleague leaves: unfinished tasks and coming meetings go to another."""
    person, other = desk.two_people()
    tasks = [
        task for task in board_tasks.tasks_of(desk, person) if task["list_name"] == "In Progress"
    ]
    events = calendar_tasks.coming(desk, person)
    if not tasks or not events or len(tasks) + len(events) > 8:
        raise Unfit("too little or too much to hand over")
    address = desk.address(other)
    for task in tasks:
        desk.do(
            "project_management_update_task",
            task_id=task["task_id"],
            field="assigned_to_email",
            new_value=address,
        )

    for event in events:
        desk.do(
            "calendar_update_event",
            event_id=event["event_id"],
            field="participant_email",
            new_value=address,
        )

    return (
        f"hand over from {first_name(person)} to {first_name(other)}: {first_name(person)}'s tasks "
        "that are in In Progress, and "
        f"the place of {first_name(person)} in all my coming meetings with {first_name(person)}"
    )


CLAUSES = (
    cancel_and_tell,
    tell_first_of_day,
    tell_assignee,
    cancel_with_assignee,
    meet_in_charge,
    meet_sender,
    task_for_customer,
    won,
    overdue_talk,
    leave,
)
