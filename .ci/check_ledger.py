"""Does a run's ledger show what the README says? One line per claim; exit 1 if one does not hold.

    python .ci/check_ledger.py RUN

Claims, all about the test split: n is at least 300; every RL stage lifts its own domains beyond the
interval; at least two domains lose beyond the interval on the way; MOPD recovers at least half of
what was lost, on average, and costs none of its domains beyond the interval.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linn.ledger import Ledger, difference, gains, latest, regressions
from linn.report.tables import recovery_table
from linn.types import Score

Claim = tuple[bool, str]
"""Whether it holds, and what was seen."""


def claims(folder: Path) -> Iterator[Claim]:
    """Every claim about a run folder."""
    rows = Ledger(folder / "ledger.jsonl").read()
    stages = json.loads((folder / "run.json").read_text())["stages"]
    parents = {stage["name"]: stage["parent"] for stage in stages}

    yield from cells(rows)
    for stage in stages:
        if stage["kind"] == "rl":
            yield lifted(rows, parents, stage)
    yield losses(rows, parents)
    for stage in stages:
        if stage["kind"] == "distill":
            yield from recovered(rows, stage)
            yield unharmed(rows, stage)


def cells(rows: list[Score]) -> Iterator[Claim]:
    """Each test score rests on enough replies, in both metrics."""
    test = [row for row in rows if row.split == "test"]
    smallest = min(row.n for row in test)
    yield smallest >= 300, f"every test cell has n >= 300 (smallest {smallest})"
    metrics = {row.metric for row in test}
    yield metrics == {"accuracy", "greedy"}, "sampled and greedy are both there"


def lifted(rows: list[Score], parents: Mapping[str, Any], stage: Mapping[str, Any]) -> Claim:
    """An RL stage lifts each of its own domains."""
    name, parent = stage["name"], stage["parent"]
    changes = {(change.stage, change.domain) for change in gains(rows, parents)}
    scores = latest(rows, "test", "accuracy")
    steps = []
    for domain in stage["domains"]:
        before, after = scores[parent, domain].value, scores[name, domain].value
        steps.append(f"{domain} {before:.1%} -> {after:.1%}")
    holds = all((name, domain) in changes for domain in stage["domains"])
    return holds, f"{name} lifts its own domain beyond the interval: {', '.join(steps)}"


def losses(rows: list[Score], parents: Mapping[str, Any]) -> Claim:
    """Without a loss there would be nothing for MOPD to recover."""
    lost = sorted({change.domain for change in regressions(rows, parents)})
    names = ", ".join(lost) or "none"
    return len(lost) >= 2, f"domains that a stage cost beyond the interval: {names}"


def recovered(rows: list[Score], stage: Mapping[str, Any]) -> Iterator[Claim]:
    """A distillation recovers half of what its teachers were ahead."""
    name = stage["name"]
    for metric in ("accuracy", "greedy"):
        _, mean = recovery_table(rows, stage["parent"], name, stage["teachers"], metric=metric)
        if mean is not None:
            share = f"{mean.value:.0%} [{mean.low:.0%}, {mean.high:.0%}]"
            yield mean.value >= 0.5, f"{name} recovers {share} of what was lost ({metric})"


def unharmed(rows: list[Score], stage: Mapping[str, Any]) -> Claim:
    """A distillation costs none of its own domains."""
    name, parent = stage["name"], stage["parent"]
    scores = latest(rows, "test", "accuracy")
    fallen = []
    for domain in stage["teachers"]:
        if difference(scores[parent, domain], scores[name, domain]).high < 0:
            fallen.append(domain)
    names = ", ".join(fallen) or "none"
    return not fallen, f"{name} costs no domain of its own beyond the interval: {names}"


def main() -> int:
    """Print every claim; 1 where one does not hold."""
    result = 0
    for holds, text in claims(Path(sys.argv[1])):
        print(f"{'holds' if holds else 'FAILS'}  {text}")
        if not holds:
            result = 1
    return result


if __name__ == "__main__":
    sys.exit(main())
