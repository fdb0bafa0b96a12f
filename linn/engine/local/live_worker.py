"""A process that samples for ever: live batches of some checkpoints, advanced while any has rows.

Started by `streams.py` (`start.py`). Messages are taken between
two steps, so a request joins and leaves at any time. What came of a step goes back as one message.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Sequence
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from linn.engine.local import heartbeat
from linn.engine.local.accelerator import cache_bytes, device_of, set_up
from linn.engine.local.answering import die_with_parent, full_gpu, ignore_signals
from linn.engine.local.arrivals import Arrival, Arrivals
from linn.engine.local.processes import WorkerOptions
from linn.engine.models.load import load
from linn.engine.protocol import Token
from linn.engine.sampling.live_batch import Batch, open_batch
from linn.engine.sampling.text_logprobs import text_logprobs
from linn.errors import InfrastructureError, LinnError, UserError
from linn.types import Sampling

Event = tuple[int, str, Any]
"""(request, `tokens` | `end` | `value` | `error`, what came)."""

_GATHER_S = 0.02
"""Tokens are told this many seconds after the last ones at the soonest. All seconds here are those
that this process has computed: on a machine that is busy, pieces grow instead of the work for them
that takes the processor away."""
_PIECES_PER_S = 500
"""Pieces that all workers together tell in a second. What reads them takes about 0.2 ms for each,
however many tokens it has, and it reads for all workers: with many streams, pieces grow."""


class _Checkpoint:
    """A model with its batch, and the requests in it."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.arrivals = Arrivals(batch.capacity)
        """Wait for a row. Of those that join together, equal prompts share a prefill."""
        self.numbers: dict[int, int] = {}
        """By id in the batch: the request's number."""


class LiveWorker:
    """What the process holds. Each public method but `run` is a message."""

    def __init__(self, options: WorkerOptions, pipe: Connection) -> None:
        self.options = options
        self.pipe = pipe
        self.checkpoints: dict[str, _Checkpoint] = {}
        self._events: list[Event] = []
        self._tokens: dict[int, list[Token]] = {}
        """By request: what is not told yet."""
        self._wholes: set[int] = set()
        """Requests whose tokens are told at their end."""
        self._told = 0.0
        """When tokens of unfinished requests were told last, by the clock of `_tell`."""

    @cached_property
    def device(self) -> torch.device:
        """What it computes on. Where there is none, UserError answers who opens a checkpoint."""
        return device_of(self.options.device)

    def run(self) -> None:
        """Answer messages until the engine closes the pipe."""
        while True:
            busy = any(one.arrivals or not one.batch.idle for one in self.checkpoints.values())
            try:
                # Who computes only looks whether something came; who is idle waits for it.
                while self.pipe.poll(0 if busy else None):
                    name, number, arguments = self.pipe.recv()
                    self._take(name, number, arguments)
                    busy = True
            except EOFError:
                return
            # In turn: checkpoints share the processor step by step.
            for one in self.checkpoints.values():
                self._advance(one)
            self._tell()

    # ------------------------------------------------------------ messages

    def open(self, number: int, folder: Path) -> None:
        """Read a checkpoint."""
        key = str(folder)
        if key not in self.checkpoints:
            options = self.options
            model = load(folder, getattr(torch, options.dtype), self.device)
            states = cache_bytes(options.cache_bytes, self.device)
            batch = open_batch(model, options.capacity, cache_bytes=states)
            self.checkpoints[key] = _Checkpoint(batch)
        self._events.append((number, "value", self.checkpoints[key].batch.model.positions))

    def close(self, number: int, folder: Path) -> None:
        """Forget a checkpoint; its requests end."""
        one = self.checkpoints.pop(str(folder), None)
        if one is not None:
            numbers = [*one.numbers.values(), *one.arrivals.numbers]
            self._fail(numbers, UserError(f"{folder}: the checkpoint was closed"))
        self._events.append((number, "value", None))

    def admit(
        self,
        number: int,
        folder: Path,
        ids: Sequence[int],
        how: Sampling,
        seed: int,
        is_whole: bool,
    ) -> None:
        """Begin a request; `is_whole`: its tokens are told at its end."""
        one = self._checkpoint(folder)
        positions = one.batch.model.positions
        # Found out in the model, it would end the other requests too.
        if positions is not None and len(ids) + how.max_tokens > positions:
            raise UserError(
                f"{len(ids)} tokens of the prompt and {how.max_tokens} more are over the "
                f"{positions} that the model computes"
            )
        one.arrivals.add(Arrival(number, ids, how, seed))
        if is_whole:
            self._wholes.add(number)

    def drop(self, number: int) -> None:
        """Forget a request, wherever it is."""
        self._forget(number)
        for one in self.checkpoints.values():
            one.arrivals.drop(number)
            # The batch has numbers of its own.
            gone = [place for place, own in one.numbers.items() if own == number]
            one.batch.drop(gone)
            for place in gone:
                del one.numbers[place]

    def score(self, number: int, folder: Path, ids: Sequence[int], top: int) -> None:
        """Log-probs of a text."""
        model = self._checkpoint(folder).batch.model
        self._events.append((number, "value", text_logprobs(model, ids, top)))

    def _checkpoint(self, folder: Path) -> _Checkpoint:
        try:
            return self.checkpoints[str(folder)]
        except KeyError:
            raise UserError(f"{folder}: this checkpoint is not open") from None

    def _take(self, name: str, number: int, arguments: tuple[Any, ...]) -> None:
        try:
            getattr(self, name)(number, *arguments)
        except Exception as error:
            self._events.append((number, "error", self._sendable(error)))

    # ------------------------------------------------------------ steps

    def _advance(self, one: _Checkpoint) -> None:
        """Admit what waits, and decode one token of every request."""
        try:
            self._admit(one)
            if one.batch.idle:
                return
            step = one.batch.advance()
        except Exception as error:
            # The batch has dropped them all.
            self._fail(one.numbers.values(), error)
            one.numbers.clear()
            return

        for place, (token, logprob) in step.tokens.items():
            top = tuple(step.tops.get(place, ()))
            self._tokens.setdefault(one.numbers[place], []).append(Token(token, logprob, top))
        for place in step.completions:
            number = one.numbers.pop(place)
            self._events.append((number, "tokens", self._forget(number)))
            self._events.append((number, "end", None))

    def _admit(self, one: _Checkpoint) -> None:
        joining = one.arrivals.joining(len(one.numbers))
        if not joining:
            return
        requests = [(each.ids, each.how, each.seed) for each in joining]
        try:
            one.numbers |= _numbered(one.batch.admit(requests), joining)
        except (ValueError, UserError):
            # One that cannot be sampled must not take the others along.
            for each, request in zip(joining, requests, strict=True):
                try:
                    one.numbers |= _numbered(one.batch.admit([request]), [each])
                except (ValueError, UserError) as error:
                    self._fail([each.number], error)

    # ------------------------------------------------------------ what is told

    def _fail(self, numbers: Any, error: Exception) -> None:
        for number in numbers:
            self._forget(number)
            self._events.append((number, "error", self._sendable(error)))

    def _forget(self, number: int) -> list[Token]:
        """Nothing more is told of a request; returns what was not told yet."""
        self._wholes.discard(number)
        return self._tokens.pop(number, [])

    def _sendable(self, error: Exception) -> Exception:
        """An error as the other side can raise it."""
        if isinstance(error, (LinnError, ValueError)):
            return error
        where = f"engine process {self.options.rank}"
        if said := full_gpu(error):
            return InfrastructureError(
                f"{where}: the GPU's memory is full ({said}); lower --cache, --capacity or --memory"
            )
        if isinstance(error, (OSError, MemoryError)):
            return InfrastructureError(f"{where}: {type(error).__name__}: {error}")
        return RuntimeError(f"{where}:\n{traceback.format_exc()}")

    def _tell(self) -> None:
        """Send what came. Tokens of requests that go on wait until it is time."""
        events, self._events = self._events, []
        streamed = self._tokens.keys() - self._wholes
        pause = max(_GATHER_S, len(streamed) * self.options.world / _PIECES_PER_S)
        # A process that waits for its GPU uses no processor time.
        now = time.process_time() if self.options.device == "cpu" else time.monotonic()
        if streamed and now - self._told >= pause:
            self._told = now
            events += [(number, "tokens", self._tokens.pop(number)) for number in streamed]
        if events:
            self.pipe.send(events)


def _numbered(places: Sequence[int], arrivals: Sequence[Arrival]) -> dict[int, int]:
    """Numbers of requests by their ids in the batch."""
    return {place: one.number for place, one in zip(places, arrivals, strict=True)}


def main(arguments: Sequence[str]) -> None:
    """Serve the pipe whose descriptor is the one argument."""
    pipe = Connection(int(arguments[0]))
    # The parent decides when a signal ends it, and what becomes of the requests.
    ignore_signals()
    options: WorkerOptions = pipe.recv()
    heartbeat.beat(Path(options.heartbeat))
    die_with_parent(options.die_by_kernel)
    set_up()
    LiveWorker(options, pipe).run()


if __name__ == "__main__":
    main(sys.argv[1:])
