"""What the sandbox is asked and what it says: limits, outcomes, and outcomes read from what a hostile child wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from linn.sandbox.inside.plain import NotPlain, decode

Status = Literal["ok", "error", "timeout", "memory", "output"]

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
_MOST_KEYS = 1000
_FOLDER = re.compile(r"(?:/[\w.+-]+)+/(?=[\w.+-]+)")


@dataclass(frozen=True)
class Limits:
    """What one execution may use."""

    cpu: float = 1.0
    """CPU seconds of a script, or of each call; what ends a busy loop. CPU, not wall-clock, so that a loaded machine changes no verdict."""
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
    """What came of one call, script or check. Its texts are the same each time for the same program."""

    status: Status
    """`ok`; `error`: it raised, exited or crashed; `timeout`; `memory`; `output`: it said more than allowed."""
    value: Any = None
    """What a call returned, as plain data; True where a check passed."""
    stdout: str = ""
    """What a script printed."""
    error: str = ""
    """Why it is not `ok`, one line, without addresses or folders."""


def text_of(data: bytes) -> str:
    """Bytes of a hostile child as text."""
    return data.decode("utf-8", "replace")


def scrub(text: str) -> str:
    """A one-line text a model may see: no addresses, no folders, nothing that cannot be written as UTF-8."""
    text = _FOLDER.sub("", _ADDRESS.sub("0x…", text[:5000])).encode("utf-8", "replace").decode()
    return " ".join(text.split())[:300]


def outcome_of(line: bytes) -> Outcome:
    """An outcome from a line a child wrote; the child may be hostile."""
    if line.startswith(b'{"value": '):
        try:
            return Outcome("ok", value=decode(line[len(b'{"value": ') : -1], _MOST_KEYS))
        except NotPlain as error:
            return Outcome("error", error=scrub(str(error)))
    try:
        ((status, text),) = json.loads(line).items()
        return Outcome("memory" if status == "memory" else "error", error=scrub(str(text)))
    except (ValueError, AttributeError, RecursionError, TypeError):
        return Outcome("error", error="unexpected answer")


def exit_of(code: int) -> str:
    """A wait status in words."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


def ended(answer: Mapping[str, Any]) -> Outcome | None:
    """The outcome that an execution's ending alone decides, if it does."""
    if answer["ending"] == "timeout":
        return Outcome("timeout", error="time limit exceeded")
    if answer["ending"] == "output":
        return Outcome("output", error="output limit exceeded")
    if answer["ending"] == "killed":
        return Outcome("memory", error="killed by the system, as when its memory runs out")
    if answer["ending"] == "crash":
        return Outcome("error", error="the program broke its sandbox")
    return None
