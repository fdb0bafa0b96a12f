"""Where an office's tables come from: six CSV files, linn's own generator, or a handful of rows for
the tiny level.
"""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from linn.domains.workplace.office.generate import generate
from linn.domains.workplace.office.state import (
    CUSTOMER_COLUMNS,
    EMAIL_COLUMNS,
    EVENT_COLUMNS,
    TASK_COLUMNS,
    VISIT_COLUMNS,
    Office,
)
from linn.domains.workplace.office.table import BLANK, Row
from linn.errors import UserError
from linn.types import seed_of

SMALL_NAMES = (
    "bob carl dana emma finn gina hank iris jack kate liam mona nora omar paul rita".split()
)
"""First names of the tiny level; none is part of another or of a domain."""
SMALL_DOMAINS = ("lake.com", "wood.com", "hill.com", "sun.com", "rock.com", "sky.com")
"""Mail domains of the tiny level; drawn anew for each prompt, so an address has to be looked up."""


@lru_cache(maxsize=4)
def load(folder: Path | None) -> Office:
    """The office of a folder that holds the six files (`LINN_WORKPLACE_DATA`), or linn's own; copy
    it before use.
    """
    if folder is None:
        return drawn(0)
    return Office.of(
        _read(folder, "emails", EMAIL_COLUMNS),
        _read(folder, "calendar_events", EVENT_COLUMNS),
        _read(folder, "project_tasks", TASK_COLUMNS),
        _read(folder, "customer_relationship_manager_data", CUSTOMER_COLUMNS),
        [(*row[:5], row[5] == "True") for row in _read(folder, "analytics_data", VISIT_COLUMNS)],
        [row[0] for row in _lines(folder, "email_addresses") if row],
    )


@lru_cache(maxsize=32)
def drawn(seed: int) -> Office:
    """The generated office of a seed; copy it before use."""
    return generate(seed)


def _lines(folder: Path, name: str) -> list[list[str]]:
    places = [
        folder / f"{name}.csv",
        folder / "processed" / f"{name}.csv",
        folder / "raw" / f"{name}.csv",
    ]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise UserError(
            f"LINN_WORKPLACE_DATA: {folder} has no {name}.csv; it needs the six files of the "
            "workplace assistant's csv_data folder"
        )

    with found.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _read(folder: Path, name: str, columns: Sequence[str]) -> list[Row]:
    lines = _lines(folder, name)
    if not lines or set(lines[0]) != set(columns):
        raise UserError(
            f"LINN_WORKPLACE_DATA: {name}.csv has columns {lines[0] if lines else []}; expected "
            f"{list(columns)}"
        )
    order = [lines[0].index(column) for column in columns]
    return [tuple(line[at] or BLANK for at in order) for line in lines[1:] if line]


@lru_cache(maxsize=4096)
def small(seed: int) -> Office:
    """The tiny level's office: four people at one mail domain, two rows a table; copy it before
    use.
    """
    rng = random.Random(seed_of("small office", seed))
    domain = rng.choice(SMALL_DOMAINS)
    people = [f"{name}@{domain}" for name in SMALL_NAMES]
    keys = ("00000001", "00000002")
    emails = [
        (key, "inbox", rng.choice(people), "hello", "2023-11-30 09:00:00", "see you soon")
        for key in keys
    ]
    events = [(key, "lunch", rng.choice(people), "2023-11-30 12:00:00", "30") for key in keys]
    tasks = [
        (key, "plan", person, "Backlog", "2023-12-01", "Design")
        for key, person in zip(keys, rng.sample(people, 2), strict=True)
    ]
    customers = [_small_customer(key, rng.choice(people)) for key in keys]
    visits = [("2023-11-30", "0001", "2", "10", "direct", True)]

    return Office.of(emails, events, tasks, customers, visits, people)


def _small_customer(key: str, person: str) -> Row:
    return (
        key,
        person,
        "ann lee",
        "ann@shop.com",
        BLANK,
        "2023-11-30",
        "Software",
        "Lead",
        "2023-12-20",
        "",
    )
