"""Requests about the calendar."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from linn.domains.workplace.office.generate import TODAY, TOPICS
from linn.domains.workplace.office.state import NOW
from linn.domains.workplace.office.table import Record
from linn.domains.workplace.tasks.desk import Desk, Unfit, extreme, first_name, only, several

_NAMES = ("Talk on the {}", "{} kick-off", "{} retrospective", "Interview: {}", "{} demo")


def of_day(desk: Desk, day: date) -> list[Record]:
    """All events of a day."""
    return desk.search(
        "calendar_search_events", time_min=f"{day} 00:00:00", time_max=f"{day} 23:59:59"
    )


def coming(desk: Desk, person: str) -> list[Record]:
    """All events with a colleague that are yet to come."""
    matches = desk.search("calendar_search_events", query=first_name(person).lower(), time_min=NOW)
    return [event for event in matches if event["participant_email"] == person]


def name_of(desk: Desk) -> str:
    """A name for a new event, capital letter first."""
    name = desk.pick(_NAMES).format(desk.pick(TOPICS))
    return name[0].upper() + name[1:]


def book(desk: Desk, address: str) -> tuple[str, str, str]:
    """Book a meeting with an address; returns (`30 minutes`, `'its name'`, `on … at …`)."""
    name, day, (time, at), (minutes, long) = (
        name_of(desk),
        desk.workday(),
        desk.time(),
        desk.length(),
    )
    desk.do(
        "calendar_create_event",
        event_name=name,
        participant_email=address,
        event_start=f"{day} {time}",
        duration=minutes,
    )
    return long, f"'{name}'", f"{desk.on(day)} {at}"


def create(desk: Desk) -> str:
    """A new meeting with a colleague."""
    person = desk.pick(desk.people)
    long, name, when = book(desk, desk.address(person))
    return desk.pick(
        (
            f"schedule a meeting called {name} with {first_name(person)} {when}, for {long}",
            f"book {long} with {first_name(person)} {when} under the name {name}",
            f"put {name} into my calendar {when}, with {first_name(person)}, lasting {long}",
        )
    )


def cancel_next(desk: Desk) -> str:
    """Cancel the first of the coming meetings with a colleague."""
    person = desk.pick(desk.people)
    event = extreme(coming(desk, person), "event_start", last=False)
    desk.do("calendar_delete_event", event_id=event["event_id"])
    return desk.pick(
        (
            f"cancel my next meeting with {first_name(person)}",
            f"cancel the first of my coming meetings with {first_name(person)}",
        )
    )


def cancel_with(desk: Desk) -> str:
    """Cancel the only meeting with a colleague on a day."""
    event = desk.pick(
        [record for record in desk.office.events.records() if record["event_start"] > NOW]
    )
    day, person = date.fromisoformat(event["event_start"][:10]), event["participant_email"]
    event = only([other for other in of_day(desk, day) if other["participant_email"] == person])
    desk.do("calendar_delete_event", event_id=event["event_id"])
    return f"call off my meeting with {first_name(person)} {desk.on(day)}"


def cancel_day(desk: Desk) -> str:
    """Cancel all meetings of a day, or of its afternoon."""
    day, afternoon = desk.workday(), desk.rng.random() < 0.4
    matches = several(
        [
            event
            for event in of_day(desk, day)
            if not afternoon or event["event_start"][11:] >= "12:00:00"
        ]
    )
    for event in matches:
        desk.do("calendar_delete_event", event_id=event["event_id"])
    if afternoon:
        return f"cancel everything that starts at noon or later {desk.on(day)}"

    return desk.pick(
        (
            f"clear my calendar: cancel all events {desk.on(day)}",
            f"cancel all of my meetings {desk.on(day)}",
        )
    )


def rename(desk: Desk) -> str:
    """Rename the first or last event of a day."""
    day, last, name = desk.workday(), desk.rng.random() < 0.5, name_of(desk)
    event = extreme(of_day(desk, day), "event_start", last)
    desk.do(
        "calendar_update_event",
        event_id=event["event_id"],
        field="event_name",
        new_value=name,
    )
    which = "last" if last else "first"

    return desk.pick(
        (
            f"rename the {which} event {desk.on(day)} to '{name}'",
            f"change the name of my {which} meeting {desk.on(day)} to '{name}'",
        )
    )


def move(desk: Desk) -> str:
    """Move the next meeting with a colleague to a day and time."""
    person, day, (time, at) = desk.pick(desk.people), desk.workday(), desk.time()
    event = extreme(coming(desk, person), "event_start", last=False)
    desk.do(
        "calendar_update_event",
        event_id=event["event_id"],
        field="event_start",
        new_value=f"{day} {time}",
    )
    return f"move my next meeting with {first_name(person)} so that it starts {desk.on(day)} {at}"


def put_off(desk: Desk) -> str:
    """Move an event known by its id some days later, at the same time of day."""
    event = desk.pick(
        [record for record in desk.office.events.records() if record["event_start"] > NOW]
    )
    start = desk.look(
        "calendar_get_event_information_by_id", event_id=event["event_id"], field="event_start"
    )["event_start"]
    days = desk.rng.randint(1, 6)
    moved = datetime.fromisoformat(start) + timedelta(days=days)
    if moved.weekday() >= 5 or moved.year > TODAY.year:
        raise Unfit("no working day")
    desk.do(
        "calendar_update_event",
        event_id=event["event_id"],
        field="event_start",
        new_value=str(moved),
    )

    return (
        f"put event {event['event_id']} off by {days} day{'s' * (days > 1)}, at the same time of "
        "day"
    )


def lengthen(desk: Desk) -> str:
    """Make an event known by its id longer; it ends by 18:00."""
    event = desk.pick(
        [record for record in desk.office.events.records() if record["event_start"] > NOW]
    )
    minutes = desk.look(
        "calendar_get_event_information_by_id", event_id=event["event_id"], field="duration"
    )["duration"]
    more = desk.pick((15, 30, 45))

    if datetime.fromisoformat(event["event_start"]) + timedelta(
        minutes=int(minutes) + more
    ) > datetime.fromisoformat(event["event_start"][:10] + " 18:00:00"):
        raise Unfit("it would end too late")

    desk.do(
        "calendar_update_event",
        event_id=event["event_id"],
        field="duration",
        new_value=str(int(minutes) + more),
    )

    return desk.pick(
        (
            f"make event {event['event_id']} {more} minutes longer",
            f"add {more} minutes to the length of event {event['event_id']}",
        )
    )


def hand_over(desk: Desk) -> str:
    """Another colleague takes part in all coming meetings with one."""
    person, other = desk.two_people()
    matches = several(coming(desk, person))
    address = desk.address(other)

    for event in matches:
        desk.do(
            "calendar_update_event",
            event_id=event["event_id"],
            field="participant_email",
            new_value=address,
        )

    return (
        f"put {first_name(other)} in the place of {first_name(person)} as participant of all my "
        f"coming meetings with {first_name(person)}"
    )


def is_free(desk: Desk) -> tuple[str, bool]:
    """Whether no event starts on a day."""
    day = desk.workday() if desk.rng.random() < 0.7 else desk.day(1, 20)
    return f"my calendar is empty {desk.on(day)}", not of_day(desk, day)


def meets_soon(desk: Desk) -> tuple[str, bool]:
    """Whether there is a meeting with a colleague on or before a day."""
    person, day = desk.pick(desk.people), desk.workday(2, 15)
    held = any(event["event_start"] <= f"{day} 23:59:59" for event in coming(desk, person))
    return (
        f"I meet {first_name(person)} between now and {desk.day_name(day)} (that day included)",
        held,
    )


CLAUSES = (create, cancel_next, cancel_with, cancel_day, rename, move, put_off, lengthen, hand_over)
CONDITIONS = (is_free, meets_soon)
