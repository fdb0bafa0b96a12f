"""How far the ledger's statistics can be trusted: `python -m bench.simulations [--runs N] [RUN]`.

Prints what docs/statistics.md quotes: coverage of every kind of interval, the power of a flag,
false flags where nothing changed, recovery, and teachers, each in simulated repetition with the
functions that the ledger uses. With a RUN folder also its losses, stage by stage, by the paired
test of the whole run beside the flags of linn 0.1, which compared two rows alone.
`tests/test_statistics.py` holds the bounds.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from linn.ledger import (
    Change,
    Taught,
    changes,
    difference,
    discoveries,
    gap_share,
    moved,
    reward_interval,
    score,
    taught_domain,
    teacher_of,
)
from linn.report.files import read_run
from linn.types import Score

Rewards = NDArray[np.float64]

LIKERT = ((0.0, 0.25, 0.5, 0.75, 1.0), (0.1, 0.2, 0.3, 0.25, 0.15))
"""Graded rewards and their shares, as the laptop's preference domain has them."""
RARE = ((0.0, 0.5, 1.0), (0.9, 0.06, 0.04))
"""Graded rewards of a domain that is almost unsolved."""


# ---------------------------------------------------------------- made-up evaluations


def evaluations(
    rng: np.random.Generator, shares: Sequence[float], correlation: float, n: int
) -> Rewards:
    """0/1 rewards of checkpoints on the same n prompts, (checkpoint, prompt).

    `correlation`: of two checkpoints' rewards, at a share of a half. What prompts have in common is
    their difficulty: a reward is 1 where difficulty and chance together stay below a threshold.
    """
    common = math.sin(correlation * math.pi / 2)
    difficulty = rng.standard_normal(n)
    chance = rng.standard_normal((len(shares), n))
    latent = math.sqrt(common) * difficulty + math.sqrt(1 - common) * chance
    normal = NormalDist()
    thresholds = [normal.inv_cdf(share) for share in shares]
    rewards: Rewards = (latent < np.array(thresholds)[:, None]).astype(float)
    return rewards


def share_of(hits: Sequence[bool]) -> float:
    """How often something held."""
    return sum(hits) / len(hits)


# ---------------------------------------------------------------- intervals


def coverage_of_mean(
    rng: np.random.Generator, values: Sequence[float], shares: Sequence[float], n: int, runs: int
) -> float:
    """How often the interval of a mean reward holds the true mean."""
    true = float(np.dot(values, shares))
    hits = []
    for rewards in rng.choice(values, size=(runs, n), p=shares):
        got = reward_interval(rewards.tolist())
        hits.append(got.low <= true <= got.high)
    return share_of(hits)


def coverage_of_difference(
    rng: np.random.Generator, before: float, after: float, correlation: float, n: int, runs: int
) -> float:
    """How often the interval of a paired difference of 0/1 rewards holds the true difference."""
    hits = []
    for _ in range(runs):
        first, second = evaluations(rng, (before, after), correlation, n)
        got = moved((second - first).tolist())
        hits.append(got.low <= after - before <= got.high)
    return share_of(hits)


def coverage_of_graded_difference(rng: np.random.Generator, n: int, runs: int) -> float:
    """The same of graded rewards: a third of the prompts is graded anew, a little lower."""
    values, shares = LIKERT
    true = -0.05
    hits = []
    for _ in range(runs):
        first = rng.choice(values, size=n, p=shares)
        anew = rng.choice(values, size=n, p=shares)
        lower = np.where(rng.random(n) < 0.6, -0.25, 0.0)  # clipped nowhere: the mean is exact
        second = np.where(rng.random(n) < 1 / 3, anew + lower, first)
        got = moved((second - first).tolist())
        hits.append(got.low <= true <= got.high)
    return share_of(hits)


# ---------------------------------------------------------------- flags


def power(rng: np.random.Generator, loss: float, correlation: float, n: int, runs: int) -> float:
    """How often a true loss from a half is flagged in a table that holds it alone."""
    flags = []
    for _ in range(runs):
        before, after = evaluations(rng, (0.5, 0.5 - loss), correlation, n)
        got = moved((after - before).tolist())
        flags.append(discoveries([got.p])[0] and got.value < 0)
    return share_of(flags)


def power_unpaired(
    rng: np.random.Generator, loss: float, correlation: float, n: int, runs: int
) -> float:
    """The same by the two rows' own intervals, as linn 0.1 compared them."""
    flags = []
    for _ in range(runs):
        before, after = evaluations(rng, (0.5, 0.5 - loss), correlation, n)
        flags.append(difference(_row("a", before), _row("b", after)).high < 0)
    return share_of(flags)


def false_tables(
    rng: np.random.Generator, stages: int, domains: int, correlation: float, n: int, runs: int
) -> tuple[float, float]:
    """Of runs in which nothing ever changed: (tables, runs) with any flag.

    A run has two tables of `stages` by `domains` changes, as sampled and greedy.
    """
    tables, whole = [], []
    for _ in range(runs):
        p_values = []
        for share in rng.uniform(0.05, 0.95, 2 * domains):
            rewards = evaluations(rng, [share] * (stages + 1), correlation, n)
            for before, after in itertools.pairwise(rewards):
                p_values.append(moved((after - before).tolist()).p)
        flags = discoveries(p_values)
        tables += [any(flags[: stages * domains]), any(flags[stages * domains :])]
        whole.append(any(flags))
    return share_of(tables), share_of(whole)


def power_within(
    rng: np.random.Generator, changed: int, loss: float, correlation: float, n: int, runs: int
) -> tuple[float, float]:
    """Of a table of 90 changes, `changed` of them true losses or gains of `loss`.

    Gives how many of the true ones are flagged, and the mean share of false flags in a table.
    """
    found = 0
    false = []
    for _ in range(runs):
        steps = np.zeros(90)
        steps[:changed] = loss * rng.choice((-1, 1), changed)
        moves = [evaluations(rng, (0.5, 0.5 + step), correlation, n) for step in steps]
        flagged = discoveries([moved((after - before).tolist()).p for before, after in moves])
        found += sum(flagged[:changed])
        false.append(sum(flagged[changed:]) / max(1, sum(flagged)))
    return found / (changed * runs), math.fsum(false) / runs


# ---------------------------------------------------------------- recovery and teachers


def _row(stage: str, rewards: Rewards, split: str = "test", domain: str = "math") -> Score:
    values = rewards.tolist()
    return score(stage, 1, domain, split, "accuracy", values)  # type: ignore[arg-type]


def _taught(rng: np.random.Generator, shares: Sequence[float], n: int) -> Taught:
    """One taught domain: `shares` of start, after and teacher."""
    stages = ("start", "mopd", "teacher")
    rewards = dict(zip(stages, evaluations(rng, shares, 0.6, n), strict=True))
    rows = [_row(stage, rewards[stage]) for stage in stages]

    def of(row: Score) -> dict[str, float]:
        return {str(i): reward for i, reward in enumerate(rewards[row.stage].tolist())}

    return taught_domain("teacher", rows[0], rows[1], rows[2], rewards=of)


def recovery(
    rng: np.random.Generator, shares: Sequence[Sequence[float]], n: int, runs: int
) -> tuple[float, float]:
    """(how often a share is given, how often its interval then holds the true one)."""
    gain = math.fsum(after - start for start, after, _ in shares)
    gap = math.fsum(top - start for start, _, top in shares)
    given = [gap_share([_taught(rng, own, n) for own in shares]).share for _ in range(runs)]
    hits = [one.low <= gain / gap <= one.high for one in given if one is not None]
    return len(hits) / runs, share_of(hits)


def kept_worse(
    rng: np.random.Generator, lead: float, n: int, runs: int, rule: Callable[..., bool]
) -> float:
    """How often the student's start teaches, though another checkpoint is truly better by `lead`.

    `rule(rows, rewards)` says whether it does.
    """
    kept = []
    for _ in range(runs):
        rewards = dict(
            zip(("start", "other"), evaluations(rng, (0.5, 0.5 + lead), 0.6, n), strict=True)
        )
        rows = [_row(stage, values, "validation") for stage, values in rewards.items()]
        kept.append(rule(rows, rewards))
    return share_of(kept)


def start_teaches(rows: list[Score], rewards: dict[str, Rewards]) -> bool:
    """By linn's rule: ties within a standard error of the paired difference go to the start."""

    def of(row: Score) -> dict[str, float]:
        return {str(i): reward for i, reward in enumerate(rewards[row.stage].tolist())}

    choice = teacher_of(rows, "math", ("start",), lambda row: True, of)
    return choice is not None and choice.row.stage == "start"


def start_taught(rows: list[Score], rewards: dict[str, Rewards]) -> bool:
    """By the rule of linn 0.1: the earliest that is not below the best one's own interval."""
    start, other = rows
    top = max(rows, key=lambda row: row.value)
    return start.value >= top.low or top is not other


# ---------------------------------------------------------------- what is printed


def print_simulations(runs: int) -> None:
    """Every number that docs/statistics.md quotes."""
    rng = np.random.default_rng(0)
    print(f"{runs} repetitions each; a coverage of 0.950 is then known to about ±0.01\n")
    print("coverage of 95 % intervals              n = 50    100    300")
    _line("share of 0.5", lambda n: coverage_of_mean(rng, (0, 1), (0.5, 0.5), n, runs))
    _line("share of 0.1", lambda n: coverage_of_mean(rng, (0, 1), (0.9, 0.1), n, runs))
    _line("graded, five grades", lambda n: coverage_of_mean(rng, *LIKERT, n, runs))
    _line("graded, almost unsolved", lambda n: coverage_of_mean(rng, *RARE, n, runs))
    for before, after in ((0.5, 0.5), (0.5, 0.44), (0.9, 0.8)):
        _line(
            f"paired difference {before} to {after}",
            lambda n, b=before, a=after: coverage_of_difference(rng, b, a, 0.6, n, runs),  # type: ignore[misc]
        )
    _line("paired difference, graded", lambda n: coverage_of_graded_difference(rng, n, runs))

    print("\nhow often a true loss from 0.5 is flagged, alone in its table, correlation 0.6")
    print("                                        n = 100    300   1000")
    for loss in (0.03, 0.06, 0.1):
        own = [power(rng, loss, 0.6, n, runs) for n in (100, 300, 1000)]
        old = [power_unpaired(rng, loss, 0.6, n, runs) for n in (100, 300, 1000)]
        print(f"  {100 * loss:.0f} points, prompt by prompt          " + _shares(own))
        print(f"  {100 * loss:.0f} points, two rows alone (linn 0.1) " + _shares(old))

    few = max(50, runs // 10)
    print(f"\na table of 90 changes of 6 points and none, n = 300, {few} tables")
    for changed in (10, 30, 60):
        found, false = power_within(rng, changed, 0.06, 0.6, 300, few)
        print(f"  {changed} true changes: {found:.0%} of them flagged; {false:.1%} of flags false")
    for correlation in (0.0, 0.6):
        tables, whole = false_tables(rng, 9, 10, correlation, 300, few * 2)
        print(
            f"  nothing changed, correlation {correlation}: a flag in {tables:.1%} of tables, "
            f"in {whole:.1%} of runs (two tables each)"
        )

    print("\nrecovery, three domains, n = 300: how often given, and the interval's coverage")
    for name, shares in RECOVERIES.items():
        given, covered = recovery(rng, shares, 300, max(50, runs // 2))
        print(f"  {name:<44} {given:7.1%} {covered:9.3f}")

    print("\nthe student's start teaches though another is better        n = 100    200    400")
    for lead in (0.0, 0.03, 0.06, 0.1):
        for name, rule in (("", start_teaches), (" (linn 0.1)", start_taught)):
            kept = [kept_worse(rng, lead, n, runs, rule) for n in (100, 200, 400)]
            print(f"  by {100 * lead:.0f} points{name:<46}" + _shares(kept))


RECOVERIES = {
    "0.8 of gaps of 10, 20 and 30 points": ((0.5, 0.58, 0.6), (0.4, 0.56, 0.6), (0.5, 0.74, 0.8)),
    "nothing, gaps of 10, 20 and 30 points": ((0.5, 0.5, 0.6), (0.4, 0.4, 0.6), (0.5, 0.5, 0.8)),
    "nothing, gaps of 6 points": ((0.5, 0.5, 0.56), (0.4, 0.4, 0.46), (0.7, 0.7, 0.76)),
    "half, two gaps of 15 points and an anchor": (
        (0.5, 0.575, 0.65),
        (0.4, 0.475, 0.55),
        (0.7, 0.7, 0.7),
    ),
}
"""Name -> share of start, after and teacher in each domain."""


def _line(name: str, coverage: Callable[[int], float]) -> None:
    print(f"  {name:<40}" + " ".join(f"{coverage(n):6.3f}" for n in (50, 100, 300)))


def _shares(values: Sequence[float]) -> str:
    return " ".join(f"{value:6.1%}" for value in values)


def print_flags(folder: Path) -> None:
    """The losses of a run, stage by stage, beside the flags of linn 0.1."""
    run = read_run(folder)
    for metric in ("accuracy", "greedy"):
        table = changes(run.scores, run.parents, "test", metric, run.rewards)
        print(f"\n{folder.name}, {metric}: {len(table)} changes")
        print("| stage | losses by linn 0.1 | losses now | gains by linn 0.1 | gains now |")
        print("|---|---|---|---|---|")
        totals = [0, 0, 0, 0]
        for stage in dict.fromkeys(change.stage for change in table):
            columns = _columns([change for change in table if change.stage == stage])
            totals = [total + len(names) for total, names in zip(totals, columns, strict=True)]
            cells = [f"{len(names)}: {', '.join(names)}" if names else "0" for names in columns]
            print(f"| {stage} | {' | '.join(cells)} |")
        print(f"| all | {' | '.join(map(str, totals))} |")


def _columns(of_stage: Sequence[Change]) -> list[list[str]]:
    """Domains lost by the old and the new test, then those gained."""
    old = {change.domain: difference(change.before, change.after) for change in of_stage}
    return [
        [change.domain for change in of_stage if old[change.domain].high < 0],
        [change.domain for change in of_stage if change.lost],
        [change.domain for change in of_stage if old[change.domain].low > 0],
        [change.domain for change in of_stage if change.gained],
    ]


def main() -> None:
    """Print the simulations, and the flags of a run where one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("run", nargs="?", type=Path, help="a run folder")
    parser.add_argument("--runs", type=int, default=4000, help="repetitions of each simulation")
    arguments = parser.parse_args()
    if arguments.run is not None:
        print_flags(arguments.run)
    if arguments.runs:
        print_simulations(arguments.runs)


if __name__ == "__main__":
    main()
