"""Limits of untrusted executions, and what came of them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal

from linn.sandbox.inside.plain import NotPlain, decode

Status = Literal["ok", "error", "timeout", "memory", "output"]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_FOLDER = re.compile(r"(?:/[\w.+-]+)+/(?=[\w.+-]+)")
_MOST_KEYS = 1000
_LONGEST_TEXT, _LONGEST_SCRUBBED = 5000, 300
_VALUE = b'{"value": '
"""How a line begins that carries the value of a call."""

_ENDINGS: dict[str, tuple[Status, str]] = {
    "timeout": ("timeout", "time limit exceeded"),
    "output": ("output", "output limit exceeded"),
    "killed": ("memory", "killed by the system, as when its memory runs out"),
    "crash": ("error", "the program broke its sandbox"),
}
"""Endings of an execution that decide its outcome: status and error."""


@dataclass(frozen=True)
class Limits:
    """What one execution may use."""

    cpu: float = 1.0
    """CPU seconds of a script, or of each call; what ends a busy loop.

    CPU, not wall-clock, so that a loaded machine changes no verdict."""
    wall: float = 10.0
    """Seconds for a script, or for each call; what ends a sleeper."""
    memory: int = 256 << 20
    """Bytes of address space."""
    threads: int = 8
    """Threads; new processes are refused."""
    file: int = 4 << 20
    """Bytes of one written file; the whole scratch folder holds four times as much."""
    output: int = 1 << 18
    """Bytes of each stream, and of all answers together."""


@dataclass(frozen=True)
class Outcome:
    """What came of one call, script or check.

    Its texts are the same each time for the same program.
    """

    status: Status
    """`ok`; `error`: it raised, exited or crashed; `timeout`; `memory`; `output`: it said more
    than allowed."""
    value: Any = None
    """What a call returned, as plain data; True where a check passed."""
    stdout: str = ""
    """What a script printed."""
    error: str = ""
    """Why it is not `ok`, one line, without addresses or folders."""


@dataclass(frozen=True)
class Execution:
    """What a fork server answered to one request. Its bytes are a hostile child's."""

    ending: str
    """`ended`, `timeout`, `output`, `killed`, `crash`, or `failed`: the machine is at fault."""
    code: int = 0
    """Exit code, negative for a signal."""
    lines: bytes = b""
    """What the child reported, a line of JSON for each answer."""
    stdout: bytes = b""
    """What a script or a compiled program printed."""
    stderr: bytes = b""
    """What it printed on stderr; nobody reads it, but it counts for the size."""
    failed: str = ""
    """Why the machine could not run the program."""
    seconds: float = 0.0
    """How long the server worked on it."""
    server: int = 0
    """Number of the server that ran it."""
    last: bool = False
    """Whether that server asks to be replaced."""


@dataclass(frozen=True)
class WorkspaceLimits:
    """What one command, with all processes that it starts, may use."""

    cpu: float = 10.0
    """CPU seconds of all its processes together."""
    wall: float = 30.0
    """Seconds from its start to its end."""
    memory: int = 1 << 30
    """Bytes that all its processes hold together, held by the kernel in a control group.

    Where none can be made, it is looked at forty times a second, and memory shared by a fork counts
    in both."""
    address: int | None = None
    """Bytes of address space of each process; None: as many as `memory`.

    Programs that map large files need more."""
    processes: int = 32
    """Processes and threads at once."""
    file: int = 16 << 20
    """Bytes of one written file."""
    disk: int = 64 << 20
    """Bytes of the whole folder, in memory where linn may mount: then a tenth more is refused.

    On a disk it is looked at five times a second and at the end, and four times as much may be
    written in all."""
    output: int = 1 << 18
    """Bytes of stdout, and of stderr."""


@dataclass(frozen=True)
class Ran:
    """How a command of a workspace ended.

    What it printed is its own claim: never read a verdict from it.
    """

    status: Status
    """`ok`: exit code 0; `error`: another code, a signal, or no such program; `timeout`; `memory`;
    `output`: said or wrote too much."""
    code: int
    """Exit code, negative for a signal; 127 where the program could not be executed; -9 where a
    limit ended it."""
    stdout: str
    """What it printed, cut at the limit; bytes that are not UTF-8 are replaced."""
    stderr: str
    """The same for stderr."""


# ------------------------------------------------------------ reading what a hostile child wrote


def text_of(data: bytes) -> str:
    """Bytes of a hostile child as text."""
    return data.decode("utf-8", "replace")


def scrub(text: str) -> str:
    """A one-line text a model may see: no addresses, no folders, only what UTF-8 can write."""
    text = _ADDRESS.sub("0x…", text[:_LONGEST_TEXT])
    text = _FOLDER.sub("", text).encode("utf-8", "replace").decode()
    return " ".join(text.split())[:_LONGEST_SCRUBBED]


def outcome_of(line: bytes) -> Outcome:
    """An outcome from a line a child wrote; the child may be hostile."""
    # The value itself is decoded apart, within limits of its own.
    if line.startswith(_VALUE):
        encoded = line[len(_VALUE) : -1]
        try:
            return Outcome("ok", value=decode(encoded, _MOST_KEYS))
        except NotPlain as error:
            return Outcome("error", error=scrub(str(error)))

    try:
        ((status, text),) = json.loads(line).items()
        message = scrub(str(text))
    except (ValueError, AttributeError, RecursionError, TypeError):
        return Outcome("error", error="unexpected answer")
    return Outcome("memory" if status == "memory" else "error", error=message)


def first_outcome(lines: list[bytes]) -> Outcome | None:
    """The outcome of the first line, if there is one."""
    return outcome_of(lines[0]) if lines else None


def exit_text(code: int) -> str:
    """An exit code in words."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def outcome_of_ending(execution: Execution) -> Outcome | None:
    """The outcome that an execution's ending alone decides, if it does."""
    if execution.ending not in _ENDINGS:
        return None
    status, error = _ENDINGS[execution.ending]
    return Outcome(status, error=error)
