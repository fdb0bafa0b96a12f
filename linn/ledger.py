"""The ledger: what every checkpoint scores in every domain, with intervals.

And what follows from it: teachers, regressions, recovery. Everything here is a function of its
arguments to the byte: no clock, no global randomness, sums by `math.fsum`.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from linn import files
from linn.errors import UserError
from linn.types import Score, Split, seed_of

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

RESAMPLES = 2000
"""Draws of the percentile bootstrap.

The ends of its interval are then steady to about a twentieth of its width.
"""

# ---------------------------------------------------------------- intervals


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share.

    Honest at 0, at n and for small n, where the normal interval is not.
    """
    assert n > 0 and 0 <= successes <= n, (successes, n)
    # Both ends solve (p - share)² = Z² p (1 - p) / n for p.
    share = successes / n
    square = Z * Z
    scale = 1 + square / n
    variance = share * (1 - share) / n + square / (4 * n * n)
    centre = (share + square / (2 * n)) / scale
    half = Z * math.sqrt(variance) / scale

    # Rounding must not push the estimate itself outside.
    low = max(0.0, min(share, centre - half))
    high = min(1.0, max(share, centre + half))
    return low, high


def bootstrap(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean, widened to hold the mean itself.

    The same for the same `seed`.
    """
    assert values, "bootstrap of no values"
    rng = random.Random(seed)
    n = len(values)
    means = []
    for _ in range(RESAMPLES):
        resample = rng.choices(values, k=n)
        means.append(math.fsum(resample) / n)
    means.sort()

    tail = round(0.025 * RESAMPLES)
    mean = math.fsum(values) / n
    return min(mean, means[tail]), max(mean, means[-1 - tail])


def score(
    stage: str, step: int, domain: str, split: Split, metric: str, rewards: Sequence[float]
) -> Score:
    """The ledger row of one evaluation, `rewards` holding one finite number per prompt.

    Wilson where all rewards are 0 or 1, else bootstrap. Equal graded rewards within [0, 1] take
    Wilson too: resampling a constant has no width, and n prompts never prove certainty (a share
    bounds the variance of any reward in [0, 1] from above).
    """
    finite = all(math.isfinite(reward) for reward in rewards)
    assert rewards and finite, (stage, domain, len(rewards))
    n = len(rewards)
    total = math.fsum(rewards)
    is_constant = min(rewards) == max(rewards) and 0 <= rewards[0] <= 1
    if is_constant or all(reward in (0, 1) for reward in rewards):
        low, high = wilson(min(total, n), n)
    else:
        low, high = bootstrap(rewards, seed_of("bootstrap", stage, step, domain, split, metric))
    return Score(
        stage=stage,
        step=step,
        domain=domain,
        split=split,
        metric=metric,
        value=total / n,
        n=n,
        low=low,
        high=high,
    )


# ---------------------------------------------------------------- the file


class Ledger:
    """`ledger.jsonl`: one row per (stage, step, domain, split, metric).

    Rows keep the order of their first appearance.
    """

    def __init__(self, path: Path) -> None:
        """`path` need not exist yet; an absent file is an empty ledger."""
        self.path = path

    def read(self) -> list[Score]:
        """Every row. Raises UserError naming file and line for a row that cannot be read."""
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return []
        rows: dict[tuple[Any, ...], Score] = {}
        lines = raw.split(b"\n")
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = _parse(line)
            except (ValueError, RecursionError) as error:
                fault = f"is not a ledger row ({error})"
                # Every line we write ends in a newline: what comes after the last was cut short.
                if number == len(lines):
                    fault = "is cut short, as by a crash or a full disk"
                raise UserError(
                    f"{self.path}: line {number} {fault}; repair or delete that line "
                    "(a deleted row has to be measured again). Nothing was changed"
                ) from None
            rows[_key(row)] = row
        return list(rows.values())

    def upsert(self, rows: Iterable[Score]) -> None:
        """Add rows, replacing those of the same key in place.

        The file is replaced whole or left alone.
        """
        merged = {_key(row): row for row in self.read()}
        for row in rows:
            merged[_key(row)] = row
        self._write(merged.values())

    def drop(self, stages: Iterable[str]) -> None:
        """Forget every row of these stages.

        A stage done anew may end at another step, and its old rows would outlive it.
        """
        dropped = set(stages)
        self._write(row for row in self.read() if row.stage not in dropped)

    def drop_after(self, stage: str, step: int) -> None:
        """Forget the rows of a stage's later steps; the file is left alone where there are none."""
        rows = self.read()
        kept = [row for row in rows if row.stage != stage or row.step <= step]
        if len(kept) < len(rows):
            self._write(kept)

    def _write(self, rows: Iterable[Score]) -> None:
        text = "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows)
        files.write_text(self.path, text)


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    "stage": str,
    "step": int,
    "domain": str,
    "split": str,
    "metric": str,
    "value": (int, float),
    "n": int,
    "low": (int, float),
    "high": (int, float),
}


def _parse(line: bytes) -> Score:
    """One row; ValueError says what is wrong with it."""
    data = json.loads(line.decode("utf-8"))
    names = list(_KINDS)
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise ValueError(f"its keys must be exactly {', '.join(names)}")

    for name, kind in _KINDS.items():
        value = data[name]
        # For Python, True is a whole number and NaN a number.
        fits = isinstance(value, kind) and not isinstance(value, bool)
        if fits and isinstance(value, float):
            fits = math.isfinite(value)
        if not fits:
            raise ValueError(f"{name} is {value!r}")

    if data["split"] not in ("train", "validation", "test"):
        raise ValueError(f"split is {data['split']!r}; allowed: train, validation, test")
    return Score(**data)


def _key(row: Score) -> tuple[Any, ...]:
    return row.stage, row.step, row.domain, row.split, row.metric


# ---------------------------------------------------------------- what follows from the rows


def latest(rows: Iterable[Score], split: str, metric: str) -> dict[tuple[str, str], Score]:
    """The row of each (stage, domain) at the stage's highest measured step.

    That is the checkpoint that the stage hands on.
    """
    last: dict[tuple[str, str], Score] = {}
    for row in rows:
        if row.split != split or row.metric != metric:
            continue

        # Curves put rows of earlier steps into the ledger, too.
        key = (row.stage, row.domain)
        if key not in last or row.step >= last[key].step:
            last[key] = row
    return last


def best(
    rows: Iterable[Score],
    domain: str,
    stages: Sequence[str],
    split: Split = "validation",
    metric: str = "accuracy",
) -> Score | None:
    """The best checkpoint of a domain among `stages` (in run order), each taken at its last step.

    None where nothing was measured. The rule: find the highest value; return the earliest stage
    whose value is not below that row's `low`.

    Why that row's own interval and not the wider one of the difference of two independent rows:
    checkpoints answer the same prompts, so their errors move together, and at a correlation of one
    half the paired difference has just the interval of a single row (6 points at n = 250). And the
    two mistakes differ in cost: a later checkpoint that is merely equal teaches as well, an earlier
    one that is truly worse teaches less. So noise inside the interval cannot move a teacher away
    from the earliest, and a gain beyond it always wins.
    """
    # In run order, not in the file's: the rule prefers the earlier stage.
    last = latest(rows, split, metric)
    candidates = [last[stage, domain] for stage in stages if (stage, domain) in last]
    if not candidates:
        return None
    top = max(candidates, key=lambda row: row.value)
    return next(row for row in candidates if row.value >= top.low)


def teachers(
    rows: Sequence[Score], domains: Iterable[str], stages: Sequence[str], metric: str = "accuracy"
) -> dict[str, str]:
    """The stage whose final checkpoint teaches each domain, chosen on validation.

    Domains without a row are left out.
    """
    rows_by_domain = {
        domain: best(rows, domain, stages, "validation", metric) for domain in domains
    }
    return {domain: row.stage for domain, row in rows_by_domain.items() if row is not None}


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    """The estimate."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


def difference(before: Score, after: Score) -> Interval:
    """`after` minus `before`, by Newcombe's square-and-add of the two rows' own intervals.

    So it serves shares and graded rewards alike. It takes the two as independent; the same prompts
    behind both make the true interval narrower, so a flag errs on the quiet side.
    """
    change = after.value - before.value
    # Each end takes the ends of both rows that move the difference that way.
    low = change - math.hypot(after.value - after.low, before.high - before.value)
    high = change + math.hypot(after.high - after.value, before.value - before.low)
    return Interval(change, low, high)


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
    by: Interval
    """After minus before."""


def changes(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
) -> list[Change]:
    """Every stage's change of every domain measured before and after it.

    `parents`: stage -> where it started, in run order.
    """
    # A stage is compared with where it started, which need not be the stage before it.
    last = latest(rows, split, metric)
    domains = list(dict.fromkeys(domain for _, domain in last))
    result = []
    for stage, parent in parents.items():
        for domain in domains:
            before = last.get((parent or "", domain))
            after = last.get((stage, domain))
            if before is None or after is None:
                continue  # not evaluated, or the run's own start
            by = difference(before, after)
            result.append(Change(stage=stage, domain=domain, before=before, after=after, by=by))
    return result


def regressions(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
) -> list[Change]:
    """The changes whose whole interval is below zero: a stage cost a domain something."""
    return [change for change in changes(rows, parents, split, metric) if change.by.high < 0]


def gains(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
) -> list[Change]:
    """The changes whose whole interval is above zero."""
    return [change for change in changes(rows, parents, split, metric) if change.by.low > 0]


def recovery(start: Score, mopd: Score, teacher: Score) -> Interval | None:
    """(MOPD − start)/(teacher − start) of one domain.

    None where the teacher is not above the start's interval: nothing to recover. The interval
    carries all three rows' own intervals to first order (square-and-add with each row's end that
    moves the ratio that way).
    """
    if teacher.value <= start.high:
        return None
    gap = teacher.value - start.value
    ratio = (mopd.value - start.value) / gap

    # A higher start lowers the ratio while the ratio is below 1, a higher teacher while it is
    # above 0; beyond these points they move it the other way.
    below = math.hypot(
        mopd.value - mopd.low,
        (ratio - 1) * _margin(start, upper=ratio < 1),
        ratio * _margin(teacher, upper=ratio > 0),
    )
    above = math.hypot(
        mopd.high - mopd.value,
        (ratio - 1) * _margin(start, upper=ratio >= 1),
        ratio * _margin(teacher, upper=ratio <= 0),
    )
    return Interval(ratio, low=ratio - below / gap, high=ratio + above / gap)


def _margin(row: Score, upper: bool) -> float:
    """From a row's value to one end of its interval."""
    return row.high - row.value if upper else row.value - row.low


def mean(parts: Sequence[Interval]) -> Interval | None:
    """The mean of independent estimates with its interval; None of none."""
    if not parts:
        return None
    k = len(parts)
    value = math.fsum(part.value for part in parts) / k
    below = math.hypot(*(part.value - part.low for part in parts)) / k
    above = math.hypot(*(part.high - part.value for part in parts)) / k
    return Interval(value, low=value - below, high=value + above)
