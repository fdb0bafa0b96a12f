"""The record of a solve on disk: every rollout that came back, so that a kill costs none of them.

`record.jsonl` begins with the settings. Each further line is a batch of attempts that came back
together, or a fact that was found out, such as a contest judge's verdict; it is on disk before any
strategy sees it. Strategies are functions of what these lines hold: played again over the record,
they come to the same place and go on from there, whatever a clock would now say.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.errors import UserError
from linn.files import json_line, write_jsonl
from linn.play.rollout import Job
from linn.solve.budget import Attempt, attempt_from, row_of
from linn.types import Prompt

Key = tuple[str, int, int]
"""(task, number of the task's call, place in that call)."""


@dataclass(frozen=True)
class Request:
    """One rollout that a task asks for."""

    task: str
    """Whose it is."""
    call: int
    """Number of the task's call, from 0."""
    place: int
    """Place in that call, from 0."""
    who: str
    """Which model answers: `model`, or `judge`."""
    job: Job
    """The conversation."""

    @property
    def key(self) -> Key:
        """By which the record knows it."""
        return self.task, self.call, self.place

    def digest(self) -> str:
        """A short hash of all that decides the answer."""
        job = self.job
        parts = (self.who, _shown(job.prompt), job.how, job.seed, job.max_turns, job.max_sequence)
        return _short(repr(parts))


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _shown(prompt: Prompt) -> tuple[Any, ...]:
    """What the model reads of a prompt."""
    return prompt.domain, prompt.messages, prompt.thinking, prompt.tools


class Record:
    """What `record.jsonl` of an output folder holds; it grows by whole lines."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there, or begin. UserError where it was made under other settings."""
        self.path = path
        self._known: dict[Key, tuple[str, Attempt]] = {}
        self._facts: dict[tuple[str, int], tuple[str, Any]] = {}
        if path.exists():
            self._read(settings)
        else:
            write_jsonl(path, [{"settings": dict(settings)}])

    def known(self, request: Request) -> Attempt | None:
        """The attempt that came back for this request earlier, if one did."""
        found = self._known.get(request.key)
        if found is None:
            return None
        digest, attempt = found
        self._check(digest, request.digest(), f"task {request.task}, call {request.call}")
        return attempt

    def fact(self, task: str, number: int, what: str) -> Any:
        """What was found out `number`-th for a task, such as a verdict; None where nothing was.

        `what` is what was asked: the same as then, or UserError.
        """
        found = self._facts.get((task, number))
        if found is None:
            return None
        digest, value = found
        self._check(digest, _short(what), f"task {task}, verdict {number}")
        return value

    def add_fact(self, task: str, number: int, what: str, value: Any) -> None:
        """Add something that was found out, on disk before anything goes on; not None."""
        digest = _short(what)
        self._facts[task, number] = digest, value
        self._write({"fact": [task, number, digest, value]})

    def _check(self, digest: str, now: str, where: str) -> None:
        if digest != now:
            raise UserError(
                f"{self.path}: {where}: what is asked has changed since "
                "(the task's files, or linn); give another --out"
            )

    def append(self, requests: Sequence[Request], attempts: Sequence[Attempt]) -> None:
        """Add a batch, on disk before anything goes on."""
        batch = []
        for request, attempt in zip(requests, attempts, strict=True):
            digest = request.digest()
            self._known[request.key] = digest, attempt
            batch.append({"key": request.key, "asked": digest, **row_of(attempt)})
        self._write({"batch": batch})

    def _write(self, row: Mapping[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json_line(row))
            file.flush()
            os.fsync(file.fileno())

    def _read(self, settings: Mapping[str, Any]) -> None:
        lines = self.path.read_bytes().split(b"\n")

        # What follows the last newline is a line that a kill cut short, or nothing.
        whole, rest = lines[:-1], lines[-1]
        try:
            before = dict(json.loads(whole[0])["settings"])
            for line in whole[1:]:
                self._take(json.loads(line))
        except (ValueError, LookupError, TypeError):
            raise UserError(
                f"{self.path}: not what linn solve wrote there; give another --out"
            ) from None

        _check_settings(self.path, before, settings)
        # What is appended must begin on a line of its own.
        if rest:
            with open(self.path, "r+b") as file:
                file.truncate(sum(len(line) + 1 for line in whole))

    def _take(self, entry: dict[str, Any]) -> None:
        """Know what a line holds."""
        if "fact" in entry:
            task, number, digest, value = entry["fact"]
            self._facts[task, number] = digest, value
            return
        for row in entry["batch"]:
            task, call, place = row["key"]
            self._known[task, call, place] = row["asked"], attempt_from(row)


def _check_settings(path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """UserError where the record's settings are not these."""
    # As they look after a way through JSON: tuples are lists there.
    now = json.loads(json.dumps(dict(settings)))
    others = []
    for key in [*now, *(key for key in before if key not in now)]:
        if before.get(key) != now.get(key):
            others.append(f"{key} {before.get(key)!r}, now {now.get(key)!r}")
    if others:
        raise UserError(f"{path}: made with {', '.join(others)}; give another --out")
