"""Hidden tests in a fresh workspace: how each test ended, and which values it computed."""

from __future__ import annotations

import json
import random
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from linn.domains.swe_agentic import package, strip_tests
from linn.domains.swe_agentic.package import Package
from linn.domains.swe_agentic.strip_tests import StrippedTests
from linn.sandbox import Ran, Workspace, WorkspaceLimits
from linn.sandbox.inside import plain
from linn.sandbox.inside.plain import NotPlain
from linn.sandbox.isolation import python

LIMITS = WorkspaceLimits(
    cpu=120.0,
    wall=300.0,
    memory=1 << 30,
    address=2 << 30,
    processes=16,
    file=8 << 20,
    disk=96 << 20,
    output=16 << 20,
)
"""What one run of the hidden tests may use."""
_RUNNER = Path(__file__).with_name("runner.py")
_RUNNER_FOLDER = ".linn"
_WORD = re.compile(r"[a-z]{3,}")
_OWN_WORDS = (
    "empty single nested default order types values errors keys items simple basic large small "
    "invalid missing unicode none zero copy equal merge update repr".split()
)
"""Words of which names of tests are made."""


@dataclass(frozen=True)
class ComputedValue:
    """One value that a test computed."""

    site: int
    """Which of the module's sites."""
    row: int
    """Which row of the test's parameters."""
    right: bool
    """Whether it was the expected value."""
    value: Any
    """The value itself, plain data; None where it could not be sent."""
    sendable: bool = True
    """Whether it was plain data."""


@dataclass
class Report:
    """What came of one run."""

    ran: Ran
    """How the command ended."""
    outcomes: dict[str, str] = field(default_factory=dict)
    """`passed`, `failed` or `skipped` per test that reported; `twice` for one that did so again."""
    values: dict[str, list[ComputedValue]] = field(default_factory=dict)
    """The values that each test computed, in order."""
    why: dict[str, str] = field(default_factory=dict)
    """The error of a failed test."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each test took."""
    doubt: str = ""
    """What showed that the run cannot be believed, such as a pass of a test that must fail."""

    def is_right(self, test: str) -> bool:
        """Whether a test passed and every value it computed was right."""
        if self.outcomes.get(test) != "passed":
            return False
        return all(value.right for value in self.values.get(test, ()))

    def order(self, test: str) -> list[tuple[int, int]]:
        """(site, row) of the values that a test computed, in order."""
        return [(value.site, value.row) for value in self.values.get(test, ())]


@lru_cache(maxsize=256)
def stripped(text: str, spared: frozenset[int]) -> StrippedTests:
    """`strip_tests.strip`, cached: the tests of a package are the same for all its tasks."""
    return strip_tests.strip(text, spared)


def run(
    source: Package,
    files: Mapping[str, str],
    tests: Sequence[str],
    spared: Mapping[str, Collection[int]],
    wanted: Collection[str] | None,
    seed: int,
    limits: WorkspaceLimits = LIMITS,
) -> Report:
    """Run stripped test modules against the package with `files` in place of its own sources.

    Everything else in the workspace is the package's as released. `tests`: paths of test modules.
    `spared`: numbers of sites that stay, per test module. `wanted`: test ids, None for all. `seed`:
    their order. Raises InfrastructureError when the machine fails.
    """
    modules: dict[str, StrippedTests] = {}
    for path in tests:
        own_spared = frozenset(spared.get(path, ()))
        modules[path] = stripped(source.files[path], own_spared)
    names = sorted({name for module in modules.values() for name in module.tests})
    sentinel = _Sentinel(tests[0], names, source.files, random.Random(seed))
    nonce = secrets.token_hex(16)

    tools = package.tools()
    tree = _tree(source, files, modules, sentinel)

    with Workspace(limits, tree, readable=[tools]) as work:
        here = f"{work.root}/{_RUNNER_FOLDER}"
        source_root = f"{work.root}/{source.root}".rstrip("/")
        settings = {
            "path": [source_root, work.root, str(tools)],
            "here": here,
            "ini": f"{here}/pytest.ini",
            "root": work.root,
            "nonce": nonce,
            "wanted": None if wanted is None else [*wanted, *sentinel.ids],
            "seed": seed,
            "send": strip_tests.SEND,
            "files": [*tests, sentinel.path],
        }
        work.write(f"{_RUNNER_FOLDER}/settings.json", json.dumps(settings))
        work.write(f"{_RUNNER_FOLDER}/pytest.ini", "[pytest]\n")

        # No packages of this machine: what can be imported is what the settings name.
        command = [python(), "-P", "-s", "-S", "-B"]
        ran = work.run([*command, f"{here}/runner.py", f"{here}/settings.json"])
    return _report(ran, nonce, modules, sentinel)


def _tree(
    source: Package,
    files: Mapping[str, str],
    modules: Mapping[str, StrippedTests],
    sentinel: _Sentinel,
) -> dict[str, str]:
    """All files of the workspace; later ones replace earlier ones."""
    tree = {path: text for path, text in source.files.items() if path not in source.sources}
    tree |= files

    # The hidden tests come after the model's files, so that none of those stands in their place.
    for path, module in modules.items():
        tree[path] = module.text
    tree[sentinel.path] = sentinel.text

    # The runner imports no linn: what it needs stands beside it.
    runner_files = {"runner.py": _RUNNER, "plain.py": Path(plain.__file__)}
    for name, file in runner_files.items():
        tree[f"{_RUNNER_FOLDER}/{name}"] = file.read_text()
    return tree


class _Sentinel:
    """Tests of our own among the others, to tell a run that was tampered with.

    Some must fail, some must pass, whatever is tested. Names and numbers differ by seed; the names
    are made of words of the package's own tests, so that nobody can tell ours by theirs.
    """

    def __init__(
        self, beside: str, known: Sequence[str], taken: Collection[str], rng: random.Random
    ) -> None:
        """`beside`: the path of a test module, in whose folder this one stands. `known`: the
        package's tests. `taken`: paths that its files have.
        """
        words = sorted({word for name in known for word in _WORD.findall(name)} - {"test"})
        names: list[str] = []
        while len(names) < 6:
            name = _test_name(words, rng)
            if name not in known and name not in names:
                names.append(name)
        a = rng.randrange(100, 999)
        b = rng.randrange(100, 999)
        bodies = [
            # these four fail
            f"assert sorted([{a + 1}, {a}]) == [{a + 1}, {a}]",
            f"raise ValueError({b})",
            f"with pytest.raises(KeyError):\n        assert {{{a}: {b}}}[{a}]",
            f"unittest.TestCase().assertEqual(str({a}), {str(b + 1000)!r})",
            # these two pass
            f"assert divmod({a}, 7) == ({a // 7}, {a % 7})",
            f"with pytest.raises(IndexError):\n        [{b}][{a}]",
        ]
        functions = []
        for name, body in zip(names, bodies, strict=True):
            functions.append(f"def {name}():\n    {body}\n")
        rng.shuffle(functions)

        self.text = "import unittest\n\nimport pytest\n\n\n" + "\n\n".join(functions)

        folder, slash, _ = beside.rpartition("/")
        self.path = ""
        while not self.path or self.path in taken:
            self.path = f"{folder}{slash}{_test_name(words, rng)}.py"
        self.ids = [f"{self.path}::{name}" for name in names]

        # Split as the bodies are, not as the functions stand in the file.
        self.failing = self.ids[:4]
        self.passing = self.ids[4:]


def _test_name(words: Sequence[str], rng: random.Random) -> str:
    """A test's name; where the package's tests share few words, of words of our own as well."""
    known = [*words, *_OWN_WORDS] if len(words) < len(_OWN_WORDS) else words
    return "_".join(["test", *rng.sample(known, rng.randint(2, 3))])


def _report(
    ran: Ran, nonce: str, modules: Mapping[str, StrippedTests], sentinel: _Sentinel
) -> Report:
    """What the lines behind the nonce say, and whether the sentinel's tests ended as they must."""
    # Whoever knows the nonce can write lines, and tested code may find it out.
    report = Report(ran)
    for line in ran.stdout.splitlines():
        if not line.startswith(nonce):
            continue
        try:
            _add_line(report, json.loads(line.removeprefix(nonce)), modules)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
            report.doubt = "it reports what no test of ours does"

    # Nothing of a run counts in which tested code could change what a test says.
    passed = {test for test, outcome in report.outcomes.items() if outcome == "passed"}
    if passed & set(sentinel.failing):
        report.doubt = "tests that must fail passed"
    elif not passed >= set(sentinel.passing):
        report.doubt = report.doubt or "the test run did not come to its end"

    for test in sentinel.ids:
        report.outcomes.pop(test, None)
        report.why.pop(test, None)
    return report


def _add_line(report: Report, line: Any, modules: Mapping[str, StrippedTests]) -> None:
    """Add one line of the runner; raises where the runner would not write such a line."""
    test = line.get("test")
    if not isinstance(test, str):
        return

    if "outcome" not in line:
        values = report.values.setdefault(test, [])
        module = modules.get(test.partition("::")[0])
        values.append(_computed_value(line, module))
        return

    # A test that ends twice was forged at least once.
    outcome = "twice" if test in report.outcomes else str(line["outcome"])
    report.outcomes[test] = outcome
    report.why[test] = str(line.get("why", ""))
    report.seconds[test] = float(line.get("seconds", 0.0))


def _computed_value(line: Mapping[str, Any], module: StrippedTests | None) -> ComputedValue:
    """The value that a line carries, beside the expected one."""
    site = int(line["site"])
    row = int(line["row"])
    if module is None or site not in module.sites:
        raise KeyError(site)
    if "unsendable" in line:
        return ComputedValue(site, row, right=False, value=None, sendable=False)

    expected = module.sites[site].values[row]
    try:
        value = plain.decode(line["value"])
    except NotPlain:
        return ComputedValue(site, row, right=False, value=None)
    # Plain data only: no object of the tested code has a say in this comparison.
    right = bool(value == expected)
    return ComputedValue(site, row, right=right, value=value)
