"""What became of a file's rows: bad ones by reason, others' by agent.

Each row is counted once, however often the file is read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from linn.data.rows import BadRow
from linn.errors import UserError

_WHERE = re.compile(r"^(?:\w+ )?row \d+(?: \(domain \w+\))?: ")
"""The row's number, which graders put before a message; lines are named by who reads the file."""
_CUT = re.compile(r" is | are | must | needs?\b| has |: |; |, found ")
"""What comes before the first of these names a fault: mostly the field."""


class Tally:
    """Counts of one file's rows under one reading (a domain's, or SFT's)."""

    def __init__(self) -> None:
        self.good = 0
        """Rows that can be used."""
        self.bad: dict[str, int] = {}
        """Rows that cannot, by reason."""
        self.first: dict[str, str] = {}
        """The first of each reason: file, line and what is wrong."""
        self.others: dict[str, int] = {}
        """Rows passed over without fault: another domain's, or of an agent no domain knows."""
        self.notes: dict[str, int] = {}
        """Rows that can be used, and of which a person should know something."""
        self._seen = bytearray()
        """A bit per line of the file: whether it was counted."""

    def new(self, line: int) -> bool:
        """Whether this line was not counted yet; it is from now on."""
        place, bit = divmod(line, 8)
        missing = place + 1 - len(self._seen)
        if missing > 0:
            self._seen.extend(bytes(missing + 4096))
        fresh = not self._seen[place] >> bit & 1
        self._seen[place] |= 1 << bit
        return fresh

    def add_bad(self, reason: str, message: str) -> None:
        """Count a bad row; `message` names file, line and field."""
        self.bad[reason] = self.bad.get(reason, 0) + 1
        self.first.setdefault(reason, message)

    def add_other(self, owner: str) -> None:
        """Count a row that is not for this reader; `owner`: whose it is, in words."""
        self.others[owner] = self.others.get(owner, 0) + 1

    def note(self, what: str) -> None:
        """Count a good row of which a person should know `what`."""
        self.notes[what] = self.notes.get(what, 0) + 1

    def record(self) -> dict[str, Any]:
        """The counts as JSON."""
        bad = {}
        for reason, count in by_count(self.bad):
            bad[reason] = {"rows": count, "first": self.first[reason]}
        record = {"good": self.good, "bad": bad, "others": dict(by_count(self.others))}
        if self.notes:
            record["notes"] = dict(by_count(self.notes))
        return record

    def restore(self, record: Mapping[str, Any]) -> None:
        """Take the counts that `record` gave."""
        self.good = int(record["good"])
        self.others = dict(record["others"])
        self.notes = dict(record.get("notes", {}))
        self.bad = {reason: int(entry["rows"]) for reason, entry in record["bad"].items()}
        self.first = {reason: str(entry["first"]) for reason, entry in record["bad"].items()}

    def told(self) -> list[str]:
        """A line per reason: how many rows, and the first of them."""
        lines = []
        for reason, count in by_count(self.bad):
            lines.append(f"{count:,} {reason}, the first: {self.first[reason]}")
        return lines

    def __str__(self) -> str:
        parts = [f"{self.good:,} good"]
        if self.bad:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in by_count(self.bad))
            parts.append(f"{sum(self.bad.values()):,} bad and skipped ({reasons})")
        for owner, count in by_count(self.others):
            parts.append(f"{count:,} {owner}")
        for what, count in by_count(self.notes):
            parts.append(f"{count:,} {what}")
        return ", ".join(parts)


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Entries, the most frequent first."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def fault(error: UserError) -> tuple[str, str]:
    """(message without its own row number, a short name that rows with the same fault share)."""
    message = _WHERE.sub("", str(error))
    if isinstance(error, BadRow):
        return message, error.reason
    field = _CUT.split(message, maxsplit=1)[0]
    return message, re.sub(r"\d+", "N", field)[:80]
