"""What became of a file's rows: bad ones by reason, others' by agent; each row counted once however often the file is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from linn.data.rows import BadRow
from linn.errors import UserError

_WHERE = re.compile(r"^(?:\w+ )?row \d+(?: \(domain \w+\))?: ")
_CUT = re.compile(r" is | are | must | needs?\b| has |: |; |, found ")


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
        """Rows passed over without fault: another domain's, or of an agent that no domain knows."""
        self._seen = bytearray()

    def new(self, line: int) -> bool:
        """Whether this line was not counted yet; it is from now on."""
        place, bit = divmod(line, 8)
        if place >= len(self._seen):
            self._seen.extend(bytes(place + 1 - len(self._seen) + 4096))
        fresh = not self._seen[place] >> bit & 1
        self._seen[place] |= 1 << bit
        return fresh

    def add_bad(self, reason: str, told: str) -> None:
        """Count a bad row; `told` names file, line and field."""
        self.bad[reason] = self.bad.get(reason, 0) + 1
        self.first.setdefault(reason, told)

    def add_other(self, whose: str) -> None:
        """Count a row that is not for this reader."""
        self.others[whose] = self.others.get(whose, 0) + 1

    def record(self) -> dict[str, Any]:
        """The counts as JSON."""
        bad = {
            reason: {"rows": count, "first": self.first[reason]}
            for reason, count in by_count(self.bad)
        }
        return {"good": self.good, "bad": bad, "others": dict(by_count(self.others))}

    def restore(self, record: Mapping[str, Any]) -> None:
        """Take the counts that `record` gave."""
        self.good, self.others = int(record["good"]), dict(record["others"])
        self.bad = {reason: int(entry["rows"]) for reason, entry in record["bad"].items()}
        self.first = {reason: str(entry["first"]) for reason, entry in record["bad"].items()}

    def told(self) -> list[str]:
        """A line a reason: how many, and the first of them."""
        return [
            f"{count:,} {reason}, the first: {self.first[reason]}"
            for reason, count in by_count(self.bad)
        ]

    def __str__(self) -> str:
        parts = [f"{self.good:,} good"]
        if self.bad:
            parts.append(
                f"{sum(self.bad.values()):,} bad and skipped ("
                + ", ".join(f"{c:,} {r}" for r, c in by_count(self.bad))
                + ")"
            )
        return ", ".join([*parts, *(f"{c:,} {whose}" for whose, c in by_count(self.others))])


def by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """Entries, the most frequent first."""
    return sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))


def fault(error: UserError) -> tuple[str, str]:
    """(what is wrong, reason): the message without its own row number, and a short name that rows with the same fault share."""
    message = _WHERE.sub("", str(error))
    if isinstance(error, BadRow):
        return message, error.reason
    return message, re.sub(r"\d+", "N", _CUT.split(message, maxsplit=1)[0])[:80]
