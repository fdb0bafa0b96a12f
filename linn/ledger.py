"""The ledger: what every checkpoint scores in every domain, with intervals; and what follows from it: teachers, regressions, recovery.

Everything here is a function of its arguments to the byte: no clock, no global randomness, sums by `math.fsum`.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from linn.errors import UserError
from linn.types import Score, Split, seed_of

Z = 1.959963984540054
"""Two-sided 95 % quantile of the normal distribution."""

RESAMPLES = 2000
"""Draws of the percentile bootstrap; the ends of its interval are then steady to about a twentieth of its width."""

# ---------------------------------------------------------------- intervals


def wilson(successes: float, n: int) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share; honest at 0, at n and for small n, where the normal interval is not."""
    assert n > 0 and 0 <= successes <= n, (successes, n)
    share, square = successes / n, Z * Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = Z * math.sqrt(share * (1 - share) / n + square / (4 * n * n)) / (1 + square / n)
    # Rounding must not push the estimate itself outside.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap(values: Sequence[float], seed: int) -> tuple[float, float]:
    """The 95 % percentile bootstrap interval of the mean, widened to hold the mean itself; the same for the same `seed`."""
    assert values, "bootstrap of no values"
    rng, n = random.Random(seed), len(values)
    means = sorted(math.fsum(rng.choices(values, k=n)) / n for _ in range(RESAMPLES))
    tail, mean = round(0.025 * RESAMPLES), math.fsum(values) / n
    return min(mean, means[tail]), max(mean, means[-1 - tail])


def score(
    stage: str, step: int, domain: str, split: Split, metric: str, rewards: Sequence[float]
) -> Score:
    """The ledger row of one evaluation, `rewards` holding one finite number a prompt.

    Wilson where all rewards are 0 or 1, else bootstrap. Equal graded rewards within [0, 1] take Wilson too: resampling a constant
    has no width, and n prompts never prove certainty (a share bounds the variance of any reward in [0, 1] from above).
    """
    assert rewards and all(math.isfinite(reward) for reward in rewards), (
        stage,
        domain,
        len(rewards),
    )
    n, total = len(rewards), math.fsum(rewards)
    constant = min(rewards) == max(rewards) and 0 <= rewards[0] <= 1
    if constant or all(reward in (0, 1) for reward in rewards):
        low, high = wilson(min(total, n), n)
    else:
        low, high = bootstrap(rewards, seed_of("bootstrap", stage, step, domain, split, metric))
    return Score(stage, step, domain, split, metric, total / n, n, low, high)


# ---------------------------------------------------------------- the file


class Ledger:
    """`ledger.jsonl`: one row a (stage, step, domain, split, metric), in the order of first appearance."""

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
                # Every line we write ends in a newline: a broken piece after the last one was cut short.
                what = (
                    "is cut short, as by a crash or a full disk"
                    if number == len(lines)
                    else f"is not a ledger row ({error})"
                )
                todo = "repair or delete that line (a deleted row has to be measured again). Nothing was changed"
                raise UserError(f"{self.path}: line {number} {what}; {todo}") from None
            rows[_key(row)] = row
        return list(rows.values())

    def upsert(self, rows: Iterable[Score]) -> None:
        """Add rows, replacing those of the same key in place. The file is replaced whole or left alone."""
        merged = {_key(row): row for row in self.read()}
        for row in rows:
            merged[_key(row)] = row
        self._write(merged.values())

    def drop(self, stages: Iterable[str]) -> None:
        """Forget every row of these stages: a stage done anew may end at another step, and its old rows would outlive it."""
        gone = set(stages)
        self._write(row for row in self.read() if row.stage not in gone)

    def _write(self, rows: Iterable[Score]) -> None:
        text = "".join(json.dumps(asdict(row), allow_nan=False) + "\n" for row in rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(self.path.name + ".part")
        with part.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.path)


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
    names = [field.name for field in fields(Score)]
    if not isinstance(data, dict) or sorted(data) != sorted(names):
        raise ValueError(f"its keys must be exactly {', '.join(names)}")
    for name, kind in _KINDS.items():
        value = data[name]
        if (
            isinstance(value, bool)
            or not isinstance(value, kind)
            or (isinstance(value, float) and not math.isfinite(value))
        ):
            raise ValueError(f"{name} is {value!r}")
    if data["split"] not in ("train", "validation", "test"):
        raise ValueError(f"split is {data['split']!r}; allowed: train, validation, test")
    return Score(**data)


def _key(row: Score) -> tuple[Any, ...]:
    return row.stage, row.step, row.domain, row.split, row.metric


# ---------------------------------------------------------------- what follows from the rows


def latest(rows: Iterable[Score], split: str, metric: str) -> dict[tuple[str, str], Score]:
    """The row of each (stage, domain) at the stage's highest measured step: the checkpoint that the stage hands on."""
    found: dict[tuple[str, str], Score] = {}
    for row in rows:
        key = (row.stage, row.domain)
        if (
            row.split == split
            and row.metric == metric
            and (key not in found or row.step >= found[key].step)
        ):
            found[key] = row
    return found


def best(
    rows: Iterable[Score],
    domain: str,
    stages: Sequence[str],
    split: Split = "validation",
    metric: str = "accuracy",
) -> Score | None:
    """The best checkpoint of a domain among `stages` (in run order), each taken at its last step; None where nothing was measured.

    The rule: find the highest value; return the earliest stage whose value is not below that row's `low`.
    Why that row's own interval and not the wider one of the difference of two independent rows: checkpoints answer the same prompts, so
    their errors move together, and at a correlation of one half the paired difference has just the interval of a single row (6 points at
    n = 250). And the two mistakes cost unlike sums: a later checkpoint that is merely equal teaches as well, an earlier one that is
    truly worse teaches less. So noise inside the interval cannot move a teacher away from the earliest, and a gain beyond it always wins.
    """
    found = latest(rows, split, metric)
    line = [found[stage, domain] for stage in stages if (stage, domain) in found]
    if not line:
        return None
    top = max(line, key=lambda row: row.value)
    return next(row for row in line if row.value >= top.low)


def teachers(
    rows: Sequence[Score], domains: Iterable[str], stages: Sequence[str], metric: str = "accuracy"
) -> dict[str, str]:
    """The stage whose final checkpoint teaches each domain, chosen on validation; domains without a row are left out."""
    chosen = {domain: best(rows, domain, stages, "validation", metric) for domain in domains}
    return {domain: row.stage for domain, row in chosen.items() if row is not None}


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
    """`after` minus `before`, by Newcombe's square-and-add of the two rows' own intervals, so it serves shares and graded rewards alike.

    It takes the two as independent; the same prompts behind both make the true interval narrower, so a flag errs on the quiet side.
    """
    change = after.value - before.value
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
    """Every stage's change of every domain measured before and after it; `parents`: stage -> where it started, in run order."""
    found = latest(rows, split, metric)
    domains = list(dict.fromkeys(domain for _, domain in found))
    return [
        Change(
            stage,
            domain,
            found[parent, domain],
            found[stage, domain],
            difference(found[parent, domain], found[stage, domain]),
        )
        for stage, parent in parents.items()
        for domain in domains
        if parent is not None and (stage, domain) in found and (parent, domain) in found
    ]


def regressions(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
) -> list[Change]:
    """The changes that lie below zero with their whole interval: the moments a stage cost a domain something."""
    return [change for change in changes(rows, parents, split, metric) if change.by.high < 0]


def gains(
    rows: Iterable[Score],
    parents: Mapping[str, str | None],
    split: Split = "test",
    metric: str = "accuracy",
) -> list[Change]:
    """The changes that lie above zero with their whole interval."""
    return [change for change in changes(rows, parents, split, metric) if change.by.low > 0]


def recovery(start: Score, mopd: Score, teacher: Score) -> Interval | None:
    """(MOPD − start)/(teacher − start) of one domain; None where the teacher is not above the start's interval: nothing to recover.

    The interval carries all three rows' own intervals to first order (square-and-add with each row's end that moves the ratio that way).
    """
    if teacher.value <= start.high:
        return None
    gap = teacher.value - start.value
    ratio = (mopd.value - start.value) / gap
    below = [
        mopd.value - mopd.low,
        (ratio - 1) * _towards(start, ratio < 1),
        ratio * _towards(teacher, ratio > 0),
    ]
    above = [
        mopd.high - mopd.value,
        (ratio - 1) * _towards(start, ratio >= 1),
        ratio * _towards(teacher, ratio <= 0),
    ]
    return Interval(ratio, ratio - math.hypot(*below) / gap, ratio + math.hypot(*above) / gap)


def _towards(row: Score, up: bool) -> float:
    return row.high - row.value if up else row.value - row.low


def mean(parts: Sequence[Interval]) -> Interval | None:
    """The mean of independent estimates with its interval; None of none."""
    if not parts:
        return None
    k = len(parts)
    value = math.fsum(part.value for part in parts) / k
    low = value - math.hypot(*(part.value - part.low for part in parts)) / k
    return Interval(value, low, value + math.hypot(*(part.high - part.value for part in parts)) / k)
