"""The sandbox: right programs are answered, hostile ones earn nothing, overrun nothing and leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from linn.errors import InfrastructureError, UserError
from linn.sandbox import Limits, Outcome, Sandbox, isolation, scrub
from linn.sandbox.inside.plain import NotPlain, decode, encode

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
                parents[int(name)] = int(Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[1])
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
    "value", [None, True, -0.0, 10**400, "é\ud800\0", [1, [2, (3,)]], {"a": {1: 2}, (1, 2): 3}, {1, 2}, b"\xff", 1 + 2j, float("inf")]
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
    assert sandbox.script("x = 1\nx.y").error == "AttributeError: 'int' object has no attribute 'y' (line 2)"
    assert sandbox.script("while True: print('x' * 1000)").status == "output"


def test_check_runs_a_test_text(sandbox: Sandbox) -> None:
    test = (
        "METADATA = {}\n\ndef check(candidate):\n    assert candidate([1, 2]) == [2, 3]\n    assert abs(candidate([0.5])[0] - 1.5) < 1e-6\n"
    )
    assert sandbox.check("def up(x):\n    return [i + 1 for i in x]", test, "up").status == "ok"
    assert sandbox.check("def up(x):\n    return [i + 2 for i in x]", test, "up").error == "AssertionError (test line 4)"
    assert sandbox.check("def other(x):\n    return 1", test, "up").status == "error"
    raising = "def check(candidate):\n    try:\n        candidate(1)\n    except ValueError:\n        return\n    assert False"
    assert sandbox.check("def g(x):\n    raise ValueError('no')", raising, "g").status == "ok"
    helper = "def check(candidate):\n    assert math.fabs(poly(candidate(2))) < 1"
    assert sandbox.check("import math\ndef poly(x):\n    return x - 2\ndef g(x):\n    return x", helper, "g").status == "ok"


def test_files_are_imported_and_checked(sandbox: Sandbox) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/one.py": "from pack.two import g\n\ndef f(x):\n    return g(x) + 1\n",
        "pack/two.py": "def g(x):\n    return x * 2\n",
    }
    assert [o.value for o in sandbox.call_files(files, [("pack.one:f", [3]), ("pack.two:g", [3])])] == [7, 6]
    assert (
        sandbox.check_files(
            files, "from pack.one import f\nimport pack.two\n\ndef test_f():\n    assert f(3) == 7 and pack.two.g(1) == 2\n"
        ).status
        == "ok"
    )
    assert sandbox.check_files(files, "from pack.one import f\n\ndef test_f():\n    assert f(3) == 8\n").status == "error"
    assert sandbox.check_files(files, "from pack.one import f\n").status == "error", "no tests is no pass"
    assert sandbox.call_files({"a.py": "def f(:"}, [("a:f", [1]), ("a:f", [2])])[1].status == "error"


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
    assert not any("0x7" in outcome.error or "/tmp" in outcome.error for run in found for outcomes in run for outcome in outcomes)


def test_equal_requests_are_answered_from_memory(sandbox: Sandbox) -> None:
    program = "import time\ndef f(x):\n    time.sleep(0.3)\n    return x"
    sandbox.call(program, "f", [[1]])
    start = time.monotonic()
    assert sandbox.call(program, "f", [[1]])[0].value == 1
    assert time.monotonic() - start < 0.2


def test_many_threads_share_it(sandbox: Sandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: sandbox.call(f"def f(x):\n    return x + {i}", "f", [[1]])[0].value, range(40)))
    assert found == [1 + i for i in range(40)]


# ---------------------------------------------------------------- hostile programs

CTYPES = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
HOSTILE = {
    "loop": "def f(x):\n    while True: pass",
    "loop at load": "while True: pass",
    "loop in C": "def f(x):\n    return sum(range(10**12))",
    "sleep": "import time\ndef f(x):\n    time.sleep(1000)",
    "pause": "import signal\ndef f(x):\n    signal.pause()",
    "stop itself": "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGSTOP)",
    "ignore signals": "import signal\nfor s in range(1, 65):\n    try: signal.signal(s, signal.SIG_IGN)\n    except Exception: pass\nwhile True: pass",
    "raise limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (100, 100))\ndef f(x):\n    while True: pass",
    "catch all": "def f(x):\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "regex": "import re\ndef f(x):\n    return re.match(r'(a+)+$', 'a' * 60 + 'b')",
    "big power": "def f(x):\n    return 9 ** 9 ** 9",
    "memory list": "def f(x):\n    a = []\n    while True: a.append(bytearray(1 << 20))",
    "memory one": "def f(x):\n    return bytearray(1 << 40)",
    "memory string": "def f(x):\n    return 'x' * (1 << 34)",
    "memory mmap": "import mmap\ndef f(x):\n    return len(mmap.mmap(-1, 1 << 40))",
    "deep recursion": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x):\n    return f(x)",
    "deep answer": "def f(x):\n    a = []\n    for _ in range(10**5): a = [a]\n    return a",
    "cyclic answer": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "big answer": "def f(x):\n    return 'y' * (1 << 22)",
    "big integer": "def f(x):\n    return 1 << (1 << 24)",
    "many digits": "def f(x):\n    return str(10 ** 10**6)",
    "endless output": "import os\ndef f(x):\n    while True: os.write(3, b'z' * 65536)",
    "endless print": "def f(x):\n    while True: print('z' * 10000)",
    "fork bomb": "import os\ndef f(x):\n    while True: os.fork()",
    "fork once": "import os\ndef f(x):\n    if os.fork() == 0:\n        while True: pass\n    return 1",
    "vfork by C": CTYPES + "def f(x):\n    pids = [libc.fork() for _ in range(10)]\n    return pids[0] if min(pids) >= 0 else 1 / 0",
    "spawn": "import subprocess\ndef f(x):\n    return subprocess.run(['/bin/sh', '-c', 'echo 42'], capture_output=True).stdout",
    "exec": "import os\ndef f(x):\n    os.execv('/bin/sh', ['sh', '-c', 'sleep 100'])",
    "system": "import os\ndef f(x):\n    return 42 if os.system('true') == 0 else 0",
    "daemon": "import os\ndef f(x):\n    os.setsid()\n    os.fork()\n    os.setsid()",
    "multiprocessing": "import multiprocessing as m\ndef g(): pass\ndef f(x):\n    p = m.Process(target=g); p.start(); p.join(); return 42",
    "threads": "import threading, time\ndef f(x):\n    for _ in range(1000):\n        threading.Thread(target=time.sleep, args=(100,)).start()",
    "thread left": "import threading\ndef g():\n    while True: pass\nthreading.Thread(target=g).start()\ndef f(x):\n    return 7",
    "thread at exit": "import threading, time\ndef f(x):\n    threading.Thread(target=time.sleep, args=(100,), daemon=False).start()\n    return 7",
    "os._exit": "import os\ndef f(x):\n    os._exit(0)",
    "os._exit at load": "import os\nos._exit(0)",
    "sys.exit": "import sys\nsys.exit(0)",
    "exit in f": "def f(x):\n    raise SystemExit(0)",
    "base exception": "class E(BaseException): pass\ndef f(x):\n    raise E()",
    "keyboard": "def f(x):\n    raise KeyboardInterrupt",
    "atexit": "import atexit, os\natexit.register(os.write, 3, b'{\"value\": 42}\\n')\ndef f(x):\n    raise ValueError",
    "hostile error": "class E(Exception):\n    def __str__(self): raise self\ndef f(x):\n    raise E()",
    "hostile error name": "class M(type):\n    @property\n    def __name__(self): raise KeyError\nclass E(Exception, metaclass=M): pass\ndef f(x):\n    raise E()",
    "equal to all": "class A:\n    def __eq__(self, other): return True\n    __hash__ = None\ndef f(x):\n    return A()",
    "int equal to all": "class A(int):\n    def __eq__(self, other): return True\n    __hash__ = int.__hash__\ndef f(x):\n    return A(1)",
    "list equal to all": "class A(list):\n    def __eq__(self, other): return True\n    def __iter__(self): return iter([42])\ndef f(x):\n    return A()",
    "class lies": "class A:\n    __class__ = int\n    def __eq__(self, o): return True\ndef f(x):\n    return A()",
    "patched json": "import json\njson.dumps = lambda *a, **k: '42'\njson.loads = lambda *a, **k: 42\ndef f(x):\n    return 1",
    "patched builtins": "import builtins\nfor n in ('isinstance', 'len', 'repr', 'all', 'any', 'zip', 'type'):\n    setattr(builtins, n, lambda *a: True)\ndef f(x):\n    return 1",
    "patched os": "import os\nos.write = lambda *a: 0\nos._exit = lambda *a: None\ndef f(x):\n    return 1",
    "import hook": "import sys\nsys.modules.clear()\nsys.path.clear()\ndef f(x):\n    return 1",
    "trace": "import sys\nsys.settrace(lambda *a: 1 / 0)\ndef f(x):\n    return 1",
    "garbage lines": "import os\ndef f(x):\n    for fd in range(64):\n        try: os.write(fd, b'\\xff\\n{\"value\": {\"int\": \"zz\"}}\\n[[\\n')\n        except OSError: pass\n    return 1",
    "forged answer": "import os\ndef f(x):\n    for fd in range(64):\n        try: os.write(fd, b'{\"ending\": \"ended\", \"code\": 0, \"sizes\": [0, 0, 0], \"last\": false, \"seconds\": 0}\\n')\n        except OSError: pass\n    return 1",
    "close all": "import os\nos.closerange(0, 1000)\ndef f(x):\n    return 42",
    "kill all": "import os, signal\ndef f(x):\n    os.kill(-1, signal.SIGKILL)",
    "kill parent": "import os, signal\ndef f(x):\n    for s in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSEGV):\n        for p in (os.getppid(), 1):\n            try: os.kill(p, s)\n            except OSError: pass\n    return 1",
    "stop parent": "import os, signal\ndef f(x):\n    os.kill(os.getppid(), signal.SIGSTOP)\n    return 1",
    "kill group": "import os, signal\ndef f(x):\n    os.killpg(0, signal.SIGKILL)",
    "segfault": "import ctypes\ndef f(x):\n    return ctypes.string_at(0)",
    "abort": "import os\ndef f(x):\n    os.abort()",
    "bad bytecode": "def f(x): pass\nf.__code__ = f.__code__.replace(co_code=b'\\xff\\xff' * 100, co_consts=())",
    "network": "import socket\ndef f(x):\n    s = socket.socket(); s.settimeout(1); s.connect(('1.1.1.1', 80)); return 42",
    "local network": "import socket\ndef f(x):\n    s = socket.socket(socket.AF_UNIX); s.bind('\\0name'); return 42",
    "listen": "import socket\ndef f(x):\n    return 42 if socket.create_server(('127.0.0.1', 0)) else 0",
    "environment": "import os\ndef f(x):\n    return 42 if len(os.environ) > 5 or 'HOME' in os.environ else 0",
    "parent environment": "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/environ', 'rb').read()",
    "parent memory": "import os\ndef f(x):\n    return open(f'/proc/{os.getppid()}/mem', 'r+b').read(1)",
    "parent descriptors": "import os\ndef f(x):\n    return os.write(os.open(f'/proc/{os.getppid()}/fd/1', os.O_WRONLY), b'{}') and 42",
    "write system": "def f(x):\n    for p in ('/usr/lib/x', '/etc/x', '/x', '/dev/x', '/proc/sys/kernel/hostname', '/package/inside/x'):\n        try: open(p, 'w').write('x')\n        except OSError: continue\n        return 42",
    "read users": "def f(x):\n    import glob\n    return 42 if open('/etc/shadow').read() or glob.glob('/home/*/*') else 0",
    "mount": CTYPES + "def f(x):\n    return 42 if libc.mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0 else 0",
    "namespace": CTYPES + "def f(x):\n    return 42 if libc.unshare(0x10000000) == 0 else 0",
    "ptrace": CTYPES + "def f(x):\n    return 42 if libc.ptrace(16, os.getppid(), 0, 0) == 0 else 0",
    "shared memory": CTYPES + "def f(x):\n    return 42 if libc.shmget(5, 1 << 20, 0o1666) >= 0 else 0",
    "become root": "import os\ndef f(x):\n    try: os.setuid(0)\n    except OSError: return 0\n    return 42 if os.access('/etc', os.W_OK) else 0",
    "fill disk": "def f(x):\n    for i in range(10**6):\n        open(f'/tmp/{i}', 'wb').write(b'x' * (1 << 20))",
    "big file": "def f(x):\n    with open('/tmp/a', 'wb') as g:\n        for _ in range(1000): g.write(b'x' * (1 << 20))\n    return 42",
    "many files": "def f(x):\n    return [open('/dev/null') for _ in range(1000)] and 42",
    "symlinks": "import os\nos.symlink('/', '/tmp/root')\nos.symlink('/tmp/loop', '/tmp/loop')\ndef f(x):\n    return os.listdir('/tmp/root/etc')",
    "deep folders": "import os\ndef f(x):\n    while True:\n        os.mkdir('d'); os.chdir('d')",
    "locked folder": "import os\nos.mkdir('d'); open('d/x', 'w').close(); os.chmod('d', 0)\ndef f(x):\n    return 1",
    "fifo": "import os\nos.mkfifo('/tmp/p')\ndef f(x):\n    return open('/tmp/p').read()",
    "own frames": "import sys\ndef f(x):\n    g = sys._getframe(1)\n    return [v for v in g.f_locals.values() if v == 42]",
    "search memory": "import gc\ndef f(x):\n    return [o for o in gc.get_objects() if isinstance(o, dict) and 'outputs' in o][0]",
    "read stdin": "import sys, os\ndef f(x):\n    return os.read(0, 100) or sys.stdin.read() or 1",
    "generator": "def f(x):\n    while True: yield 42",
    "lazy": "def f(x):\n    return map(int, '42')",
    "function": "def f(x):\n    return f",
    "null bytes": "def f(x):\n    return '\\0' * 100\n\0",
    "not python": "<|im_end|> ``` 42",
    "surrogate": "def f(x):\n    return '\ud800'",
    "encoding": "# -*- coding: nonsense -*-\nf = 1",
    "huge source": "x = [" + "1," * 20000 + "]\ndef f(x):\n    return 1",
    "nested source": "f = " + "(" * 5000 + ")" * 5000,
    "crash parser": "f = " + "-" * 50000 + "1",
    "no function": "g = 1",
    "f is a number": "f = 42",
}  # fmt: skip


def test_there_are_many_hostile_programs() -> None:
    assert len(HOSTILE) >= 60


def test_hostile_programs_earn_nothing_and_leave_nothing(sandbox: Sandbox) -> None:
    sandbox.call("def f(x):\n    return 1", "f", [[1]])

    def run(item: tuple[str, str]) -> tuple[str, Outcome, float]:
        start = time.monotonic()
        outcome = sandbox.call(item[1], "f", [[3]])[0]
        return item[0], outcome, time.monotonic() - start

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(run, HOSTILE.items()))
    for name, outcome, seconds in found:
        passed = outcome.status == "ok" and outcome.value == 42
        assert not passed or name in ("f is a number",), (name, outcome)
        assert seconds < WALL + SLACK, (name, seconds)
        assert outcome.error == scrub(outcome.error), (name, outcome)
    by_name = {name: outcome.status for name, outcome, _ in found}
    assert by_name["loop"] == by_name["loop in C"] == by_name["sleep"] == by_name["ignore signals"] == "timeout"
    assert by_name["memory one"] == "memory" and by_name["memory list"] in ("memory", "timeout")
    assert by_name["big answer"] == by_name["endless output"] == "output"
    assert by_name["fork bomb"] == by_name["network"] == by_name["exec"] == "error"
    for server in sandbox.pool.free:
        alive = processes_below(server.process.pid)
        assert len(alive) <= 2, alive  # the isolation tool and the server itself
    assert sandbox.call("import os\ndef f(x):\n    return os.listdir('/tmp')", "f", [[2]])[0].value == [], (
        "the next program starts from nothing"
    )


CHEATS = {
    "exit": "import os\ndef g(x):\n    os._exit(0)",
    "sys.exit": "import sys\ndef g(x):\n    sys.exit(0)",
    "exit at load": "raise SystemExit(0)",
    "equal": "class A:\n    def __eq__(self, o): return True\n    def __ne__(self, o): return False\ndef g(x):\n    return A()",
    "int equal": "class A(int):\n    def __eq__(self, o): return True\ndef g(x):\n    return A()",
    "forge": "import os\nfor fd in range(64):\n    try: os.write(fd, b'{\"value\": true}\\n')\n    except OSError: pass\ndef g(x):\n    os._exit(0)",
    "forge at exit": "import atexit, os\natexit.register(os.write, 3, b'{\"value\": true}\\n')\ndef g(x):\n    return 0",
    "patch assert": "import builtins\nbuiltins.AssertionError = Warning\ndef g(x):\n    return 0",
    "own check": "def check(c):\n    pass\ndef g(x):\n    return 0",
    "shadow builtins": "def abs(x):\n    return 0\ndef len(x):\n    return 0\ndef isinstance(*a):\n    return True\ndef g(x):\n    return 0",
    "raise stop": "def g(x):\n    raise StopIteration",
    "kill judge": "import os, signal\ndef g(x):\n    os.kill(-1, signal.SIGKILL)",
    "find test": "import gc, sys\ndef g(x):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'test' in o: return 17\n    return 0",
    "read judge": "import os\ndef g(x):\n    for p in os.listdir('/proc'):\n        if p.isdigit() and int(p) != os.getpid():\n            try: open(f'/proc/{p}/mem', 'rb').read(1); return 17\n            except OSError: pass\n    return 0",
    "flood": "import os\ndef g(x):\n    while True: os.write(4, b'z' * 65536)",
    "silent": "import time\ndef g(x):\n    time.sleep(1000)",
    "thread": "import threading, os\ndef w():\n    while True:\n        try: os.write(4, b'\\0\\0\\0\\x10{\"value\": \"true\"}')\n        except OSError: return\ndef g(x):\n    threading.Thread(target=w).start()\n    return 0",
    "close": "import os\nos.closerange(0, 64)\ndef g(x):\n    return 0",
    "settrace": "import sys\nsys.settrace(lambda *a: None)\nsys.modules['math'] = None\ndef g(x):\n    return 0",
    "exception group": "def g(x):\n    raise BaseException('x')",
}  # fmt: skip


@pytest.mark.parametrize("name", CHEATS)
def test_a_check_cannot_be_cheated(name: str, sandbox: Sandbox) -> None:
    test = "import math\n\ndef check(candidate):\n    assert abs(candidate(4) - 17) < 1 and isinstance(candidate(5), int)\n    assert candidate(6) == 19\n"
    start = time.monotonic()
    assert sandbox.check(CHEATS[name], test, "g").status != "ok"
    assert time.monotonic() - start < WALL + SLACK


# ---------------------------------------------------------------- the machine's faults


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


@pytest.mark.parametrize("kind", ["unshare", "plain"])
def test_weaker_isolation_has_the_same_limits(kind: str) -> None:
    box = Sandbox(Limits(cpu=1, wall=1.5), servers=1, kind=kind if kind in isolation.kinds() else "plain")
    try:
        for name in (
            "fork bomb",
            "memory one",
            "network",
            "write system",
            "kill parent",
            "kill all",
            "parent descriptors",
            "sleep",
            "spawn",
            "big file",
        ):
            outcome = box.call(HOSTILE[name], "f", [[3]])[0]
            assert (outcome.status, outcome.value) != ("ok", 42), (name, outcome)
        assert box.call("def f(x):\n    return x + 1", "f", [[2]])[0].value == 3
        assert len(processes_below(box.pool.free[0].process.pid)) <= 2
    finally:
        box.close()


def test_servers_end_with_their_owner(tmp_path: Path) -> None:
    text = (
        "import os, time\nfrom linn.sandbox import Sandbox\nbox = Sandbox(servers=1)\nbox.call('def f(x):\\n    return 1', 'f', [[1]])\n"
        "print(box.pool.free[0].process.pid, flush=True)\ntime.sleep(100)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    )
    assert owner.stdout is not None
    server = int(owner.stdout.readline())
    below = processes_below(server)
    owner.kill()
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in below) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(_alive(pid) for pid in below)


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
                    pool.map(lambda x: sandbox.call(f"def f(x):\n    return x + {x}", "f", [[1]])[0], range(round_ * 10, round_ * 10 + 10))
                )
            assert [outcome.value for outcome in found] == [1 + x for x in range(round_ * 10, round_ * 10 + 10)]
        assert sandbox.pool.started == 2, "servers were started anew"


def test_a_server_killed_from_outside_costs_no_program_its_verdict() -> None:
    with contextlib.closing(Sandbox(servers=2)) as sandbox:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda x: sandbox.call(f"import time\ndef f():\n    time.sleep(0.2)\n    return {x}", "f", [[]]), range(2)))
        assert len(sandbox.pool.free) == 2
        for server in sandbox.pool.free:
            server.process.kill()
            server.process.wait()
        assert sandbox.call("def f():\n    return 7", "f", [[]])[0].value == 7
