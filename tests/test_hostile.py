"""Every hostile program, in every kind of isolation.

Graded, not rewarded, within its limits, and nothing left behind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support import hostile
from support.processes import processes_below

from bench.hostile import left_since, traces
from linn.domains.code import Code
from linn.domains.code.unit_tests import Budget, CallTests, PrintedTests
from linn.sandbox import Limits, Outcome, Sandbox, compiler, isolation, scrub
from linn.types import Message, Prompt, Reply

pytestmark = pytest.mark.slow

LIMITS = Limits(cpu=0.25, wall=0.7)
SLOW_ON_A_DISK = ("deep folders", "long name", "inodes")
"""`plain` has no folder in memory: a disk takes milliseconds to remove each of many folders."""
KINDS = isolation.kinds()
cpp = pytest.mark.skipif(not compiler.found(), reason="no C++ compiler")


def users() -> set[int]:
    """User ids of the sandbox that own a process now."""
    owners = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            owners.add(path.stat().st_uid)
        except OSError:
            continue
    return owners & set(isolation.server_uids())


@pytest.fixture(params=KINDS)
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each kind; afterwards the machine is as it was."""
    before, users_before = traces(), users()
    box = Sandbox(LIMITS, servers=2, kind=request.param)
    yield box
    for server in box.pool.free:
        # The isolation tool and the server itself.
        assert len(processes_below(server.process.pid)) <= 2
    box.close()
    assert box.pool.running == 0
    assert users() <= users_before and left_since(before) == []


def each(table: Mapping[str, str], run: Callable[[str], Outcome]) -> dict[str, Outcome]:
    """All of a table, two at a time; every one ends, and tells only what a model may see."""
    with ThreadPoolExecutor(2) as pool:
        outcomes = dict(zip(table, pool.map(run, table.values()), strict=True))
    for name, outcome in outcomes.items():
        assert outcome.error == scrub(outcome.error), (name, outcome)
        assert len(outcome.stdout) <= LIMITS.output, name
    return outcomes


def statuses(outcomes: Mapping[str, Outcome], *names: str) -> set[str]:
    return {outcomes[name].status for name in names}


def tell_the_secret(outcomes: Mapping[str, Outcome]) -> list[str]:
    return [name for name, outcome in outcomes.items() if hostile.SECRET in outcome.stdout]


def test_there_are_many() -> None:
    python = len(hostile.CALLS) + len(hostile.SCRIPTS) + len(hostile.CHECKS)
    compiled = len(hostile.CPP) + len(hostile.COMPILE_BOMBS)
    assert compiled > 50 and python + compiled > 280


def test_calls(box: Sandbox) -> None:
    table = dict(hostile.CALLS)
    if box.pool.kind == "plain":
        for name in SLOW_ON_A_DISK:
            del table[name]

    outcomes = each(table, lambda program: box.call(program, "f", [[3]])[0])
    # Nobody computes 42: whoever answers it has found it somewhere.
    answered = {name: outcome for name, outcome in outcomes.items() if outcome.status == "ok"}
    assert not [name for name, outcome in answered.items() if outcome.value == 42]

    endless = ("loop", "loop in C", "sleep", "ignore signals", "alarm swallowed", "endless error")
    assert statuses(outcomes, *endless) == {"timeout"}

    assert statuses(outcomes, "memory one") == {"memory"}
    assert outcomes["memory touched"].status != "ok"
    assert statuses(outcomes, "big answer", "endless output") == {"output"}
    for name in ("colliding members", "colliding keys"):
        assert "too many" in outcomes[name].error

    refused = ("fork bomb", "network", "exec", "names", "io_uring")
    assert statuses(outcomes, *refused) <= {"error", "ok"}

    listing = "import os\ndef f(x):\n    return os.listdir('.')"
    assert box.call(listing, "f", [[2]])[0].value == [], "the next program starts from nothing"
    fine = box.call("def f(x):\n    return x + 1", "f", [[1], [2]])
    assert fine == [Outcome("ok", 2), Outcome("ok", 3)]


def test_scripts_never_see_what_is_expected(box: Sandbox) -> None:
    identity = "def g(x):\n    return x"
    test = f"def check(c):\n    assert c('{hostile.SECRET}') == '{hostile.SECRET}'"

    def run(program: str) -> Outcome:
        # What the same server has held before: a test text and an input with the answer in them.
        # (The number makes the request one that was not answered before.)
        box.check(identity, f"{test}  # {hash(program)}", "g")
        box.script(f"print(input())  # {hash(program)}", hostile.SECRET)
        return box.script(program, "an input\n")

    outcomes = each(hostile.SCRIPTS, run)
    assert not tell_the_secret(outcomes)
    assert statuses(outcomes, "loop", "sleep") == {"timeout"}
    assert statuses(outcomes, "flood") == {"output"}


def test_checks(box: Sandbox) -> None:
    outcomes = each(hostile.CHECKS, lambda program: box.check(program, hostile.CHECK, "g"))
    assert not [name for name, outcome in outcomes.items() if outcome.status == "ok"]
    right = "def g(x):\n    return 17 if x == 4 else 18 if x == 5 else 19"
    assert box.check(right, hostile.CHECK, "g").status == "ok"


@pytest.fixture(scope="module")
def binaries() -> dict[str, bytes]:
    box = Sandbox(servers=2)
    with ThreadPoolExecutor(2) as pool:
        compiled = list(pool.map(box.compile, hostile.CPP.values()))
    box.close()
    assert not [result.error for result in compiled if not result.code]
    return {name: result.code for name, result in zip(hostile.CPP, compiled, strict=True)}


@pytest.mark.long
@cpp
def test_compiled_programs(box: Sandbox, binaries: dict[str, bytes]) -> None:
    names = {name: name for name in binaries}
    outcomes = each(names, lambda name: box.run(binaries[name], "an input\n"))
    assert not tell_the_secret(outcomes)
    assert statuses(outcomes, "loop", "sleep", "ignore signals") == {"timeout"}
    assert statuses(outcomes, "flood") == {"output"}
    assert statuses(outcomes, "null", "abort", "stack") == {"error"}


@pytest.mark.long
@cpp
def test_compile_bombs() -> None:
    before, users_before = traces(), users()
    box = Sandbox(servers=2)
    box.compiler.limits = replace(box.compiler.limits, cpu=1.0, wall=4.0, memory=1 << 28)

    def compile_(source: str) -> Outcome:
        result = box.compile(source)
        return box.run(result.code, "") if result.code else Outcome("error", error=result.error)

    outcomes = each(hostile.COMPILE_BOMBS, compile_)
    box.close()

    for name, outcome in outcomes.items():
        assert outcome.error or not outcome.stdout, (name, outcome)
        assert "root:" not in outcome.error

    reaching = ("carries a file", "users", "includes a binary", "an endless file")
    assert statuses(outcomes, *reaching) == {"error"}
    assert users() <= users_before and left_since(before) == []


def test_hostile_replies_earn_nothing() -> None:
    """The same through the domain, as rows: by value, and by what is printed."""
    domain = Code(servers=2)
    small = Budget(seconds=0.25, memory=256)
    by_value = CallTests("f", [[3]], [42], small, "python")
    printed = PrintedTests(["an input\n"], [hostile.SECRET], small)

    # Every eighth program is enough here: the sandbox itself is tested with all of them.
    jobs = []
    for table, hidden in ((hostile.CALLS, by_value), (hostile.SCRIPTS, printed)):
        for name, text in list(table.items())[::8]:
            prompt = Prompt("code", name, (Message("user", "x"),), hidden=hidden)
            reply = Reply(f"```python\n{text}\n```")
            jobs.append((prompt, reply))

    try:
        with ThreadPoolExecutor(2) as pool:
            verdicts = list(pool.map(lambda job: domain.verify(*job), jobs))
    finally:
        domain.close()

    for (prompt, _), verdict in zip(jobs, verdicts, strict=True):
        assert verdict.reward == 0.0 and verdict.note, (prompt.id, verdict)
