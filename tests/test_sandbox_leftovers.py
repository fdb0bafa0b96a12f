"""No program leaves anything to the next one; a server that fell ill gives no verdict."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.hostile.leavers import LEAVERS, LOOK
from support.users import run_as_nobody

from linn.sandbox import Limits, Outcome, Sandbox, isolation, sentinel
from linn.sandbox.pool import header_of
from linn.sandbox.process import ServerProcess

KINDS = isolation.kinds()
LIMITS = Limits(cpu=2.0, file=1 << 20)


def what_is_left(kind: str) -> dict[str, list[tuple[str, str]]]:
    """What a program sees after each of the leavers, where that differs from a fresh server."""

    def look(box: Sandbox, number: int) -> list[str]:
        (outcome,) = box.call(f"{LOOK}# {number}", "f", [[1]])
        assert outcome.status == "ok", outcome
        seen: list[str] = outcome.value
        return seen

    left = {}
    with contextlib.closing(Sandbox(LIMITS, servers=1, kind=kind)) as box:
        fresh = look(box, 0)
        for number, (name, program) in enumerate(LEAVERS.items(), 1):
            box.call(program, "f", [[1]])
            seen = look(box, number)
            if seen != fresh:
                pairs = zip(fresh, seen, strict=True)
                left[name] = [(before, after) for before, after in pairs if before != after]
        assert box.pool.started == 1, "a server was replaced: the looks compare nothing"
    return left


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_program_leaves_anything_to_the_next(kind: str) -> None:
    assert what_is_left(kind) == {}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_program_of_a_plain_user_leaves_anything(kind: str) -> None:
    code = (
        "import json, sys, test_sandbox_leftovers as tests\n"
        "print(json.dumps(tests.what_is_left(sys.argv[1])))"
    )
    assert json.loads(run_as_nobody(code, kind)) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_no_program_sends_to_a_socket_of_the_machine(kind: str, tmp_path: Path) -> None:
    """A pair of datagram sockets needs no `socket` call, and each can send to any other."""
    for folder in (tmp_path, *tmp_path.parents[:3]):
        folder.chmod(0o755)
    path = tmp_path / "log"
    program = (
        "import socket\n"
        "def f(kind):\n"
        "    a, b = socket.socketpair(socket.AF_UNIX, kind)\n"
        f"    return a.sendto(b'x', {str(path)!r})\n"
    )
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener,
        contextlib.closing(Sandbox(LIMITS, servers=1, kind=kind)) as box,
    ):
        listener.bind(str(path))
        path.chmod(0o777)
        listener.setblocking(False)
        for number in range(1, 6):
            box.call(program, "f", [[number]])
        with pytest.raises(BlockingIOError):
            listener.recv(10)


@pytest.mark.parametrize(("user", "has_roots_rights"), [(0, False), (1000, False), (1000, True)])
def test_bubblewrap_is_asked_for_what_a_folder_for_each_program_needs(
    user: int, has_roots_rights: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "bwrap"
    tool.touch()
    tool.chmod(0o4755 if has_roots_rights else 0o755)
    monkeypatch.setattr(shutil, "which", lambda _: str(tool))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    words = isolation.command("bwrap", 1 << 20, "", groups=[7, 8])
    assert words[-2:] == ("7", "8"), "it joins its control groups by these descriptors"

    # With root's rights for all users, it keeps nothing for any but root.
    pairs = list(itertools.pairwise(words))
    assert (("--cap-add", "CAP_SYS_ADMIN") in pairs) == (not has_roots_rights)
    # As root of its user space, bubblewrap starts it in the space that owns the mounts.
    assert (("--uid", "0") in pairs) == (user != 0)
    assert ("--size", str(1 << 20)) in pairs and "--unshare-net" in words


# ------------------------------------------------------------ sick servers


RIGHT = "def f(x):\n    return x + 1  # {number}"


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of servers that fell ill by a program with `poison` in it: all fails there."""
    ill: set[int] = set()
    ask = ServerProcess.ask

    def asked(
        self: ServerProcess, header: Mapping[str, Any], bodies: list[bytes], seconds: float
    ) -> tuple[dict[str, Any], list[bytes]]:
        answer, parts = ask(self, header, bodies, seconds)
        if self.number in ill:
            parts = [b'{"error": "OSError: no space left"}\n', b"", b""]
        if b"poison" in bodies[0]:
            ill.add(self.number)
        return answer, parts

    monkeypatch.setattr(ServerProcess, "ask", asked)
    return ill


def test_a_sick_server_costs_no_right_program_its_verdict(poisoned: set[int]) -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        for number in range(6):
            if number in (2, 4):
                box.call("def f(x):\n    return 'poison'  # {number}", "f", [[number]])
            outcomes = box.call(RIGHT.format(number=number), "f", [[1]])
            assert outcomes == [Outcome("ok", 2)]
        assert box.totals()["sick"] == 2 and box.pool.sick == poisoned
        assert box.pool.started == 3, "each sick server was replaced"


SUSPICIOUS = (
    "open('/proc/none')",
    "bytearray(1 << 40)",
    "exec('raise RuntimeError(x)')",
    "__import__('missing')",
    "exec('class Mine(KeyError): pass\\nraise Mine')",
    "__import__('os')._exit(71)",
    "__import__('ctypes').string_at(0)",
)
"""What may fail because of a server."""
OWN = ("x // 0", "x.none", "none", "[][x]", "{}[x]", "int('x')", "exec('x = ')", "object()")
"""What fails on any server."""


def test_the_sentinel_looks_after_what_a_sick_server_could_cause() -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        for expression in (*SUSPICIOUS, *OWN):
            (outcome,) = box.call(f"def f(x):\n    return {expression}", "f", [[1]])
            assert outcome.status in ("error", "memory")
            is_looked_after = box.pool.free[0].unwatched == 0
            assert is_looked_after == (expression in SUSPICIOUS), expression
        assert box.pool.started == 1


def test_nothing_is_remembered_from_a_sick_server(poisoned: set[int]) -> None:
    poison = "def f(x):\n    return 'poison'"
    with contextlib.closing(Sandbox(servers=1)) as box:
        box.call(RIGHT, "f", [[1]])
        box.call(poison, "f", [[1]])
        box.call("def f(x):\n    return 1 / x", "f", [[0]])  # what fails brings the sentinel
        executions = box.totals()["executions"]
        assert box.call(RIGHT, "f", [[1]]) == [Outcome("ok", 2)]
        assert box.totals()["executions"] == executions + 1
        assert box.totals()["remembered"] == 0


def test_a_server_is_looked_after_though_all_ends_well(poisoned: set[int]) -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        box.call("def f(x):\n    return 'poison'", "f", [[1]])
        assert not box.pool.sick
        # It says that all ends well; only the sentinel can tell.
        box.pool.free[0].unwatched = 100
        box.script("print(1)")
        assert box.pool.sick == poisoned


def test_the_sentinel_refuses_what_is_left_of_others() -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        box.script("print(1)")
        header = sentinel.header_like(header_of("script", [], LIMITS))
        answer, (lines, *_) = box.pool.free[0].ask(header, [sentinel.BODY], 60)
    assert answer["ending"] == "ended" and sentinel.is_right(lines)
    for wrong in (b"", b"{}", lines.replace(b"42", b"43"), lines.replace(b"[]", b'["a"]', 1)):
        assert not sentinel.is_right(wrong)
