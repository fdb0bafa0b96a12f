"""Requests about the website's visits."""

from __future__ import annotations

from datetime import timedelta

from linn.domains.workplace.office.generate import TODAY
from linn.domains.workplace.office.state import PLOT_TYPES, SOURCES
from linn.domains.workplace.tasks.desk import Desk, Unfit

_VALUES = {
    "total_visits": ("total visits", "all visits"),
    "session_duration_seconds": ("session duration", "the length of sessions"),
    "user_engaged": ("engaged users", "user engagement"),
    "visits_direct": ("direct visits", "visits that came directly"),
    "visits_referral": ("visits by referral", "referral visits"),
    "visits_search_engine": ("visits from search engines", "search engine visits"),
    "visits_social_media": ("visits from social media", "social media visits"),
}


def draw(desk: Desk, low: str, high: str, value: str) -> str:
    """Make a plot; its type in words."""
    kind = desk.pick(PLOT_TYPES)
    desk.do(
        "analytics_create_plot", time_min=low, time_max=high, value_to_plot=value, plot_type=kind
    )
    return {
        "histogram": "histogram",
        "line": desk.pick(("line plot", "line chart")),
        "bar": desk.pick(("bar plot", "bar chart")),
    }.get(kind, "scatter plot")


def span(desk: Desk) -> tuple[str, str, str]:
    """A span of days: first, last, in words."""
    low = desk.day(-58, -3)
    high = low + timedelta(days=desk.rng.randint(1, (TODAY - low).days))
    if desk.rng.random() < 0.3:
        return str(low), str(TODAY), f"since {desk.day_name(low)} (until today)"

    return (
        str(low),
        str(high),
        desk.pick(("from {} to {}", "between {} and {}")).format(
            desk.day_name(low), desk.day_name(high)
        ),
    )


def plot(desk: Desk) -> str:
    """A plot of one value."""
    low, high, when = span(desk)
    value = desk.pick(list(_VALUES))
    kind, what = draw(desk, low, high, value), desk.pick(_VALUES[value])

    return desk.pick(
        (
            f"make a {kind} of {what} {when}",
            f"plot {what} {when} as a {kind}",
            f"draw me a {kind} that shows {what} {when}",
        )
    )


def plot_larger_source(desk: Desk) -> str:
    """A plot of whichever of two sources brought more visits."""
    low, high, when = span(desk)
    one, other = desk.rng.sample(SOURCES, 2)
    counts = []

    for source in (one, other):
        answer = desk.look(
            "analytics_traffic_source_count", time_min=low, time_max=high, traffic_source=source
        )
        counts.append(sum(answer.values()))

    if counts[0] == counts[1]:
        raise Unfit("as many of both")
    source = one if counts[0] > counts[1] else other
    kind = draw(desk, low, high, f"visits_{source.replace(' ', '_')}")

    return (
        f"find out whether {one} or {other} brought more visits {when}, and make a {kind} of the "
        "visits from that source over the same days"
    )


def plot_since_visit(desk: Desk) -> str:
    """A plot that begins with a visitor's last visit."""
    visitor = desk.pick(desk.office.visits)[1]
    last = max(
        visit["date_of_visit"]
        for visit in desk.look("analytics_get_visitor_information_by_id", visitor_id=visitor)
    )
    if last > str(TODAY - timedelta(days=2)):
        raise Unfit("a visit of these days")
    value = desk.pick(list(_VALUES))

    return (
        f"make a {draw(desk, last, str(TODAY), value)} of {desk.pick(_VALUES[value])} from the "
        f"day of visitor {visitor}'s last visit until today"
    )


def plot_best_day(desk: Desk) -> str:
    """A plot of the week that follows the day of most visits."""
    low, high, when = span(desk)
    counts = desk.look("analytics_total_visits_count", time_min=low, time_max=high)
    best = [day for day, count in counts.items() if count == max(counts.values())]
    if len(best) != 1 or best[0] == high:
        raise Unfit("no one best day")
    value = desk.pick(list(_VALUES))
    kind = draw(desk, best[0], high, value)

    return (
        f"find the day with the most visits {when}, and make a {kind} of "
        f"{desk.pick(_VALUES[value])} from that day to {high}"
    )


def _more_than(desk: Desk, tool: str, what: str, **more: str) -> tuple[str, bool]:
    low, high, when = span(desk)
    count = sum(
        desk.look(
            tool,
            time_min=low,
            time_max=high,
            **more,
        ).values()
    )
    bar = max(0, count + desk.pick((-9, -4, -1, 0, 3, 8)))
    return f"there were more than {bar} {what} {when}", count > bar


def many_visits(desk: Desk) -> tuple[str, bool]:
    """Whether there were more visits than so many."""
    return _more_than(desk, "analytics_total_visits_count", "visits to the website")


def many_engaged(desk: Desk) -> tuple[str, bool]:
    """Whether there were more engaged users than so many."""
    return _more_than(desk, "analytics_engaged_users_count", "visits by engaged users")


def many_from(desk: Desk) -> tuple[str, bool]:
    """Whether a source brought more visits than so many."""
    source = desk.pick(SOURCES)
    return _more_than(
        desk,
        "analytics_traffic_source_count",
        f"website visits from the source '{source}'",
        traffic_source=source,
    )


def long_sessions(desk: Desk) -> tuple[str, bool]:
    """Whether the mean session of a day was longer than so many seconds."""
    day = desk.day(-55, -1)
    means = desk.look(
        "analytics_get_average_session_duration", time_min=str(day), time_max=str(day)
    )
    if not means:
        raise Unfit("a day without visits")
    bar = desk.rng.randint(15, 45)
    mean = means[str(day)]
    if abs(mean - bar) < 0.5:
        raise Unfit("too close to tell at a glance")

    return f"the average session {desk.on(day)} lasted longer than {bar} seconds", mean > bar


def visitor_engaged(desk: Desk) -> tuple[str, bool]:
    """Whether a visitor ever engaged."""
    visitor = desk.pick(desk.office.visits)[1]
    visits = desk.look("analytics_get_visitor_information_by_id", visitor_id=visitor)
    return f"visitor {visitor} was engaged on any of their visits", any(
        visit["user_engaged"] for visit in visits
    )


CLAUSES = (plot, plot, plot_larger_source, plot_since_visit, plot_best_day)
CONDITIONS = (many_visits, many_engaged, many_from, long_sessions, visitor_engaged)
