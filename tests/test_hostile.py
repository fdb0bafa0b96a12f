"""Every hostile program, in every kind of isolation: graded, not rewarded, within its limits, and nothing left behind."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from support import hostile

from linn.domains.code import Code
from linn.sandbox import Limits, Outcome, Sandbox, compiler, isolation, scrub
from linn.types import Message, Prompt, Reply

LIMITS = Limits(cpu=0.25, wall=0.7)
SLACK = 15.0  # a crowded machine starts and reaps slowly; the limit itself is the server's
SLOW_ON_A_DISK = ("deep folders", "long name", "inodes")
"""`plain` has no folder in memory: a disk takes some milliseconds to remove each of thousands of folders."""
KINDS = isolation.kinds()
cpp = pytest.mark.skipif(not compiler.found(), reason="no C++ compiler")


def users() -> set[int]:
    """User ids of the sandbox that own a process now."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            found.add(path.stat().st_uid)
        except OSError:
            continue
    return found & set(isolation.server_uids())


def left() -> set[str]:
    """What a program could leave on the machine."""
    found = {
        str(path)
        for pattern in (
            "/tmp/linn-sandbox-*",
            "/dev/shm/*",
            "/var/tmp/*",
            "/run/linn-*",
            "/dev/mqueue/*",
        )
        for path in Path("/").glob(pattern[1:])
    }
    found |= {
        line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
        if "/linn-" in line or line.split()[4] == "/tmp"
    }
    try:
        return found | set(Path("/proc/sysvipc/shm").read_text().splitlines()[1:])
    except OSError:
        return found


@pytest.fixture(params=KINDS)
def box(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """A sandbox of each kind; afterwards the machine is as it was."""
    before, beneath = left(), users()
    made = Sandbox(LIMITS, servers=2, kind=request.param)
    yield made
    for server in made.pool.free:
        assert len(processes_below(server.process.pid)) <= 2, (
            "the isolation tool and the server itself"
        )
    made.close()
    assert made.pool.running == 0 and users() <= beneath and left() <= before


def processes_below(pid: int) -> set[int]:
    """Every process that descends from `pid`, in whatever process space."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def each(table: dict[str, str], run: Callable[[str], Outcome]) -> dict[str, Outcome]:
    """All of a table, two at a time; every one ends in time and tells only what a model may see."""

    def timed(item: tuple[str, str]) -> tuple[str, Outcome, float]:
        begun = time.monotonic()
        return item[0], run(item[1]), time.monotonic() - begun

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(timed, table.items()))
    for name, outcome, seconds in found:
        assert seconds < LIMITS.wall + SLACK, (name, seconds)
        assert outcome.error == scrub(outcome.error), (name, outcome)
        assert len(outcome.stdout) <= LIMITS.output
    return {name: outcome for name, outcome, _ in found}


def test_there_are_many() -> None:
    python = len(hostile.CALLS) + len(hostile.SCRIPTS) + len(hostile.CHECKS)
    compiled = len(hostile.CPP) + len(hostile.COMPILE_BOMBS)
    assert compiled > 50 and python + compiled > 280


def test_calls(box: Sandbox) -> None:
    slow = SLOW_ON_A_DISK if box.pool.kind == "plain" else ()
    table = {name: program for name, program in hostile.CALLS.items() if name not in slow}
    found = each(table, lambda program: box.call(program, "f", [[3]])[0])
    assert not {name: o for name, o in found.items() if o.status == "ok" and o.value == 42}
    status = {name: outcome.status for name, outcome in found.items()}
    assert {
        status[n]
        for n in (
            "loop",
            "loop in C",
            "sleep",
            "ignore signals",
            "alarm swallowed",
            "endless error",
        )
    } == {"timeout"}
    assert status["memory one"] == "memory" and status["memory touched"] != "ok"
    assert status["big answer"] == status["endless output"] == "output"
    assert (
        "too many" in found["colliding members"].error
        and "too many" in found["colliding keys"].error
    )
    assert {status[n] for n in ("fork bomb", "network", "exec", "names", "io_uring")} <= {
        "error",
        "ok",
    }
    assert (
        box.call("import os\ndef f(x):\n    return os.listdir('.')", "f", [[2]])[0].value == []
    ), "the next program starts from nothing"
    assert box.call("def f(x):\n    return x + 1", "f", [[1], [2]]) == [
        Outcome("ok", 2),
        Outcome("ok", 3),
    ]


def test_scripts_never_see_what_is_expected(box: Sandbox) -> None:
    def run(program: str) -> Outcome:
        # What the same server has held before: a test text and an input with the answer in them.
        box.check(
            "def g(x):\n    return x",
            f"def check(c):\n    assert c('{hostile.SECRET}') == '{hostile.SECRET}'  # {hash(program)}",
            "g",
        )
        box.script(f"print(input())  # {hash(program)}", hostile.SECRET)
        return box.script(program, "an input\n")

    found = each(hostile.SCRIPTS, run)
    assert not {name: o for name, o in found.items() if hostile.SECRET in o.stdout}
    assert (
        found["loop"].status == found["sleep"].status == "timeout"
        and found["flood"].status == "output"
    )


def test_checks(box: Sandbox) -> None:
    found = each(hostile.CHECKS, lambda program: box.check(program, hostile.CHECK, "g"))
    assert not {name: o for name, o in found.items() if o.status == "ok"}
    right = "def g(x):\n    return 17 if x == 4 else 18 if x == 5 else 19"
    assert box.check(right, hostile.CHECK, "g").status == "ok"


@pytest.fixture(scope="module")
def binaries() -> dict[str, bytes]:
    box = Sandbox(servers=2)
    with ThreadPoolExecutor(2) as pool:
        made = dict(zip(hostile.CPP, pool.map(box.compile, hostile.CPP.values()), strict=True))
    box.close()
    assert not {name: compiled.error for name, compiled in made.items() if not compiled.code}
    return {name: compiled.code for name, compiled in made.items()}


@cpp
def test_compiled_programs(box: Sandbox, binaries: dict[str, bytes]) -> None:
    found = each(
        {name: name for name in binaries}, lambda name: box.run(binaries[name], "an input\n")
    )
    assert not {name: o for name, o in found.items() if hostile.SECRET in o.stdout}
    status = {name: outcome.status for name, outcome in found.items()}
    assert (
        status["loop"] == status["sleep"] == status["ignore signals"] == "timeout"
        and status["flood"] == "output"
    )
    assert status["null"] == status["abort"] == status["stack"] == "error"


@cpp
def test_compile_bombs() -> None:
    before, beneath = left(), users()
    box = Sandbox(servers=2)
    small = replace(box.compiler.limits, cpu=1.0, wall=4.0, memory=1 << 28)
    box.compiler.limits = small

    def compile_(source: str) -> Outcome:
        made = box.compile(source)
        return box.run(made.code, "") if made.code else Outcome("error", error=made.error)

    found = each(hostile.COMPILE_BOMBS, compile_)
    box.close()
    for name, outcome in found.items():
        assert outcome.error or not outcome.stdout, (name, outcome)
        assert "root:" not in outcome.error and outcome.error == scrub(outcome.error)
    assert {
        found[name].status
        for name in ("carries a file", "users", "includes a binary", "an endless file")
    } == {"error"}
    assert users() <= beneath and left() <= before


def test_hostile_replies_earn_nothing() -> None:
    """The same through the domain, as rows: by value, by what is printed, by a check, and in C++."""
    domain = Code(servers=2)
    small = {"seconds": 0.25, "memory": 256}
    by_value = {"fn_name": "f", "inputs": [[3]], "outputs": [42], "language": "python"}
    printed = {"inputs": ["an input\n"], "outputs": [hostile.SECRET]}
    tables = [(hostile.CALLS, by_value), (hostile.SCRIPTS, printed)]
    jobs = [
        (
            name,
            Prompt("code", "p", (Message("user", "x"),), hidden=hidden | small),
            f"```python\n{text}\n```",
        )
        for table, hidden in tables
        for name, text in list(table.items())[::8]
    ]
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(lambda job: (job[0], domain.verify(job[1], Reply(job[2]))), jobs))
    finally:
        domain.close()
    assert all(verdict.reward == 0.0 and verdict.note for _, verdict in found), [
        pair for pair in found if pair[1].reward
    ]
