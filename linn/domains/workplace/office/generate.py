"""linn's own offices: tables drawn from a seed, with the columns and value ranges of the public CSV
files.
"""

from __future__ import annotations

import random
from datetime import date, timedelta

from linn.domains.workplace.office.state import BOARDS, LISTS, PRODUCTS, SOURCES, STATUSES, Office
from linn.domains.workplace.office.table import BLANK, Row
from linn.types import seed_of

TODAY = date(2023, 11, 30)
"""The day of the office's clock, a Thursday."""
STARTS = ("09:00", "10:30", "12:00", "13:30", "15:00", "16:30")
"""When meetings begin: none is longer than 90 minutes, so no two overlap."""
TOPICS = (
    "annual budget/holiday rota/pricing model/supplier contract/office move/security "
    "audit/onboarding guide/sales forecast/brand survey/"
    "travel policy/warehouse lease/press kit/partner summit/mobile release/data backup/hiring "
    "plan/customer newsletter/charity run/"
    "printer order/training week/cloud invoice/logo contest/quality report/parking "
    "permits/shipping delays/trade fair"
).split("/")
"""What emails and meetings are about; no topic's words are all found in another."""
PARTS = (
    "login page/search bar/payment gateway/image cache/export button/user profile/dark theme/push "
    "messages/order history/help centre/"
    "price filter/sign-up form/report builder/map view/chat widget/access log/upload queue/tag "
    "editor"
).split("/")
"""What tasks are about."""
# No first name is part of another, of a last name or of a company: a first name finds one address.
_FIRST = (
    "adele bruno chioma dmitri elif farid gita hugo imani jonas kamala leon mirela nadia oskar "
    "pavel quentin rosa sven tomas ulrike "
    "viktor wanda ximena yusuf zelda bjorn carmen dario esther fiona goran helga igor jamal keiko "
    "lorenzo mateo niamh otis priya"
).split()
_LAST = (
    "abbott brandt costa dietz evans frost grant hansen ivanov jensen kovac lund meyer novak okoro "
    "pereira quist rossi schulz tanaka "
    "urban vidal weber yilmaz zhou barros clarke dubois egger fuchs gomes huber"
).split()
_CLIENT_FIRST = (
    "alex blake casey drew eden flynn gray harper indy jules kit lane morgan noel parker quinn "
    "reese sage taylor val"
).split()
_CLIENT_LAST = (
    "adams baker cooper dixon ellis foster green hughes irwin james knight lopez moore nash owens "
    "price reed shaw turner wood"
).split()
_CLIENTS = (
    "nanolabs skyworks greentech bluefin ironleaf sunpeak redwood clearpath northgate easthill"
).split()
_COMPANIES = (
    "linn.example",
    "fall.example",
    "weir.example",
    "beck.example",
    "tarn.example",
    "burn.example",
    "loch.example",
    "ford.example",
)
_SUBJECTS = (
    "Update on the {}",
    "Question about the {}",
    "Next steps for the {}",
    "Delay in the {}",
    "Summary of the {}",
)
_BODIES = (
    "Hi,\n\nthe {} is nearly done; two points are left.\n\n{}",
    "Hello,\n\ncould you look at the {} before the end of the week?\n\nThanks\n{}",
    "Hi,\n\nI have put my notes on the {} on the shared drive.\n\nBest\n{}",
    "Good day,\n\nwho takes care of the {} while I am away?\n\n{}",
)
_MEETINGS = ("{} review", "{} sync", "{} planning", "{} workshop")
_VERBS = ("Write tests for", "Fix layout of", "Speed up", "Document", "Redesign", "Refactor")
_NOTES = (
    "Had a call.",
    "Saw the demo.",
    "Asked for a quote.",
    "On holiday.",
    "Sent the contract.",
    "Met at the fair.",
)


def generate(seed: int) -> Office:
    """An office as a function of `seed`: 24 colleagues, 500 emails, 300 events, 300 tasks, 200
    customers, 1,000 visits.
    """
    rng = random.Random(seed_of("office", seed))
    company = rng.choice(_COMPANIES)
    lasts = rng.sample(_LAST, 24)
    people = sorted(
        f"{first}.{last}@{company}"
        for first, last in zip(rng.sample(_FIRST, 24), lasts, strict=True)
    )

    return Office.of(
        _emails(rng, people),
        _events(rng, people),
        _tasks(rng, people),
        _customers(rng, people),
        _visits(rng),
        people,
    )


def _ids(rng: random.Random, count: int) -> list[str]:
    return [f"{number:08d}" for number in rng.sample(range(count), count)]


def _day(rng: random.Random, low: int, high: int) -> str:
    return str(TODAY + timedelta(days=rng.randint(low, high)))


def _emails(rng: random.Random, people: list[str]) -> list[Row]:
    """No two in the same second."""
    seconds = sorted(rng.sample(range(60 * 36_000), 500))
    rows: list[Row] = []

    for key, moment in zip(_ids(rng, 500), seconds, strict=True):
        day, rest = divmod(moment, 36_000)
        minutes, second = divmod(rest, 60)
        # Office hours: the ten hours from eight on.
        clock = f"{8 + minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"
        sent = f"{TODAY - timedelta(days=60 - day)} {clock}"
        person, topic = rng.choice(people), rng.choice(TOPICS)
        where = rng.choice(("inbox", "inbox", "outbox"))
        signed = "Sam" if where == "outbox" else person.split(".")[0].title()
        rows.append(
            (
                key,
                where,
                person,
                rng.choice(_SUBJECTS).format(topic),
                sent,
                rng.choice(_BODIES).format(topic, signed),
            )
        )

    return rows


def _events(rng: random.Random, people: list[str]) -> list[Row]:
    """Working days only; no two at the same time."""
    days = [
        day
        for day in (TODAY + timedelta(days=shift) for shift in range(-60, 32))
        if day.weekday() < 5
    ]
    times = sorted(rng.sample([f"{day} {start}:00" for day in days for start in STARTS], 300))
    return [
        (
            key,
            rng.choice(_MEETINGS).format(rng.choice(TOPICS)),
            rng.choice(people),
            time,
            rng.choice(("30", "45", "60", "90")),
        )
        for key, time in zip(_ids(rng, 300), times, strict=True)
    ]


def _tasks(rng: random.Random, people: list[str]) -> list[Row]:
    return [
        (
            key,
            f"{rng.choice(_VERBS)} {rng.choice(PARTS)}",
            rng.choice(people),
            rng.choice(LISTS),
            _day(rng, -20, 20),
            rng.choice(BOARDS),
        )
        for key in _ids(rng, 300)
    ]


def _customers(rng: random.Random, people: list[str]) -> list[Row]:
    """No two of the same name."""
    rows: list[Row] = []
    names = rng.sample([(first, last) for first in _CLIENT_FIRST for last in _CLIENT_LAST], 200)

    for key, (first, last) in zip(_ids(rng, 200), names, strict=True):
        phone = (
            f"{rng.randint(100, 999)}-{rng.randint(1000, 9999)}" if rng.random() < 0.5 else BLANK
        )
        note = f"{_day(rng, -60, 0)}: {rng.choice(_NOTES)}"
        contact, due = f"{_day(rng, -60, 0)} 23:59:00", f"{_day(rng, 1, 30)} 23:59:00"
        client = f"{first}.{last}@{rng.choice(_CLIENTS)}.example"
        interest, status = rng.choice(PRODUCTS), rng.choice(STATUSES)
        rows.append(
            (
                key,
                rng.choice(people),
                f"{first} {last}".title(),
                client,
                phone,
                contact,
                interest,
                status,
                due,
                note,
            )
        )

    return rows


def _visits(rng: random.Random) -> list[Row]:
    """The visitors' numbers are few enough that some come back."""
    return [
        (
            _day(rng, -60, 0),
            f"{rng.randint(0, 1999):04d}",
            str(rng.randint(1, 20)),
            str(rng.randint(1, 60)),
            rng.choice(SOURCES),
            rng.random() < 0.5,
        )
        for _ in range(1000)
    ]
