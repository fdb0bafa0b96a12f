"""One lane of disturbed runs: run after run, each started again until it ends, then compared."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.chaos.attempt import Aim, Attempt, Event
from bench.chaos.compare import differences, lost_prompts
from bench.chaos.endpoint import Endpoint
from bench.chaos.kinds import Kind, kinds_for
from bench.chaos.places import Disk
from bench.chaos.recipes import SMALL, Small

_KILLS_PER_RUN = 12
"""After so many ends a run is left alone, so that each comes to its own."""
_REACH = 0.6
"""A disturbance comes within this share of an undisturbed run's processor time."""
_WORKER_OPERATIONS = 8
"""A worker makes about so many operations on files per state or checkpoint."""


class Reference:
    """An undisturbed run of a recipe, made once."""

    def __init__(self, folder: Path, cpu_s: float, operations: dict[str, int]) -> None:
        self.folder = folder
        self.cpu_s = cpu_s
        """Processor seconds of the whole run."""
        self.operations = operations
        """Operations on files by their class."""


class Lane:
    """Everything of one lane; nothing is shared with another."""

    def __init__(
        self, number: int, scratch: Path, seed: int, only: tuple[str, ...], say: Callable[..., None]
    ) -> None:
        """`say(event, recipe)`: what prints a disturbance that has been seen through."""
        self.scratch = scratch / f"lane-{number}"
        self.disk = Disk(self.scratch / "disk")
        self.endpoint = Endpoint()
        self.rng = random.Random(f"{seed}/{number}")
        self.only = only
        self.say = say
        self.references: dict[str, Reference] = {}
        self.events: list[Event] = []
        self.runs = self.differing = self.lost = self.attempts = 0
        self.cpu_s = 0.0
        """Processor seconds of all commands and workers."""

    def close(self) -> None:
        """Give back disk and port."""
        self.endpoint.close()
        self.disk.close()

    def go(self, more: Callable[[], bool], recipes: Sequence[str]) -> None:
        """Disturb run after run while `more` says so; the last run comes to its end."""
        chosen = [small for small in SMALL if small.name in recipes]
        number = 0
        while more():
            self._run(chosen[number % len(chosen)], number, more)
            number += 1

    # ------------------------------------------------------------ one run

    def _run(self, small: Small, number: int, more: Callable[[], bool]) -> None:
        reference = self._reference(small)
        kinds = kinds_for(small.sandbox, small.judged, self.only)
        folder = self.disk.path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        events: list[Event] = []
        untold: list[Event] = []
        for ends in range(1_000):
            left_alone = ends >= _KILLS_PER_RUN or not more() or not kinds
            attempt = self._attempt(small, folder, [] if left_alone else kinds, reference)
            self._tell(small, untold, attempt)
            events += attempt.events
            untold = attempt.events
            self._keep_findings(attempt, number)
            if attempt.code == 0:
                break
            if left_alone or attempt.code == 2:
                attempt.blame(f"it does not go on: exit code {attempt.code}")
                break
        self._tell(small, untold, None)
        self.events += events
        self._compare(small, reference, folder, events, number)

    def _attempt(
        self, small: Small, folder: Path, kinds: Sequence[Kind], reference: Reference
    ) -> Attempt:
        """Start the command once, and disturb it until it ends."""
        kind = self._draw(kinds)
        aim = self._aim(kind, reference) if kind else None
        self.attempts += 1
        attempt = Attempt(
            self.scratch / f"{small.name}.yaml",
            folder,
            self.disk,
            self.endpoint,
            self.rng,
            self.scratch / "attempt.log",
            aim,
        )
        if kind and aim:
            attempt.wait()
            if attempt.spot.exists() and (spot := attempt.spot.read_text().strip()):
                event = Event(kind, time.time(), f"before {spot}", attempt.cpu_s)
                attempt.events.append(event)
        elif kind:
            self._disturb(attempt, kind, kinds, reference)
        elif not attempt.wait():
            attempt.blame("it hung, and was killed")
        attempt.finish()
        self.cpu_s += attempt.cpu_s
        return attempt

    def _disturb(
        self, attempt: Attempt, kind: Kind, kinds: Sequence[Kind], reference: Reference
    ) -> None:
        """One disturbance after the other, until one ends it."""
        due = self._delay(reference)
        while attempt.look():
            if attempt.cpu_s < due:
                continue
            event = attempt.disturb(kind)
            if event is None:  # its target is not there yet: the next look tries again
                continue
            if not kind.survives or kind.patience_s > 300:
                if not attempt.wait(kind.patience_s):
                    attempt.blame(f"it hung for {kind.patience_s:.0f} s, and was killed")
                return
            kind = self._draw([one for one in kinds if not one.name.startswith("aimed")])
            due = attempt.cpu_s + self._delay(reference) / 2

    # ------------------------------------------------------------ drawing

    def _draw(self, kinds: Sequence[Kind]) -> Kind | None:
        if not kinds:
            return None
        return self.rng.choices(kinds, [kind.weight for kind in kinds])[0]

    def _delay(self, reference: Reference) -> float:
        return self.rng.uniform(0, _REACH * reference.cpu_s)

    def _aim(self, kind: Kind, reference: Reference) -> Aim | None:
        """Classes of files alike, whatever their number of operations: all are hard places."""
        if kind.name == "aimed-worker":
            files = self.rng.choice(["state", "checkpoint"])
            return Aim("worker", files, self.rng.randint(1, _WORKER_OPERATIONS))
        if kind.name != "aimed":
            return None
        files = self.rng.choice(sorted(reference.operations))
        return Aim("command", files, self.rng.randint(1, reference.operations[files]))

    # ------------------------------------------------------------ reference and comparison

    def _reference(self, small: Small) -> Reference:
        """The undisturbed run, with its operations on files counted."""
        if small.name in self.references:
            return self.references[small.name]
        recipe = small.write(self.scratch, self.endpoint.url)
        folder = self.disk.path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        attempt = Attempt(
            recipe,
            folder,
            self.disk,
            self.endpoint,
            self.rng,
            self.scratch / "attempt.log",
            Aim("command", "all", 0),
        )
        attempt.wait()
        if attempt.code != 0:
            raise RuntimeError(f"{recipe}: the undisturbed run failed: {attempt.lines()[-3:]}")
        classes = Counter(line.split()[0] for line in attempt.spot.read_text().splitlines())
        kept = self.scratch / f"reference-{small.name}"
        shutil.copytree(folder, kept)
        found = Reference(kept, attempt.cpu_s, dict(classes))
        self.references[small.name] = found
        return found

    def _compare(
        self, small: Small, reference: Reference, folder: Path, events: list[Event], number: int
    ) -> None:
        self.runs += 1
        found = differences(reference.folder, folder)
        lost = lost_prompts(reference.folder, folder)
        self.lost += lost
        self.differing += len(found)
        if not found and not lost:
            return
        words = f"{small.name}: {len(found)} files differ, {lost} prompts lost: {found[:4]}"
        undisturbed = Kind("end", "the comparison of a run's end", 0)
        event = Event(undisturbed, time.time(), "its end", 0.0, findings=[words])
        names = ", ".join(f"{each.kind.name} at {each.place}" for each in events)
        event.said = f"after {names}"
        self.events.append(event)
        self.say(small.name, event)
        kept = self.scratch / "findings" / f"run-{number:04d}"
        shutil.copytree(folder, kept, dirs_exist_ok=True)

    def _tell(self, small: Small, events: Sequence[Event], then: Attempt | None) -> None:
        """Print what was done to the attempt before `then`."""
        for event in events:
            if then is not None and not event.went_on:
                event.went_on = _first_words(then.lines())
            self.say(small.name, event)

    def _keep_findings(self, attempt: Attempt, number: int) -> None:
        """What an attempt with a finding said, kept for a reader."""
        if any(event.findings for event in attempt.events):
            kept = self.scratch / "findings"
            kept.mkdir(exist_ok=True)
            shutil.copy(attempt.log, kept / f"run-{number:04d}-attempt-{self.attempts:05d}.log")


def _first_words(lines: Sequence[str]) -> str:
    """What an attempt said of where it begins."""
    for words in ("going on after", "will be made again", " from "):
        for line in lines:
            if words in line:
                return line
    return lines[0] if lines else "nothing yet"
