"""Does a run's ledger show what the README says? One line per claim; exit 1 if one does not hold.

    python .ci/check_ledger.py RUN

Claims, all about the test split, every change taken prompt by prompt and flags controlled over the
run (docs/statistics.md): n is at least 300 and no prompt failed; every RL stage's gain in its own
domains is flagged; at least two domains carry a flagged loss on the way; MOPD closes at least half
of the gap to its teachers, pooled over all of its domains, an interval above 0 around it, and none
of its own domains carries a flagged loss.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from linn.ledger import Change, Ledger, RewardFiles, RewardsOf, changes, latest
from linn.report.tables import recovery
from linn.types import Score

Claim = tuple[bool, str]
"""Whether it holds, and what was seen."""


def claims(folder: Path) -> Iterator[Claim]:
    """Every claim about a run folder."""
    rows = Ledger(folder / "ledger.jsonl").read()
    stages = json.loads((folder / "run.json").read_text())["stages"]
    parents = {stage["name"]: stage["parent"] for stage in stages}
    rewards = RewardFiles({stage["name"]: folder / stage["folder"] for stage in stages})
    moves = changes(rows, parents, rewards=rewards)

    yield from cells(rows)
    yield all(move.by.paired for move in moves), "every change is taken prompt by prompt"
    for stage in stages:
        if stage["kind"] == "rl":
            yield lifted(rows, moves, stage)
    yield losses(moves)
    for stage in stages:
        if stage["kind"] == "distill":
            yield from recovered(rows, stage, rewards)


def cells(rows: list[Score]) -> Iterator[Claim]:
    """Each test score rests on enough replies, in both metrics, and on all of them."""
    test = [row for row in rows if row.split == "test"]
    smallest = min(row.n for row in test)
    yield smallest >= 300, f"every test cell has n >= 300 (smallest {smallest})"
    failed = sum(row.failed for row in test)
    yield failed == 0, f"no test prompt was left out for a failed rollout ({failed})"
    metrics = {row.metric for row in test}
    yield metrics == {"accuracy", "greedy"}, "sampled and greedy are both there"


def lifted(rows: list[Score], moves: list[Change], stage: Mapping[str, Any]) -> Claim:
    """An RL stage lifts each of its own domains."""
    name, parent = stage["name"], stage["parent"]
    gained = {(move.stage, move.domain) for move in moves if move.gained}
    scores = latest(rows, "test", "accuracy")
    steps = []
    for domain in stage["domains"]:
        before, after = scores[parent, domain].value, scores[name, domain].value
        steps.append(f"{domain} {before:.1%} -> {after:.1%}")
    holds = all((name, domain) in gained for domain in stage["domains"])
    return holds, f"{name} lifts its own domain, flagged: {', '.join(steps)}"


def losses(moves: list[Change]) -> Claim:
    """Without a loss there would be nothing for MOPD to recover."""
    lost = sorted({move.domain for move in moves if move.lost})
    names = ", ".join(lost) or "none"
    return len(lost) >= 2, f"domains with a flagged loss in some stage: {names}"


def recovered(rows: list[Score], stage: Mapping[str, Any], rewards: RewardsOf) -> Iterator[Claim]:
    """A distillation closes a part of the gap to its teachers."""
    name = stage["name"]
    for metric in ("accuracy", "greedy"):
        found = recovery(
            rows, stage["parent"], name, stage["teachers"], metric=metric, rewards=rewards
        )
        if found is None:
            yield False, f"{name}, its start and its teachers were all measured ({metric})"
            continue
        share = found.pooled.share
        if share is None:
            yield False, f"{name} had a gap to its teachers to close ({metric})"
            continue
        text = f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"
        yield share.low > 0, f"{name} closes {text} of the gap to its teachers ({metric})"


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
