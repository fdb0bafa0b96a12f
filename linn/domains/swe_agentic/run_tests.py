"""Hidden tests in a fresh workspace: how each test ended, and whether the values it computed were the expected ones."""

from __future__ import annotations

import json
import random
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from linn.domains.swe_agentic import package
from linn.domains.swe_agentic import strip_tests as hidden
from linn.domains.swe_agentic.package import Package
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
_HERE = ".linn"


@dataclass(frozen=True)
class Seen:
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
    """`passed`, `failed` or `skipped` of every test that said so; `twice` where it said so more than once."""
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    """The values each test computed, in order."""
    why: dict[str, str] = field(default_factory=dict)
    """The error of a failed test."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long each test took."""
    fooled: str = ""
    """What showed that the run cannot be believed: a test that must fail passed, or one that must pass did not."""

    def good(self, test: str) -> bool:
        """Whether a test passed and every value it computed was right."""
        return self.outcomes.get(test) == "passed" and all(
            seen.right for seen in self.seen.get(test, ())
        )


@lru_cache(maxsize=256)
def stripped(text: str, spared: frozenset[int]) -> hidden.Stripped:
    """`hidden.strip`, remembered: the tests of a package are the same for all its tasks."""
    return hidden.strip(text, spared)


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

    Everything else in the workspace is the package's as released. `spared`: sites left as they are, a list a test module; `wanted`:
    test ids, None for all; `seed`: their order. Raises InfrastructureError when the machine fails.
    """
    modules = {
        path: stripped(source.files[path], frozenset(spared.get(path, ()))) for path in tests
    }
    sentinel = _Sentinel(tests[0], random.Random(seed))
    tree = {path: text for path, text in source.files.items() if path not in source.sources}
    tree |= files
    tree |= {path: module.text for path, module in modules.items()}
    tree |= {
        sentinel.path: sentinel.text,
        f"{_HERE}/plain.py": Path(plain.__file__).read_text(),
        f"{_HERE}/runner.py": _RUNNER.read_text(),
    }
    with Workspace(limits, tree, readable=[package.tools()]) as work:
        nonce = secrets.token_hex(16)
        inner = f"{work.root}/{_HERE}"
        settings = {
            "path": [f"{work.root}/{source.root}".rstrip("/"), work.root, str(package.tools())],
            "here": inner,
            "ini": f"{inner}/pytest.ini",
            "root": work.root,
            "nonce": nonce,
            "wanted": None if wanted is None else [*wanted, *sentinel.ids],
            "seed": seed,
            "send": hidden.SEND,
            "files": [*tests, sentinel.path],
        }
        work.write(f"{_HERE}/settings.json", json.dumps(settings))
        work.write(f"{_HERE}/pytest.ini", "[pytest]\n")
        ran = work.run(
            [python(), "-P", "-s", "-S", "-B", f"{inner}/runner.py", f"{inner}/settings.json"]
        )
    return _report(ran, nonce, modules, sentinel)


class _Sentinel:
    """Tests of our own among the others: some must fail, some must pass, whatever is tested. Their names and numbers differ by seed."""

    def __init__(self, beside: str, rng: random.Random) -> None:
        names = [f"test_{rng.randrange(1 << 40):010x}" for _ in range(6)]
        a, b = rng.randrange(100, 999), rng.randrange(100, 999)
        bodies = [
            f"assert sorted([{a + 1}, {a}]) == [{a + 1}, {a}]",
            f"raise ValueError({b})",
            f"with pytest.raises(KeyError):\n        assert {{{a}: {b}}}[{a}]",
            f"unittest.TestCase().assertEqual(str({a}), {str(b + 1000)!r})",
            f"assert divmod({a}, 7) == ({a // 7}, {a % 7})",
            f"with pytest.raises(IndexError):\n        [{b}][{a}]",
        ]
        functions = [
            f"def {name}():\n    {body}\n" for name, body in zip(names, bodies, strict=True)
        ]
        rng.shuffle(functions)
        folder = beside.rpartition("/")[0]
        self.path = (folder + "/" if folder else "") + f"test_{rng.randrange(1 << 40):010x}.py"
        self.text = "import unittest\n\nimport pytest\n\n\n" + "\n\n".join(functions)
        self.failing, self.passing = (
            [f"{self.path}::{name}" for name in part] for part in (names[:4], names[4:])
        )
        self.ids = [*self.failing, *self.passing]


def _report(
    ran: Ran, nonce: str, modules: Mapping[str, hidden.Stripped], sentinel: _Sentinel
) -> Report:
    report = Report(ran)
    for line in ran.stdout.splitlines():
        if not line.startswith(nonce):
            continue
        try:
            said = json.loads(line[len(nonce) :])
            test = said.get("test")
            if not isinstance(test, str):
                continue
            if "outcome" in said:
                report.outcomes[test] = "twice" if test in report.outcomes else str(said["outcome"])
                report.why[test] = str(said.get("why", ""))
                report.seconds[test] = float(said.get("seconds", 0.0))
            else:
                report.seen.setdefault(test, []).append(
                    _seen(said, modules.get(test.partition("::")[0]))
                )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, IndexError):
            report.fooled = "it reports what no test of ours does"
    if any(report.outcomes.get(test) == "passed" for test in sentinel.failing):
        report.fooled = "tests that must fail passed"
    elif not all(report.outcomes.get(test) == "passed" for test in sentinel.passing):
        report.fooled = report.fooled or "the test run did not come to its end"
    for test in sentinel.ids:
        report.outcomes.pop(test, None)
        report.why.pop(test, None)
    return report


def _seen(said: Mapping[str, Any], module: hidden.Stripped | None) -> Seen:
    site, row = int(said["site"]), int(said["row"])
    if module is None or site not in module.sites:
        raise KeyError(site)
    if "unsendable" in said:
        return Seen(site, row, False, None, False)
    expected = module.sites[site].values[row]
    try:
        value = plain.decode(said["value"])
        return Seen(site, row, bool(value == expected), value)
    except NotPlain:
        return Seen(site, row, False, None)
