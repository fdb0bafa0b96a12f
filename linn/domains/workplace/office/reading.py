"""What several tool groups share: search patterns, points in time, pages of results."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from linn.domains.workplace.office.table import Record


def contains(pattern: str) -> Callable[[Any], bool]:
    """A test whether text holds a pattern, case ignored. Queries are regular expressions; one that
    could run long is refused.
    """
    if (
        len(pattern) > 500
        or re.search(r"\)\s*[*+?{]", pattern)
        or len(re.findall(r"[*+{]", pattern)) > 2
        or pattern.count("?") > 6
    ):
        raise ValueError("the query is too complex")

    search = re.compile(pattern, re.IGNORECASE).search
    return lambda text: isinstance(text, str) and search(text) is not None


def moment(value: Any) -> datetime:
    """A point in time from text, time zone dropped; raises ValueError on other text, TypeError on
    other values.
    """
    if not isinstance(value, str):
        raise TypeError(f"cannot read a time from {type(value).__name__}")
    text = value.strip()[:40]
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        pass

    for form in (
        "%Y-%m-%d %H:%M:%S",
        "%Y/%m/%d %H:%M:%S",
        "%Y/%m/%d %H:%M",
        "%Y/%m/%d",
        "%m/%d/%Y",
        "%m/%d/%Y %H:%M",
        "%B %d, %Y",
        "%b %d, %Y",
    ):
        try:
            return datetime.strptime(text, form)
        except ValueError:
            continue

    raise ValueError(f"not a time: {text!r}")


def is_moment(value: Any) -> bool:
    try:
        moment(value)
    except ValueError:
        return False
    return True


def is_id(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 8 and value.isdigit()


def duration_problem(value: Any) -> str:
    try:
        return "" if int(value) > 0 else "Duration must be a positive number of minutes."
    except ValueError:
        return "Invalid duration format. Expected a number of minutes."


def page_of(
    name: str,
    matches: Sequence[Record],
    page: int,
    page_size: int,
) -> Any:
    """One page of the records found, with the counts."""
    if not matches:
        return f"No {name} found."
    pages = (len(matches) + page_size - 1) // page_size
    page = max(1, min(page, pages)) if pages > 0 else 1
    start = (page - 1) * page_size
    counts = {
        f"total_{name}": len(matches),
        "page": page,
        "page_size": page_size,
        "total_pages": pages,
    }

    return {name: matches[start : start + page_size], "pagination": counts}
