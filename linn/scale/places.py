"""How the processes of a cluster come to be, and how messages reach them. No torch here.

`Local` starts them on this machine; `ray_places.py` has Ray place them. Either way a process runs
one object, whose methods are the messages.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any, Protocol

from linn import stopping
from linn.engine.local import heartbeat
from linn.engine.local.disk import full_disk
from linn.engine.local.heartbeat import Watch
from linn.errors import DiskFull, InfrastructureError, UserError

LAST_WORDS = 2000
"""Characters of a dead process's output that an error shows."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
"""Environment of a process on a CPU."""

Reply = tuple[bool, Any]
"""(True, a method's value) or (False, its error)."""


class Died(Exception):
    """A process is gone; the message says which, of what, and its last words."""


@dataclass(frozen=True)
class Role:
    """What a process is to be."""

    name: str
    """What errors call it: `trainer rank 3`, `sampler 0`."""
    kind: str
    """Where what it runs is made: `linn.scale.rank`, a module with a function `opened(options)`."""
    options: Any
    """What that function is given; it can be pickled."""
    gpus: int = 0
    """GPUs of its own; 0: it computes on the CPU, or `beside` others."""
    beside: tuple[str, ...] = ()
    """Roles with whose GPUs it computes, in turn with them."""
    environment: Mapping[str, str] | None = None
    """Further variables of its environment."""


class Unopened:
    """Stands for what a role should have made and refused to: every message gets the refusal."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, message: str) -> Any:
        raise self._error


class Process(Protocol):
    """One process somewhere, that answers a message at a time."""

    name: str
    """Of its role."""

    def send(self, message: str, arguments: tuple[Any, ...]) -> None:
        """Have its object's method of that name run. Raises Died."""
        ...

    def receive(self) -> Reply:
        """The answer to the last message. Raises Died."""
        ...

    def end(self, kill: bool = False) -> None:
        """End it: when it is done with its message, or at once. Twice is fine."""
        ...


class Places(Protocol):
    """Starts processes."""

    def start(self, roles: Sequence[Role]) -> list[Process]:
        """One process per role. They start at the same time; the first message waits for that."""
        ...

    def answered(self, processes: Sequence[Process], seconds: float) -> list[Process]:
        """Those that have answered, or died; none when so many seconds have passed."""
        ...

    def meeting(self) -> str:
        """Where ranks that start now find each other, as torch takes it (`file://`, `tcp://`)."""
        ...

    def folder(self) -> Path:
        """A folder that all processes see, for weights under way. It goes with `close`."""
        ...

    def close(self) -> None:
        """End what is left, and remove the folder."""
        ...


# ---------------------------------------------------------------- this machine


class Local:
    """Subprocesses of this one. They end with it, however it ends."""

    def __init__(self, exchange: Path | None = None, gpus: Sequence[str] = ()) -> None:
        """exchange: where the folder is made; None: among the system's temporary files.

        gpus: ids of those that may be used. Each role that asks for some gets the next free ones,
        for all processes that will ever play it; they see no others.
        """
        self._exchange = exchange
        self._free = list(gpus)
        self._held: dict[str, list[str]] = {}
        """GPUs by role."""
        self._folder: Path | None = None
        self._meetings = 0
        self._started: list[LocalProcess] = []

    def folder(self) -> Path:
        """For this user alone: weights and messages lie in it."""
        if self._folder is None:
            self._folder = make_folder(self._exchange, mode=0o700)
        return self._folder

    def meeting(self) -> str:
        """A file of its own each time."""
        self._meetings += 1
        return f"file://{self.folder()}/meeting-{self._meetings}"

    def start(self, roles: Sequence[Role]) -> list[Process]:
        """Subprocesses; one that cannot be started at all is an InfrastructureError."""
        processes: list[Process] = []
        for role in roles:
            try:
                process = LocalProcess(role, self.folder(), self._gpus_of(role))
            except OSError as error:
                raise InfrastructureError(f"{role.name} cannot start: {error}") from None
            processes.append(process)
            self._started.append(process)
        return processes

    def _gpus_of(self, role: Role) -> list[str]:
        """By name, so that who shares GPUs finds them, whoever starts first and again."""
        if role.beside:
            return [gpu for name in role.beside for gpu in self._held_by(name, 1)]
        return self._held_by(role.name, role.gpus)

    def _held_by(self, name: str, count: int) -> list[str]:
        if name not in self._held:
            self._held[name] = [self._free.pop(0) for _ in range(count)]
        return self._held[name]

    def answered(self, processes: Sequence[Process], seconds: float) -> list[Process]:
        """By their pipes."""
        by_pipe: dict[Any, Process] = {}
        for process in processes:
            assert isinstance(process, LocalProcess), process
            by_pipe[process.pipe] = process
        return [by_pipe[pipe] for pipe in wait(list(by_pipe), seconds)]

    def close(self) -> None:
        """All get the word before any is waited for."""
        for process in self._started:
            process.hang_up()
        for process in self._started:
            process.end()
        self._started = []
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


class LocalProcess:
    """A subprocess, its pipe, its log and who watches it."""

    def __init__(self, role: Role, folder: Path, gpus: Sequence[str]) -> None:
        self.name = role.name
        self._folder = folder
        stem = f"{role.name.replace(' ', '-')}-{id(self):x}"
        beats = folder / f"{stem}.beat"
        heartbeat.prepare(beats)
        self._log: IO[bytes] = open(folder / f"{stem}.log", "w+b")  # noqa: SIM115 - see `end`

        self.pipe, there = Pipe()
        # Before the process exists: the pipe holds the message, and no death can come between.
        in_main_thread = threading.current_thread() is threading.main_thread()
        self.pipe.send((role, str(beats), in_main_thread))
        self._handle = _start(role, there, self._log, gpus)
        # Only the process holds its end now, so that its death closes the pipe.
        there.close()
        self._watch = Watch([beats], [self._handle.pid], [role.name], tells_idle=False)
        self._ended = False

    @property
    def pid(self) -> int:
        """Its number, for those who kill it."""
        return self._handle.pid

    def send(self, message: str, arguments: tuple[Any, ...]) -> None:
        """Through the pipe; who stops reading is found by its watch."""
        self._watch.begin(message)
        try:
            self.pipe.send((message, arguments))
        except OSError:
            raise self._died() from None

    def receive(self) -> Reply:
        """Waits for it."""
        try:
            reply: Reply = self.pipe.recv()
        except (EOFError, OSError):
            raise self._died() from None
        self._watch.end()
        return reply

    def hang_up(self) -> None:
        """It ends once it has answered what it computes."""
        self.pipe.close()
        assert self._handle.stdin is not None
        self._handle.stdin.close()

    def end(self, kill: bool = False) -> None:
        """At once, or within seconds."""
        if self._ended:
            return
        self._ended = True
        if kill:
            self._handle.kill()
        self.hang_up()
        try:
            self._handle.wait(5)
        except subprocess.TimeoutExpired:
            self._handle.kill()
            self._handle.wait()
        self._watch.close()
        self._log.close()

    def _died(self) -> Died | DiskFull:
        if self._watch.verdict is not None:
            return Died(self._watch.verdict[1])
        # Its pipe is closed before the kernel reports its exit code: wait for that.
        try:
            code = self._handle.wait(5)
        except subprocess.TimeoutExpired:
            return Died(f"{self.name} closed its pipe without ending")
        self._log.seek(0)
        log = self._log.read()[-LAST_WORDS:].decode(errors="replace").strip()
        cause = " (killed: out of memory?)" if code == -9 else ""
        last_words = log or "it wrote nothing"
        words = f"{self.name} ended with exit code {code}{cause}; its last words: {last_words}"
        # Whoever took its place would end of it as well.
        full = full_disk(self._folder)
        return DiskFull(f"{full}{words}") if full else Died(words)


def _start(
    role: Role, there: Connection, log: IO[bytes], gpus: Sequence[str]
) -> subprocess.Popen[bytes]:
    # The process imports this linn, wherever it was started from.
    root = str(Path(__file__).resolve().parents[2])
    inherited = os.environ.get("PYTHONPATH")
    own = {
        "PYTHONPATH": os.pathsep.join([root, inherited] if inherited else [root]),
        "CUDA_VISIBLE_DEVICES": ",".join(gpus),
    }
    if not gpus:
        own |= ONE_THREAD
    # A signal to all processes must not end one that is still importing: it begins with these
    # blocked, and ignores them as soon as it can.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "linn.scale.process", str(there.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[there.fileno()],
            env=os.environ | own | dict(role.environment or {}),
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# ---------------------------------------------------------------- the folder of a run


def make_folder(exchange: Path | None, mode: int) -> Path:
    """A new folder in `exchange`, or among the temporary files.

    It is named by the process, so that a later run removes what a killed one left. Raises UserError
    where it cannot be made.
    """
    place = (exchange or Path(tempfile.gettempdir())).absolute()  # for processes elsewhere
    _remove_leftovers(place)
    folder = place / f"linn-cluster-{_own_machine()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir(mode)
    except OSError as error:
        key = "scale.exchange" if exchange else "scale.exchange (by default, temporary files)"
        raise UserError(
            f"{key}: {place} cannot be written ({error.strerror}); make that folder, or name "
            "another one that all machines of the cluster see"
        ) from None
    return folder


def _own_machine() -> str:
    """Where a process's number means that process: other machines may see the same folder.

    A container counts processes for itself, so it is a machine here.
    """
    try:
        counted_in = os.readlink("/proc/self/ns/pid")
    except OSError:
        counted_in = ""
    return hashlib.sha256(f"{platform.node()} {counted_in}".encode()).hexdigest()[:8]


def _remove_leftovers(place: Path) -> None:
    """Remove the folders of this machine's runs whose process was killed."""
    if not Path("/proc").exists():
        return
    for folder in place.glob(f"linn-cluster-{_own_machine()}-*-*"):
        owner = folder.name.split("-")[3]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
