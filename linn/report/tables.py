"""The cascade table and the recovery table as plain data, for the page and for `linn ls`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from linn.ledger import Interval, best, changes, latest, mean, recovery
from linn.report.numbers import format_score
from linn.types import Score, Split

TEACHER, BEST, LOSS, GAIN = "★", "☆", "▼", "▲"
"""The marks of the table; each stands beside a number, so nothing hangs on colour."""


@dataclass(frozen=True)
class Cell:
    """One stage in one domain."""

    score: Score
    """The ledger row."""
    change: Interval | None
    """Against the checkpoint the stage started from; None where that was not measured."""
    teacher: bool
    """A distillation stage of this run took it as its teacher for the domain."""
    best: bool
    """The best checkpoint so far, chosen on validation."""

    @property
    def lost(self) -> bool:
        """The stage cost the domain more than the interval of the change."""
        return self.change is not None and self.change.high < 0

    @property
    def gained(self) -> bool:
        """The stage gained more than the interval of the change."""
        return self.change is not None and self.change.low > 0

    @property
    def star(self) -> str:
        """`★` teacher, `☆` best so far but nobody's teacher, or nothing."""
        if self.teacher:
            return TEACHER
        return BEST if self.best else ""

    @property
    def flag(self) -> str:
        """`▼0.11` or `▲0.11`: the change, where it lies beyond its interval; or nothing."""
        if self.change is None or not (self.lost or self.gained):
            return ""
        return f"{LOSS if self.lost else GAIN}{format_score(abs(self.change.value))}"

    def __str__(self) -> str:
        parts = (format_score(self.score.value), self.star, self.flag)
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Table:
    """Stages down, domains across."""

    domains: tuple[str, ...]
    """Columns."""
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]
    """(stage, one cell per domain) in run order; None where nothing was measured."""

    def text(self) -> list[list[str]]:
        """Header and rows as strings: `0.84 ★ ▲0.12`; empty where nothing was measured."""
        lines = [["stage", *self.domains]]
        for stage, cells in self.rows:
            lines.append([stage, *("" if cell is None else str(cell) for cell in cells)])
        return lines


def table(
    rows: Sequence[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
    teachers: Mapping[str, Collection[str]] | None = None,
) -> Table:
    """The cascade table.

    `parents`: stage -> where it started, in run order. `teachers`: domain -> stages that taught it.
    Stages without a row in this split and metric are left out. The best mark comes from validation
    accuracy, whatever is shown.
    """
    scores = latest((row for row in rows if row.stage in parents), split, metric)
    domains = tuple(dict.fromkeys(domain for _, domain in scores))
    moves = {
        (change.stage, change.domain): change.by for change in changes(rows, parents, split, metric)
    }
    tops = {domain: best(rows, domain, list(parents)) for domain in domains}
    taught = teachers or {}

    def cell(stage: str, domain: str) -> Cell | None:
        score, top = scores.get((stage, domain)), tops[domain]
        if score is None:
            return None
        return Cell(
            score=score,
            change=moves.get((stage, domain)),
            teacher=stage in taught.get(domain, ()),
            best=top is not None and top.stage == stage,
        )

    lines = [(stage, tuple(cell(stage, domain) for domain in domains)) for stage in parents]

    return Table(domains, tuple((stage, cells) for stage, cells in lines if any(cells)))


@dataclass(frozen=True)
class Recovery:
    """What distillation gave back in one domain."""

    domain: str
    """The domain."""
    start: Score
    """Before distillation."""
    after: Score
    """After it."""
    teacher: Score
    """The checkpoint that taught the domain."""
    share: Interval | None
    """(after − start)/(teacher − start); None where the teacher is within the start's interval."""


def recovery_table(
    rows: Sequence[Score],
    start: str,
    mopd: str,
    teachers: Mapping[str, str],
    split: Split = "test",
    metric: str = "accuracy",
) -> tuple[list[Recovery], Interval | None]:
    """One row per taught domain measured at all three places, and the mean share.

    The mean is over the domains that had something to recover; None where none had.
    """
    scores = latest(rows, split, metric)
    lines = []

    for domain, teacher in teachers.items():
        before = scores.get((start, domain))
        after = scores.get((mopd, domain))
        top = scores.get((teacher, domain))

        if before is not None and after is not None and top is not None:
            share = recovery(before, after, top)
            lines.append(Recovery(domain, before, after, top, share))

    return lines, mean([line.share for line in lines if line.share is not None])
