"""Between a strategy and the models: rollouts by waves, recorded, counted, batched over tasks."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from linn.errors import RunFailed, task_group
from linn.play.failures import check_failures
from linn.play.rollout import Job
from linn.solve.budget import Attempt, Budget, attempt_of
from linn.solve.record import Key, Record, Request
from linn.types import Prompt, Rollout, Sampling, seed_of

Player = Callable[[Sequence[Job]], Awaitable[list[Rollout]]]
"""Holds conversations and grades them: a checkpoint or an endpoint alike."""

_FEW = 20
"""Rollouts below which a share of failures says little."""
MODEL, JUDGE = "model", "judge"
"""Who may be asked."""


class Table(Protocol):
    """Where the requests of all tasks meet the models."""

    record: Record
    """Where everything that came back is kept."""

    async def play(self, wave: Sequence[Request]) -> list[Attempt]:
        """An attempt per request of one task, from the record or from a model."""
        ...

    async def enter(self, task: str) -> None:
        """A task begins; tasks enter in their order before any of them plays."""
        ...

    async def leave(self, task: str) -> None:
        """A task is over."""
        ...


class Together:
    """One sampler for many tasks: it runs when every task that is not over waits for it.

    Waves of different tasks become one batch, in the order of the tasks. So neither a grader's nor
    a contest judge's speed changes a token, and a batch is recorded as a whole or not at all.
    """

    def __init__(
        self, players: Mapping[str, Player], record: Record, max_failed: float = 0.1
    ) -> None:
        """`max_failed`: share of a batch that may fail; above it RunFailed, and nothing is kept."""
        self.players, self.record, self.max_failed = players, record, max_failed
        self._live: list[str] = []
        self._waiting: dict[str, tuple[Sequence[Request], asyncio.Future[list[Attempt]]]] = {}

    async def enter(self, task: str) -> None:
        """See `Table`."""
        self._live.append(task)

    async def leave(self, task: str) -> None:
        """See `Table`."""
        self._live.remove(task)
        await self._run_if_all_wait()

    async def play(self, wave: Sequence[Request]) -> list[Attempt]:
        """See `Table`."""
        # A wave is on disk as a whole or not at all, as its batch is.
        known = [self.record.known(request) for request in wave]
        found = [attempt for attempt in known if attempt is not None]
        if len(found) == len(wave):
            return found

        answer: asyncio.Future[list[Attempt]] = asyncio.get_running_loop().create_future()
        self._waiting[wave[0].task] = wave, answer
        await self._run_if_all_wait()
        return await answer

    async def _run_if_all_wait(self) -> None:
        if not self._waiting or len(self._waiting) < len(self._live):
            return

        # In the tasks' order, whoever came first this time.
        waiting = [self._waiting[task] for task in self._live]
        self._waiting = {}
        try:
            attempts = await self._sample([request for wave, _ in waiting for request in wave])
        except BaseException:
            # Whoever let the sampler run raises; the others end with it.
            for _, answer in waiting:
                answer.cancel()
            raise

        # Each task gets its own part of the batch back.
        rest = iter(attempts)
        for wave, answer in waiting:
            share = list(itertools.islice(rest, len(wave)))
            if not answer.done():
                answer.set_result(share)

    async def _sample(self, requests: Sequence[Request]) -> list[Attempt]:
        """Attempts of one batch, a model after the other, and on disk."""
        attempts: dict[Key, Attempt] = {}
        for who, player in self.players.items():
            own = [request for request in requests if request.who == who]
            if not own:
                continue
            # Models take turns: a checkpoint that judges shares the engine's second place.
            rollouts = await player([request.job for request in own])
            check_failures(rollouts, self.max_failed, "solve")
            for request, rollout in zip(own, rollouts, strict=True):
                attempts[request.key] = attempt_of(rollout)

        in_order = [attempts[request.key] for request in requests]
        self.record.append(requests, in_order)
        return in_order


class Apart:
    """Requests that do not depend on each other's company, as an endpoint takes them.

    Each is recorded when it comes back: a kill costs those under way and no other.
    """

    def __init__(
        self,
        players: Mapping[str, Player],
        record: Record,
        concurrency: int = 64,
        max_failed: float = 0.1,
    ) -> None:
        """`concurrency`: requests under way at once, over all tasks.

        `max_failed`: share of all rollouts that may fail; above it RunFailed.
        """
        self.players, self.record, self.max_failed = players, record, max_failed
        self._seen = self._failed = 0
        self._slots = asyncio.Semaphore(concurrency)

    async def enter(self, task: str) -> None:
        """See `Table`."""

    async def leave(self, task: str) -> None:
        """See `Table`."""

    async def play(self, wave: Sequence[Request]) -> list[Attempt]:
        """See `Table`."""
        async with task_group() as group:
            tasks = [group.create_task(self._one(request)) for request in wave]
        return [task.result() for task in tasks]

    async def _one(self, request: Request) -> Attempt:
        known = self.record.known(request)
        if known is not None:
            return known
        async with self._slots:
            (rollout,) = await self.players[request.who]([request.job])
        attempt = attempt_of(rollout)
        self._count(attempt)
        # What failed is asked for again by a later run: the server may be well by then.
        if attempt.status != "failed":
            self.record.append([request], [attempt])
        return attempt

    def _count(self, attempt: Attempt) -> None:
        """Raise RunFailed where too many fail: none of them says anything of the model."""
        self._seen += 1
        self._failed += attempt.status == "failed"
        if self._failed > self.max_failed * max(self._seen, _FEW):
            raise RunFailed(
                f"solve: {self._failed} of {self._seen} rollouts failed (--max-failed "
                f"{self.max_failed:g}); the last: {attempt.error[:200]}; mend that, then give "
                "the same command again"
            )


# ---------------------------------------------------------------- one task's account


@dataclass(frozen=True)
class Standing:
    """What a strategy would answer if it stopped here."""

    tokens: int
    """Sampled so far."""
    score: float
    """What the answer earns: 0 to 1, or a problem's points."""


class Account:
    """One task's way to the models: it plays prompts in waves and stops at the budget."""

    def __init__(
        self,
        task: str,
        table: Table,
        budget: Budget,
        how: Mapping[str, Sampling],
        seed: int,
        at_once: int = 64,
        on_wave: Callable[[Account], None] = lambda account: None,
    ) -> None:
        """`how`: sampling by who is asked. `at_once`: requests of a wave, under way together.

        `on_wave` is called with the account when a wave is back.
        """
        self.on_wave = on_wave
        self.task, self.table, self.budget = task, table, budget
        self.how, self.seed, self.at_once = how, seed, at_once
        self.standings: list[Standing] = []
        """Noted by the strategy, in order: the curve of score against tokens."""
        self.kept: list[Attempt] = []
        """Everything that came back, in order."""
        self.max_sequence: int | None = None
        """Most tokens of a whole conversation, for strategies whose replies have many turns."""
        self._call = self._fact = 0

    async def play(self, prompts: Sequence[Prompt], who: str = MODEL) -> list[Attempt]:
        """An attempt per prompt, in order; fewer where the budget came to its end.

        `who`: the model, or its judge. Equal prompts get seeds of their own.
        """
        call = self._call
        self._call += 1

        # Seeds follow from the place in the task alone, so a replayed call asks the very same.
        requests = []
        for place, prompt in enumerate(prompts):
            seed = seed_of("solve", self.seed, self.task, call, place)
            job = Job(prompt, place, self.how[who], seed, max_sequence=self.max_sequence)
            requests.append(Request(self.task, call, place, who, job))

        # Waves of fixed bounds: the last one follows from token counts, never from time.
        attempts: list[Attempt] = []
        for begin in range(0, len(requests), self.at_once):
            if self.budget.is_spent:
                break
            wave = await self.table.play(requests[begin : begin + self.at_once])
            self.budget.add(wave)
            attempts += wave
            self.on_wave(self)
        self.kept += attempts
        return attempts

    async def find_out(self, what: str, find: Callable[[], Any]) -> Any:
        """What `find` gives, as JSON and not None; from the record where it was found out before.

        For whatever a strategy decides by and a clock or a machine may change. It runs in a thread.
        """
        number, self._fact = self._fact, self._fact + 1
        value = self.table.record.fact(self.task, number, what)
        if value is None:
            value = await asyncio.to_thread(find)
            self.table.record.add_fact(self.task, number, what, value)
        return value

    def note(self, score: float, tokens: int | None = None) -> None:
        """The answer as it stands is worth `score`; `tokens`: spent by then, default: by now."""
        at = self.budget.spent if tokens is None else tokens
        self.standings.append(Standing(at, score))
