"""The ledger's statistics in simulated repetition: do they err as rarely as they say?

The same functions print docs/statistics.md's numbers (`python -m bench.simulations`). A share of
2,000 repetitions near 0.95 has a standard error of half a point.
"""

import numpy as np
import pytest

from bench.simulations import (
    LIKERT,
    RARE,
    RECOVERIES,
    coverage_of_difference,
    coverage_of_graded_difference,
    coverage_of_mean,
    false_tables,
    kept_worse,
    power,
    power_unpaired,
    power_within,
    recovery,
    start_teaches,
)

RUNS = 2000


def draws() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "shares"),
    [((0, 1), (0.5, 0.5)), ((0, 1), (0.85, 0.15)), LIKERT, RARE],
    ids=["share", "low share", "graded", "almost unsolved"],
)
@pytest.mark.parametrize("n", [100, 300])
def test_intervals_of_one_score_cover(values, shares, n: int) -> None:
    assert 0.93 <= coverage_of_mean(draws(), values, shares, n, RUNS) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"), [(0.5, 0.5), (0.5, 0.44), (0.9, 0.8)], ids=["none", "six", "high"]
)
@pytest.mark.parametrize("n", [100, 300])
def test_intervals_of_a_paired_difference_cover(before: float, after: float, n: int) -> None:
    assert 0.93 <= coverage_of_difference(draws(), before, after, 0.6, n, RUNS) <= 0.97


def test_intervals_of_a_graded_paired_difference_cover() -> None:
    assert 0.93 <= coverage_of_graded_difference(draws(), 300, RUNS) <= 0.97


def test_a_true_loss_of_six_points_is_mostly_flagged() -> None:
    assert power(draws(), 0.06, 0.6, 300, RUNS) >= 0.6
    assert power_unpaired(draws(), 0.06, 0.6, 300, 300) < 0.4, "what linn 0.1 found"


@pytest.mark.slow
def test_where_nothing_changed_tables_are_clean() -> None:
    tables, runs = false_tables(draws(), 5, 6, 0.6, 300, 250)
    assert tables <= 0.05 and runs <= 0.06  # of 250 runs: 0.05 and one standard error


@pytest.mark.slow
def test_few_flags_are_false_and_more_true_changes_are_found_where_there_are_many() -> None:
    few, false_of_few = power_within(draws(), 10, 0.06, 0.6, 300, 30)
    many, false_of_many = power_within(draws(), 60, 0.06, 0.6, 300, 30)
    assert false_of_few < 0.08 and false_of_many < 0.05 and many > few > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("name", RECOVERIES)
def test_the_interval_of_a_recovery_covers_also_that_of_a_distillation_that_did_nothing(
    name: str,
) -> None:
    given, covered = recovery(draws(), RECOVERIES[name], 300, 300)
    assert given > 0.9 and 0.93 <= covered <= 0.975


@pytest.mark.slow
def test_a_teacher_that_is_truly_better_mostly_teaches() -> None:
    assert kept_worse(draws(), 0.06, 100, 500, start_teaches) < 0.45
    assert kept_worse(draws(), 0.06, 200, 500, start_teaches) < 0.25
    assert kept_worse(draws(), 0.0, 200, 500, start_teaches) > 0.7, "an equal one does not"
