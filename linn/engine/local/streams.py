"""Continuous sampling of the local engine: N live processes, each with a reader and a writer.

A process that dies takes its own requests along and nobody else's, and another one takes its
place. No torch in this process.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import tempfile
import threading
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from linn.engine.local import heartbeat
from linn.engine.local.heartbeat import Watch
from linn.engine.local.processes import WorkerOptions, remove_leftovers, start_worker
from linn.engine.protocol import Token
from linn.errors import InfrastructureError
from linn.types import Sampling

_STILLBORN = 3
"""Processes of one place that die before they answered anything, after which none is started."""


class _Request:
    """One message that is answered by a value, or by tokens until their end."""

    def __init__(self) -> None:
        self._tokens: list[Token] = []
        self._value: Any = None
        self._error: Exception | None = None
        self._ended = False
        self._came = asyncio.Event()

    def take(self, kind: str, what: Any) -> None:
        """An answer came."""
        if kind == "tokens":
            self._tokens += what
        elif kind == "error":
            self._error, self._ended = what, True
        else:
            self._value, self._ended = what, True
        self._came.set()

    @property
    def ended(self) -> bool:
        """Whether no more comes."""
        return self._ended

    async def tokens(self) -> list[Token]:
        """The next tokens; empty at the end."""
        while not (self._tokens or self._ended):
            self._came.clear()
            await self._came.wait()
        if not self._tokens and self._error is not None:
            raise self._error
        new, self._tokens = self._tokens, []
        return new

    async def value(self) -> Any:
        """What the message is answered by."""
        while not self._ended:
            self._came.clear()
            await self._came.wait()
        if self._error is not None:
            raise self._error
        return self._value


class _LiveProcess:
    """One process, and the requests that it owes answers to."""

    def __init__(self, options: WorkerOptions, folder: Path, onto: LiveWorkers) -> None:
        self.rank = options.rank
        self.onto = onto
        self.requests: dict[int, _Request] = {}
        self.answered = False
        """Whether it has ever told anything."""
        heartbeat.prepare(Path(options.heartbeat))
        self.process = start_worker(options, folder / f"{self.rank}.log", "live_worker")
        self._watch = Watch([Path(options.heartbeat)], [self.process.handle.pid])
        self._outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._dead = False
        """Whether its pipe has closed."""
        self._over = False
        """Whether that was told."""
        # A pipe that is full, or a message that comes slowly, must not stop the event loop.
        for target in (self._read, self._write):
            threading.Thread(target=target, name=f"live-{self.rank}", daemon=True).start()

    def send(self, name: str, number: int, *arguments: Any) -> None:
        """Send a message; an answer to it goes to the request of this number."""
        self._outbox.put((name, number, arguments))

    def add(self, number: int, request: _Request) -> None:
        """From now on an answer is owed, and somebody looks whether the process lives."""
        if not self.requests:
            self._watch.begin("serve")
        self.requests[number] = request

    def remove(self, number: int) -> None:
        """No answer is owed any more."""
        if self.requests.pop(number, None) is not None and not self.requests:
            self._watch.end()

    def abandon(self) -> None:
        """Nobody waits for anything any more: the event loop in which they did is gone."""
        for number in list(self.requests):
            self.send("drop", number)
            self.remove(number)

    def close(self) -> None:
        """Ask it to end; whoever waits for it is told."""
        self._over = True
        self._watch.close()
        self._outbox.put(None)
        # Behind the last event loop nobody waits any more.
        with suppress(RuntimeError):
            self._fail("the engine was closed")

    def _read(self) -> None:
        while True:
            try:
                events = self.process.pipe.recv()
            except (EOFError, OSError):
                break
            self._call(self._deliver, events)
        self._dead = True
        self._call(self.mend)

    def _write(self) -> None:
        while (message := self._outbox.get()) is not None:
            try:
                self.process.pipe.send(message)
            except OSError:
                return  # the reader learns of the death
        # Its own reader ends with that, and the process.
        assert self.process.handle.stdin is not None
        self.process.handle.stdin.close()

    def _call(self, function: Any, *arguments: Any) -> None:
        """Run a function in the event loop that was used last."""
        # Where it is closed, nobody waits for an answer any more.
        if self.onto.loop is not None:
            with suppress(RuntimeError):
                self.onto.loop.call_soon_threadsafe(function, *arguments)

    def _deliver(self, events: Sequence[tuple[int, str, Any]]) -> None:
        self.answered = True
        for number, kind, what in events:
            request = self.requests.get(number)
            if request is None:
                continue  # it was dropped
            request.take(kind, what)
            if request.ended:
                self.remove(number)

    def mend(self) -> None:
        """Where it has died, tell those who wait, and have another one take its place."""
        if not self._dead or self._over:
            return
        self._over = True
        self._watch.close()
        words = self._watch.verdict[1] if self._watch.verdict else None
        words = words or self.process.last_words(self.rank) or "an engine process closed its pipe"
        self._outbox.put(None)
        self.onto.replace(self, words)
        self._fail(words)

    def _fail(self, words: str) -> None:
        requests, self.requests = self.requests, {}
        for request in requests.values():
            request.take("error", InfrastructureError(words))


class LiveWorkers:
    """Processes that start with the first checkpoint and end with `close`."""

    def __init__(self, options: WorkerOptions) -> None:
        """options: of all of them; `capacity` and `cache_bytes` are those of each checkpoint."""
        self.count = count = options.world
        self._options = options
        self._processes: list[_LiveProcess] = []
        self._stillborn = [0] * count
        self._folders: list[Path] = []
        """The checkpoints that are open."""
        self._next = 0
        self._folder: Path | None = None
        self._last_words = ""
        self.loop: asyncio.AbstractEventLoop | None = None
        """The event loop in which the last request was made."""

    @property
    def pids(self) -> list[int]:
        """Process ids of those that live."""
        return [one.process.handle.pid for one in self._processes]

    async def open(self, folder: Path) -> int | None:
        """Have every process read a checkpoint."""
        if self._folder is None:
            remove_leftovers()
            self._folder = Path(tempfile.mkdtemp(prefix=f"linn-engine-{os.getpid()}-"))
        self._enter()
        if not self._processes:
            self._stillborn = [0] * self.count
            self._processes = [self._start(rank) for rank in range(self.count)]
            # All had died: what was open is open again.
            for known in self._folders:
                for one in self._processes:
                    self._ask(one, "open", known)
        # All at once: each reads the same files, from the same cache of the system.
        asked = [self._ask(one, "open", folder) for one in self._processes]
        positions: list[int | None] = [await request.value() for request in asked]
        if folder not in self._folders:
            self._folders.append(folder)
        return positions[0]

    async def forget(self, folder: Path) -> None:
        """Have every process forget a checkpoint."""
        self._enter()
        if folder in self._folders:
            self._folders.remove(folder)
        for request in [self._ask(one, "close", folder) for one in self._processes]:
            await request.value()

    async def stream(
        self, folder: Path, ids: Sequence[int], how: Sampling, seed: int, is_whole: bool
    ) -> AsyncGenerator[Sequence[Token], None]:
        """See `Streams.stream`; the process with the fewest requests takes it."""
        process = self._least()
        number = self._next
        request = self._ask(process, "admit", folder, tuple(ids), how, seed, is_whole)
        try:
            while tokens := await request.tokens():
                yield tokens
        finally:
            if not request.ended:
                process.remove(number)
                process.send("drop", number)

    async def score(self, folder: Path, ids: Sequence[int], top: int) -> list[Token]:
        """See `Streams.score`."""
        request = self._ask(self._least(), "score", folder, tuple(ids), top)
        tokens: list[Token] = await request.value()
        return tokens

    def close(self) -> None:
        """End the processes."""
        processes, self._processes, self._folders = self._processes, [], []
        # First tell all, then wait: they end at the same time.
        for one in processes:
            one.close()
        for one in processes:
            one.process.end()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # ------------------------------------------------------------ processes

    def replace(self, dead: _LiveProcess, words: str) -> None:
        """A process has died: another one reads its checkpoints and takes its place."""
        dead.process.end()
        if dead not in self._processes:
            return  # it was told to end
        self._processes.remove(dead)
        self._last_words = words
        rank = dead.rank
        self._stillborn[rank] = 0 if dead.answered else self._stillborn[rank] + 1
        # One that cannot even start would be started for ever.
        if self._stillborn[rank] >= _STILLBORN:
            return
        fresh = self._start(rank)
        self._processes.append(fresh)
        for folder in self._folders:
            self._ask(fresh, "open", folder)

    def _enter(self) -> None:
        """Work in the event loop that runs, which may be another one than last time."""
        loop = asyncio.get_running_loop()
        if self.loop is not loop:
            self.loop = loop
            for one in self._processes:
                one.abandon()
        # A death between two event loops was told to nobody.
        for one in list(self._processes):
            one.mend()

    def _start(self, rank: int) -> _LiveProcess:
        in_main_thread = threading.current_thread() is threading.main_thread()
        options = replace(
            self._options,
            rank=rank,
            die_by_kernel=in_main_thread,
            heartbeat=f"{self._folder}/{rank}.beat",
        )
        assert self._folder is not None
        return _LiveProcess(options, self._folder, self)

    def _ask(self, process: _LiveProcess, name: str, *arguments: Any) -> _Request:
        request = _Request()
        number, self._next = self._next, self._next + 1
        process.add(number, request)
        process.send(name, number, *arguments)
        return request

    def _least(self) -> _LiveProcess:
        """The process with the fewest open requests."""
        self._enter()
        if not self._processes:
            raise InfrastructureError(self._last_words or "no engine process was started")
        return min(self._processes, key=lambda one: len(one.requests))


class LocalStreams:
    """The `Streams` of the local engine."""

    def __init__(self, workers: LiveWorkers, folder: Path) -> None:
        self._workers = workers
        self._folder = folder

    async def open(self) -> int | None:
        """Have every process read the checkpoint."""
        return await self._workers.open(self._folder)

    def stream(
        self, ids: Sequence[int], how: Sampling, seed: int, is_whole: bool = False
    ) -> AsyncGenerator[Sequence[Token], None]:
        """New tokens as they come."""
        return self._workers.stream(self._folder, ids, how, seed, is_whole)

    async def score(self, ids: Sequence[int], top: int = 0) -> list[Token]:
        """Every token of a text with its log-prob."""
        return await self._workers.score(self._folder, ids, top)

    async def close(self) -> None:
        """Have every process forget the checkpoint."""
        await self._workers.forget(self._folder)
