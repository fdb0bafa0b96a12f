"""Makes repair tasks: bugs into a package, its own tests as proof that they are bugs."""

from __future__ import annotations

import itertools
import json
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from linn.domains.common import diffs
from linn.domains.swe_agentic import bugs, package
from linn.domains.swe_agentic.bugs import Bug
from linn.domains.swe_agentic.run_tests import Report
from linn.domains.swe_agentic.statement import statement
from linn.domains.swe_agentic.suite import Suite, suite
from linn.errors import InfrastructureError, UserError
from linn.types import seed_of

DIFFICULTIES = ("easy", "medium", "hard")
"""easy: one bug, its function named; medium: one bug, only what goes wrong; hard: two bugs in two
functions."""
PACKAGES = (
    "toolz==1.2.0",
    "parse==1.22.4",
    "boltons==26.2.0",
    "tabulate==0.10.0",
    "xmltodict==1.0.4",
    "schema==0.7.8",
    "voluptuous==0.16.0",
    "funcy==2.1",
)
"""Those that `linn tasks` takes by itself: small, permissively licensed, pure Python, with tests
that need nothing else."""
_MOST_FAILING = 40
_MOST_PASSING = 100
_TRIES_PER_TASK = 12


@dataclass
class Attempts:
    """How the making of tasks of one difficulty went."""

    made: int = 0
    """Accepted."""
    tried: int = 0
    """Bugs tried."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many were refused, by reason."""

    def add_refused(self, reason: str, count: int = 1) -> None:
        """Count a refusal."""
        self.refused[reason] = self.refused.get(reason, 0) + count

    def add(self, other: Attempts) -> None:
        """Count another making's attempts as well."""
        self.made += other.made
        self.tried += other.tried
        for reason, count in other.refused.items():
            self.add_refused(reason, count)

    def reasons(self) -> str:
        """The refusals in words, the most frequent reason first."""
        refused = sorted(self.refused.items(), key=lambda item: -item[1])
        return ", ".join(f"{number} {reason}" for reason, number in refused)


@dataclass
class PackageTasks:
    """What came of one package."""

    package: str
    """`name version`, or the requirement where the package cannot be used."""
    licence: str = ""
    """Its licence."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Its tasks."""
    attempts: Attempts = field(default_factory=Attempts)
    """How the making went, over all difficulties."""
    seconds: float = 0.0
    """Wall-clock seconds, the first runs of the tests included."""
    why: str = ""
    """Why the package cannot be used; empty where it can."""

    def line(self) -> str:
        """A line of the table that `linn tasks` prints."""
        if self.why:
            return f"{self.package:<24} not used: {self.why}"

        # The table's lines are fixed columns: they are printed one by one, as packages are done.
        made = len(self.rows)
        tried = self.attempts.tried
        share = f"{made / max(1, tried):.0%}"
        minutes = self.seconds / 60
        return (
            f"{self.package:<24} {self.licence[:20]:<20}"
            f" {made:>4} of {tried:<4} {share:>4} {minutes:6.1f} min"
            f"  {self.attempts.reasons()}"
        )


class _Refused(Exception):
    """These bugs make no task; the text says why."""


# ---------------------------------------------------------------- tasks of one package, of many


def make_all(
    requirements: Sequence[str], each: int, difficulties: Sequence[str], seed: int
) -> Iterator[PackageTasks]:
    """Tasks of every package in turn, up to `each`, no task twice.

    A package that cannot be used is reported in the result, not raised.
    """
    for difficulty in difficulties:
        _check_difficulty(difficulty)
    for requirement in requirements:
        began = time.monotonic()
        result = PackageTasks(requirement)
        try:
            source = _usable(requirement, result)
            prepared = suite(source)
        except (UserError, InfrastructureError) as error:
            result.why = str(error)
            yield result
            continue

        # Each difficulty makes its share; the first ones make what is left over.
        share, left_over = divmod(each, len(difficulties))
        patches: set[str] = set()
        for index, difficulty in enumerate(difficulties):
            count = share + (index < left_over)
            attempts = Attempts()
            for row in make(prepared, count, seed + index, difficulty, attempts):
                patch = row["metadata"]["golden_patch"]
                if patch not in patches:
                    patches.add(patch)
                    result.rows.append(row)
            result.attempts.add(attempts)

        result.seconds = time.monotonic() - began
        yield result


def _usable(requirement: str, result: PackageTasks) -> package.Package:
    """The package, named in `result`; UserError where its licence does not permit its use."""
    source = package.read(package.fetch(requirement))
    result.package = f"{source.name} {source.version}"
    result.licence = source.licence
    if not package.permissive(source.licence):
        raise UserError(f"its licence, {source.licence}, is not one of the permissive ones")
    return source


def make(
    prepared: Suite,
    count: int,
    seed: int,
    difficulty: str,
    attempts: Attempts,
    most_tried: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of up to `count` tasks, the same for the same arguments.

    `attempts` is kept up to date. `most_tried`: bugs tried at most; None: 12 per task.
    """
    _check_difficulty(difficulty)
    source = prepared.source
    most_tried = most_tried or _TRIES_PER_TASK * count
    bugs_per_task = 2 if difficulty == "hard" else 1
    rng = random.Random(seed_of("bugs", source.name, source.version, seed))
    untried = _bugs_in_rounds(source, rng)
    statements: set[str] = set()
    while attempts.made < count and attempts.tried < most_tried:
        chosen = list(itertools.islice(untried, bugs_per_task))
        # One more is passed over each time. Nothing needs it, but the tasks of a seed depend on it.
        next(untried, None)
        if not chosen:
            break
        if not _fit_together(source, chosen):
            continue

        # The seed of a run changes with every try, so that no order of tests is special.
        attempts.tried += 1
        run_seed = seed_of("task", attempts.tried, seed) % (1 << 31)
        try:
            row = _task(prepared, chosen, difficulty, run_seed)
            text = row["metadata"]["problem_statement"]
            if text in statements:
                raise _Refused("told before")
        except _Refused as refused:
            attempts.add_refused(str(refused))
            continue
        statements.add(text)
        attempts.made += 1
        yield row


def _check_difficulty(difficulty: str) -> None:
    if difficulty not in DIFFICULTIES:
        raise UserError(f"difficulty {difficulty!r} is unknown; allowed: {', '.join(DIFFICULTIES)}")


# ---------------------------------------------------------------- the choice of bugs


def _bugs_in_rounds(source: package.Package, rng: random.Random) -> Iterator[Bug]:
    """A round over all functions before any has its second bug, so that tasks spread."""
    by_function: dict[tuple[str, str], list[Bug]] = {}
    for path, text in source.own_files().items():
        for bug in bugs.candidates(path, text, rng):
            function = (path, bug.function)
            by_function.setdefault(function, []).append(bug)

    # The functions in another order each round.
    rounds = max(map(len, by_function.values()), default=0)
    for turn in range(rounds):
        groups = list(by_function.values())
        rng.shuffle(groups)
        for group in groups:
            if turn < len(group):
                yield group[turn]


def _fit_together(source: package.Package, chosen: Sequence[Bug]) -> bool:
    """Whether each bug compiles, and two do not touch each other."""
    if len(chosen) == 2 and bugs.overlap(*chosen):
        return False
    changed = [bugs.inject(source.files, [bug])[bug.path] for bug in chosen]
    return all(bugs.compiles(text) for text in changed)


# ---------------------------------------------------------------- one task


def _task(prepared: Suite, chosen: Sequence[Bug], difficulty: str, seed: int) -> dict[str, Any]:
    """The row of the task that these bugs make; raises _Refused where they make none."""
    right = prepared.source.own_files()
    wrong = bugs.inject(right, chosen)
    report = prepared.run(wrong, seed)
    failing = prepared.failing(report)

    if report.ran.status != "ok" or report.doubt:
        raise _Refused("the test run broke")
    if not failing:
        raise _Refused("no test failed")
    if len(failing) > min(_MOST_FAILING, len(prepared.steady) // 3):
        raise _Refused("too many tests failed")

    if difficulty == "hard":
        for bug in chosen:
            alone = prepared.run(bugs.inject(right, [bug]), seed)
            if prepared.failing(alone) in ([], failing):
                raise _Refused("one of the two bugs does not matter")

    # The description gives one value away for each bug; one more must be left to find.
    if len(_secrets(prepared, report, failing)) <= len(chosen):
        raise _Refused("too few hidden values")
    again = prepared.run(wrong, seed + 1)
    if prepared.failing(again) != failing:
        raise _Refused("not the same twice")

    text = statement(prepared, report, failing, chosen, difficulty)
    if not text:
        raise _Refused("no symptom can be shown")

    return _row(
        prepared,
        chosen,
        difficulty=difficulty,
        text=text,
        failing=failing,
        passing=_passing(prepared, failing, seed),
        patch=patch(wrong, right),
    )


def _passing(prepared: Suite, failing: Sequence[str], seed: int) -> list[str]:
    """Tests that must go on passing, those beside a failing one first."""
    modules = {_module_of(test) for test in failing}
    passing = [test for test in prepared.steady if test not in failing]
    random.Random(seed).shuffle(passing)
    passing.sort(key=lambda test: _module_of(test) not in modules)
    return sorted(passing[:_MOST_PASSING])


def _module_of(test: str) -> str:
    return test.partition("::")[0]


def _secrets(prepared: Suite, report: Report, failing: Sequence[str]) -> set[str]:
    """Expected values, none of them easily guessed, that the failing tests no longer compute."""
    missing: set[str] = set()
    for test in failing:
        values = report.values.get(test, ())
        right = {(value.site, value.row) for value in values if value.right}
        sites = prepared.module(test).sites
        for site, row in prepared.values[test]:
            if (site, row) not in right:
                missing.add(repr(sites[site].values[row]))
    return {text for text in missing if len(text) > 2 and text not in ("True", "False", "None")}


def _row(
    prepared: Suite,
    chosen: Sequence[Bug],
    difficulty: str,
    text: str,
    failing: list[str],
    passing: list[str],
    patch: str,
) -> dict[str, Any]:
    """The row of a task, in the layout that `rows.task` reads."""
    source = prepared.source
    places = [f"{bug.path}:{bug.start}:{bug.text}" for bug in chosen]
    digest = seed_of(*places) % (1 << 32)
    kinds = [
        {"operator": bug.operator, "path": bug.path, "function": bug.function} for bug in chosen
    ]

    # A task carries what its own tests need, not what all of the package's do.
    modules = {_module_of(test) for test in (*failing, *passing)}
    values = {test: prepared.values[test] for test in failing}
    spared = {path: sites for path, sites in prepared.spared.items() if path in modules}
    metadata = {
        "instance_id": f"{source.name}-{source.version}-{digest:08x}",
        "package": f"{source.name}=={source.version}",
        "licence": source.licence,
        "python": package.PYTHON,
        "difficulty": difficulty,
        "bugs": kinds,
        "problem_statement": text,
        "golden_patch": patch,
        "FAIL_TO_PASS": json.dumps(failing),
        "PASS_TO_PASS": json.dumps(passing),
        "values": json.dumps(values),
        "spared": json.dumps(spared),
    }
    return {"responses_create_params": {"input": []}, "metadata": metadata}


def patch(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A unified diff of two sets of files, ended by a line's end."""
    return diffs.diff(before, after) + "\n"
