"""Hostile programs of a folder in each kind of isolation, as root and as a plain user.

python -m bench.hostile FOLDER [--kinds unshare plain] [--users root nobody]

Every `*.py` runs twice: as a script of a `Sandbox`, and as a command of a `Workspace`. A row of the
table: how it ended; the most memory and processes above those of the idle sandbox; CPU and
wall-clock seconds; what it left on the machine; whether the next program was answered rightly.
Memory, processes and CPU time are counted by a control group around each worker, so by root.
`!` marks what passed its limit by more than a fifth.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from linn.sandbox import Limits, Sandbox, Workspace, WorkspaceLimits, groups, isolation

SCRIPT = Limits(cpu=1.0, wall=10.0, memory=256 << 20)
COMMAND = WorkspaceLimits(cpu=1.0, wall=20.0, memory=200 << 20, disk=64 << 20)
_NOBODY = "65534"
_ROOT = Path(__file__).parents[1]
_LOOK_SECONDS = 0.01
_SLACK = 1.2
_HEADS = ("program", "isolation", "user", "as", "verdict", "MiB", "processes", "CPU s", "s")
_OWN_TRACES = "linn-*"
_SETTLE_SECONDS = 10.0


@dataclass(frozen=True)
class Row:
    """What one program did, as its worker saw it."""

    program: str
    how: str
    """`script` or `command`."""
    verdict: str
    seconds: float
    left: list[str]
    """What is on the machine that was not there before."""
    successor: str
    """`right`, or how the next program ended."""


# ------------------------------------------------------------ the worker: one kind, one user


def traces() -> set[str]:
    """Where a program could leave something on this machine.

    linn's own folders count where this process makes them; elsewhere they are another process's.
    """
    found = {str(path) for path in Path(tempfile.gettempdir()).glob(_OWN_TRACES)}
    for folder in ("/dev/shm", "/dev/mqueue", "/var/tmp"):
        with contextlib.suppress(OSError):
            found |= {f"{folder}/{name}" for name in os.listdir(folder)} - _of_linn(folder)
    for name in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            found |= set(Path(f"/proc/sysvipc/{name}").read_text().splitlines()[1:])
    return found | set(Path("/proc/self/mountinfo").read_text().splitlines())


def _of_linn(folder: str) -> set[str]:
    """Scratch folders of sandboxes there, by the names that linn gives them."""
    return {str(path) for path in Path(folder).glob("linn-*-*")}


def left_since(before: set[str]) -> list[str]:
    """What is on the machine that was not in `before`, and stays.

    Whatever other processes make for a moment is gone when this looks again.
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    new = traces() - before
    while new and time.monotonic() < deadline:
        time.sleep(0.1)
        new &= traces()
    return sorted(new)


def run_all(kind: str, paths: Sequence[Path]) -> Iterator[Row]:
    """Every program both ways, one after the other on the same server."""
    right = "def f(x):\n    return x + 1  # {}"
    command = shutil.which("python3", path="/usr/bin:/bin") or isolation.python()
    with contextlib.closing(Sandbox(SCRIPT, servers=1, kind=kind)) as box:
        box.script("")
        for number, path in enumerate(paths):
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            for how in ("script", "command"):
                # The parent reads its counters now.
                sys.stdin.readline()
                before, began = traces(), time.monotonic()
                if how == "script":
                    verdict = box.script(text).status
                else:
                    with Workspace(COMMAND, {"program.py": text}, kind=kind) as work:
                        ran = work.run([command, "-I", "-S", "program.py"])
                        verdict = ran.status
                seconds = time.monotonic() - began

                (after,) = box.call(right.format(f"{number} {how}"), "f", [[1]])
                successor = "right" if after.value == 2 else f"{after.status}: {after.error}"
                yield Row(path.name, how, verdict, seconds, left_since(before), successor)


# ------------------------------------------------------------ the parent: counting, and the table


class Meter:
    """What a control group holds above what it held at the start of a program."""

    def __init__(self, group: groups.Group) -> None:
        self._group = group
        self._is_on = True
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.start()
        self._thread.start()

    def start(self) -> None:
        """Count from now on."""
        self._idle = self._group.held()
        self._seconds = self._group.seconds()
        self._most = self._idle

    def read(self) -> tuple[float, int, float]:
        """MiB and processes at most, and CPU seconds, since `start`."""
        memory, processes = self._most
        idle_memory, idle_processes = self._idle
        seconds = self._group.seconds() - self._seconds
        return (memory - idle_memory) / (1 << 20), processes - idle_processes, seconds

    def stop(self) -> None:
        """End its looking."""
        self._is_on = False
        self._thread.join()

    def _look(self) -> None:
        while self._is_on:
            memory, processes = self._group.held()
            self._most = max(self._most[0], memory), max(self._most[1], processes)
            time.sleep(_LOOK_SECONDS)


def interpreter(user: str) -> list[str]:
    """The words that start Python as a user; raises SystemExit where there is none."""
    if user == "root":
        return [sys.executable]
    become = ["setpriv", "--reuid", _NOBODY, "--regid", _NOBODY, "--clear-groups"]
    for path in (sys.executable, shutil.which("python3", path="/usr/bin:/bin")):
        trial = [*become, path or "false", "-c", "import linn.sandbox"]
        ran = subprocess.run(trial, capture_output=True, check=False, env=environment(), cwd="/")
        if ran.returncode == 0:
            return [*become, path or "false"]
    raise SystemExit("no interpreter that a plain user may start: install python3 for all users")


def environment() -> dict[str, str]:
    """That of a worker: it reads this checkout and these packages, whoever it runs as."""
    packages = [path for path in sys.path if path.endswith("site-packages")]
    places = os.pathsep.join([str(_ROOT), *packages])
    return {"PATH": os.environ["PATH"], "PYTHONPATH": places, "PYTHONDONTWRITEBYTECODE": "1"}


def measure(
    kind: str, user: str, paths: Sequence[Path]
) -> Iterator[tuple[Row, tuple[float, int, float]]]:
    """Rows for one kind and one user, with MiB, processes and CPU seconds."""
    group = groups.new_group()
    if group is None:
        raise SystemExit("no control group can be made here: nothing would count what they use")
    group.limit(8 << 30, 4096)
    words = [*interpreter(user), "-m", "bench.hostile", "--worker", kind, *map(str, paths)]
    # The worker's shell joins the group before it becomes the worker.
    with tempfile.TemporaryDirectory() as temporary, group.doors() as doors:
        os.chmod(temporary, 0o777)
        joins = "; ".join(f"echo 0 > /proc/self/fd/{door}" for door in doors)
        worker = subprocess.Popen(
            ["sh", "-c", f'{joins}; exec "$@"', "sh", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=doors,
            env={**environment(), "TMPDIR": temporary},
            cwd="/" if user != "root" else _ROOT,
        )
        meter = Meter(group)
        try:
            yield from _rows(worker, meter, 2 * len(paths))
        finally:
            assert worker.stdin
            worker.stdin.close()
            worker.wait()
            meter.stop()
            group.remove()


def _rows(
    worker: subprocess.Popen[str], meter: Meter, count: int
) -> Iterator[tuple[Row, tuple[float, int, float]]]:
    """Rows of a worker, and what its group held and used for each."""
    assert worker.stdin and worker.stdout
    for _ in range(count):
        meter.start()
        worker.stdin.write("\n")
        worker.stdin.flush()
        line = worker.stdout.readline()
        if not line:
            raise SystemExit("a worker ended")
        yield Row(**json.loads(line)), meter.read()


def line_of(kind: str, user: str, row: Row, memory: float, processes: int, seconds: float) -> str:
    """One line of the table."""
    limits = SCRIPT if row.how == "script" else COMMAND
    over_memory = "!" if memory > _SLACK * (limits.memory >> 20) else ""
    over_cpu = "!" if seconds > _SLACK * limits.cpu + 1.0 else ""
    cells = [row.program, kind, user, row.how, row.verdict, f"{memory:.0f}{over_memory}"]
    cells += [str(processes), f"{seconds:.2f}{over_cpu}", f"{row.seconds:.1f}"]
    cells += [" ".join(row.left) or "nothing", row.successor]
    return f"| {' | '.join(cells)} |"


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("paths", nargs="+", type=Path, help="folders of programs, or programs")
    parser.add_argument("--kinds", nargs="+", default=isolation.kinds())
    parser.add_argument("--users", nargs="+", default=["root", "nobody"])
    parser.add_argument("--worker", metavar="KIND", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Print the table."""
    options = parse_options()
    if options.worker:
        for row in run_all(options.worker, options.paths):
            print(json.dumps(asdict(row)), flush=True)
        return

    paths = []
    for path in options.paths:
        paths += sorted(path.resolve().glob("*.py")) if path.is_dir() else [path.resolve()]
    heads = (*_HEADS, "left", "next program")
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for user in options.users:
        for kind in options.kinds:
            for row, used in measure(kind, user, paths):
                print(line_of(kind, user, row, *used), flush=True)


if __name__ == "__main__":
    main()
