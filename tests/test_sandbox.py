"""The sandbox: right programs are answered, limits hold, large data and C++ go through.

What becomes of a program where the machine fails: `test_sandbox_faults.py`. Hostile programs:
`test_hostile.py`.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from linn.errors import UserError
from linn.sandbox import Limits, Outcome, Sandbox, client, compiler, isolation
from linn.sandbox.inside.plain import NotPlain, decode, encode
from linn.sandbox.outcome import outcome_of


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    box = Sandbox(Limits(cpu=1, wall=2.0), servers=2)
    yield box
    box.close()


def test_call_answers_each_input(sandbox: Sandbox) -> None:
    outcomes = sandbox.call("def f(a, b):\n    return a / b", "f", [[6, 3], [1, 0], [1, 4]])
    assert [outcome.status for outcome in outcomes] == ["ok", "error", "ok"]
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
    answered = sandbox.call("def f(x):\n    return x", "f", [[value]])[0].value
    assert repr(answered) == repr(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[" * 100_000,
        '{"int": "zz"}',
        '{"int": 3}',
        '{"dict": [[[], 1]]}',
        '{"set": 3}',
        '{"a": 1, "b": 2}',
        "9" * 5000,
        '{"bytes": "x"}',
    ],
    ids=lambda text: text[:20],
)
def test_decode_refuses_hostile_text(text: str) -> None:
    with pytest.raises(NotPlain):
        decode(text)


def test_script_reads_and_prints(sandbox: Sandbox) -> None:
    program = (
        "import sys\n"
        "for line in sys.stdin:\n"
        "    print(int(line) * 2)\n"
        "if __name__ == '__main__':\n"
        "    print('main')"
    )
    assert sandbox.script(program, "1\n2\n") == Outcome("ok", stdout="2\n4\nmain\n")
    assert sandbox.script("print('a')\nraise SystemExit(0)") == Outcome("ok", stdout="a\n")
    assert sandbox.script("raise SystemExit(3)").status == "error"
    error = sandbox.script("x = 1\nx.y").error
    assert error == "AttributeError: 'int' object has no attribute 'y' (line 2)"
    assert sandbox.script("while True: print('x' * 1000)").status == "output"


def test_check_runs_a_test_text(sandbox: Sandbox) -> None:
    test = (
        "METADATA = {}\n"
        "\n"
        "def check(candidate):\n"
        "    assert candidate([1, 2]) == [2, 3]\n"
        "    assert abs(candidate([0.5])[0] - 1.5) < 1e-6\n"
    )
    right = "def up(x):\n    return [i + 1 for i in x]"
    wrong = "def up(x):\n    return [i + 2 for i in x]"
    assert sandbox.check(right, test, "up").status == "ok"
    assert sandbox.check(wrong, test, "up").error == "AssertionError (test line 4)"
    assert sandbox.check("def other(x):\n    return 1", test, "up").status == "error"


def test_a_check_hears_exceptions_and_may_use_other_functions(sandbox: Sandbox) -> None:
    test = (
        "def check(candidate):\n"
        "    try:\n"
        "        candidate(1)\n"
        "    except ValueError:\n"
        "        return\n"
        "    assert False"
    )
    raising = "def g(x):\n    raise ValueError('no')"
    assert sandbox.check(raising, test, "g").status == "ok"

    test = "def check(candidate):\n    assert math.fabs(poly(candidate(2))) < 1"
    program = "import math\ndef poly(x):\n    return x - 2\ndef g(x):\n    return x"
    assert sandbox.check(program, test, "g").status == "ok"


def test_files_are_imported_and_checked(sandbox: Sandbox) -> None:
    files = {
        "pack/__init__.py": "",
        "pack/one.py": "from pack.two import g\n\ndef f(x):\n    return g(x) + 1\n",
        "pack/two.py": "def g(x):\n    return x * 2\n",
    }
    outcomes = sandbox.call_files(files, [("pack.one:f", [3]), ("pack.two:g", [3])])
    assert [outcome.value for outcome in outcomes] == [7, 6]

    imports = "from pack.one import f\nimport pack.two\n"
    right = f"{imports}\ndef test_f():\n    assert f(3) == 7 and pack.two.g(1) == 2\n"
    wrong = f"{imports}\ndef test_f():\n    assert f(3) == 8\n"
    assert sandbox.check_files(files, right).status == "ok"
    assert sandbox.check_files(files, wrong).status == "error"
    assert sandbox.check_files(files, imports).status == "error", "a text without tests"
    broken = sandbox.call_files({"a.py": "def f(:"}, [("a:f", [1]), ("a:f", [2])])
    assert broken[1].status == "error"


def test_paths_must_stay_inside(sandbox: Sandbox) -> None:
    for path in ("/etc/x", "../x", "a/../../x", "", "a//b", "./a"):
        with pytest.raises(UserError):
            sandbox.call_files({path: ""}, [("a:f", [])])


def test_the_same_program_gives_the_same_text() -> None:
    programs = [
        "def f(x):\n    return object()",
        "def f(x):\n    raise ValueError(object())",
        "import random\ndef f(x):\n    return random.random()",
        "def f(x):\n    return list({str(i) for i in range(50)})",
        "def f(x):\n    return open('/tmp/nothing/here')",
        "def f(x):\n    return __import__('nope')",
    ]
    runs = []
    for _ in range(2):
        with contextlib.closing(Sandbox(servers=1)) as box:
            runs.append([box.call(program, "f", [[1]])[0] for program in programs])
    assert runs[0] == runs[1]
    for outcome in runs[0]:
        assert "0x7" not in outcome.error and "/tmp" not in outcome.error


def test_equal_requests_are_answered_from_memory(sandbox: Sandbox) -> None:
    program = "def f(x):\n    return x  # asked twice"
    first = sandbox.call(program, "f", [[1]])
    before = sandbox.totals()
    assert sandbox.call(program, "f", [[1]]) == first
    after = sandbox.totals()
    assert after["executions"] == before["executions"]
    assert after["remembered"] == before["remembered"] + 1


def test_many_threads_share_it(sandbox: Sandbox) -> None:
    def add(number: int) -> int:
        program = f"def f(x):\n    return x + {number}"
        return int(sandbox.call(program, "f", [[1]])[0].value)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(add, range(40))) == [1 + number for number in range(40)]


def test_reading_what_a_program_says_costs_little(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """linn's own process has no limits: nothing that a program sends may keep it busy."""
    lines_read = []

    def counted(line: bytes) -> Outcome:
        lines_read.append(line)
        return outcome_of(line)

    monkeypatch.setattr(client, "outcome_of", counted)
    program = "import os\ndef f(x):\n    os.write(3, b'[]\\n' * (1 << 20))"
    limits = Limits(cpu=4, wall=60.0, output=4 << 20)
    assert sandbox.call(program, "f", [[1]], limits)[0].status == "error"
    assert lines_read == [b"[]"], "as many lines as calls"

    # -1 and -2 have the same hash: members of one set would all be compared with each other.
    members = [{"tuple": [-1 - (i >> bit & 1) for bit in range(17)]} for i in range(20_000)]
    outcome = outcome_of(json.dumps({"value": {"set": members}}).encode())
    assert "too many members" in outcome.error


@pytest.mark.parametrize("kind", isolation.kinds())
def test_the_whole_standard_library_is_there(kind: str) -> None:
    """Wherever the interpreter stands: also below a folder that programs may not enter."""
    program = (
        "import array, queue, threading, json.tool, concurrent.futures, xml.etree.ElementTree\n"
        "print('é'.encode('cp1252'))\n"
        "t = threading.Thread(target=print, args=(2,))\n"
        "t.start(); t.join()"
    )
    with contextlib.closing(Sandbox(servers=1, kind=kind)) as box:
        assert box.script(program) == Outcome("ok", stdout="b'\\xe9'\n2\n")


def test_a_check_cannot_be_cut_short(sandbox: Sandbox) -> None:
    test = "def check(candidate):\n    assert all(map(lambda x: candidate(x) == x + 1, [1, 2, 3]))"
    assert sandbox.check("def g(x):\n    raise StopIteration", test, "g").status == "error"
    assert sandbox.check("def g(x):\n    return x + 1", test, "g").status == "ok"


# ------------------------------------------------------------ limits, large data, C++


def burn(seconds: float, result: str) -> str:
    """A function that works for so many CPU seconds of its own."""
    return (
        "import time\n"
        "def f(n):\n"
        f"    end = time.process_time() + ({seconds})\n"
        "    while time.process_time() < end: pass\n"
        f"    return {result}"
    )


@pytest.mark.slow
def test_limits_hold_for_each_call_and_may_be_fractions() -> None:
    limits = Limits(cpu=0.2, wall=60.0)
    with contextlib.closing(Sandbox(servers=1)) as box:
        # Each call would end by itself: only its limit can make it a timeout.
        outcomes = box.call(burn("5 if n else 0", "n"), "f", [[0], [1], [0]], limits)
        assert [outcome.status for outcome in outcomes] == ["ok", "timeout", "timeout"]
        limits = Limits(cpu=0.4, wall=60.0)
        each = box.call(burn("0.15", "n"), "f", [[number] for number in range(5)], limits)
        assert [outcome.value for outcome in each] == [0, 1, 2, 3, 4], "a limit of its own"
        assert box.totals()["timeouts"] == 1


@pytest.fixture
def loaded_core() -> Iterator[None]:
    """Five loops share the one core that this process, and what it starts, may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    with contextlib.ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, allowed)
        for _ in range(5):
            loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            stack.callback(loop.wait)
            stack.callback(loop.kill)
        yield


@pytest.mark.slow
@pytest.mark.parametrize("kind", isolation.kinds())
@pytest.mark.usefixtures("loaded_core")
def test_a_loaded_machine_changes_no_verdict(kind: str) -> None:
    """A program works longer, by the clock, than it may wait."""
    work = "import time\nwhile time.process_time() < 0.4: pass\nprint(1)"
    threaded = (
        "import threading\n"
        f"t = threading.Thread(target=exec, args=({work!r},))\n"
        "t.start(); t.join()"
    )
    with contextlib.closing(Sandbox(Limits(cpu=1.0, wall=0.6), servers=1, kind=kind)) as box:
        assert box.script(work) == Outcome("ok", stdout="1\n")
        assert box.script(threaded) == Outcome("ok", stdout="1\n")
        assert box.script("import time\ntime.sleep(60)").status == "timeout"


def test_megabytes_go_in_and_out() -> None:
    text = "".join(f"{number}\n" for number in range(600_000))
    limits = Limits(cpu=5, memory=1 << 29, output=8 << 20)
    with contextlib.closing(Sandbox(limits, servers=1)) as box:
        assert box.script("import sys\nsys.stdout.write(sys.stdin.read())", text).stdout == text
        total = box.script("print(sum(map(int, open(0))))", text).stdout
        assert total == f"{sum(range(600_000))}\n"
        size = box.script("print(len(open('/dev/stdin').read()))", text).stdout
        assert size == f"{len(text)}\n"
        assert box.script("print('é' * 5 + input())", "日本\n").stdout == "ééééé日本\n"


def test_the_prelude_gives_names_but_no_solutions() -> None:
    program = (
        "class Solution:\n"
        "    def top(self, nums: List[int]) -> int:\n"
        "        return heappop(nums) + gcd(4, 6) + pow(2, 3, 5)"
    )
    script = "print(Counter(input()).most_common(1), sys.getrecursionlimit())"
    with contextlib.closing(Sandbox(servers=1)) as box:
        assert box.call(program, "top", [[[1, 3, 2]]], prelude=True)[0].value == 6
        assert box.call(program, "top", [[[1, 3, 2]]])[0].status == "error", "not without it"
        unwritten = box.call("x = 1", "gcd", [[4, 6]], prelude=True)[0]
        assert unwritten.status == "error", "a function nobody wrote"
        assert box.script(script, "aab", prelude=True).stdout == "[('a', 2)] 50000\n"


@pytest.mark.slow
@pytest.mark.skipif(not compiler.found(), reason="no C++ compiler")
@pytest.mark.parametrize("kind", isolation.kinds())
def test_compiled_programs_run(kind: str) -> None:
    source = (
        "#include <cstdio>\n"
        "#include <thread>\n"
        'int main() { long n; if (scanf("%ld", &n) != 1) return 3; '
        "std::thread t([&] { n *= 2; }); t.join(); "
        'printf("%ld\\n", n); }'
    )
    with contextlib.closing(Sandbox(servers=1, kind=kind)) as box:
        code = box.compile(source).code
        assert box.run(code, "21\n") == Outcome("ok", stdout="42\n")
        assert box.run(code, "x").error == "exit code 3"
        assert box.compile(source).code is code, "compiled once"
        error = box.compile("int main() { return 1 }").error
        assert "expected" in error and "(line 1)" in error


def test_without_a_compiler_the_refusal_names_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compiler, "found", lambda: "")
    with (
        contextlib.closing(Sandbox(servers=1)) as box,
        pytest.raises(UserError, match="install g\\+\\+"),
    ):
        box.compile("int main() {}")
