"""Loaded by the run's own processes where an aimed kill is under way (PYTHONPATH, CHAOS_AIM).

`CHAOS_AIM=ROLE:CLASS:N`: the process of that role (`command` or `worker`) kills itself, by SIGKILL,
right before its Nth operation on files of that class. Nothing of linn is replaced: the interpreter
tells its audit hook of every operation before it is made. With N = 0 operations are only counted,
a line for each in CHAOS_SPOT.
"""

import os
import signal
import sys

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")
_CLASSES = (
    ("checkpoint", "/checkpoints/"),
    ("state", "/state"),
    ("state", "/.state"),
    ("ledger", "ledger.jsonl"),
    ("metrics", "metrics.jsonl"),
    ("rollouts", "/rollouts/"),
    ("evaluation", "/evals/"),
    ("evaluation", "/rewards/"),
    ("done", "/DONE"),
    ("done", "/.DONE"),
    ("report", "report.html"),
    ("begin", ".json"),
    ("begin", ".yaml"),
)
"""Class of files -> what its paths hold; the first that fits."""


def _watch() -> None:
    role, kind, number = os.environ["CHAOS_AIM"].split(":")
    words = " ".join(sys.orig_argv)
    own = "worker" if "linn.engine.local.start" in words else "command"
    if own != role or "linn" not in words:
        return

    folder, spot = os.environ["CHAOS_FOLDER"], os.environ["CHAOS_SPOT"]
    handle = os.open(spot, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    last, count = int(number), 0

    def on_event(event: str, arguments: tuple) -> None:
        nonlocal count
        if event == "open":
            writes = isinstance(arguments[2], int) and arguments[2] & _WRITES
            if not writes:
                return
        elif event not in _CHANGES:
            return
        # Of a renaming, the new name says what it is about.
        path = arguments[1 if event == "os.rename" else 0]
        if not isinstance(path, str | bytes | os.PathLike):
            return
        path = os.fsdecode(path)
        found = _class_of(path, folder)
        if found is None or (last and found != kind):
            return
        count += 1
        if last and count < last:
            return
        os.write(handle, f"{found} {event} {path.replace(folder, '').lstrip('/')}\n".encode())
        if last:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(on_event)


def _class_of(path: str, folder: str) -> str | None:
    if folder not in path:
        return None
    for name, part in _CLASSES:
        if part in path:
            return name
    return "other"


if "CHAOS_AIM" in os.environ:
    _watch()
