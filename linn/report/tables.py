"""The cascade table and the recovery table as plain data, for the page and for `linn ls`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from linn.ledger import (
    Change,
    GapShare,
    RewardsOf,
    Taught,
    best,
    changes,
    gap_share,
    latest,
    no_rewards,
    row_at,
    taught_domain,
)
from linn.report.numbers import format_score
from linn.types import Score, Split

TEACHER, BEST, LOSS, GAIN = "★", "☆", "▼", "▲"
"""The marks of the table; each stands beside a number, so nothing hangs on colour."""


@dataclass(frozen=True)
class Cell:
    """One stage in one domain."""

    score: Score
    """The ledger row."""
    change: Change | None
    """Against the checkpoint the stage started from; None where that was not measured."""
    teacher: bool
    """A distillation stage of this run took it as its teacher for the domain."""
    best: bool
    """The best checkpoint so far, chosen on validation."""

    @property
    def lost(self) -> bool:
        """The stage cost the domain something, by the table's own standard."""
        return self.change is not None and self.change.lost

    @property
    def gained(self) -> bool:
        """The stage gained the domain something, by the table's own standard."""
        return self.change is not None and self.change.gained

    @property
    def star(self) -> str:
        """`★` teacher, `☆` best so far but nobody's teacher, or nothing."""
        if self.teacher:
            return TEACHER
        return BEST if self.best else ""

    @property
    def flag(self) -> str:
        """`▼0.11` or `▲0.11`: the change, where it stands out in the table; or nothing."""
        if self.change is None or not self.change.flagged:
            return ""
        return f"{LOSS if self.lost else GAIN}{format_score(abs(self.change.by.value))}"

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

    @property
    def cells(self) -> list[tuple[str, Cell]]:
        """(stage, cell) of everything that was measured."""
        return [(stage, cell) for stage, row in self.rows for cell in row if cell is not None]

    @property
    def changes(self) -> list[Change]:
        """The family of changes within which flags are controlled."""
        return [cell.change for _, cell in self.cells if cell.change is not None]

    @property
    def unmeasured(self) -> list[str]:
        """The stages that stand here without a score, since they were sampled alone."""
        return [stage for stage, row in self.rows if not any(row)]

    @property
    def method(self) -> str:
        """How its changes were compared, in a sentence."""
        by_pairs = sum(change.by.paired for change in self.changes)
        if by_pairs == len(self.changes):
            return "Every change is taken prompt by prompt."
        unpaired = len(self.changes) - by_pairs
        return (
            f"{unpaired} of {len(self.changes)} changes could not be taken prompt by prompt (the "
            "rewards are not in the run folder, or the prompts are others), so real changes may "
            "carry no flag."
        )

    @property
    def failed(self) -> list[tuple[str, Score]]:
        """(stage, score) where failed rollouts left the score."""
        return [(stage, cell.score) for stage, cell in self.cells if cell.score.failed]

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
    rewards: RewardsOf = no_rewards,
) -> Table:
    """The cascade table.

    `parents`: stage -> where it started, in run order. `teachers`: domain -> stages that taught it.
    Stages without a row in this split and metric are left out; but a greedy table shows those that
    were sampled alone, without a score. The best mark comes from validation accuracy, whatever is
    shown.
    """
    # Rows of stages that the recipe no longer has stay in the ledger, and out of the table.
    scores = latest((row for row in rows if row.stage in parents), split, metric)
    domains = tuple(dict.fromkeys(domain for _, domain in scores))
    moves = {}
    for change in changes(rows, parents, split, metric, rewards):
        moves[change.stage, change.domain] = change
    # From validation alone: what is shown here is measured on other prompts.
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

    # What `evaluate.greedy` leaves out is seen to be left out, and not taken for unchanged.
    sampled: set[str] = set()
    if metric == "greedy" and scores:
        sampled = {stage for stage, _ in latest(rows, split, "accuracy")}
    lines = [(stage, tuple(cell(stage, domain) for domain in domains)) for stage in parents]
    shown = [(stage, cells) for stage, cells in lines if any(cells) or stage in sampled]

    return Table(domains, tuple(shown))


def benchmarks(rows: Sequence[Score]) -> list[tuple[str, str]]:
    """(metric, its meaning) of every table of benchmarks: avg@k, a table for each k."""
    metrics = dict.fromkeys(row.metric for row in rows if row.metric.startswith("avg@"))
    return [(metric, f"benchmarks, {metric}") for metric in metrics]


@dataclass(frozen=True)
class Recovery:
    """What a distillation gave back."""

    domains: tuple[tuple[Taught, GapShare], ...]
    """Every taught domain that was measured at all three places, with its own share."""
    pooled: GapShare
    """Over all of them."""

    @property
    def paired(self) -> bool:
        """Whether everything was taken prompt by prompt."""
        return all(taught.gain.paired for taught, _ in self.domains)


def recovery(
    rows: Sequence[Score],
    start: str,
    mopd: str,
    teachers: Mapping[str, str],
    split: Split = "test",
    metric: str = "accuracy",
    rewards: RewardsOf = no_rewards,
) -> Recovery | None:
    """The recovery of a distillation; None where no taught domain was measured at all places.

    `teachers`: domain -> checkpoint, chosen on validation. None as well where the metric is missing
    at some places (`places_without`).
    """
    # Pooled over a part of the domains, the number would hang on which part that is.
    if places_without(rows, start, mopd, teachers, split, metric):
        return None
    # Every taught domain counts, also one in which nothing was to be gained.
    taught = []
    for domain, teacher in teachers.items():
        before = row_at(rows, start, domain, split, metric)
        after = row_at(rows, mopd, domain, split, metric)
        top = row_at(rows, teacher, domain, split, metric)
        if before is not None and after is not None and top is not None:
            taught.append(taught_domain(teacher, before, after, top, rewards))

    if not taught:
        return None
    domains = tuple((one, gap_share([one])) for one in taught)
    return Recovery(domains, pooled=gap_share(taught))


def places_without(
    rows: Sequence[Score],
    start: str,
    mopd: str,
    teachers: Mapping[str, str],
    split: Split = "test",
    metric: str = "greedy",
) -> list[str]:
    """The checkpoints of a recovery that were sampled, but not measured by this metric.

    `evaluate.greedy` left them out, or they were kept within a stage.
    """
    found: dict[str, None] = {}
    for domain, teacher in teachers.items():
        for place in (start, teacher, mopd):
            sampled = row_at(rows, place, domain, split, "accuracy")
            if sampled is not None and row_at(rows, place, domain, split, metric) is None:
                found[place] = None
    return list(found)
