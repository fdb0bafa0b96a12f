"""The record of a solve on disk: every rollout that came back, so that a kill costs none of them.

`record.jsonl` begins with the settings. Each further line is a batch of attempts that came back
together, and it is on disk before any strategy sees them. Strategies are functions of what their
requests gave; played again over the record, they come to the same place and go on from there.
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
        return hashlib.blake2b(repr(parts).encode("utf-8", "replace"), digest_size=6).hexdigest()


def _shown(prompt: Prompt) -> tuple[Any, ...]:
    """What the model reads of a prompt."""
    return prompt.domain, prompt.messages, prompt.thinking, prompt.tools


class Record:
    """What `record.jsonl` of an output folder holds; it grows by whole lines."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Read what is there, or begin. UserError where it was made under other settings."""
        self.path = path
        self._known: dict[Key, tuple[str, Attempt]] = {}
        if path.exists():
            self._read(settings)
        else:
            write_jsonl(path, [{"settings": dict(settings)}])
        self.replayed = 0
        """Attempts that were answered from the record."""

    def known(self, request: Request) -> Attempt | None:
        """The attempt that came back for this request earlier, if one did."""
        found = self._known.get(request.key)
        if found is None:
            return None
        digest, attempt = found
        if digest != request.digest():
            raise UserError(
                f"{self.path}: task {request.task}, call {request.call}: what is asked has "
                "changed since (the task's files, or linn); give another --out"
            )
        self.replayed += 1
        return attempt

    def append(self, requests: Sequence[Request], attempts: Sequence[Attempt]) -> None:
        """Add a batch, on disk before anything goes on."""
        batch = []
        for request, attempt in zip(requests, attempts, strict=True):
            digest = request.digest()
            self._known[request.key] = digest, attempt
            batch.append({"key": request.key, "asked": digest, **row_of(attempt)})
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json_line({"batch": batch}))
            file.flush()
            os.fsync(file.fileno())

    def _read(self, settings: Mapping[str, Any]) -> None:
        lines = self.path.read_bytes().split(b"\n")
        # What follows the last newline is a line that a kill cut short, or nothing.
        whole, rest = lines[:-1], lines[-1]
        try:
            before = dict(json.loads(whole[0])["settings"])
            batches = [json.loads(line)["batch"] for line in whole[1:]]
            for row in (row for batch in batches for row in batch):
                task, call, place = row["key"]
                self._known[task, call, place] = row["asked"], attempt_from(row)
        except (ValueError, LookupError, TypeError):
            raise UserError(
                f"{self.path}: not what linn solve wrote there; give another --out"
            ) from None

        _check_settings(self.path, before, settings)
        if rest:
            with open(self.path, "r+b") as file:
                file.truncate(sum(len(line) + 1 for line in whole))


def _check_settings(path: Path, before: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """UserError where the record's settings are not these."""
    now = json.loads(json.dumps(dict(settings)))
    others = []
    for key in [*now, *(key for key in before if key not in now)]:
        if before.get(key) != now.get(key):
            others.append(f"{key} {before.get(key)!r}, now {now.get(key)!r}")
    if others:
        raise UserError(f"{path}: made with {', '.join(others)}; give another --out")
