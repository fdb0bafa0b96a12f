"""The state of an office: five tables, a visitors' log and a company directory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from linn.domains.workplace.office.table import Row, Table

NOW = "2023-11-30 23:59:00"
"""The office's clock stands still."""
EMAIL_COLUMNS = ("email_id", "inbox/outbox", "sender/recipient", "subject", "sent_datetime", "body")
EVENT_COLUMNS = ("event_id", "event_name", "participant_email", "event_start", "duration")
TASK_COLUMNS = ("task_id", "task_name", "assigned_to_email", "list_name", "due_date", "board")
CUSTOMER_COLUMNS = (
    *("customer_id", "assigned_to_email", "customer_name", "customer_email", "customer_phone"),
    *("last_contact_date", "product_interest", "status", "follow_up_by", "notes"),
)
VISIT_COLUMNS = (
    "date_of_visit",
    "visitor_id",
    "page_views",
    "session_duration_seconds",
    "traffic_source",
    "user_engaged",
)
LISTS = ("Backlog", "In Progress", "In Review", "Completed")
BOARDS = ("Back end", "Front end", "Design")
STATUSES = ("Qualified", "Won", "Lost", "Lead", "Proposal")
PRODUCTS = ("Software", "Hardware", "Services", "Consulting", "Training")
PLOT_VALUES = (
    "total_visits session_duration_seconds user_engaged visits_direct visits_referral "
    "visits_search_engine visits_social_media"
).split()
SOURCES = ("direct", "referral", "search engine", "social media")
PLOT_TYPES = ("bar", "line", "scatter", "histogram")


@dataclass
class Office:
    """The state of one conversation: five tables that tools change, and what they only read."""

    emails: Table
    events: Table
    tasks: Table
    customers: Table
    plots: Table
    visits: Sequence[Row]
    directory: Sequence[str]

    @classmethod
    def of(
        cls,
        emails: Sequence[Row],
        events: Sequence[Row],
        tasks: Sequence[Row],
        customers: Sequence[Row],
        visits: Sequence[Row],
        directory: Sequence[str],
    ) -> Office:
        """An office with these rows and no plots yet."""
        return cls(
            emails=Table(EMAIL_COLUMNS, emails),
            events=Table(EVENT_COLUMNS, events),
            tasks=Table(TASK_COLUMNS, tasks),
            customers=Table(CUSTOMER_COLUMNS, customers),
            plots=Table(("file_path",), ()),
            visits=visits,
            directory=directory,
        )

    def copy(self) -> Office:
        """An office that can change without changing this one."""
        return replace(
            self,
            emails=self.emails.copy(),
            events=self.events.copy(),
            tasks=self.tasks.copy(),
            customers=self.customers.copy(),
            plots=self.plots.copy(),
        )

    def same(self, other: Office) -> bool:
        """Whether all five tables are equal (visits and directory never change)."""
        mine, theirs = (
            (office.plots, office.emails, office.events, office.tasks, office.customers)
            for office in (self, other)
        )
        return all(a.same(b) for a, b in zip(mine, theirs, strict=True))
