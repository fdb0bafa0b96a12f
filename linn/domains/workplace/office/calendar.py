"""The calendar tools."""

from __future__ import annotations

from typing import Any

from linn.domains.workplace.office.reading import (
    contains,
    duration_problem,
    is_id,
    is_moment,
    moment,
    page_of,
)
from linn.domains.workplace.office.state import EVENT_COLUMNS, Office


def get_event(office: Office, /, event_id: Any = None, field: Any = None) -> Any:
    """One field of an event."""
    if not event_id:
        return "Event ID not provided."
    if not field:
        return "Field not provided."
    if not is_id(event_id):
        return "Invalid event ID format. Expected 8-digit ID."
    if field not in EVENT_COLUMNS:
        return f"Invalid field. Available fields are: {', '.join(EVENT_COLUMNS)}"
    event = office.events.get(event_id)

    return {field: event[field]} if event else "Event not found."


def search_events(
    office: Office,
    /,
    query: str = "",
    time_min: Any = None,
    time_max: Any = None,
    page: int = 1,
    page_size: int = 5,
) -> Any:
    """Events whose name or participant matches the query, latest first."""
    for name, bound in (("time_min", time_min), ("time_max", time_max)):
        if bound and not is_moment(bound):
            return f"Invalid {name} format. Expected YYYY-MM-DD HH:MM:SS."

    match = contains(query)
    matches = [
        event
        for event in office.events.records()
        if match(event["event_name"]) or match(event["participant_email"])
    ]
    if time_min:
        matches = [event for event in matches if moment(event["event_start"]) >= moment(time_min)]
    if time_max:
        matches = [event for event in matches if moment(event["event_start"]) <= moment(time_max)]
    matches.sort(key=lambda event: moment(event["event_start"]), reverse=True)

    return page_of("events", matches, page, page_size)


def create_event(
    office: Office,
    /,
    event_name: Any = None,
    participant_email: Any = None,
    event_start: Any = None,
    duration: Any = None,
) -> str:
    """A new event; answers its id."""
    for label, value in (
        ("name", event_name),
        ("participant", participant_email),
        ("start", event_start),
        ("duration", duration),
    ):
        if not value:
            return (
                "Participant email not provided."
                if label == "participant"
                else f"Event {label} not provided."
            )

    if not is_moment(event_start):
        return "Invalid event_start format. Expected YYYY-MM-DD HH:MM:SS."
    if problem := duration_problem(duration):
        return problem
    key = office.events.next_id(8)
    cells = (key, event_name, participant_email.lower(), event_start, duration)
    office.events.add(dict(zip(EVENT_COLUMNS, cells, strict=True)), relabel=False)

    return key


def delete_event(office: Office, /, event_id: Any = None) -> str:
    """Remove an event."""
    if not event_id:
        return "Event ID not provided."
    if not is_id(event_id):
        return "Invalid event ID format. Expected 8-digit ID."
    if not office.events.has(event_id):
        return "Event not found."
    office.events.drop(event_id)
    return "Event deleted successfully."


def update_event(
    office: Office, /, event_id: Any = None, field: Any = None, new_value: Any = None
) -> str:
    """Change one field of an event (not its id)."""
    if not event_id or not field or not new_value:
        return "Event ID, field, or new value not provided."
    if not is_id(event_id):
        return "Invalid event ID format. Expected 8-digit ID."
    if field not in EVENT_COLUMNS[1:]:
        return f"Invalid field. Available fields are: {', '.join(EVENT_COLUMNS[1:])}"
    if field == "event_start" and not is_moment(new_value):
        return "Invalid event_start format. Expected YYYY-MM-DD HH:MM:SS."
    if field == "duration" and (problem := duration_problem(new_value)):
        return problem
    if not office.events.has(event_id):
        return "Event not found."
    office.events.set(
        event_id, field, new_value.lower() if field == "participant_email" else new_value
    )

    return "Event updated successfully."
