"""Does a run's ledger show what the README says? Prints one line a claim; exit 1 where one does not
hold.

Usage: check_ledger.py RUN. Claims (test split): every reinforcement-learning stage lifts its own
domain beyond the interval; at least two earlier domains lose beyond the interval during the
cascade; MOPD gives back at least half of what was lost on average; n is at least 300.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from linn.ledger import Ledger, difference, gains, latest, regressions
from linn.report.tables import recovery_table


def claims(folder: Path) -> list[tuple[bool, str]]:
    """(holds, what was seen) of every claim."""
    rows = Ledger(folder / "ledger.jsonl").read()
    about = json.loads((folder / "run.json").read_text())
    stages = {entry["name"]: entry for entry in about["stages"]}
    parents = {name: entry["parent"] for name, entry in stages.items()}
    found: list[tuple[bool, str]] = []
    test = [row for row in rows if row.split == "test"]
    found.append(
        (
            min(row.n for row in test) >= 300,
            f"every test cell has n >= 300 (smallest {min(row.n for row in test)})",
        )
    )
    found.append(
        (
            {"accuracy", "greedy"} == {row.metric for row in test},
            "sampled and greedy are both there",
        )
    )
    risen = {(change.stage, change.domain) for change in gains(rows, parents)}
    scores = latest(rows, "test", "accuracy")
    for name, entry in stages.items():
        if entry["kind"] == "rl":
            lifted = {domain: (name, domain) in risen for domain in entry["domains"]}
            shown = ", ".join(
                f"{d} {scores[entry['parent'], d].value:.1%} -> {scores[name, d].value:.1%}"
                for d in lifted
            )
            found.append(
                (
                    all(lifted.values()),
                    f"{name} lifts its own domain beyond the interval: {shown}",
                )
            )
    lost = {change.domain for change in regressions(rows, parents)}
    found.append(
        (
            len(lost) >= 2,
            f"domains that a stage cost beyond the interval: {', '.join(sorted(lost)) or 'none'}",
        )
    )
    for name, entry in stages.items():
        if entry["kind"] == "distill":
            for metric in ("accuracy", "greedy"):
                _, mean = recovery_table(
                    rows, entry["parent"], name, entry["teachers"], metric=metric
                )
                if mean is not None:
                    found.append(
                        (
                            mean.value >= 0.5,
                            f"{name} recovers {mean.value:.0%} [{mean.low:.0%}, {mean.high:.0%}] "
                            f"of what was lost ({metric})",
                        )
                    )
            fallen = [
                d
                for d in entry["teachers"]
                if difference(scores[entry["parent"], d], scores[name, d]).high < 0
            ]
            found.append(
                (
                    not fallen,
                    f"{name} costs no domain of its own beyond the interval: "
                    f"{', '.join(fallen) or 'none'}",
                )
            )
    return found


def main() -> int:
    """Print every claim; 1 where one does not hold."""
    seen = claims(Path(sys.argv[1]))
    for holds, text in seen:
        print(f"{'holds' if holds else 'FAILS'}  {text}")
    return 0 if all(holds for holds, _ in seen) else 1


if __name__ == "__main__":
    sys.exit(main())
