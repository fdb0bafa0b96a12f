"""What two run folders must have in common to the byte, and what names the clock alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

WHOLE_FILES = ("log-*.txt", "report.html", ".lock")
"""Files that tell of attempts and of the clock: left out."""
CLOCK = (
    "wall_s",
    "cpu_s",
    "judge_s",
    "verify_seconds",
    "verify_wait",
    "verify_queue",
    "execution_seconds",
    "execution_wait",
    "executions_per_second",
)
"""Metrics of a step that count seconds, or what came of them; `NAME` and `DOMAIN/NAME`."""
EVENTS = ("executions", "remembered", "restarts", "timeouts")
"""Metrics of what the sandbox did: a new process remembers no outcome and starts servers anew."""
ABOUT = ("machine",)
"""Keys of run.json about the machine and the command line."""


def differences(reference: Path, folder: Path) -> list[str]:
    """Each file that differs, is missing or is too many, with where."""
    ours, theirs = _contents(folder), _contents(reference)
    found = []
    for name in sorted(set(ours) | set(theirs)):
        if name not in ours:
            found.append(f"{name} is missing")
        elif name not in theirs:
            found.append(f"{name} is too many")
        elif ours[name] != theirs[name]:
            found.append(f"{name} differs{_where(folder / name, reference / name)}")
    return found


def lost_prompts(reference: Path, folder: Path) -> int:
    """Prompts that the reference sampled and the other did not, or whose rollout failed there."""
    lost = 0
    for path in reference.glob("stages/*/*/*.jsonl"):
        if path.parent.name not in ("rollouts", "evals"):
            continue
        theirs = list(_prompts(path))
        ours = list(_prompts(folder / path.relative_to(reference)))
        lost += max(0, len(theirs) - len(ours))
        failed = sum(status == "failed" for _, status in ours)
        lost += max(0, failed - sum(status == "failed" for _, status in theirs))
    return lost


def _prompts(path: Path) -> Iterator[tuple[str, str]]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        row = json.loads(line)
        yield row.get("prompt_id", ""), row.get("status", "")


def _contents(folder: Path) -> dict[str, str]:
    """A hash of every file's content, what the clock says left out."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_dir() or any(path.match(pattern) for pattern in WHOLE_FILES):
            continue
        content = path.read_bytes()
        if path.name == "metrics.jsonl":
            lines = [_without_clock(json.loads(line)) for line in content.splitlines()]
            content = json.dumps(lines).encode()
        elif path.name == "run.json":
            about = json.loads(content)
            content = json.dumps({key: about[key] for key in about if key not in ABOUT}).encode()
        found[str(path.relative_to(folder))] = hashlib.blake2b(content).hexdigest()
    return found


def _without_clock(row: Mapping[str, Any]) -> dict[str, Any]:
    left_out = (*CLOCK, *EVENTS)
    return {key: row[key] for key in row if key.rpartition("/")[2] not in left_out}


def _where(ours: Path, theirs: Path) -> str:
    """The first line of a text that differs, for a person."""
    try:
        own_lines, other_lines = ours.read_text().splitlines(), theirs.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    for number, (own, other) in enumerate(zip(own_lines, other_lines, strict=False), 1):
        if ours.name == "metrics.jsonl":
            own, other = (json.dumps(_without_clock(json.loads(line))) for line in (own, other))
        if own != other:
            return f" in line {number}: {_short(own, other)}"
    return " in its length"


def _short(own: str, other: str) -> str:
    """The beginning of what differs in two lines."""
    same = 0
    while same < min(len(own), len(other)) and own[same] == other[same]:
        same += 1
    start = max(0, same - 30)
    return f"…{own[start : same + 30]!r} for {other[start : same + 30]!r}"
