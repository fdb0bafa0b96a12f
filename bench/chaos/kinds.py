"""The kinds of disturbance: what is done, to whom, and what the run has to say of it."""

from __future__ import annotations

from dataclasses import dataclass

INTERRUPTED = r"^linn: interrupted; run the same command again to resume$"
FULL = r"No space left on device|File too large"


@dataclass(frozen=True)
class Kind:
    """One kind."""

    name: str
    """As `--only` and the table have it."""
    does: str
    """In words."""
    weight: float
    """How often it is drawn, against the others."""
    target: str = "command"
    """Whose processes: `command`, `worker`, `server`, `all`, `disk`, `endpoint`."""
    says: str = ""
    """What its last line must hold where it ends; empty: it is killed and can say nothing."""
    survives: bool = False
    """Whether the run has to go on as if nothing had been."""
    patience_s: float = 240.0
    """Seconds within which the run must have ended, where it is to end."""


KINDS = (
    Kind("kill", "SIGKILL to the command", 6),
    Kind("kill-all", "SIGKILL to every process at once, as by a power cut", 4, "all"),
    Kind("frozen-kill", "SIGSTOP to the command, then SIGKILL", 2),
    Kind("term", "SIGTERM to the command", 3, says=INTERRUPTED),
    Kind("term-twice", "SIGTERM to the command, and again", 1, says=INTERRUPTED),
    Kind("hangup", "SIGHUP to the command", 1, says=INTERRUPTED),
    Kind("interrupt", "SIGINT to the command", 1, says=INTERRUPTED),
    Kind("freeze", "SIGSTOP to the command, later SIGCONT", 2, survives=True),
    Kind("aimed", "SIGKILL to the command before a drawn operation on its files", 10),
    Kind(
        "aimed-worker",
        "SIGKILL to a worker before a drawn operation on its files",
        2,
        "worker",
        says=r"engine process \d+ ended with exit code -9",
    ),
    Kind(
        "worker-kill",
        "SIGKILL to a worker",
        5,
        "worker",
        says=r"engine process \d+ ended with exit code -9",
    ),
    Kind("worker-freeze", "SIGSTOP to a worker, later SIGCONT", 2, "worker", survives=True),
    Kind(
        "worker-term",
        "SIGTERM to a worker, which leaves it to the command",
        1,
        "worker",
        survives=True,
    ),
    Kind(
        "worker-stopped",
        "SIGSTOP to a worker for good",
        0.3,
        "worker",
        says=r"engine process \d+ \(pid \d+\) has given no sign of life",
    ),
    Kind("server-kill", "SIGKILL to a sandbox server", 6, "server", survives=True),
    Kind("server-freeze", "SIGSTOP to a sandbox server, later SIGCONT", 3, "server", survives=True),
    Kind(
        "server-stopped",
        "SIGSTOP to a sandbox server for good",
        0.2,
        "server",
        survives=True,
        patience_s=900,
    ),
    Kind("disk-full", "no byte left for the run and its temporary files", 4, "disk", says=FULL),
    Kind("disk-short", "a few KiB left for them", 2, "disk", says=FULL),
    Kind("endpoint-falters", "some requests to the judge fail", 8, "endpoint", survives=True),
    Kind(
        "endpoint-down",
        "every request to the judge fails from now on",
        0.6,
        "endpoint",
        says=r"judge http://127\.0\.0\.1:\d+/v1",
        patience_s=400,
    ),
)
"""All kinds."""


def kinds_for(sandbox: bool, judged: bool, only: tuple[str, ...]) -> list[Kind]:
    """The kinds that can befall a recipe, among those that are asked for (empty: all)."""
    found = []
    for kind in KINDS:
        is_there = {"server": sandbox, "endpoint": judged}.get(kind.target, True)
        if is_there and (not only or kind.name in only):
            found.append(kind)
    return found
