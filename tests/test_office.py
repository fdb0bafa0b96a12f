"""The office of the workplace domain: its 27 tools, equality of states, tables read from files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from linn.domains.workplace.office.state import Office
from linn.domains.workplace.office.table import Table
from linn.domains.workplace.office.tables import drawn, load
from linn.domains.workplace.office.tools import READS, TOOLS, WRITES, call
from tests.support.office import fresh_office, write_tables


def use(office: Office, tool: str, /, **arguments: Any) -> Any:
    """The answer of a tool."""
    return call(office, tool, arguments)


# ---------------------------------------------------------------- tools


def test_there_are_27_tools_and_reads_change_nothing() -> None:
    assert len(TOOLS) == 27 and len(WRITES) == 14
    office = fresh_office()
    names = "name query email_id event_id task_id visitor_id task_name customer_name time_min"
    for tool in READS:
        use(office, tool)
        for argument in names.split():
            use(office, tool, **{argument: "00000001"})
    assert office.same(load(None))


def test_email() -> None:
    office = fresh_office()
    first = office.emails.records()[0]
    id_ = first["email_id"]
    subject = use(office, "email_get_email_information_by_id", email_id=id_, field="subject")
    assert subject == {"subject": first["subject"]}

    sent = use(office, "email_send_email", recipient="A@b.example", subject="s", body="b")
    assert sent == "Email sent successfully."
    row = ("500", "outbox", "a@b.example", "s", "2023-11-30 23:59:00", "b")
    assert office.emails.rows[-1] == row
    refused = use(office, "email_send_email", recipient="bob", subject="s", body="b")
    assert refused == "Invalid recipient email address."

    sent = use(office, "email_forward_email", email_id=id_, recipient="c@d.example")
    assert sent == "Email forwarded successfully."
    assert office.emails.rows[-1][3] == f"FW: {first['subject']}"
    assert office.emails.rows[-1][5] == first["body"]

    sent = use(office, "email_reply_email", email_id=id_, body="ok")
    assert sent == "Email replied successfully."
    row = office.emails.rows[-1]
    assert row[2:4] == (first["sender/recipient"], f"RE: {first['subject']}")

    deleted = use(office, "email_delete_email", email_id=id_)
    assert deleted == "Email deleted successfully."
    assert use(office, "email_delete_email", email_id=id_) == "Email not found."

    hits = use(office, "email_search_emails", query="budget", page_size=2)
    assert len(hits["emails"]) == 2 and hits["pagination"]["page_size"] == 2
    newest, older = hits["emails"]
    assert newest["sent_datetime"] >= older["sent_datetime"]
    assert use(office, "email_search_emails", query="no such words") == "No emails found."


def test_calendar() -> None:
    office = fresh_office()
    event = {
        "event_name": "Review",
        "participant_email": "X@y.example",
        "event_start": "2023-12-01 09:00:00",
        "duration": "30",
    }
    id_ = "00000300"
    assert use(office, "calendar_create_event", **event) == id_
    assert office.events.rows[-1][2] == "x@y.example" and office.events.labels[-1] == 0

    refused = use(office, "calendar_create_event", **{**event, "duration": "-1"})
    assert refused == "Duration must be a positive number of minutes."
    refused = use(office, "calendar_create_event", **{**event, "event_start": "soon"})
    assert refused.startswith("Invalid event_start format")

    hour = {"field": "duration", "new_value": "60"}
    updated = use(office, "calendar_update_event", event_id=id_, **hour)
    assert updated == "Event updated successfully."
    duration = use(office, "calendar_get_event_information_by_id", event_id=id_, field="duration")
    assert duration == {"duration": "60"}
    refused = use(office, "calendar_update_event", event_id="300", **hour)
    assert refused.startswith("Invalid event ID")

    hits = use(office, "calendar_search_events", query="review", time_min="2023-12-01 08:00:00")
    assert hits["pagination"]["total_events"] >= 1
    deleted = use(office, "calendar_delete_event", event_id=id_)
    assert deleted == "Event deleted successfully."
    assert office.same(load(None))


def test_tasks() -> None:
    office = fresh_office()
    person = office.tasks.rows[0][2]
    task = {
        "task_name": "Plan",
        "assigned_to_email": person.upper(),
        "list_name": "Backlog",
        "due_date": "2023-12-01",
        "board": "Design",
    }
    create = "project_management_create_task"
    assert use(office, create, **task) == "00000300"
    assert use(office, create, **{**task, "board": "design"}).startswith("Board not valid")
    refused = use(office, create, **{**task, "assigned_to_email": "a@b.c"})
    assert refused.startswith("Assignee email not valid")

    updated = use(
        office,
        "project_management_update_task",
        task_id="00000300",
        field="list_name",
        new_value="Completed",
    )
    assert updated == "Task updated successfully."
    hits = use(
        office, "project_management_search_tasks", task_name="^plan$", assigned_to_email=person
    )
    assert hits[0]["list_name"] == "Completed"
    deleted = use(office, "project_management_delete_task", task_id="00000300")
    assert deleted == "Task deleted successfully."
    assert office.same(load(None))


def test_customers() -> None:
    office = fresh_office()
    crm = "customer_relationship_manager"
    customer = {
        "customer_name": "Ann Lee",
        "assigned_to_email": office.tasks.rows[0][2],
        "status": "Lead",
    }
    assert use(office, f"{crm}_add_customer", **customer) == "00000200"
    row = office.customers.rows[-1]
    assert row[3] is None and row[-1] == ""

    status = {"customer_id": "00000200", "field": "status"}
    refused = use(office, f"{crm}_update_customer", **status, new_value="won")
    assert refused.startswith("Status not valid")
    updated = use(office, f"{crm}_update_customer", **status, new_value="Won")
    assert updated == "Customer updated successfully."

    hits = use(office, f"{crm}_search_customers", customer_name="ann lee")
    assert hits["customers"][-1]["status"] == "Won"
    deleted = use(office, f"{crm}_delete_customer", customer_id="00000200")
    assert deleted == "Customer deleted successfully."
    assert office.same(load(None))


def test_analytics() -> None:
    office = fresh_office()
    path = use(
        office,
        "analytics_create_plot",
        time_min="2023-10-01",
        time_max="2023-11-01",
        value_to_plot="total_visits",
        plot_type="bar",
    )
    assert path == "plots/2023-10-01_2023-11-01_total_visits_bar.png"
    assert not office.plots.same(load(None).plots)

    assert len(office.visits) == 1000
    assert sum(use(office, "analytics_total_visits_count").values()) == 1000
    engaged = use(office, "analytics_engaged_users_count")
    assert 0 < sum(engaged.values()) < 1000
    direct = use(office, "analytics_traffic_source_count", traffic_source="direct")
    assert 0 < sum(direct.values()) < 1000


def test_mistakes_are_answers() -> None:
    office = fresh_office()
    for tool, arguments in (
        ("no_such_tool", {}),
        ("email_send_email", {"to": "x"}),
        ("email_send_email", {"recipient": 5, "subject": "s", "body": "b"}),
        ("calendar_search_events", {"query": "("}),
        ("calendar_search_events", {"query": "(a+)+$"}),
        ("email_search_emails", {"page_size": 0}),
        (
            "calendar_update_event",
            {"event_id": "00000001", "field": "event_name", "new_value": ["x"]},
        ),
    ):
        assert str(call(office, tool, arguments)).startswith("Error executing tool"), tool
    assert office.same(load(None))


def test_a_first_name_finds_one_address_and_no_two_things_share_a_moment() -> None:
    def distinct(table: Table, column: str) -> bool:
        values = [record[column] for record in table.records()]
        return len(set(values)) == len(values)

    for seed in range(20):
        office = drawn(seed)
        for person in office.directory:
            first_name = person.split(".")[0]
            hits = use(office, "company_directory_find_email_address", name=first_name)
            assert hits == [person]
        assert distinct(office.emails, "sent_datetime")
        assert distinct(office.events, "event_start")
        assert distinct(office.customers, "customer_name")


# ---------------------------------------------------------------- equality of states


def after(tool: str, /, **arguments: Any) -> Office:
    """The office after one call."""
    office = fresh_office()
    call(office, tool, arguments)
    return office


def test_case_counts_only_in_status_list_and_board() -> None:
    mail = {"recipient": "a@b.c", "subject": "Hello", "body": "Text"}
    sent = after("email_send_email", **mail)
    other_case = {**mail, "subject": "HELLO", "recipient": "A@B.c"}
    assert sent.same(after("email_send_email", **other_case))
    assert not sent.same(after("email_send_email", **{**mail, "subject": "Hell0"}))

    customer = {"customer_name": "A", "assigned_to_email": "a@b.c", "status": "Lead"}
    tool = "customer_relationship_manager_add_customer"
    added = after(tool, **customer)
    assert not added.same(after(tool, **{**customer, "status": "lead"}))
    assert not added.same(after(tool, **customer, notes="x"))

    event = {
        "event_name": "e",
        "participant_email": "a@b.c",
        "event_start": "2023-12-01",
        "duration": "30",
    }
    number = after("calendar_create_event", **{**event, "duration": 30})
    assert not after("calendar_create_event", **event).same(number), "a number is not text"


def test_order_and_labels_count_as_in_the_reference() -> None:
    def both(calls: Iterable[tuple[str, dict[str, str]]]) -> Office:
        office = fresh_office()
        for tool, arguments in calls:
            call(office, tool, arguments)
        return office

    send = ("email_send_email", {"recipient": "a@b.c", "subject": "s", "body": "b"})
    drop = ("email_delete_email", {"email_id": "00000007"})
    one, two = both((send, drop)), both((drop, send))
    assert one.emails.rows == two.emails.rows and not one.same(two)


# ---------------------------------------------------------------- files


def test_csv_files_read_back_as_they_were(tmp_path: Path) -> None:
    write_tables(tmp_path)
    office, own = load(tmp_path), fresh_office()
    own.emails.set("00000007", "email_id", "00009999")
    assert office.same(own)
    assert list(office.visits) == list(own.visits)
    assert list(office.directory) == list(own.directory)
