"""What every stage gave and took, against the checkpoint it started from, and which is certain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from linn.ledger.file import latest
from linn.ledger.intervals import Difference, difference, discoveries, paired
from linn.ledger.rewards import RewardsOf, no_rewards
from linn.types import Score, Split


@dataclass(frozen=True)
class Change:
    """What one stage did to one domain, against the checkpoint it started from."""

    stage: str
    """The stage."""
    domain: str
    """The domain."""
    before: Score
    """The parent's row."""
    after: Score
    """The stage's row."""
    by: Difference
    """After minus before."""
    flagged: bool = False
    """It stands out among all changes of the run's tables, at most 5 % of whose flags are false."""

    @property
    def lost(self) -> bool:
        """The stage cost the domain something."""
        return self.flagged and self.by.value < 0

    @property
    def gained(self) -> bool:
        """The stage gained the domain something."""
        return self.flagged and self.by.value > 0


def changes(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
    rewards: RewardsOf = no_rewards,
) -> list[Change]:
    """Every stage's change of every domain measured before and after it: a metric's table.

    `parents`: stage -> where it started, in run order. With `rewards` each is taken prompt by
    prompt (`paired`), else from the rows' own intervals (`difference`). Flags are controlled over
    the changes of all metrics on the split together: a run's tables are read together.
    """
    rows = list(rows)
    metrics = dict.fromkeys([metric, *(row.metric for row in rows if row.split == split)])
    family = []
    for each in metrics:
        family += _table(rows, parents, split, each, rewards)

    flags = discoveries([change.by.p for change in family])
    flagged = [replace(change, flagged=flag) for change, flag in zip(family, flags, strict=True)]
    return [change for change in flagged if change.after.metric == metric]


def _table(
    rows: Sequence[Score],
    parents: Mapping[str, str | None],
    split: Split,
    metric: str,
    rewards: RewardsOf,
) -> list[Change]:
    """The changes of one metric, without flags."""
    # A stage is compared with where it started, which need not be the stage before it.
    last = latest(rows, split, metric)
    domains = list(dict.fromkeys(domain for _, domain in last))
    table = []
    for stage, parent in parents.items():
        for domain in domains:
            before = last.get((parent or "", domain))
            after = last.get((stage, domain))
            if before is None or after is None:
                continue  # not evaluated, or the run's own start
            by = compared(before, after, rewards)
            table.append(Change(stage=stage, domain=domain, before=before, after=after, by=by))
    return table


def compared(before: Score, after: Score, rewards: RewardsOf) -> Difference:
    """After minus before: prompt by prompt where both rows' rewards are there."""
    return paired(rewards(before), rewards(after)) or difference(before, after)


def regressions(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
    rewards: RewardsOf = no_rewards,
) -> list[Change]:
    """The flagged losses of the table."""
    return [change for change in changes(rows, parents, split, metric, rewards) if change.lost]


def loss_line(change: Change) -> str:
    """A flagged loss in one line: `if-rl cost math 41.0% → 35.0% (-6.0% [-11.0%, -1.0%], n 300)`.

    n: the prompts that both answered.
    """
    before, after, by = change.before, change.after, change.by
    prompts = f"n {by.pairs}"
    if not by.paired:
        prompts = f"n {min(before.n, after.n)}, not prompt by prompt"
    return (
        f"{change.stage} cost {change.domain} {before.value:.1%} → {after.value:.1%} "
        f"({by.value:+.1%} [{by.low:+.1%}, {by.high:+.1%}], {prompts})"
    )
