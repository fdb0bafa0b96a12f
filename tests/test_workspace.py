"""The workspace: commands work in it; hostile ones pass no limit, reach nothing, leave nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from linn.errors import InfrastructureError
from linn.sandbox import Ran, Workspace, WorkspaceLimits, isolation
from linn.sandbox.folder import DEEPEST

LIMITS = WorkspaceLimits(
    cpu=1.0,
    wall=4.0,
    memory=200 << 20,
    address=1 << 30,
    processes=16,
    file=4 << 20,
    disk=16 << 20,
    output=1 << 16,
)
KINDS = [kind for kind in isolation.kinds() if kind != "plain"]


@pytest.fixture(scope="module")
def work() -> Iterator[Workspace]:
    made = Workspace(LIMITS)
    yield made
    made.close()
    assert not made.folder.exists()


def python(work: Workspace, text: str, stdin: str = "") -> Ran:
    return work.run([isolation.python(), "-c", text], stdin=stdin)


def survivors(uid: int) -> list[str]:
    """Processes of a workspace's own user, wherever they are."""
    pids = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"\nUid:\t{uid}\t" in (path / "status").read_text():
                pids.append(path.name)
        except OSError:
            continue
    return pids


def test_files_in_and_out(work: Workspace) -> None:
    work.write("a/b/c.txt", "é\n")
    work.write("a/b/c.txt", "bytes \udcff kept")
    assert work.read("a/b/c.txt") == "bytes \udcff kept"
    ran = work.run(["sh", "-c", "cat a/b/c.txt | wc -c; echo made > a/d.txt"])
    assert ran.stdout.strip() == "12"
    assert work.read("a/d.txt") == "made\n" and {"a/b/c.txt", "a/d.txt"} <= set(work.files())


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", ".", "a/.", "a\0b", "x" * 300, "a/"]
)
def test_paths_stay_inside(work: Workspace, path: str) -> None:
    with pytest.raises(ValueError):
        work.write(path, "x")
    with pytest.raises(ValueError):
        work.read(path)


def test_links_and_odd_files_are_refused(work: Workspace) -> None:
    links = "ln -s / out; ln -s /etc/passwd link; ln -s folder inner"
    work.run(["sh", "-c", f"{links}; mkfifo pipe; mkdir folder"])
    for path in ("out/etc/passwd", "link", "pipe", "folder", "inner/x", "absent"):
        with pytest.raises(ValueError):
            work.read(path)
    for path in ("out/tmp/x", "inner/x", "folder"):
        with pytest.raises(ValueError):
            work.write(path, "x")
    work.write("link", "now a file")  # replaces the link, follows it nowhere
    assert work.read("link") == "now a file" and not {"out", "pipe", "inner"} & set(work.files())
    work.run(["sh", "-c", "rm -rf out link pipe folder inner"])


def test_endings(work: Workspace) -> None:
    assert work.run(["cat"], stdin="in").stdout == "in"
    assert work.run(["sh", "-c", "echo e >&2; exit 3"]) == Ran("error", 3, "", "e\n")
    assert work.run(["sh", "-c", "kill -9 $$"]).code == -9
    assert work.run(["nonesuch"]).code == work.run(["/tmp"]).code == 127
    assert work.run(["./nonesuch"]).status == "error"
    for bad in ([], ["a\0b"]):
        with pytest.raises(ValueError):
            work.run(bad)


HOSTILE = {
    "busy loop": (
        "while True: pass",
        {"timeout"},
    ),
    "sleeper": (
        "import time; time.sleep(60)",
        {"timeout"},
    ),
    "busy children": (
        "import os\nfor _ in range(4): os.fork()\nwhile True: pass",
        {"timeout"},
    ),
    "memory": (
        "x = bytearray(900 << 20)",
        {"memory"},
    ),
    "memory of children": (
        "import os, time\nfor _ in range(3): os.fork()\nx = bytearray(90 << 20)\ntime.sleep(3)",
        {"memory"},
    ),
    "more address space than there may be": (
        "x = bytearray(1 << 40)",
        {"error"},
    ),
    "fork bomb": (
        "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        {"timeout"},
    ),
    "output": (
        "while True: print('x' * 1000)",
        {"output"},
    ),
    "output on stderr": (
        "import sys\nwhile True: sys.stderr.write('x' * 1000)",
        {"output"},
    ),
    "one large file": (
        "open('f', 'wb').write(b'x' * (64 << 20))",
        {"error"},
    ),
    "many files": (
        "i = 0\nwhile True:\n  i += 1\n  open(f'f{i}', 'wb').write(b'x' * 100000)",
        {"output", "timeout", "error"},
    ),
    "files below too long a path": (
        "import os\n"
        "for i in range(50):\n"
        "  os.mkdir('d' * 100); os.chdir('d' * 100)\n"
        "for i in range(5): open(f'{i}', 'wb').write(b'x' * (4 << 20))",
        {"output", "error"},
    ),
    "files without a name": (
        "import os, time\n"
        "held = []\n"
        "for i in range(40):\n"
        "  held.append(open('u', 'wb', 0)); os.unlink('u'); "
        "held[-1].write(b'x' * (2 << 20))\n"
        "time.sleep(2)",
        {"output", "error"},  # refused by a folder of that size, or seen
    ),
    "mapped files without a name": (
        "import mmap, os, time\n"
        "held = []\n"
        "for i in range(40):\n"
        "  f = open('u', 'w+b'); os.unlink('u'); f.truncate(2 << 20)\n"
        "  held.append(mmap.mmap(f.fileno(), 2 << 20)); f.close(); "
        "held[-1].write(b'x' * (2 << 20))\n"
        "time.sleep(2)",
        {"output", "error"},
    ),
    "files in memory": (
        "import os\nos.chdir('/tmp')\nfor i in range(10 ** 6): os.symlink('x', str(i))",
        {"output", "timeout"},
    ),
    "files rewritten": (
        "import os\nfor i in range(60):\n  open('t', 'wb').write(b'x' * (2 << 20)); os.unlink('t')",
        {"ok"},
    ),
    "many empty files": (
        "import os\nfor i in range(9000): open(f'e{i}', 'w').close()",
        {"output", "timeout", "error"},
    ),
    "a daemon": (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n"
        "  if os.fork() == 0:\n"
        "    time.sleep(60)\n"
        "  os._exit(0)\n"
        "print('left')",
        {"ok"},
    ),
    "closing every descriptor": (
        "import os\nos.closerange(0, 500)\nos._exit(5)",
        {"error"},
    ),
    "killing everything": (
        "import os\nos.kill(-1, 9)",
        {"error"},
    ),
    "killing its supervisor": (
        "import os\nos.kill(1, 9); os.kill(os.getppid(), 9)",
        {"ok", "error"},
    ),
    "ignoring signals": (
        "import signal, time\n"
        "for s in range(1, 32):\n"
        "  try: signal.signal(s, signal.SIG_IGN)\n"
        "  except OSError: pass\n"
        "time.sleep(60)",
        {"timeout"},
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", HOSTILE)
def test_limits_hold(work: Workspace, what: str) -> None:
    text, allowed = HOSTILE[what]
    ran = python(work, text)
    assert ran.status in allowed, ran
    assert len(ran.stdout) <= LIMITS.output and len(ran.stderr) <= LIMITS.output
    if work.uid:
        assert not survivors(work.uid)
    work.run(["sh", "-c", "rm -rf *"])


REACHES = {
    "network": "import socket\nsocket.create_connection(('1.1.1.1', 53), 1)",
    "own network": "import socket\ns = socket.socket()\ns.bind(('127.0.0.1', 0))",
    "writing to the system": "open('/usr/x', 'w')",
    "writing beside the folder": (
        "import os\nopen(os.path.join(os.path.dirname(os.getcwd()), '..', 'x'), 'w')"
    ),
    "a new namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
    "mounting": (
        "import ctypes\nassert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0"
    ),
    "tracing its supervisor": "open('/proc/1/mem', 'rb').read(1)",
    "its supervisor's descriptors": (
        "import os\nfor name in os.listdir('/proc/1/fd'): os.readlink(f'/proc/1/fd/{name}')"
    ),
    "becoming root": "import os\nos.setuid(os.getuid() + 1)",
    "raising a limit": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (100, 100))",
    "the machine's environment": "import os\nassert 'LINN_SECRET' in os.environ",
    "third-party packages": "import pip",
}


@pytest.mark.slow
def test_the_second_kind_holds_too() -> None:
    cases = [(text, {"error"}) for text in REACHES.values() if "environ" not in text]
    cases += [HOSTILE["memory"], HOSTILE["a daemon"]]
    for kind in KINDS:
        with Workspace(LIMITS, kind=kind) as work:
            for text, allowed in cases:
                assert python(work, text).status in allowed, (kind, text)
            assert not work.uid or not survivors(work.uid)
        assert not work.folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize("what", REACHES)
def test_reaches_nothing_outside(
    work: Workspace, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINN_SECRET", "x")
    assert python(work, REACHES[what]).status == "error"


def test_other_workspaces_and_home_are_out_of_sight(work: Workspace) -> None:
    with Workspace(LIMITS, {"secret.txt": "x"}) as other:
        ran = work.run(["sh", "-c", f"cat {other.folder}/secret.txt"])
        assert ran.status == "error" and "x\n" not in ran.stdout


def test_only_the_systems_folders_are_in_sight() -> None:
    """Neither the rows of a task, nor a package's released sources, whoever may read them.

    Such sources may lie in a cache or a virtual environment.
    """
    outside = [path for path in (pytest.__file__, __file__) if not path.startswith("/usr")]
    for kind in KINDS:
        with Workspace(LIMITS, kind=kind) as work:
            for path in outside:
                assert work.run(["cat", path]).status == "error", (kind, path)


def test_readable_folders(tmp_path: Path) -> None:
    shown = tmp_path / "shut" / "shown"
    shown.mkdir(parents=True)
    (shown / "x.txt").write_text("seen")
    for folder in (shown, *shown.parents[:2]):
        folder.chmod(0o755)
    for kind in KINDS:
        for parents in (0o755, 0o700):  # shut to others, and below a /tmp that is hidden
            for folder in shown.parents[:2]:
                folder.chmod(parents)
            with Workspace(LIMITS, readable=[shown], kind=kind) as work:
                assert work.run(["cat", f"{shown}/x.txt"]).stdout == "seen"
                assert work.run(["sh", "-c", f"echo y > {shown}/x.txt"]).status == "error"
    assert (shown / "x.txt").read_text() == "seen"
    with pytest.raises(OSError):
        Workspace(readable=[tmp_path / "absent"])


@pytest.mark.slow
def test_long_lived(work: Workspace) -> None:
    held = work.start(["cat"])
    assert held.stdin is not None
    for word in (b"one\n", b"two\n"):
        held.stdin.write(word)
        assert held.stdout.read(4) == word

    assert work.run(["true"]).status == "ok"
    assert held.alive(), "a command beside it neither ends it nor waits"
    held.kill()
    held.kill()
    assert not held.alive()

    slow = work.start([isolation.python(), "-c", "while True: pass"])
    assert slow.finish().status == "timeout"


def test_closing_kills_what_runs() -> None:
    work = Workspace(LIMITS)
    held = work.start(["sleep", "60"])
    work.close()
    assert not held.alive() and not work.folder.exists()


@pytest.mark.slow
def test_deep_trees_are_listed_so_far(work: Workspace) -> None:
    deeper = "  os.mkdir('d'); os.chdir('d'); open('b', 'w').close()"
    python(work, f"import os\nopen('a', 'w').close()\nfor _ in range(1500):\n{deeper}")
    assert work.files() == ["a", *sorted("d/" * depth + "b" for depth in range(1, DEEPEST + 1))]
    for path in ("d/" * (DEEPEST + 1) + "b", "x/" * 3000 + "y"):
        with pytest.raises(ValueError, match="through more than"):
            work.write(path, "z")


@pytest.mark.slow
def test_folders_shut_to_us_are_removed() -> None:
    work = Workspace(LIMITS)
    work.run(["sh", "-c", "mkdir -p a/b; touch a/b/c; chmod 000 a/b a"])
    python(work, "import os\nfor _ in range(700):\n  os.mkdir('d'); os.chdir('d')")
    work.close()
    assert not work.folder.exists()


def test_a_machine_that_cannot_isolate_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (("false",), ("sh", "-c", "echo no room >&2; exit 1"), ("/nonesuch",)):
        monkeypatch.setattr(isolation, "supervised", lambda *_, words=words, **__: words)
        with (
            pytest.raises(InfrastructureError, match="sandbox"),
            Workspace(LIMITS, kind="bwrap") as work,
        ):
            work.run(["true"])
        assert not work.folder.exists()


def test_no_scratch_folder_is_left(tmp_path: Path) -> None:
    code = (
        "from linn.sandbox import Workspace\n"
        "w = Workspace(files={'a': 'b'})\n"
        "h = w.start(['sleep', '60'])"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        timeout=60,
    )
    assert not list(tmp_path.iterdir())
