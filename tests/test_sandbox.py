"""The sandbox: right programs are answered, hostile ones earn nothing, overrun nothing and leave nothing behind."""

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
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from linn.errors import InfrastructureError, UserError
from linn.sandbox import Limits, Outcome, Sandbox, Workspace, compiler, isolation
from linn.sandbox.inside import server as inside
from linn.sandbox.inside.plain import NotPlain, decode, encode
from linn.sandbox.outcome import outcome_of
from linn.sandbox.process import Died, ServerProcess

WALL = 2.0
SLACK = 15.0  # a crowded machine starts and reaps slowly; the limit itself is the server's


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(Limits(cpu=1, wall=WALL), servers=2)
    yield box
    box.close()


def processes_below(pid: int) -> set[int]:
    """Every process that descends from `pid`, in whatever process space."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parents[int(name)] = int(
                    Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1]
                )
            except OSError:
                continue
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


# ---------------------------------------------------------------- what it is for


def test_call_answers_each_input(sandbox: Sandbox) -> None:
    outcomes = sandbox.call("def f(a, b):\n    return a / b", "f", [[6, 3], [1, 0], [1, 4]])
    assert [o.status for o in outcomes] == ["ok", "error", "ok"]
    assert (outcomes[0].value, outcomes[2].value) == (2.0, 0.25)
    assert outcomes[1].error == "ZeroDivisionError: division by zero (line 2)"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -0.0,
        10**400,
        "é\ud800\0",
        [1, [2, (3,)]],
        {"a": {1: 2}, (1, 2): 3},
        {1, 2},
        b"\xff",
        1 + 2j,
        float("inf"),
    ],
)
def test_plain_data_crosses_unchanged(value: object, sandbox: Sandbox) -> None:
    assert repr(decode(encode(value))) == repr(value)
    assert repr(sandbox.call("def f(x):\n    return x", "f", [[value]])[0].value) == repr(value)


def test_decode_refuses_hostile_text() -> None:
    for text in (
        "",
        "[" * 100_000,
        '{"int": "zz"}',
        '{"int": 3}',
        '{"dict": [[[], 1]]}',
        '{"set": 3}',
        '{"a": 1, "b": 2}',
        "9" * 5000,
        '{"bytes": "x"}',
    ):
        with pytest.raises(NotPlain):
            decode(text)


def test_script_reads_and_prints(sandbox: Sandbox) -> None:
    program = "import sys\nfor line in sys.stdin:\n    print(int(line) * 2)\nif __name__ == '__main__':\n    print('main')"
    assert sandbox.script(program, "1\n2\n") == Outcome("ok", stdout="2\n4\nmain\n")
    assert sandbox.script("print('a')\nraise SystemExit(0)") == Outcome("ok", stdout="a\n")
    assert sandbox.script("raise SystemExit(3)").status == "error"
    assert (
        sandbox.script("x = 1\nx.y").error
        == "AttributeError: 'int' object has no attribute 'y' (line 2)"
    )
    assert sandbox.script("while True: print('x' * 1000)").status == "output"


def test_check_runs_a_test_text(sandbox: Sandbox) -> None:
    test = "METADATA = {}\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert abs(candidate([0.5])[0] - 1.5) < 1e-6\n"
    assert sandbox.check("def up(x):\n    return [i + 1 for i in x]", test, "up").status == "ok"
    assert (
        sandbox.check("def up(x):\n    return [i + 2 for i in x]", test, "up").error
        == "AssertionError (test line 4)"
    )
    assert sandbox.check("def other(x):\n    return 1", test, "up").status == "error"
    raising = "def check(candidate):\n    try:\n        candidate(1)\n    except ValueError:\n        return\n    assert False"
    assert sandbox.check("def g(x):\n    raise ValueError('no')", raising, "g").status == "ok"
    helper = "def check(candidate):\n    assert math.fabs(poly(candidate(2))) < 1"
    assert (
        sandbox.check(
            "import math\ndef poly(x):\n    return x - 2\ndef g(x):\n    return x", helper, "g"
        ).status
        == "ok"
    )


def test_files_are_imported_and_checked(sandbox: Sandbox) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/one.py": "from pack.two import g\n\ndef f(x):\n    return g(x) + 1\n",
        "pack/two.py": "def g(x):\n    return x * 2\n",
    }
    assert [
        o.value for o in sandbox.call_files(files, [("pack.one:f", [3]), ("pack.two:g", [3])])
    ] == [7, 6]
    assert (
        sandbox.check_files(
            files,
            "from pack.one import f\nimport pack.two\n\ndef test_f():\n    assert f(3) == 7 and pack.two.g(1) == 2\n",
        ).status
        == "ok"
    )
    assert (
        sandbox.check_files(
            files, "from pack.one import f\n\ndef test_f():\n    assert f(3) == 8\n"
        ).status
        == "error"
    )
    assert sandbox.check_files(files, "from pack.one import f\n").status == "error", (
        "no tests is no pass"
    )
    assert (
        sandbox.call_files({"a.py": "def f(:"}, [("a:f", [1]), ("a:f", [2])])[1].status == "error"
    )


def test_paths_must_stay_inside(sandbox: Sandbox) -> None:
    for path in ("/etc/x", "../x", "a/../../x", "", "a//b", "./a"):
        with pytest.raises(UserError):
            sandbox.call_files({path: ""}, [("a:f", [])])


def test_the_same_program_gives_the_same_text() -> None:
    programs = [
        "def f(x):\n    return object()",
        "def f(x):\n    raise ValueError(object())",
        "import random\ndef f(x):\n    return random.random()",
    ]
    programs += [
        "def f(x):\n    return list({str(i) for i in range(50)})",
        "def f(x):\n    return open('/tmp/nothing/here')",
        "def f(x):\n    return __import__('nope')",
    ]
    found = []
    for _ in range(2):
        box = Sandbox(servers=1)
        found.append([box.call(program, "f", [[1]]) for program in programs])
        box.close()
    assert found[0] == found[1]
    assert not any(
        "0x7" in outcome.error or "/tmp" in outcome.error
        for run in found
        for outcomes in run
        for outcome in outcomes
    )


def test_equal_requests_are_answered_from_memory(sandbox: Sandbox) -> None:
    program = "import time\ndef f(x):\n    time.sleep(0.3)\n    return x"
    sandbox.call(program, "f", [[1]])
    start = time.monotonic()
    assert sandbox.call(program, "f", [[1]])[0].value == 1
    assert time.monotonic() - start < 0.2


def test_many_threads_share_it(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(
                lambda i: sandbox.call(f"def f(x):\n    return x + {i}", "f", [[1]])[0].value,
                range(40),
            )
        )
    assert found == [1 + i for i in range(40)]


def test_reading_what_a_program_says_costs_little(sandbox: Sandbox) -> None:
    """linn's own process has no limits: nothing that a program sends may keep it busy."""
    begun = time.thread_time()
    program = "import os\ndef f(x):\n    os.write(3, b'[]\\n' * (1 << 20))"
    assert (
        sandbox.call(program, "f", [[1]], Limits(cpu=4, wall=60.0, output=4 << 20))[0].status
        == "error"
    )
    members = [
        {"tuple": [-1 - (i >> bit & 1) for bit in range(17)]} for i in range(20_000)
    ]  # -1 and -2 have the same hash
    assert outcome_of(json.dumps({"value": {"set": members}}).encode()).status == "error"
    assert time.thread_time() - begun < 2.0


@pytest.mark.parametrize("kind", isolation.kinds())
def test_the_whole_standard_library_is_there(kind: str) -> None:
    """Wherever the interpreter stands: also below a folder that the programs' user may not enter."""
    program = "import array, queue, threading, json.tool, concurrent.futures, xml.etree.ElementTree\nprint('é'.encode('cp1252'))\n"
    program += "t = threading.Thread(target=print, args=(2,))\nt.start(); t.join()"
    with contextlib.closing(Sandbox(servers=1, kind=kind)) as box:
        assert box.script(program) == Outcome("ok", stdout="b'\\xe9'\n2\n")


def test_a_check_cannot_be_cut_short(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    assert all(map(lambda x: candidate(x) == x + 1, [1, 2, 3]))"
    assert sandbox.check("def g(x):\n    raise StopIteration", test, "g").status == "error"
    assert sandbox.check("def g(x):\n    return x + 1", test, "g").status == "ok"


# ---------------------------------------------------------------- the machine's faults


def test_a_program_that_the_system_kills_is_run_again() -> None:
    def kill(box: Sandbox, times: int) -> Outcome:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(box.script, f"import time\ntime.sleep(1.5)\nprint({times})")
            for _ in range(times):
                time.sleep(0.5)
                (server,) = working
                os.kill(max(processes_below(server().process.pid)), signal.SIGKILL)
            return waiting.result()

    with contextlib.closing(Sandbox(Limits(wall=20.0), servers=1)) as box:
        started, working = box.pool._start, [lambda: servers[-1]]
        servers: list[ServerProcess] = []
        box.pool._start = lambda: servers.append(started()) or servers[-1]  # type: ignore[method-assign,func-returns-value]
        box.script("print(0)")
        assert kill(box, 1) == Outcome("ok", stdout="1\n")
        assert kill(box, 2).status == "memory"


def test_a_container_whose_root_has_no_other_users(tmp_path: Path) -> None:
    text = "from linn.sandbox import Sandbox\nbox = Sandbox(servers=1)\nprint(box.script('print(41 + 1)').stdout)\n"
    words = ["unshare", "-U", "-r", sys.executable, "-c", text]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*words[:3], "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no user namespace can be made here")
    ran = subprocess.run(
        words,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert ran.stdout.strip() == "42", ran.stderr


def test_every_server_has_a_user_of_its_own() -> None:
    with (
        contextlib.closing(Sandbox(servers=1)) as one,
        contextlib.closing(Sandbox(servers=1)) as two,
    ):
        found = {box.script("import os\nprint(os.getuid())").stdout for box in (one, two)}
    assert len(found) == 2 or not isolation.server_uids()


def test_a_killed_server_is_replaced() -> None:
    box = Sandbox(servers=1)
    box.call("def f(x):\n    return 1", "f", [[1]])
    os.killpg(box.pool.free[0].process.pid, signal.SIGKILL)
    assert box.call("def f(x):\n    return 2", "f", [[1]])[0].value == 2
    box.close()
    assert box.pool.running == 0


def test_no_sandbox_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "command", lambda *args: ("/bin/false",))
    with pytest.raises(InfrastructureError):
        Sandbox().call("def f(x):\n    return 1", "f", [[1]])


def test_a_refused_fork_is_not_a_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server's own answer, as the pool then reads it (root's forks cannot be refused by a limit)."""

    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    header = {"kind": "script", "sizes": [8, 0], "answers": 1, "prelude": False, **asdict(Limits())}
    said = inside.ForkServer("plain", 0, str(tmp_path)).answer(header)
    answer = json.loads(bytes(said[0]))
    assert (
        len(said) == 1
        and bytes(said[0]).endswith(b"\n")
        and "Resource temporarily unavailable" in answer["failed"]
        and answer["last"]
    )
    monkeypatch.undo()
    with contextlib.closing(Sandbox(servers=1)) as box:
        box.script("print(1)")
        monkeypatch.setattr(ServerProcess, "ask", lambda self, *_: (answer, []))
        with pytest.raises(InfrastructureError, match="temporarily unavailable"):
            box.script("print(2)")


def test_a_child_that_cannot_start_is_not_a_verdict() -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        with pytest.raises(InfrastructureError, match="could not run"):
            box.script("print(1)", limits=Limits(memory=1 << 80))  # a limit that the system refuses
        assert box.script("print(1)").stdout == "1\n", "the next one is answered"


def test_a_full_disk_is_not_a_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "none", str(disk)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip("no small disk can be mounted here")
    monkeypatch.setattr(tempfile, "tempdir", str(disk))
    try:
        tmp_path.chmod(0o755)
        disk.chmod(0o777)
        with contextlib.closing(Sandbox(servers=1, kind="plain")) as box:
            assert box.script("print(1)").stdout == "1\n"
            (disk / "junk").write_bytes(b"x" * (17 << 20))
            with pytest.raises(InfrastructureError, match="disk is full"):
                box.script("open('x', 'w').write('y')")
            with pytest.raises(InfrastructureError, match="disk is full"), Workspace() as work:
                work.run(["true"])
            (disk / "junk").unlink()
            assert box.script("open('x', 'w').write('y')").status == "ok"
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def test_a_server_killed_in_the_middle_is_replaced_and_the_program_run_again() -> None:
    with contextlib.closing(Sandbox(Limits(wall=20.0), servers=1)) as box:
        box.script("print(1)")
        server = box.pool.free[0]
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(box.script, "import time\ntime.sleep(1)\nprint(2)")
            time.sleep(0.3)
            os.killpg(server.process.pid, signal.SIGKILL)
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


# ---------------------------------------------------------------- limits, large data, C++


def test_limits_hold_for_each_call_and_may_be_fractions() -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        program = "def f(n):\n    s = 0\n    for i in range(n): s += i\n    return n"
        begun = time.monotonic()
        found = box.call(program, "f", [[10], [10**10], [5]], Limits(cpu=0.2, wall=9.0))
        assert [o.status for o in found] == [
            "ok",
            "timeout",
            "timeout",
        ] and time.monotonic() - begun < 5
        each = box.call("import time\ndef f(n):\n    e = time.process_time() + 0.15\n    while time.process_time() < e: pass\n    return n",
                        "f", [[i] for i in range(5)], Limits(cpu=0.4, wall=9.0))  # fmt: skip
        assert [o.value for o in each] == [0, 1, 2, 3, 4], "the limit is each call's own"
        assert box.totals()["timeouts"] == 1


@pytest.mark.parametrize("kind", isolation.kinds())
def test_a_loaded_machine_changes_no_verdict(kind: str) -> None:
    """Five loops share one core with a program that works longer, by the clock, than it may wait."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(5)]
        with contextlib.closing(Sandbox(Limits(cpu=1.0, wall=0.6), servers=1, kind=kind)) as box:
            work = "import time\nwhile time.process_time() < 0.4: pass\nprint(1)"
            assert box.script(work) == Outcome("ok", stdout="1\n")
            threaded = f"import threading\nt = threading.Thread(target=exec, args=({work!r},))\nt.start(); t.join()"
            assert box.script(threaded) == Outcome("ok", stdout="1\n")
            begun = time.monotonic()
            assert (
                box.script("import time\ntime.sleep(60)").status == "timeout"
                and time.monotonic() - begun < 30
            )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
        os.sched_setaffinity(0, allowed)


def test_megabytes_go_in_and_out() -> None:
    text = "".join(f"{i}\n" for i in range(600_000))
    with contextlib.closing(
        Sandbox(Limits(cpu=5, memory=1 << 29, output=8 << 20), servers=1)
    ) as box:
        assert box.script("import sys\nsys.stdout.write(sys.stdin.read())", text).stdout == text
        assert (
            box.script("print(sum(map(int, open(0))))", text).stdout == f"{sum(range(600_000))}\n"
        )
        assert box.script("print(len(open('/dev/stdin').read()))", text).stdout == f"{len(text)}\n"
        assert box.script("print('é' * 5 + input())", "日本\n").stdout == "ééééé日本\n"


def test_the_prelude_gives_names_but_no_solutions() -> None:
    with contextlib.closing(Sandbox(servers=1)) as box:
        program = "class Solution:\n    def top(self, nums: List[int]) -> int:\n        return heappop(nums) + gcd(4, 6) + pow(2, 3, 5)"
        assert box.call(program, "top", [[[1, 3, 2]]], prelude=True)[0].value == 6
        assert box.call(program, "top", [[[1, 3, 2]]])[0].status == "error", "not without it"
        assert box.call("x = 1", "gcd", [[4, 6]], prelude=True)[0].status == "error", (
            "a function nobody wrote"
        )
        assert (
            box.script(
                "print(Counter(input()).most_common(1), sys.getrecursionlimit())",
                "aab",
                prelude=True,
            ).stdout
            == "[('a', 2)] 50000\n"
        )


@pytest.mark.skipif(not compiler.found(), reason="no C++ compiler")
@pytest.mark.parametrize("kind", isolation.kinds())
def test_compiled_programs_run(kind: str) -> None:
    with contextlib.closing(Sandbox(servers=1, kind=kind)) as box:
        source = '#include <cstdio>\n#include <thread>\nint main() { long n; if (scanf("%ld", &n) != 1) return 3; std::thread t([&] { n *= 2; }); t.join(); printf("%ld\\n", n); }'
        code = box.compile(source).code
        assert box.run(code, "21\n") == Outcome("ok", stdout="42\n")
        assert box.run(code, "x").error == "exit code 3"
        assert box.compile(source).code is code, "compiled once"
        assert (
            "expected" in box.compile("int main() { return 1 }").error
            and "(line 1)" in box.compile("int main() { return 1 }").error
        )


def test_without_a_compiler_the_refusal_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "found", lambda: "")
    with (
        contextlib.closing(Sandbox(servers=1)) as box,
        pytest.raises(UserError, match="install g\\+\\+"),
    ):
        box.compile("int main() {}")


@pytest.mark.parametrize("kind", isolation.kinds())
def test_servers_and_their_programs_end_with_their_owner(kind: str) -> None:
    text = (
        f"from linn.sandbox import Limits, Sandbox\nbox = Sandbox(Limits(wall=60.0), servers=1, kind={kind!r})\nbox.script('print(1)')\n"
        "print(box.pool.free[0].process.pid, flush=True)\nbox.script('import time\\ntime.sleep(50)')\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", text],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    time.sleep(0.5)
    below, scratch = (
        processes_below(server),
        Path(Path(f"/proc/{server}/cmdline").read_text().split("\0")[-3]),
    )
    assert len(below) > 1, "the program runs"
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in below)
    assert kind != "plain" or not scratch.exists()


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_server_outlives_the_thread_that_started_it() -> None:
    box = Sandbox(servers=1)
    thread = threading.Thread(target=lambda: box.call("def f(x):\n    return 1", "f", [[1]]))
    thread.start()
    thread.join()
    assert box.call("def f(x):\n    return 5", "f", [[1]])[0].value == 5
    box.close()


def test_servers_outlive_the_thread_that_first_needed_them() -> None:
    """A server dies with the thread that started it; graders run in threads that come and go."""
    with contextlib.closing(Sandbox(servers=2)) as sandbox:
        for round_ in range(3):
            with ThreadPoolExecutor(4) as pool:
                found = list(
                    pool.map(
                        lambda x: sandbox.call(f"def f(x):\n    return x + {x}", "f", [[1]])[0],
                        range(round_ * 10, round_ * 10 + 10),
                    )
                )
            assert [outcome.value for outcome in found] == [
                1 + x for x in range(round_ * 10, round_ * 10 + 10)
            ]
        assert sandbox.pool.started == 2, "servers were started anew"


def test_a_server_killed_from_outside_costs_no_program_its_verdict() -> None:
    with contextlib.closing(Sandbox(servers=2)) as sandbox:
        with ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda x: sandbox.call(
                        f"import time\ndef f():\n    time.sleep(0.2)\n    return {x}", "f", [[]]
                    ),
                    range(2),
                )
            )
        assert len(sandbox.pool.free) == 2
        for server in sandbox.pool.free:
            server.process.kill()
            server.process.wait()
        assert sandbox.call("def f():\n    return 7", "f", [[]])[0].value == 7
