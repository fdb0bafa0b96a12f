"""The tools over the log of website visits."""

from __future__ import annotations

from typing import Any

from linn.domains.workplace.office.state import PLOT_TYPES, PLOT_VALUES, VISIT_COLUMNS, Office
from linn.domains.workplace.office.table import Row


def get_visitor(office: Office, /, visitor_id: Any = None) -> Any:
    """All visits of a visitor."""
    if not visitor_id:
        return "Visitor ID not provided."
    return [
        dict(zip(VISIT_COLUMNS, row, strict=True)) for row in office.visits if row[1] == visitor_id
    ] or "Visitor not found."


def create_plot(
    office: Office,
    /,
    time_min: Any = None,
    time_max: Any = None,
    value_to_plot: Any = None,
    plot_type: Any = None,
) -> str:
    """A new plot; answers its file's path (nothing is drawn)."""
    if not time_min:
        return "Start date not provided."
    if not time_max:
        return "End date not provided."
    if value_to_plot not in PLOT_VALUES:
        return f"Value to plot must be one of {', '.join(map(repr, PLOT_VALUES))}"
    if plot_type not in PLOT_TYPES:
        return "Plot type must be one of 'bar', 'line', 'scatter', or 'histogram'"
    path = f"plots/{time_min}_{time_max}_{value_to_plot}_{plot_type}.png"
    office.plots.add({"file_path": path})

    return path


def total_visits(office: Office, /, time_min: Any = None, time_max: Any = None) -> dict[str, int]:
    """Visits a day."""
    return {day: len(rows) for day, rows in _days(office, time_min, time_max).items()}


def engaged_users(office: Office, /, time_min: Any = None, time_max: Any = None) -> dict[str, int]:
    """Engaged visitors a day."""
    return {
        day: sum(bool(row[5]) for row in rows)
        for day, rows in _days(office, time_min, time_max).items()
    }


def traffic_source(
    office: Office, /, time_min: Any = None, time_max: Any = None, traffic_source: Any = None
) -> dict[str, int]:
    """Visits a day from one source, or from all."""
    days = _days(office, time_min, time_max)
    return {
        day: sum(not traffic_source or row[4] == traffic_source for row in rows)
        for day, rows in days.items()
    }


def session_duration(
    office: Office, /, time_min: Any = None, time_max: Any = None
) -> dict[str, float]:
    """Mean seconds of a visit, a day."""
    return {
        day: sum(float(row[3]) for row in rows) / len(rows)
        for day, rows in _days(office, time_min, time_max).items()
    }


def _days(office: Office, /, time_min: Any, time_max: Any) -> dict[str, list[Row]]:
    days: dict[str, list[Row]] = {}
    for row in sorted(office.visits):
        if (not time_min or row[0] >= time_min) and (not time_max or row[0] <= time_max):
            days.setdefault(row[0], []).append(row)
    return days
