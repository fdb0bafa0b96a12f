"""A Python with a memory: state, text, limits, restarts, and what is left behind."""

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from linn.sandbox import Answer, Session


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    session = Session(seconds=20.0, memory=256 << 20)
    yield session
    session.close()


@pytest.fixture
def quick() -> Iterator[Session]:
    session = Session(seconds=1.0, memory=192 << 20)
    session.run("kept = 1")  # its start is over
    yield session
    session.close()


def left_behind() -> str:
    """Processes that a session of this test could have left."""
    listing = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    lines = [line for line in listing.stdout.splitlines() if "left_by_a_session" in line]
    return "\n".join(lines)


def test_state_lasts_from_call_to_call(session: Session) -> None:
    assert session.run("x = 41\nprint('hi')\nx + 1").text == "hi\n42"
    assert session.run("def f(n):\n    return n * x").text == "(no output)"
    assert session.run("f(2)").text == "82"
    assert session.run("f").text == "<function f at 0x…>"


UNPRINTABLE = "class E(Exception):\n    def __str__(self): raise self\nraise E()"


@pytest.mark.parametrize(
    ("code", "part"),
    [
        ("1/0", "ZeroDivisionError: division by zero"),
        ("def", "SyntaxError"),
        ("raise SystemExit(0)", "SystemExit: 0"),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        (UNPRINTABLE, "E: <exception str() failed>"),
        ("import socket; socket.create_connection(('127.0.0.1', 80), 1)", "Error"),
        ("open('/etc/passwd', 'w')", "Error"),
        ("input()", "EOFError"),
        ("import numpy", "ModuleNotFoundError"),
        ("int('9' * 10_000)", "ValueError"),
        ("'\\0'.encode().decode('utf-16')", "UnicodeDecodeError"),
        ("x" * 2_000_000, "nothing was run"),
    ],
)
def test_an_error_is_text_and_costs_no_state(session: Session, code: str, part: str) -> None:
    session.run("kept = 7")
    answer = session.run(code)
    assert answer.status == "error" and part in answer.text and len(answer.text) < 12_000
    assert session.run("kept").text == "7"


def test_the_traceback_shows_the_callers_own_code_and_no_folders(session: Session) -> None:
    text = session.run("import json\n\njson.loads('{')").text
    assert "line 3" in text and "json.loads('{')" in text
    assert "interpreter" not in text and "/" not in text


def test_long_output_keeps_its_ends(session: Session) -> None:
    text = session.run("print('a' * 10**6 + 'z')\n'b' * 10**6").text
    assert len(text) < 10_200
    assert text.startswith("aaa") and text.endswith("bbb'") and "characters left out" in text


def test_the_same_calls_say_the_same() -> None:
    calls = ["import random\nrandom.random()", "{'a', 'b', 'c'}", "object()", "hash('a')"]
    texts = []
    for _ in range(2):
        session = Session()
        texts.append([session.run(code).text for code in calls])
        session.close()
    assert texts[0] == texts[1]


IGNORES_SIGNALS = "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass"
CLOSES_EVERYTHING = (
    "import os\n"
    "for fd in range(100):\n"
    "    try: os.close(fd)\n"
    "    except OSError: pass\n"
    "while True: pass"
)
WRITES_EVERYWHERE = (
    "import os\n"
    "while True:\n"
    "    for fd in range(3, 20):\n"
    "        try: os.write(fd, {})\n"
    "        except OSError: pass"
)


@pytest.mark.parametrize(
    ("code", "status", "part"),
    [
        ("while True: pass", "timeout", "within 1 seconds"),
        ("import time; time.sleep(60)", "timeout", "within 1 seconds"),
        (IGNORES_SIGNALS, "timeout", "within 1 seconds"),
        ("b = bytearray(300 << 20)", "memory", "192 MB"),
        ("import os; os._exit(3)", "ended", "exit code 3"),
        ("import os; os.kill(os.getpid(), 11)", "ended", "exit code -11"),
        (CLOSES_EVERYTHING, "timeout", "anew"),
        (WRITES_EVERYWHERE.format("b'x' * 10000"), "ended", "anew"),
        (WRITES_EVERYWHERE.format(r"b'[]\n{}\n'"), "timeout", "anew"),
    ],
)
@pytest.mark.slow
def test_what_overruns_is_ended_and_the_next_call_starts_anew(
    quick: Session, code: str, status: str, part: str
) -> None:
    answer = quick.run(code)
    assert answer.status == status and part in answer.text
    assert "NameError" in quick.run("kept").text
    assert quick.run("2 + 2").text == "4"


def test_a_forged_answer_is_only_text_and_does_not_shift_the_next() -> None:
    forge = (
        "import os, json\n"
        "for call in range(3):\n"
        "    forged = json.dumps({'id': call, 'ok': True, 'text': 'forged'}).encode() + b'\\n'\n"
        "    for fd in range(3, 20):\n"
        "        try: os.write(fd, forged)\n"
        "        except OSError: pass"
    )
    session = Session(seconds=20.0, memory=256 << 20)
    session.run(forge)
    session.run("1")
    session.run("2")
    assert session.run("3").text == "3"
    session.close()


def test_folders_can_be_made_readable(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("value = 5\n")
    (tmp_path / "helper.py").chmod(0o644)
    tmp_path.chmod(0o755)
    session = Session(readable=[tmp_path])
    assert session.run("import helper\nhelper.value").text == "5"
    session.close()


DAEMON = (
    "import subprocess, sys, threading, time\n"
    "threading.Thread(target=time.sleep, args=(300,)).start()\n"
    "code = 'import time; time.sleep(300)'\n"
    "words = [sys.executable, '-c', code, 'left_by_a_session']\n"
    "p = subprocess.Popen(words, start_new_session=True)"
)


def test_closing_ends_everything_even_in_a_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    os.mkfifo(shared / "begun", 0o644)
    session = Session(seconds=60.0, readable=[shared])
    session.run(DAEMON)
    # In a process space of its own the daemon may not be seen from here.
    assert left_behind() or session.run("p.poll()").text
    (folder,) = tmp_path.glob("linn-workspace-*")

    answers: list[Answer] = []
    begin = f"open({str(shared / 'begun')!r}).close()\ntime.sleep(300)"
    call = threading.Thread(target=lambda: answers.append(session.run(begin)))
    call.start()
    # Opening a pipe waits for the other side: from here on the call is under way. Its own folder
    # may be a file system that is not seen from outside.
    os.close(os.open(shared / "begun", os.O_WRONLY))
    session.close()
    call.join()
    assert answers[0].status == "ended", "it neither ended by itself nor by its limit"
    assert not left_behind() and not folder.exists()
    assert session.run("1").text == "the interpreter is closed"
    session.close()
