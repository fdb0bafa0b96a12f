"""Makes repair tasks: bugs into a package, its own tests as proof that they are bugs, a description of what goes wrong."""

from __future__ import annotations

import ast
import difflib
import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from linn.domains.swe_agentic import bugs, package
from linn.domains.swe_agentic import run_tests as judge
from linn.domains.swe_agentic import strip_tests as hidden
from linn.domains.swe_agentic.bugs import Bug
from linn.domains.swe_agentic.package import Package
from linn.errors import InfrastructureError, UserError
from linn.sandbox import WorkspaceLimits
from linn.types import seed_of

DIFFICULTIES = ("easy", "medium", "hard")
"""easy: one bug, its function named; medium: one bug, only what goes wrong; hard: two bugs in two functions."""
PACKAGES = (
    "toolz==1.2.0", "parse==1.22.4", "boltons==26.2.0", "tabulate==0.10.0", "xmltodict==1.0.4", "schema==0.7.8", "voluptuous==0.16.0",
    "funcy==2.1",
)  # fmt: skip
"""Those that `linn tasks` takes by itself: small, permissively licensed, pure Python, with tests that need nothing else."""
_SLOW, _SUITE_SECONDS = 0.25, 5.0
_MOST_FAILING, _MOST_PASSING = 40, 100
_LONGEST_SNIPPET, _LONGEST_SHOWN = 900, 400


@dataclass
class Suite:
    """A package whose own tests were found to be steady."""

    source: Package
    """The package."""
    tests: tuple[str, ...]
    """Test modules that can be run."""
    spared: dict[str, list[int]]
    """Sites whose values cannot cross the border, a list a module."""
    steady: tuple[str, ...]
    """Tests that passed twice, in two orders, fast."""
    seen: dict[str, list[tuple[int, int]]]
    """(site, row) of the values each of them computes."""
    limits: WorkspaceLimits
    """What a run over a bug may use: several times what they took."""


@dataclass
class Made:
    """What came of one package."""

    package: str
    """`name version`, or what was asked for."""
    licence: str = ""
    """Its licence."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """Its tasks."""
    tried: int = 0
    """Bugs tried."""
    seconds: float = 0.0
    """Wall-clock seconds, the first runs of the tests included."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many bugs were refused, by reason."""
    why: str = ""
    """Why the package cannot be used; empty where it can."""

    def line(self) -> str:
        """A line of the table that `linn tasks` prints."""
        if self.why:
            return f"{self.package:<24} not used: {self.why}"
        share = f"{len(self.rows) / max(1, self.tried):.0%}"
        why = ", ".join(
            f"{count} {reason}"
            for reason, count in sorted(self.refused.items(), key=lambda item: -item[1])
        )
        return f"{self.package:<24} {self.licence[:20]:<20} {len(self.rows):>4} of {self.tried:<4} {share:>4} {self.seconds / 60:6.1f} min  {why}"


@dataclass
class Count:
    """How the making went."""

    made: int = 0
    """Accepted."""
    tried: int = 0
    """Bugs tried."""
    refused: dict[str, int] = field(default_factory=dict)
    """How many were refused, by reason."""


def suite(source: Package, limits: WorkspaceLimits = judge.LIMITS) -> Suite:
    """Run a package's tests until it is known which are steady; UserError where too few are."""
    tests = []
    for path in source.tests:
        try:
            hidden.strip(source.files[path])
            tests.append(path)
        except SyntaxError:
            continue
    files = {path: source.files[path] for path in source.sources}
    spared: dict[str, list[int]] = {}
    steady: set[str] = set()
    sites: dict[str, list[tuple[int, int]]] = {}
    for attempt in range(4):
        before = os.times()
        report = judge.run(source, files, tests, spared, steady or None, attempt, limits)
        wrong = {
            (test.partition("::")[0], seen.site)
            for test, all_seen in report.seen.items()
            for seen in all_seen
            if not seen.right
        }
        for path, site in sorted(wrong):
            spared.setdefault(path, []).append(site)
        good = _quick(report)
        now = {test: [(seen.site, seen.row) for seen in report.seen.get(test, ())] for test in good}
        if report.fooled or not good:
            raise UserError(
                f"package {source.name}: its tests do not run here ({report.fooled or 'none passes'}); {_why(report)}"
            )
        if attempt and not wrong:
            steady = {test for test in steady & good if now[test] == sites[test]}
            if attempt > 1:
                break
        else:
            steady = good if not steady or wrong else steady & good
        sites = now
    used = os.times()
    cpu = 3.0 + 3 * (
        used.children_user + used.children_system - before.children_user - before.children_system
    )
    return Suite(
        source,
        tuple(tests),
        spared,
        tuple(sorted(steady)),
        {test: sites[test] for test in steady},
        replace(limits, cpu=cpu, wall=10 * cpu),
    )


def _quick(report: judge.Report) -> set[str]:
    """The tests that are right, without the slow ones, and at most so many that a run stays short."""
    good, total = set(), 0.0
    for test in sorted(report.outcomes, key=lambda t: (report.seconds[t] > _SLOW / 10, t)):
        if (
            report.good(test)
            and report.seconds[test] < _SLOW
            and total + report.seconds[test] < _SUITE_SECONDS
        ):
            good.add(test)
            total += report.seconds[test]
    return good


def _why(report: judge.Report) -> str:
    """What the run of a suite that cannot be used said."""
    lines = (
        report.ran.stderr.strip().splitlines()
        or [why for why in report.why.values() if why]
        or [report.ran.status]
    )
    return lines[-1][:200]


def make(
    prepared: Suite,
    count: int,
    seed: int,
    difficulty: str,
    counted: Count,
    most_tried: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of up to `count` tasks, the same for the same arguments; `counted` is kept as it goes."""
    if difficulty not in DIFFICULTIES:
        raise UserError(f"difficulty {difficulty!r} is unknown; allowed: {', '.join(DIFFICULTIES)}")
    source = prepared.source
    rng = random.Random(seed_of("bugs", source.name, source.version, seed))
    found = [
        bug for path in source.sources for bug in bugs.candidates(path, source.files[path], rng)
    ]
    by_function: dict[tuple[str, str], list[Bug]] = {}
    for bug in found:
        by_function.setdefault((bug.path, bug.function), []).append(bug)
    # a round over all functions before any has its second bug, so that tasks spread over the package
    ordered = [
        group[turn]
        for turn in range(max(map(len, by_function.values()), default=0))
        for group in _shuffled(by_function, rng)
        if turn < len(group)
    ]
    told: set[str] = set()
    untried = iter(ordered)
    while counted.made < count and counted.tried < (most_tried or 12 * count):
        chosen = [
            bug for bug, _ in zip(untried, range(2 if difficulty == "hard" else 1), strict=False)
        ]
        if not chosen or (len(chosen) == 2 and bugs.overlap(*chosen)):
            if not chosen:
                break
            continue
        if not all(bugs.compiles(bugs.inject(source.files, [bug])[bug.path]) for bug in chosen):
            continue
        counted.tried += 1
        row, why = _task(
            prepared, chosen, difficulty, seed_of("task", counted.tried, seed) % (1 << 31)
        )
        if row is not None and row["metadata"]["problem_statement"] in told:
            row, why = None, "told before"
        if row is None:
            counted.refused[why] = counted.refused.get(why, 0) + 1
            continue
        told.add(row["metadata"]["problem_statement"])
        counted.made += 1
        yield row


def make_all(
    requirements: Sequence[str], each: int, difficulties: Sequence[str], seed: int
) -> Iterator[Made]:
    """Tasks of every package in turn, up to `each`; a package that cannot be used is told, not raised. No task twice."""
    for difficulty in difficulties:
        if difficulty not in DIFFICULTIES:
            raise UserError(
                f"difficulty {difficulty!r} is unknown; allowed: {', '.join(DIFFICULTIES)}"
            )
    for requirement in requirements:
        began = time.monotonic()
        made = Made(requirement)
        try:
            source = package.read(package.fetch(requirement))
            made.package, made.licence = f"{source.name} {source.version}", source.licence
            if not package.permissive(source.licence):
                raise UserError(f"its licence, {source.licence}, is not one of the permissive ones")
            prepared = suite(source)
        except (UserError, InfrastructureError) as error:
            made.why = str(error)
            yield made
            continue
        known: set[str] = set()
        for index, difficulty in enumerate(difficulties):
            count = Count()
            wanted = each // len(difficulties) + (index < each % len(difficulties))
            for row in make(prepared, wanted, seed + index, difficulty, count) if wanted else ():
                if row["metadata"]["golden_patch"] not in known:
                    known.add(row["metadata"]["golden_patch"])
                    made.rows.append(row)
            made.tried += count.tried
            for reason, number in count.refused.items():
                made.refused[reason] = made.refused.get(reason, 0) + number
        made.seconds = time.monotonic() - began
        yield made


def _shuffled(groups: Mapping[tuple[str, str], list[Bug]], rng: random.Random) -> list[list[Bug]]:
    every = list(groups.values())
    rng.shuffle(every)
    return every


def _task(
    prepared: Suite, chosen: Sequence[Bug], difficulty: str, seed: int
) -> tuple[dict[str, Any] | None, str]:
    """(row, "") where these bugs make a task, else (None, why not)."""
    source = prepared.source
    right = {path: source.files[path] for path in source.sources}
    wrong = bugs.inject(right, chosen)
    report = judge.run(
        source, wrong, prepared.tests, prepared.spared, prepared.steady, seed, prepared.limits
    )
    failing = _failing(prepared, report)
    if report.ran.status != "ok" or report.fooled:
        return None, "the test run broke"
    if not failing:
        return None, "no test failed"
    if len(failing) > min(_MOST_FAILING, len(prepared.steady) // 3):
        return None, "too many tests failed"
    if difficulty == "hard" and any(
        _failing(prepared, _of(prepared, [bug], seed)) in ([], failing) for bug in chosen
    ):
        return None, "one of the two bugs does not matter"
    if len(_secrets(prepared, report, failing)) <= len(chosen):
        return None, "too few hidden values"  # the description gives one away for each bug
    again = judge.run(
        source, wrong, prepared.tests, prepared.spared, prepared.steady, seed + 1, prepared.limits
    )
    if _failing(prepared, again) != failing:
        return None, "not the same twice"
    statement = _statement(prepared, report, failing, chosen, difficulty)
    if not statement:
        return None, "no symptom can be shown"
    files = {test.partition("::")[0] for test in failing}
    passing = [test for test in prepared.steady if test not in failing]
    random.Random(seed).shuffle(passing)
    passing.sort(key=lambda test: test.partition("::")[0] not in files)
    return _row(
        prepared, chosen, difficulty, statement, failing, sorted(passing[:_MOST_PASSING]), wrong
    ), ""


def _of(prepared: Suite, chosen: Sequence[Bug], seed: int) -> judge.Report:
    files = bugs.inject(
        {path: prepared.source.files[path] for path in prepared.source.sources}, chosen
    )
    return judge.run(
        prepared.source,
        files,
        prepared.tests,
        prepared.spared,
        prepared.steady,
        seed,
        prepared.limits,
    )


def _failing(prepared: Suite, report: judge.Report) -> list[str]:
    """The steady tests that no longer do what they did."""
    return [
        test
        for test in prepared.steady
        if not report.good(test) or order(report, test) != prepared.seen[test]
    ]


def order(report: judge.Report, test: str) -> list[tuple[int, int]]:
    """(site, row) of the values a test computed."""
    return [(seen.site, seen.row) for seen in report.seen.get(test, ())]


def _secrets(prepared: Suite, report: judge.Report, failing: Sequence[str]) -> set[str]:
    """Expected values, none of them easily guessed, that the failing tests no longer compute."""
    missing = set()
    for test in failing:
        right = {(seen.site, seen.row) for seen in report.seen.get(test, ()) if seen.right}
        module = _module(prepared, test)
        missing |= {
            repr(module.sites[site].values[row])
            for site, row in prepared.seen[test]
            if (site, row) not in right
        }
    return {text for text in missing if len(text) > 2 and text not in ("True", "False", "None")}


def _module(prepared: Suite, test: str) -> hidden.Stripped:
    path = test.partition("::")[0]
    return judge.stripped(prepared.source.files[path], frozenset(prepared.spared.get(path, ())))


def _row(
    prepared: Suite,
    chosen: Sequence[Bug],
    difficulty: str,
    statement: str,
    failing: list[str],
    passing: list[str],
    wrong: Mapping[str, str],
) -> dict[str, Any]:
    source = prepared.source
    used = {test.partition("::")[0] for test in (*failing, *passing)}
    metadata = {
        "instance_id": f"{source.name}-{source.version}-{seed_of(*(f'{b.path}:{b.start}:{b.text}' for b in chosen)) % (1 << 32):08x}",
        "package": f"{source.name}=={source.version}",
        "licence": source.licence,
        "python": package.PYTHON,
        "difficulty": difficulty,
        "bugs": [
            {"operator": bug.operator, "path": bug.path, "function": bug.function} for bug in chosen
        ],
        "problem_statement": statement,
        "golden_patch": patch(wrong, {path: source.files[path] for path in source.sources}),
        "FAIL_TO_PASS": json.dumps(failing),
        "PASS_TO_PASS": json.dumps(passing),
        "values": json.dumps({test: prepared.seen[test] for test in failing}),
        "spared": json.dumps(
            {path: sites for path, sites in prepared.spared.items() if path in used}
        ),
    }
    return {"responses_create_params": {"input": []}, "metadata": metadata}


def patch(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """A unified diff of two sets of files."""
    parts: list[str] = []
    for path in sorted(after):
        if before[path] != after[path]:
            old, new = before[path].split("\n"), after[path].split("\n")
            parts += difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", lineterm="")
    return "\n".join(parts) + "\n"


# ---------------------------------------------------------------- the description


def _statement(
    prepared: Suite,
    report: judge.Report,
    failing: Sequence[str],
    chosen: Sequence[Bug],
    difficulty: str,
) -> str:
    """What goes wrong, from up to one example a bug; no test is named. Empty where no example can be shown."""
    shown: list[str] = []
    for test in sorted(failing, key=lambda t: (len(prepared.seen[t]), t)):
        text = _example(prepared, report, test)
        if text and text not in shown:
            shown.append(text)
        if len(shown) == len(chosen):
            break
    if len(shown) < len(chosen):
        return ""
    name = prepared.source.name
    lines = [f"{name} {prepared.source.version} does not behave as it should.", ""]
    for text in shown:
        lines += [text, ""]
    if difficulty == "easy":
        lines.append(f"The mistake is in `{chosen[0].function}` ({chosen[0].path}).")
    elif difficulty == "hard":
        lines.append("There is more than one mistake.")
    lines.append(
        f"Find the cause in the sources of {name} and repair it, so that this and all similar uses are right. Tests need not be changed."
    )
    return "\n".join(lines)


def _example(prepared: Suite, report: judge.Report, test: str) -> str:
    """A snippet with what it gives and what it should give; empty where the test has no site that can be shown."""
    module = _module(prepared, test)
    said = {(seen.site, seen.row): seen for seen in reversed(report.seen.get(test, ()))}
    for number, row in prepared.seen[test]:
        seen, site = said.get((number, row)), module.sites[number]
        if site.before is None or (seen is not None and seen.right):
            continue
        snippet = _snippet(site, module, row)
        expected = _short(repr(site.values[row]))
        if snippet is None or expected is None:
            return ""
        given = _short(repr(seen.value)) if seen is not None and seen.sendable else None
        if seen is None:
            why = report.why.get(test, "")
            if report.outcomes.get(test) == "passed" or not why:
                return ""
            gives = f"fails with `{why[:200]}`"
        elif given is None:
            return ""
        else:
            gives = f"gives\n\n    {given}"
        return (
            f"After\n\n{snippet[0]}\n\nthe expression `{snippet[1]}` {gives}\n\nbut should give\n\n    {expected}"
            if snippet[0]
            else (f"`{snippet[1]}` {gives}\n\nbut should give\n\n    {expected}")
        )
    return ""


def _snippet(site: hidden.Site, module: hidden.Stripped, row: int) -> tuple[str, str] | None:
    """(the statements before, indented; the expression), or None where they need more than themselves."""
    before = [
        node for node in site.before or () if not (isinstance(node, ast.Expr) and _is_check(node))
    ]
    asked = " ".join(ast.unparse(site.asked).split())
    needed = _needed(before, site.asked)
    text = "\n".join(f"    {line}" for node in needed for line in ast.unparse(node).split("\n"))
    function = module.tests[site.test]
    assert isinstance(function, ast.FunctionDef)
    names = {
        node.id
        for part in (*needed, site.asked)
        for node in ast.walk(part)
        if isinstance(node, ast.Name)
    }
    parameters = {argument.arg for argument in function.args.args}
    if (
        names & parameters
        or hidden.SEND in text
        or len(text) > _LONGEST_SNIPPET
        or len(asked) > _LONGEST_SHOWN
    ):
        return None
    return text, asked


def _is_check(node: ast.Expr) -> bool:
    return (
        isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == hidden.SEND
    )


def _needed(before: Sequence[ast.stmt], asked: ast.expr) -> list[ast.stmt]:
    """Those statements that may bear on an expression: all but other assertions and plain text."""
    if not any(isinstance(node, ast.Name) for node in ast.walk(asked)):
        return []
    return [
        node
        for node in before
        if not isinstance(node, ast.Assert)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
    ]


def _short(text: str) -> str | None:
    return text if len(text) <= _LONGEST_SHOWN else None
