"""A package's own tests as the measure of bugs: which of them are steady, what they compute."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

from linn.domains.swe_agentic import run_tests, strip_tests
from linn.domains.swe_agentic.package import Package
from linn.domains.swe_agentic.run_tests import Report
from linn.domains.swe_agentic.strip_tests import StrippedTests
from linn.errors import UserError
from linn.sandbox import WorkspaceLimits

_MOST_RUNS = 4
_SLOW_SECONDS = 0.25
"""A test that takes longer is left out."""
_SUITE_SECONDS = 5.0
"""Tests that take longer together are left out, the quick ones last."""


@dataclass(frozen=True)
class Suite:
    """A package whose own tests were found to be steady."""

    source: Package
    """The package."""
    tests: tuple[str, ...]
    """Test modules that can be run."""
    spared: Mapping[str, list[int]]
    """Sites whose values cannot cross the border, per module."""
    steady: tuple[str, ...]
    """Tests that passed twice, in two orders, fast."""
    values: Mapping[str, list[tuple[int, int]]]
    """(site, row) of the values that each of them computes."""
    limits: WorkspaceLimits
    """What a run over a bug may use: several times what they took."""

    def run(self, files: Mapping[str, str], seed: int) -> Report:
        """The steady tests over these files of the package, in the seed's order."""
        return run_tests.run(
            self.source, files, self.tests, self.spared, self.steady, seed, self.limits
        )

    def failing(self, report: Report) -> list[str]:
        """The steady tests that no longer do what they did."""
        return [
            test
            for test in self.steady
            if not report.is_right(test) or report.order(test) != self.values[test]
        ]

    def module(self, test: str) -> StrippedTests:
        """The stripped module that a test is in."""
        path = test.partition("::")[0]
        spared = frozenset(self.spared.get(path, ()))
        return run_tests.stripped(self.source.files[path], spared)


def suite(source: Package, limits: WorkspaceLimits = run_tests.LIMITS) -> Suite:
    """Run a package's tests until it is known which are steady; UserError where none passes."""
    tests = _readable_tests(source)
    spared: dict[str, list[int]] = {}
    steady: set[str] = set()
    values: dict[str, list[tuple[int, int]]] = {}
    for attempt in range(_MOST_RUNS):
        before = os.times()
        report = run_tests.run(
            source, source.own_files(), tests, spared, steady or None, attempt, limits
        )

        wrong = _wrong_sites(report)
        for path, site in sorted(wrong):
            spared.setdefault(path, []).append(site)

        # A package none of whose tests passes cannot show that anything is a bug.
        right = _quick_tests(report)
        if report.doubt or not right:
            reason = report.doubt or "none passes"
            raise UserError(
                f"package {source.name}: its tests do not run here ({reason}); {_last_line(report)}"
            )

        new_values = {test: report.order(test) for test in right}
        if attempt == 0 or wrong:  # with other sites spared, all is to be seen anew
            steady = right
        else:
            steady = {test for test in steady & right if new_values[test] == values[test]}
            if attempt > 1:
                break
        values = new_values

    return Suite(
        source=source,
        tests=tuple(tests),
        spared=spared,
        steady=tuple(sorted(steady)),
        values={test: values[test] for test in steady},
        limits=_limits_since(before, limits),
    )


def _readable_tests(source: Package) -> list[str]:
    """The test modules that this Python can parse."""
    tests = []
    for path in source.tests:
        try:
            strip_tests.strip(source.files[path])
        except SyntaxError:
            continue
        tests.append(path)
    return tests


def _wrong_sites(report: Report) -> set[tuple[str, int]]:
    """(test module, site) of values that did not arrive as expected, though the code is right."""
    wrong = set()
    for test, values in report.values.items():
        path = test.partition("::")[0]
        wrong |= {(path, value.site) for value in values if not value.right}
    return wrong


def _quick_tests(report: Report) -> set[str]:
    """The tests that are right, without slow ones, as many as a short run has time for."""

    def rank(test: str) -> tuple[bool, str]:
        return report.seconds[test] > _SLOW_SECONDS / 10, test

    # Very quick ones first, in the order of their names: so which are taken hardly varies.
    quick: set[str] = set()
    total = 0.0
    for test in sorted(report.outcomes, key=rank):
        seconds = report.seconds[test]
        if not report.is_right(test) or seconds >= _SLOW_SECONDS:
            continue
        if total + seconds < _SUITE_SECONDS:
            quick.add(test)
            total += seconds
    return quick


def _last_line(report: Report) -> str:
    """What the run of a suite that cannot be used said."""
    lines = report.ran.stderr.strip().splitlines()
    if not lines:
        lines = [why for why in report.why.values() if why]
    if not lines:
        lines = [report.ran.status]
    return lines[-1][:200]


def _limits_since(before: os.times_result, limits: WorkspaceLimits) -> WorkspaceLimits:
    """Limits of several times what the processes ended since then took, and some seconds."""
    now = os.times()
    user = now.children_user - before.children_user
    system = now.children_system - before.children_system
    cpu = 3.0 + 3 * (user + system)
    return replace(limits, cpu=cpu, wall=10 * cpu)
