"""The worker processes of the local engine, and the pipes to them. No torch in this process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import IO, Any

from linn import stopping
from linn.engine.local import heap, heartbeat
from linn.engine.local.disk import full_disk
from linn.engine.local.heartbeat import Watch
from linn.engine.training.token_weights import StepFailed
from linn.engine.training.trees import MICRO_BATCH
from linn.errors import InfrastructureError

_ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is told when it starts; the first message of its pipe."""

    world: int = 1
    """How many workers there are."""
    device: str = "cpu"
    """`cpu` or `cuda`; of the GPUs that it sees it takes the first."""
    dtype: str = "float32"
    """Name of the torch dtype that weights are held in."""
    width: int = 2048
    """Tokens of a packed row."""
    tokens: int = MICRO_BATCH
    """Tokens of a micro-batch; a longer row goes alone."""
    capacity: int = 256
    """Rows decoded together."""
    cache_bytes: int | None = None
    """What their states may take; None: as `accelerator.cache_bytes` has it."""
    autocast: bool = False
    """Whether matrix products of training run in bf16."""
    recompute: bool = False
    """Whether training keeps only the inputs of each layer for its backward pass."""
    host_moments: bool = False
    """Whether AdamW's moments wait in the host's memory between steps."""
    share_prompts: bool = False
    """Whether siblings share their prompt in training and scoring."""
    rank: int = 0
    """Its number, from 0."""
    store: str = ""
    """A file by which the workers find each other."""
    die_by_kernel: bool = False
    """Whether Linux is to kill it when the thread that started it ends."""
    heartbeat: str = ""
    """The file for its signs of life."""


@dataclass(frozen=True)
class Process:
    """One worker, the pipe to it, and what it writes."""

    handle: subprocess.Popen[bytes]
    """The process; it ends when its standard input is closed."""
    pipe: Connection
    """Messages to it, and its answers."""
    log: IO[bytes]
    """Its output."""

    def last_words(self, rank: int) -> str | None:
        """Of what it died, for a person; None where it lives."""
        # Its pipe is closed before the kernel reports its exit code: wait for that.
        try:
            code = self.handle.wait(5)
        except subprocess.TimeoutExpired:
            return None
        self.log.seek(0)
        log = self.log.read()[-2000:].decode(errors="replace").strip()
        cause = " (killed: out of memory?)" if code == -9 else ""
        return (
            f"engine process {rank} ended with exit code {code}{cause}; "
            f"its last words: {log or 'it wrote nothing'}"
        )

    def end(self) -> None:
        """Wait until it has ended, 5 s at most; then it is killed."""
        try:
            self.handle.wait(5)
        except subprocess.TimeoutExpired:
            self.handle.kill()
            self.handle.wait()
        self.log.close()


class Workers:
    """One-thread processes that start at the first call and end with this one, however it ends."""

    def __init__(self, options: WorkerOptions) -> None:
        """options: of all workers; each gets its own rank and files."""
        self.count = options.world
        self._options = options
        self._processes: list[Process] = []
        self._folder = ""
        self._watch: Watch | None = None

    @property
    def pids(self) -> list[int]:
        """Process ids in order of rank; empty before the first call and after `close`."""
        return [process.handle.pid for process in self._processes]

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """The same message to every worker; replies in order of rank."""
        return self.call_each(name, [arguments] * self.count)

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Have each worker run its method `name` (`Worker`) once; replies in order of rank.

        Lock-step: it returns when all workers have answered, and one call runs at a time. Streams
        have processes of their own, with a reader per pipe (`streams.py`).

        A worker's error is raised here and the workers stay. A dead worker ends them all, and so
        does one that gives no sign of life (`heartbeat.py`), and an interrupt: replies still under
        way would be taken for those of the next call.
        """
        assert len(arguments) == self.count, (name, len(arguments))
        try:
            if not self._processes:
                self._start()
            replies = self._exchange(name, arguments)
        except BaseException:
            for process in self._processes:
                process.handle.kill()
            self.close()
            raise

        errors = [value for answered, value in replies if not answered]
        if errors:
            # The rank that failed says more than those that merely learnt of it.
            causes = [error for error in errors if not isinstance(error, StepFailed)]
            raise (causes or errors)[0]
        return [value for _, value in replies]

    def close(self) -> None:
        """End the workers; the next call starts new ones."""
        processes, self._processes = self._processes, []
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        # First tell all, then wait: they end at the same time.
        for process in processes:
            process.pipe.close()
            assert process.handle.stdin is not None
            process.handle.stdin.close()
        for process in processes:
            process.end()

        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    # ------------------------------------------------------------ processes

    def _start(self) -> None:
        remove_leftovers()
        self._folder = tempfile.mkdtemp(prefix=f"linn-engine-{os.getpid()}-")
        # Linux sends its signal when the *thread* that started a process ends.
        in_main_thread = threading.current_thread() is threading.main_thread()
        for rank in range(self.count):
            options = replace(
                self._options,
                rank=rank,
                store=f"{self._folder}/store",
                die_by_kernel=in_main_thread,
                heartbeat=f"{self._folder}/{rank}.beat",
            )
            log = Path(self._folder) / f"{rank}.log"
            try:
                heartbeat.prepare(Path(options.heartbeat))
                self._processes.append(start_worker(options, log))
            except OSError as error:
                raise InfrastructureError(f"engine process {rank} cannot start: {error}") from None
        beats = [Path(f"{self._folder}/{rank}.beat") for rank in range(self.count)]
        self._watch = Watch(beats, self.pids)

    def _exchange(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[tuple[bool, Any]]:
        """(True, value) or (False, error) of each worker."""
        assert self._watch is not None
        self._watch.begin(name)
        try:
            return self._send_and_receive(name, arguments, self._watch)
        finally:
            self._watch.end()

    def _send_and_receive(
        self, name: str, arguments: Sequence[tuple[Any, ...]], watch: Watch
    ) -> list[tuple[bool, Any]]:
        rank_of: dict[Any, int] = {}
        try:
            for rank, process in enumerate(self._processes):
                process.pipe.send((name, arguments[rank]))
                rank_of[process.pipe] = rank
        except OSError:
            self._raise_death()

        # Whoever answers first is read first: a death is seen while others still compute.
        replies: dict[int, tuple[bool, Any]] = {}
        while rank_of:
            for pipe in wait(list(rank_of)):
                assert isinstance(pipe, Connection)
                try:
                    reply = pipe.recv()
                except (EOFError, OSError):
                    self._raise_death()
                rank = rank_of.pop(pipe)
                watch.answered(rank)
                replies[rank] = reply
        return [replies[rank] for rank in range(self.count)]

    def _raise_death(self) -> None:
        """Raise what says which worker died, of what, and its last words."""
        if self._watch is not None and self._watch.verdict is not None:
            raise InfrastructureError(self._watch.verdict[1])
        for rank, process in enumerate(self._processes):
            words = process.last_words(rank)
            if words is not None:
                raise InfrastructureError(f"{full_disk(Path(self._folder))}{words}")
        raise InfrastructureError("an engine process closed its pipe without ending")


def start_worker(options: WorkerOptions, log_path: Path, module: str = "worker") -> Process:
    """Start a process of `linn.engine.local.MODULE`; its output goes to `log_path`."""
    here, there = Pipe()
    # Before the worker exists: the pipe holds the message, and no death can come between.
    here.send(options)

    log = open(log_path, "w+b")  # noqa: SIM115 - closed with the process

    # The worker imports this linn, wherever it was started from.
    root = str(Path(__file__).resolve().parents[3])
    inherited = os.environ.get("PYTHONPATH")
    python_path = os.pathsep.join([root, inherited] if inherited else [root])
    env = os.environ | _ONE_THREAD | {"PYTHONPATH": python_path}
    if options.recompute:
        env |= heap.huge_pages(os.environ)
    # A signal to all processes (Ctrl-C, a scheduler) must not end one that is still importing: it
    # begins with these blocked, and ignores them as soon as it can.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stopping.SIGNALS)
    try:
        handle = subprocess.Popen(
            [sys.executable, "-m", "linn.engine.local.start", module, str(there.fileno())],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[there.fileno()],
            env=env,
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    # Only the worker holds its end now, so that its death closes the pipe.
    there.close()
    return Process(handle, here, log)


def remove_leftovers() -> None:
    """Remove the temporary folders of engines whose process was killed."""
    if not Path("/proc").exists():
        return
    for folder in Path(tempfile.gettempdir()).glob("linn-engine-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)
