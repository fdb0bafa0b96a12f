"""The local engine: one-thread processes that sample and train the same weights. No torch in this process."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from linn.engine.training.token_weights import StepFailed, moves, token_weights
from linn.errors import InfrastructureError
from linn.types import Completion, Loss, Optim, Sample, Sampling

_THREADS = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")}


@dataclass(frozen=True)
class _Process:
    handle: subprocess.Popen[bytes]
    pipe: Connection
    log: IO[bytes]


class LocalEngine:
    """N worker processes with one policy (sampler and trainer share its tensors), its optimiser, and one other model at a time.

    Processes start at the first need and end with this one, however it ends. Every result is a function of the calls made, not of timing.
    """

    def __init__(
        self,
        processes: int = 2,
        dtype: str = "float32",
        width: int = 2048,
        capacity: int = 256,
        autocast: bool = False,
    ) -> None:
        """`width`: tokens of a packed row. `capacity`: rows a process decodes together. `autocast`: train in bf16 over `dtype` weights."""
        self.processes, self.dtype, self.width, self.capacity, self.autocast = (
            processes,
            dtype,
            width,
            capacity,
            autocast,
        )
        self.sampler = PoolSampler(self)
        self.trainer = PoolTrainer(self)
        self._pool: list[_Process] = []
        self._folder = ""

    def load(self, folder: Path, optim: Optim) -> None:
        """Take the policy from a Hugging Face folder, with a fresh optimiser at version 0."""
        self.call("load", Path(folder), optim)
        self._set_version(0)

    def score(
        self, folder: Path, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-prob of every token under the checkpoint in `folder`, which stays loaded until another is asked for; entry 0 is 0.0."""
        return self.score_with(Path(folder), sequences, temperature)

    def save(self, folder: Path) -> None:
        """Write policy, optimiser and tokenizer files into `folder`; complete or absent at any instant."""
        self.call("save", Path(folder))

    def export(self, folder: Path) -> None:
        """Write the policy's config.json and safetensors into an existing folder."""
        self.call("export", Path(folder))

    def restore(self, folder: Path) -> None:
        """Read what `save` wrote into the loaded policy; training then continues bit for bit."""
        self._set_version(self.call("restore", Path(folder))[0])

    def sampler_of(self, folder: Path) -> PoolSampler:
        """A sampler over another checkpoint (a judge, a teacher), in the place that `score` uses."""
        return PoolSampler(self, Path(folder))

    def cpu_seconds(self) -> float:
        """Processor time of all workers since they started."""
        return float(sum(self.call("cpu_seconds"))) if self._pool else 0.0

    def fingerprints(self) -> list[str]:
        """A hash of the policy's weights in every process; all are equal."""
        return self.call("fingerprint")

    def close(self) -> None:
        """End the workers; the engine can be loaded again afterwards."""
        pool, self._pool = self._pool, []
        for process in pool:
            process.pipe.close()
            process.handle.stdin.close()  # type: ignore[union-attr]
        for process in pool:
            try:
                process.handle.wait(5)
            except subprocess.TimeoutExpired:
                process.handle.kill()
                process.handle.wait()
            process.log.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # ------------------------------------------------------------ for the sampler and the trainer

    def call(self, name: str, *arguments: Any) -> list[Any]:
        """The same message to every process; replies in order of rank."""
        return self.call_each(name, [arguments] * self.processes)

    def call_each(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """One message a process; replies in order of rank. A worker's error is raised here; a dead worker ends the engine."""
        if not self._pool:
            self._start()
        try:
            replies = self._exchange(name, arguments)
        except BaseException:  # also Ctrl-C: replies still under way would be taken for later ones
            for process in self._pool:
                process.handle.kill()
            self.close()
            raise
        errors = [value for fine, value in replies if not fine]
        if errors:  # the rank that failed says more than those that merely heard of it
            raise next((error for error in errors if not isinstance(error, StepFailed)), errors[0])
        return [value for _, value in replies]

    def score_with(
        self, folder: Path | None, sequences: Sequence[Sequence[int]], temperature: float
    ) -> list[list[float]]:
        """`score` under a checkpoint, or under the policy (None); dealt to processes as training deals its samples."""
        shares = deal([len(ids) for ids in sequences], self.processes)
        replies = self.call_each(
            "score",
            [(folder, [tuple(sequences[i]) for i in share], temperature) for share in shares],
        )
        return _restored(shares, replies)

    def _set_version(self, version: int) -> None:
        self.sampler.version = self.trainer.version = version
        self.sampler.forget()

    def _start(self) -> None:
        _sweep()
        self._folder = tempfile.mkdtemp(prefix=f"linn-engine-{os.getpid()}-")
        main = threading.current_thread() is threading.main_thread()
        root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        for rank in range(self.processes):
            here, there = Pipe()
            log = open(Path(self._folder) / f"{rank}.log", "w+b")  # noqa: SIM115 - closed in `close`
            options = [
                there.fileno(),
                rank,
                self.processes,
                f"{self._folder}/store",
                self.dtype,
                self.width,
                self.capacity,
            ]
            flags = ["01"[self.autocast], "01"[main]]
            handle = subprocess.Popen(
                [sys.executable, "-m", "linn.engine.local.worker", *map(str, options), *flags],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[there.fileno()],
                env=os.environ | _THREADS | {"PYTHONPATH": path},
            )
            there.close()
            self._pool.append(_Process(handle, here, log))

    def _exchange(self, name: str, arguments: Sequence[tuple[Any, ...]]) -> list[tuple[bool, Any]]:
        replies: dict[int, tuple[bool, Any]] = {}
        rank_of = {process.pipe: rank for rank, process in enumerate(self._pool)}
        try:
            for process, message in zip(self._pool, arguments, strict=True):
                process.pipe.send((name, message))
        except OSError:
            self._mourn()
        while len(replies) < len(self._pool):
            for pipe in wait([p for p, rank in rank_of.items() if rank not in replies]):
                assert isinstance(pipe, Connection)
                try:
                    replies[rank_of[pipe]] = pipe.recv()
                except (EOFError, OSError):
                    self._mourn()
        return [replies[rank] for rank in range(len(self._pool))]

    def _mourn(self) -> None:
        """Say which worker died, of what, and its last words."""
        for rank, process in enumerate(self._pool):
            try:
                code = process.handle.wait(5)
            except subprocess.TimeoutExpired:
                continue
            process.log.seek(0)
            words = (
                process.log.read()[-2000:].decode(errors="replace").strip() or "it wrote nothing"
            )
            cause = " (killed: out of memory?)" if code == -9 else ""
            raise InfrastructureError(
                f"engine process {rank} ended with exit code {code}{cause}; its last words: {words}"
            )
        raise InfrastructureError("an engine process closed its pipe without ending")


class PoolSampler:
    """The `Sampler` of an engine: requests queue until `flush` runs them as one batch.

    Which process runs a request depends on the order of the queue alone: equal prompts together, dealt in order of first appearance.
    """

    def __init__(self, engine: LocalEngine, folder: Path | None = None) -> None:
        self.version = 0
        self._engine, self._checkpoint = engine, folder
        self._requests: list[tuple[tuple[int, ...], Sampling, int]] = []
        self._waiting: list[asyncio.Future[Completion]] = []
        self._homes: dict[tuple[int, ...], int] = {}

    async def generate(self, ids: Sequence[int], how: Sampling, seed: int) -> Completion:
        """Continue `ids` at the next `flush`."""
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._requests.append((tuple(ids), how, seed))
        self._waiting.append(future)
        return await future

    def flush(self) -> None:
        """Run what is queued as one batch and resolve those who wait. An error is theirs, and the caller's too."""
        requests, self._requests = self._requests, []
        waiting, self._waiting = self._waiting, []
        try:
            if requests:
                _resolve(waiting, self.run(requests))
        except Exception as error:
            for future in waiting:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # marked as seen: the raise below reports it
            raise

    def run(self, requests: Sequence[tuple[tuple[int, ...], Sampling, int]]) -> list[Completion]:
        """One batch now, without the queue: one completion a request, in order.

        A request that goes on from a conversation of the batch before runs where that one ran, from its kept state.
        """
        place: dict[tuple[int, ...], int] = {}
        shares: list[list[int]] = [[] for _ in range(self._engine.processes)]
        known = self._known([ids for ids, _, _ in requests])
        for index, (ids, _, _) in enumerate(requests):
            rank = (
                self._homes[ids[: known[index]]]
                if known[index]
                else place.setdefault(ids, len(place)) % len(shares)
            )
            shares[rank].append(index)
        messages = [
            (self._checkpoint, [requests[i] for i in share], [known[i] for i in share])
            for share in shares
        ]
        completions: list[Completion] = _restored(
            shares, self._engine.call_each("generate", messages)
        )
        self._homes = {}
        for rank, share in enumerate(shares if self._checkpoint is None else []):
            self._homes |= {
                (*requests[i][0], *completions[i].ids): rank for i in share if requests[i][1].more
            }
        return completions

    def _known(self, prompts: Sequence[tuple[int, ...]]) -> list[int]:
        """How many leading tokens of each prompt are a conversation whose state a process has kept."""
        lengths = sorted({len(key) for key in self._homes}, reverse=True)
        return [
            next((n for n in lengths if n < len(ids) and ids[:n] in self._homes), 0)
            for ids in prompts
        ]

    def forget(self) -> None:
        """The weights change: nothing that was computed is of use any more."""
        self._homes = {}


class PoolTrainer:
    """The `Trainer` of an engine: samples are dealt to the processes by length."""

    def __init__(self, engine: LocalEngine) -> None:
        self.version = 0
        self._engine = engine

    def step(self, samples: Sequence[Sample], loss: Loss, lr: float) -> dict[str, float]:
        """One optimiser step over all samples. Raises StepFailed, carrying `samples` and changing nothing, where it is not finite."""
        weights = token_weights(samples, loss)
        shares = deal(
            [len(s.tokens) if moves(s, loss) else 0 for s in samples], self._engine.processes
        )
        messages = [
            ([samples[i] for i in share], [weights[i] for i in share], loss, lr) for share in shares
        ]
        try:
            metrics: dict[str, float] = self._engine.call_each("step", messages)[0]
        except StepFailed as error:
            error.samples = samples
            raise
        self._engine._set_version(self.version + 1)
        return metrics


def _sweep() -> None:
    """Remove what engines of processes that were killed have left in the temporary folder."""
    for folder in Path(tempfile.gettempdir()).glob("linn-engine-*-*"):
        owner = folder.name.split("-")[2]
        if owner.isdecimal() and not Path(f"/proc/{owner}").exists() and Path("/proc").exists():
            shutil.rmtree(folder, ignore_errors=True)


def deal(lengths: Sequence[int], shares: int) -> list[list[int]]:
    """Indices dealt to `shares` processes, longest first, each to the one with the fewest tokens."""
    dealt: list[list[int]] = [[] for _ in range(shares)]
    load = [0] * shares
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        least = load.index(min(load))
        dealt[least].append(index)
        load[least] += lengths[index]
    return dealt


def _restored(shares: Sequence[Sequence[int]], replies: Sequence[Sequence[Any]]) -> list[Any]:
    out: list[Any] = [None] * sum(map(len, shares))
    for share, reply in zip(shares, replies, strict=True):
        for index, value in zip(share, reply, strict=True):
            out[index] = value
    return out


def _resolve(futures: Iterable[asyncio.Future[Any]], values: Iterable[Any]) -> None:
    for future, value in zip(futures, values, strict=True):
        if not future.done():  # a cancelled conversation no longer waits
            future.set_result(value)
