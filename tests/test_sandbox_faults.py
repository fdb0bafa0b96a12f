"""The sandbox where the machine fails: no verdict is lost, and none is given for the machine."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.processes import WORKING, is_alive, processes_below, working_below

from linn.errors import InfrastructureError
from linn.sandbox import Limits, Outcome, Sandbox, Workspace, isolation
from linn.sandbox.inside import server as inside
from linn.sandbox.process import Died, ServerProcess

ONE = "def f(x):\n    return 1"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}


@pytest.mark.slow
@pytest.mark.parametrize(("times", "expected"), [(1, "ok"), (2, "memory")])
def test_a_program_that_the_system_kills_is_run_again(times: int, expected: str) -> None:
    program = f"{WORKING}import time\ntime.sleep(2)\nprint(1)"
    killed: set[int] = set()
    with (
        contextlib.closing(Sandbox(Limits(wall=20.0), servers=1)) as box,
        ThreadPoolExecutor(1) as pool,
    ):
        box.script("print(0)")

        # Each run of the program is killed once it is at work; a process is killed only once.
        waiting = pool.submit(box.script, program)
        for _ in range(times):
            pid = working_below(os.getpid(), frozenset(killed))
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        assert waiting.result().status == expected


def test_a_container_whose_root_has_no_other_users() -> None:
    code = (
        "from linn.sandbox import Sandbox\n"
        "box = Sandbox(servers=1)\n"
        "print(box.script('print(41 + 1)').stdout)\n"
    )
    namespace = ["unshare", "-U", "-r"]
    if shutil.which("unshare") is None:
        pytest.skip("no user namespace can be made here")
    trial = subprocess.run([*namespace, "true"], capture_output=True, check=False)
    if trial.returncode:
        pytest.skip("no user namespace can be made here")
    words = [*namespace, sys.executable, "-c", code]
    ran = subprocess.run(words, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert ran.stdout.strip() == "42", ran.stderr


def test_every_server_has_a_user_of_its_own() -> None:
    users = set()
    for _ in range(2):
        with contextlib.closing(Sandbox(servers=1)) as box:
            users.add(box.script("import os\nprint(os.getuid())").stdout)
    assert len(users) == 2 or not isolation.server_uids()


def test_a_killed_server_is_replaced() -> None:
    box = Sandbox(servers=1)
    box.call(ONE, "f", [[1]])
    os.killpg(box.pool.free[0].process.pid, signal.SIGKILL)
    assert box.call("def f(x):\n    return 2", "f", [[1]])[0].value == 2
    box.close()
    assert box.pool.running == 0


def test_no_sandbox_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "command", lambda *args: ("/bin/false",))
    with pytest.raises(InfrastructureError):
        Sandbox().call(ONE, "f", [[1]])


def test_a_refused_fork_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server's own answer, as the pool then reads it.

    (Root's forks cannot be refused by a limit.)
    """

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    header = {"kind": "script", "sizes": [8, 0], "answers": 1, "prelude": False, **asdict(Limits())}
    (line,) = inside.ForkServer("plain", 0, str(tmp_path)).answer(header)
    answer = json.loads(bytes(line))
    assert bytes(line).endswith(b"\n") and answer["last"]
    assert "Resource temporarily unavailable" in answer["failed"]

    monkeypatch.undo()
    with contextlib.closing(Sandbox(servers=1)) as box:
        box.script("print(1)")
        monkeypatch.setattr(ServerProcess, "ask", lambda self, *_: (answer, []))
        with pytest.raises(InfrastructureError, match="temporarily unavailable"):
            box.script("print(2)")


def test_a_child_that_cannot_start_is_not_a_verdict() -> None:
    refused = Limits(memory=1 << 80)  # a limit that the system refuses
    with contextlib.closing(Sandbox(servers=1)) as box:
        with pytest.raises(InfrastructureError, match="could not run"):
            box.script("print(1)", limits=refused)
        assert box.script("print(1)").stdout == "1\n", "the next one is answered"


def test_a_full_disk_is_not_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a server that makes its programs' folders on the disk."""
    disk = SimpleNamespace(f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    header = {"kind": "script", "sizes": [8, 0], "answers": 1, "prelude": False, **asdict(Limits())}
    (line,) = inside.ForkServer("plain", 0, str(tmp_path)).answer(header)
    assert "disk is full" in json.loads(bytes(line))["failed"]
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_a_workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    # As for a plain user: root's workspaces stand in memory, whatever the disk.
    monkeypatch.setattr("linn.sandbox.covers.cover", lambda folder, size, uid: -1)
    try:
        tmp_path.chmod(0o755)
        disk.chmod(0o777)
        (disk / "junk").write_bytes(b"x" * (17 << 20))
        with pytest.raises(InfrastructureError, match="disk is full"), Workspace() as work:
            work.run(["true"])
    finally:
        subprocess.run(["umount", str(disk)], check=False)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_is_replaced_and_the_program_run_again() -> None:
    program = f"{WORKING}import time\ntime.sleep(2)\nprint(2)"
    with contextlib.closing(Sandbox(Limits(wall=20.0), servers=1)) as box:
        box.script("print(1)")
        server = box.pool.free[0].process
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(box.script, program)
            working_below(server.pid)
            os.killpg(server.pid, signal.SIGKILL)
            assert waiting.result() == Outcome("ok", stdout="2\n")
        assert box.totals()["restarts"] == 1


def test_servers_that_die_again_and_again_are_the_machines_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(self: ServerProcess, *_: object) -> None:
        raise Died("killed")

    monkeypatch.setattr(ServerProcess, "ask", die)
    with (
        contextlib.closing(Sandbox(servers=1)) as box,
        pytest.raises(InfrastructureError, match="no longer answers"),
    ):
        box.script("print(1)")


def test_without_bubblewrap_the_next_kind_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "unshare").symlink_to(shutil.which("unshare") or "/nowhere")
    monkeypatch.setenv("PATH", str(tools))
    with contextlib.closing(Sandbox(servers=1)) as box:
        assert box.script("print(1)").stdout == "1\n" and box.pool.kind != "bwrap"


# ------------------------------------------------------------ lives of servers


OWNER = """
import sys
from linn.sandbox import Limits, Sandbox

box = Sandbox(Limits(wall=60.0), servers=1, kind=sys.argv[1])
box.script('print(1)')
print(box.pool.free[0].process.pid, box.pool.free[0].scratch, flush=True)
box.script(sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", isolation.kinds())
def test_servers_and_their_programs_end_with_their_owner(kind: str) -> None:
    program = f"{WORKING}import time\ntime.sleep(50)"
    words = [sys.executable, "-c", OWNER, kind, program]
    owner = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
    assert owner.stdout is not None
    server, *scratch = owner.stdout.readline().split()

    # Killed in the middle of a program.
    working_below(int(server))
    family = processes_below(int(server))
    owner.kill()
    owner.wait()
    owner.stdout.close()

    deadline = time.monotonic() + 40  # before the program would end by itself
    while any(map(is_alive, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, family))
    assert not any(Path(folder).exists() for folder in scratch)


def test_a_server_outlives_the_thread_that_started_it() -> None:
    box = Sandbox(servers=1)
    thread = threading.Thread(target=lambda: box.call(ONE, "f", [[1]]))
    thread.start()
    thread.join()
    assert box.call("def f(x):\n    return 5", "f", [[1]])[0].value == 5
    box.close()


def test_servers_outlive_the_thread_that_first_needed_them() -> None:
    """A server dies with the thread that started it; graders run in threads that come and go."""
    with contextlib.closing(Sandbox(servers=2)) as sandbox:

        def add(number: int) -> int:
            program = f"def f(x):\n    return x + {number}"
            return int(sandbox.call(program, "f", [[1]])[0].value)

        for start in (0, 10, 20):
            with ThreadPoolExecutor(4) as pool:
                values = list(pool.map(add, range(start, start + 10)))
            assert values == [1 + number for number in range(start, start + 10)]
        assert sandbox.pool.started == 2, "servers were started anew"


def test_a_server_killed_from_outside_costs_no_program_its_verdict() -> None:
    program = "import time\ndef f(x):\n    time.sleep(0.2)\n    return x"
    with contextlib.closing(Sandbox(servers=2)) as sandbox:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda number: sandbox.call(program, "f", [[number]]), range(2)))
        assert len(sandbox.pool.free) == 2
        for server in sandbox.pool.free:
            server.process.kill()
            server.process.wait()
        assert sandbox.call("def f():\n    return 7", "f", [[]])[0].value == 7
