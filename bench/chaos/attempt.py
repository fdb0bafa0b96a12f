"""One start of the command, and what is done to it until it ends."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGSTOP, SIGTERM

from bench.chaos.endpoint import MODES, Endpoint
from bench.chaos.kinds import INTERRUPTED, Kind
from bench.chaos.places import Disk, standing
from bench.chaos.processes import Process, cpu_seconds, left_of, tree_of

_HOOK = Path(__file__).parent / "hook"
_LOOK_S = 0.05
"""Seconds between two looks at a run."""
_LONGEST_S = 1200.0
"""Seconds after which a run that is left alone is taken to hang."""
_SIGNALS = {
    "kill": (SIGKILL,),
    "kill-all": (SIGKILL,),
    "worker-kill": (SIGKILL,),
    "frozen-kill": (SIGSTOP, SIGKILL),
    "term": (SIGTERM,),
    "term-twice": (SIGTERM, SIGTERM),
    "hangup": (SIGHUP,),
    "interrupt": (SIGINT,),
    "worker-term": (SIGTERM,),
    "worker-stopped": (SIGSTOP,),
    "server-kill": (SIGKILL,),
    "server-stopped": (SIGSTOP,),
}
"""Kind -> what is sent, in this order; the other kinds are no single signals."""


@dataclass
class Event:
    """One disturbance: what was done, what the run said, how it went on."""

    kind: Kind
    when: float
    """Seconds since the epoch."""
    place: str
    """Where the run stood."""
    cpu_s: float
    """Processor seconds of the attempt until then."""
    said: str = ""
    """The run's own last line."""
    went_on: str = ""
    """What the next attempt said first."""
    findings: list[str] = field(default_factory=list)
    """What was wrong."""


@dataclass(frozen=True)
class Aim:
    """A kill before a drawn operation on files."""

    role: str
    """`command` or `worker`."""
    files: str
    """Class of files (`hook/sitecustomize.py`)."""
    number: int
    """Which operation, from 1; 0: all are counted and nothing is killed."""


class Attempt:
    """The command, started once."""

    def __init__(
        self,
        recipe: Path,
        folder: Path,
        disk: Disk,
        endpoint: Endpoint,
        rng: random.Random,
        log: Path,
        aim: Aim | None = None,
    ) -> None:
        self.folder, self.disk, self.endpoint, self.rng, self.log = (
            folder,
            disk,
            endpoint,
            rng,
            log,
        )
        self.aim = aim
        self.events: list[Event] = []
        self.spot = log.with_suffix(".spot")
        self.spot.unlink(missing_ok=True)
        temporary = disk.path / "tmp"
        temporary.mkdir(exist_ok=True)
        environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
        root = str(Path(__file__).parents[2])
        paths = [root]
        if aim is not None:
            paths.insert(0, str(_HOOK))
            environment["CHAOS_AIM"] = f"{aim.role}:{aim.files}:{aim.number}"
            environment |= {"CHAOS_FOLDER": str(folder), "CHAOS_SPOT": str(self.spot)}
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        command = [sys.executable, "-m", "linn.cli.main", "run", str(recipe), "--out", str(folder)]
        with open(log, "wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=environment,
                cwd=root,
                start_new_session=True,
            )
        self._began = self._looked = time.monotonic()
        self.seen: dict[Process, None] = {}
        """Every process of the run that was ever seen."""
        self.cpu_s = 0.0
        """Processor seconds of the command and its workers."""
        self._refresh()

    # ------------------------------------------------------------ looking

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def look(self) -> bool:
        """Wait a little; whether it still runs."""
        time.sleep(_LOOK_S)
        if self._process.poll() is not None:
            return False
        if time.monotonic() - self._looked > 0.5:
            self._refresh()
        self.cpu_s = max(self.cpu_s, cpu_seconds(self._of("command", "worker")))
        return True

    def wait(self, patience_s: float = _LONGEST_S) -> bool:
        """Wait for the end; False, with the run killed, where it takes too long."""
        deadline = time.monotonic() + patience_s
        while self.look():
            if time.monotonic() > deadline:
                for process in self.seen:
                    process.send(SIGKILL)
                self._process.wait()
                return False
        return True

    def lines(self) -> list[str]:
        """What it said so far."""
        text = self.log.read_text(errors="replace")
        return [line for line in text.splitlines() if line.strip()]

    def _refresh(self) -> None:
        self._looked = time.monotonic()
        self.seen |= dict.fromkeys(tree_of(self._process.pid))

    def _of(self, *roles: str) -> list[Process]:
        return [process for process in self.seen if process.role in roles]

    # ------------------------------------------------------------ disturbing

    def disturb(self, kind: Kind) -> Event | None:
        """Do it now and see it through; None where there was nobody to do it to."""
        targets = self._targets(kind)
        if not targets and kind.target in ("worker", "server"):
            return None
        event = Event(kind, time.time(), standing(self.folder), self.cpu_s)
        if kind.target == "disk":
            left = 0 if kind.name == "disk-full" else self.rng.randrange(1 << 17)
            self.disk.fill(left, self._of("command", "worker"))
        elif kind.target == "endpoint":
            if not self._fail_endpoint(kind):
                return None
        elif kind.name.endswith("freeze"):
            self._freeze(targets)
        else:
            for number in _SIGNALS[kind.name]:
                for process in targets:
                    process.send(number)
                time.sleep(self.rng.uniform(0, 0.3))
        self.events.append(event)
        return event

    def _targets(self, kind: Kind) -> list[Process]:
        """Whom a signal goes to."""
        self._refresh()
        if kind.target == "all":
            return list(self.seen)
        there = [process for process in self._of(kind.target) if process.is_there]
        if kind.target == "worker" and there:
            return [self.rng.choice(there)]
        # A server is the last of its line: the tool of isolation came before it.
        return there[-1:] if kind.target == "server" else there

    def _freeze(self, targets: list[Process]) -> None:
        for process in targets:
            process.send(SIGSTOP)
        time.sleep(self.rng.uniform(0.2, 2.0))
        for process in targets:
            process.send(SIGCONT)

    def _fail_endpoint(self, kind: Kind) -> bool:
        """Have requests fail; False where none came."""
        before = self.endpoint.failed
        self.endpoint.mode = self.rng.choice(MODES)
        if kind.name == "endpoint-down":
            return True
        wanted = self.rng.randint(1, 3)
        while self.look() and self.endpoint.failed < before + wanted:
            pass
        self.endpoint.mode = "well"
        return self.endpoint.failed > before

    # ------------------------------------------------------------ the end

    def finish(self) -> None:
        """After the end: whoever is left behind, the disk and the endpoint as they were."""
        self.disk.free()
        self.endpoint.mode = "well"
        left = left_of(self.seen)
        for process in left:
            process.send(SIGCONT)
            process.send(SIGKILL)
        if left:
            who = ", ".join(f"{process.role} (pid {process.pid})" for process in left)
            self.blame(f"left behind: {who}")
        self._check_words()

    def blame(self, finding: str) -> None:
        """A finding, by the last disturbance; without one, the run's own."""
        if not self.events:
            undisturbed = Kind("none", "nothing", 0, survives=True)
            place = standing(self.folder)
            self.events.append(Event(undisturbed, time.time(), place, self.cpu_s))
        self.events[-1].findings.append(finding)

    def _check_words(self) -> None:
        """One line that names the cause, and no traceback."""
        lines = self.lines()
        own = [line for line in lines if line.startswith("linn: ") and "stopping after" not in line]
        code = self.code
        if self._was_too_early(lines):
            self.events[-1].said = "(ended by the signal while Python was still importing)"
            return
        if any("Traceback (most recent call last)" in line for line in lines):
            self.blame("a traceback")
        if self.events:
            self.events[-1].said = own[-1] if own else ""
        if code == 0:
            self._check_heeded()
            return
        # What lets a run go on is no reason for its end, so what came before it may be.
        ending = [event.kind for event in self.events if not event.kind.survives]
        if not ending:
            self.blame(f"ended with {code}: {lines[-1] if lines else 'silence'}")
            return
        says = ending[-1].says
        if not says:
            if code != -SIGKILL:
                self.blame(f"ended with {code} before it was killed: {lines[-1:]}")
            return
        if len(own) != 1 or lines[-1] != own[-1]:
            self.blame(f"{len(own)} lines of its end, the last of all {lines[-1:]}")
        elif not re.search(says, own[0]):
            self.blame("its line names another cause")
        if code not in (1,):
            self.blame(f"exit code {code}, not 1")

    def _check_heeded(self) -> None:
        """A run that had work left must not end well after what was to end it."""
        last = self.events[-1] if self.events else None
        if last is None or last.place.startswith("after "):
            return
        if last.kind.says == INTERRUPTED or last.kind.name == "disk-full":
            self.blame("it went on to its end as if nothing had been")

    def _was_too_early(self, lines: list[str]) -> bool:
        """Whether a signal came before linn's own code ran: then it is Python that ends."""
        if not self.events or self.events[-1].kind.says != INTERRUPTED:
            return False
        if self.code in (-SIGTERM, -SIGHUP, -SIGINT) and not lines:
            return True
        imports = any("<frozen importlib" in line or "runpy" in line for line in lines)
        return imports and not any(line.startswith("linn") for line in lines)
