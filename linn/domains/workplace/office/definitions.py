"""The definitions of the 27 tools, as a model of the full level is shown them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from linn.domains.common.tools import parameter, tool
from linn.domains.workplace.office.state import (
    BOARDS,
    CUSTOMER_COLUMNS,
    EMAIL_COLUMNS,
    EVENT_COLUMNS,
    LISTS,
    PLOT_TYPES,
    PLOT_VALUES,
    PRODUCTS,
    STATUSES,
    TASK_COLUMNS,
)

_DAY, _TIME = "as YYYY-MM-DD", "as YYYY-MM-DD HH:MM:SS"
_PAGING = {
    "page": "which page of the results, from 1",
    "page_size": "results a page; 5 where not given",
}


def _among(values: Sequence[str]) -> str:
    return "one of " + ", ".join(values)


def _tool(
    name: str,
    description: str,
    optional: Mapping[str, str] = MappingProxyType({}),
    /,
    **required: str,
) -> Mapping[str, Any]:
    """A function definition; paging parameters are whole numbers, all others text."""
    properties = {
        key: parameter("integer" if key in _PAGING else "string", text)
        for key, text in {**required, **optional}.items()
    }
    return tool(name, description, properties, required, closed=True)


_SPAN = {"time_min": f"first day counted, {_DAY}", "time_max": f"last day counted, {_DAY}"}
_CUSTOMER = {
    "customer_email": "the customer's address",
    "customer_phone": "the customer's phone number",
    "last_contact_date": f"day of the last contact, {_DAY}",
    "product_interest": _among(PRODUCTS),
    "notes": "free text",
    "follow_up_by": f"day by which to follow up, {_DAY}",
}
_TASK = {
    "task_name": "the task's name",
    "assigned_to_email": "address of the person who does it",
    "list_name": _among(LISTS),
    "due_date": f"day it is due, {_DAY}",
    "board": _among(BOARDS),
}
_NEW_VALUE = f"what to put there; days {_DAY}, times {_TIME}, minutes as digits"

DEFINITIONS: tuple[Mapping[str, Any], ...] = (
    _tool(
        "company_directory_find_email_address",
        "All company addresses that contain a name.",
        {"name": "a name or a part of one"},
    ),
    _tool(
        "email_get_email_information_by_id",
        "One field of an email.",
        email_id="the email's id",
        field=_among(EMAIL_COLUMNS),
    ),
    _tool(
        "email_search_emails",
        "Emails, newest first, that hold every word of the query in subject, body or address.",
        {
            "query": "words to look for",
            "date_min": f"first day, {_DAY}",
            "date_max": f"last day, {_DAY}",
            **_PAGING,
        },
    ),
    _tool(
        "email_send_email",
        "Send a new email.",
        recipient="address",
        subject="subject line",
        body="text",
    ),
    _tool("email_delete_email", "Delete an email.", email_id="the email's id"),
    _tool(
        "email_forward_email",
        "Forward an email as it is.",
        email_id="the email's id",
        recipient="address",
    ),
    _tool(
        "email_reply_email",
        "Reply to an email.",
        email_id="the email's id",
        body="text of the reply",
    ),
    _tool(
        "calendar_get_event_information_by_id",
        "One field of an event.",
        event_id="the event's 8 digits",
        field=_among(EVENT_COLUMNS),
    ),
    _tool(
        "calendar_search_events",
        "Events, latest first, whose name or participant's address contains the query.",
        {
            "query": "text to look for",
            "time_min": f"earliest start, {_TIME}",
            "time_max": f"latest start, {_TIME}",
            **_PAGING,
        },
    ),
    _tool(
        "calendar_create_event",
        "Put an event into the calendar.",
        event_name="its name",
        participant_email="address of who takes part",
        event_start=f"its start, {_TIME}",
        duration="minutes, as digits",
    ),
    _tool("calendar_delete_event", "Remove an event.", event_id="the event's 8 digits"),
    _tool(
        "calendar_update_event",
        "Change one field of an event.",
        event_id="the event's 8 digits",
        field=_among(EVENT_COLUMNS[1:]),
        new_value=_NEW_VALUE,
    ),
    _tool(
        "analytics_get_visitor_information_by_id",
        "All visits of one visitor to the website.",
        visitor_id="the visitor's 4 digits",
    ),
    _tool(
        "analytics_create_plot",
        "Plot one value of the website's visits over a span of days.",
        time_min=_SPAN["time_min"],
        time_max=_SPAN["time_max"],
        value_to_plot=_among(PLOT_VALUES),
        plot_type=_among(PLOT_TYPES),
    ),
    _tool("analytics_total_visits_count", "Visits to the website, day by day.", _SPAN),
    _tool("analytics_engaged_users_count", "Visits by engaged users, day by day.", _SPAN),
    _tool(
        "analytics_traffic_source_count",
        "Visits that came from one source, day by day.",
        {**_SPAN, "traffic_source": "one of direct, referral, search engine, social media"},
    ),
    _tool("analytics_get_average_session_duration", "Mean seconds of a visit, day by day.", _SPAN),
    _tool(
        "project_management_get_task_information_by_id",
        "One field of a task.",
        task_id="the task's 8 digits",
        field=_among(TASK_COLUMNS),
    ),
    _tool(
        "project_management_search_tasks",
        "Tasks that match everything given; at least one thing must be.",
        _TASK,
    ),
    _tool("project_management_create_task", "Put a task on a board.", **_TASK),
    _tool("project_management_delete_task", "Remove a task.", task_id="the task's 8 digits"),
    _tool(
        "project_management_update_task",
        "Change one field of a task.",
        task_id="the task's 8 digits",
        field=_among(TASK_COLUMNS[1:]),
        new_value=_NEW_VALUE,
    ),
    _tool(
        "customer_relationship_manager_search_customers",
        "Customers that match everything given; at least one thing must be.",
        {
            "customer_name": "the customer's name",
            "customer_email": _CUSTOMER["customer_email"],
            "product_interest": _CUSTOMER["product_interest"],
            "status": _among(STATUSES),
            "assigned_to_email": "address of the colleague in charge",
            "last_contact_date_min": f"earliest last contact, {_DAY}",
            "last_contact_date_max": f"latest last contact, {_DAY}",
            "follow_up_by_min": f"earliest follow-up, {_DAY}",
            "follow_up_by_max": f"latest follow-up, {_DAY}",
            **_PAGING,
        },
    ),
    _tool(
        "customer_relationship_manager_update_customer",
        "Change one field of a customer.",
        customer_id="the customer's 8 digits",
        field=_among(CUSTOMER_COLUMNS[1:]),
        new_value=_NEW_VALUE,
    ),
    _tool(
        "customer_relationship_manager_add_customer",
        "Add a customer.",
        _CUSTOMER,
        customer_name="the customer's name",
        assigned_to_email="address of the colleague in charge",
        status=_among(STATUSES),
    ),
    _tool(
        "customer_relationship_manager_delete_customer",
        "Remove a customer.",
        customer_id="the customer's 8 digits",
    ),
)
"""In the order of the tool groups: directory, email, calendar, analytics, board, customers."""
