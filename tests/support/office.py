"""The office of the workplace domain, as it is and as files."""

import csv
from pathlib import Path

from linn.domains.workplace.office.state import Office
from linn.domains.workplace.office.table import BLANK
from linn.domains.workplace.office.tables import load

VISIT_COLUMNS = (
    "date_of_visit",
    "visitor_id",
    "page_views",
    "session_duration_seconds",
    "traffic_source",
    "user_engaged",
)


def fresh_office() -> Office:
    """linn's own tables, to be changed at will."""
    return load(None).copy()


def write_tables(folder: Path) -> None:
    """linn's own tables as the six CSV files of the reference, with the id of one email changed."""
    office = fresh_office()
    office.emails.set("00000007", "email_id", "00009999")
    tables = {
        "emails": office.emails,
        "calendar_events": office.events,
        "project_tasks": office.tasks,
        "customer_relationship_manager_data": office.customers,
    }
    for name, table in tables.items():
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(table.columns)
            for row in table.rows:
                writer.writerow("" if cell is BLANK else cell for cell in row)

    with (folder / "analytics_data.csv").open("w", newline="") as file:
        csv.writer(file).writerows([VISIT_COLUMNS, *office.visits])
    (folder / "email_addresses.csv").write_text("\n".join(office.directory))
