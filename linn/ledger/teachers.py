"""Who teaches a domain: the best checkpoint on validation (paper §4.4), with a rule for ties."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from linn.ledger.changes import compared
from linn.ledger.file import latest
from linn.ledger.intervals import Difference
from linn.ledger.rewards import RewardsOf, no_rewards
from linn.types import Score, Split


def best(
    rows: Iterable[Score],
    domain: str,
    stages: Sequence[str],
    split: Split = "validation",
    metric: str = "accuracy",
) -> Score | None:
    """The highest row of a domain among `stages` (in run order), each taken at its last step.

    The earliest of equal ones; None where nothing was measured.
    """
    last = latest(rows, split, metric)
    candidates = [last[stage, domain] for stage in stages if (stage, domain) in last]
    return max(candidates, key=lambda row: row.value, default=None)


# ---------------------------------------------------------------- places


def place_of(row: Score, last_step: int) -> str:
    """`sft` of a stage's final checkpoint, `sft:40` of one kept before."""
    return row.stage if row.step == last_step else f"{row.stage}:{row.step}"


def row_at(
    rows: Iterable[Score], place: str, domain: str, split: Split, metric: str
) -> Score | None:
    """The row of a checkpoint named by `place_of`."""
    stage, _, step = place.partition(":")
    of_stage = [row for row in rows if row.stage == stage and row.domain == domain]
    if step:
        of_stage = [row for row in of_stage if str(row.step) == step]
    return latest(of_stage, split, metric).get((stage, domain))


# ---------------------------------------------------------------- teachers


@dataclass(frozen=True)
class Choice:
    """Which checkpoint teaches a domain, and why."""

    row: Score
    """The teacher's row, on validation."""
    top: Score
    """The highest row: the teacher's own, unless a tie was decided otherwise."""
    why: Literal["best", "tie", "student"]
    """It is the highest; it ties with the highest and is of the student's own line; nobody is
    beyond a tie with the student's start, which therefore teaches."""


def teacher_of(
    rows: Sequence[Score],
    domain: str,
    line: Sequence[str],
    is_there: Callable[[Score], bool],
    rewards: RewardsOf = no_rewards,
) -> Choice | None:
    """The teacher of a domain among all measured checkpoints that are there.

    The rule: the highest on validation. Checkpoints that tie with it lose to the student's own
    start, then to the student's own line: a teacher of another branch speaks less like the
    student and is worth that only where it is better. A tie is a paired difference below its own
    standard error (the one-standard-error rule of Breiman et al. 1984). A stricter test would keep
    a teacher that is truly worse in most cases where prompts are few (docs/statistics.md).

    `line`: the stage the student starts from, then its ancestors. None: nothing was measured.
    """
    candidates = []
    for row in rows:
        measured = (row.domain, row.split, row.metric) == (domain, "validation", "accuracy")
        if measured and is_there(row):
            candidates.append(row)
    if not candidates:
        return None

    top = max(candidates, key=lambda row: row.value)
    start = latest(rows, "validation", "accuracy").get((line[0], domain)) if line else None
    if start is None or start not in candidates:
        return Choice(top, top, "best")
    if is_tie(compared(start, top, rewards)):
        return Choice(start, top, "student")

    # Of the student's own ancestors, only those count that are better than the student itself.
    own = []
    for row in candidates:
        if row.stage not in line or is_tie(compared(start, row, rewards)):
            continue
        if is_tie(compared(row, top, rewards)):
            own.append(row)
    if not own:
        return Choice(top, top, "best")
    chosen = max(own, key=lambda row: (row.value, -line.index(row.stage)))
    return Choice(chosen, top, "best" if chosen == top else "tie")


def is_tie(by: Difference) -> bool:
    """Whether a checkpoint is ahead of another by less than the standard error of that."""
    return by.value <= by.error
