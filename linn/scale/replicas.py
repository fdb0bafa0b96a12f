"""The samplers of a cluster: independent of each other, each replaced when it is lost.

No torch in this process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linn.errors import EngineLost, RunFailed
from linn.scale.places import Died, Places, Process, Reply, Role
from linn.scale.weights import Weights, WeightSource
from linn.terminal import echo
from linn.types import Completion, Sampling

MOST_LOST = 3
"""Samplers that may be lost in one batch; a fourth is no accident."""
MOST_TOKENS = 20_000_000
"""Tokens of earlier turns that are kept for a sampler, in case it is lost. Beyond these a new one
reads its conversations anew, and goes on with other last bits."""
LOOK_S = 5.0
"""Seconds between two looks at who has answered."""

Request = tuple[tuple[int, ...], Sampling, int]
Share = tuple[Path | None, Sequence[Request], Sequence[int]]
"""A checkpoint (None: the policy), requests, and how many leading tokens of each are known."""


class Turns:
    """The shares of a sampler that its next one may go on from, so that they can be done again."""

    def __init__(self) -> None:
        self.shares: list[Share] = []
        """In order; the first begins afresh."""
        self.are_all = True
        """Whether none was given up for its size."""

    def before(self, share: Share) -> None:
        """A share comes: where it goes on from nothing, nothing that came before is of use."""
        folder, _, known = share
        if folder is None and not any(known):
            self.shares, self.are_all = [], True

    def after(self, share: Share) -> None:
        """A share is done; other models than the policy keep no states."""
        if share[0] is not None:
            return
        self.shares.append(share)
        tokens = sum(len(ids) for _, requests, _ in self.shares for ids, _, _ in requests)
        if tokens > MOST_TOKENS:
            self.shares, self.are_all = [], False


class Replicas:
    """Processes that hold a whole policy each and sample from it."""

    def __init__(
        self, places: Places, roles: Sequence[Role], source: WeightSource, deadline_s: float
    ) -> None:
        """deadline_s: a sampler that has not answered its share after so long is lost."""
        self.count = len(roles)
        self._places = places
        self._source = source
        self._roles = list(roles)
        self.most_looks = max(1, math.ceil(deadline_s / LOOK_S))
        """Looks without an answer after which a sampler is lost."""
        self._processes: list[Process] = []
        self._weights: Weights | None = None
        self._turns = [Turns() for _ in roles]
        """By sampler: what its next share may go on from."""
        self._some_sleep = self._all_sleep = False
        """Both while trainers have the GPUs; the first alone where a sampler could not go along."""
        self._cpu_seconds = 0.0
        """Of all, when they were last asked."""

    @property
    def processes(self) -> Sequence[Process]:
        """By number."""
        return self._processes

    def take(self, weights: Weights) -> None:
        """Bring the policy's weights to every sampler."""
        self._forget()
        if self._processes and weights.moved and not self._source.writes:
            # Who died since the last batch is replaced now: on the way nobody can be.
            self._call_all("pid", ())
        before, self._weights = self._weights, weights
        if not self._processes:
            self._start()
            before = None
        if before is None or before.base != weights.base:
            self._call_all("load", (weights.base, weights.version))
        if weights.moved and self._source.writes:
            self._call_all("take", (self._source.folder(weights.version), weights.version))
        elif weights.moved:
            self._take_broadcast(weights)
        elif before is not None and before.base == weights.base:
            self._call_all("load", (weights.base, weights.version))

    def _take_broadcast(self, weights: Weights) -> None:
        """From the trainers; where a sampler is lost on the way, by files into new ones."""
        try:
            lost = self._source.send(self._processes)
        except BaseException:
            # Some have these weights and some have those before.
            self.close(kill=True)
            raise
        if lost:
            echo(f"engine: {lost}; new samplers read the weights that were sent", err=True)
            self.close(kill=True)
            self._start()
            self._weights = weights
            self._call_all("load", (weights.base, weights.version))
            self._call_all("take", (self._source.folder(weights.version), weights.version))

    def call_each(self, message: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """A share to each sampler (`generate` alone); completions in the order of the samplers.

        Who dies or hangs is replaced: the new one takes the current weights and does the shares
        again that this one goes on from, and then this one. Its completions are those that the
        lost one would have given, to the bit.
        """
        assert message == "generate" and len(arguments) == self.count
        shares: list[Share] = [(folder, own, known) for folder, own, known in arguments]
        if not self._processes:
            self._start()
        for turns, share in zip(self._turns, shares, strict=True):
            turns.before(share)
        replies = self._exchange("generate", shares)

        # After an error nobody knows which conversations a sampler still keeps.
        errors = [value for fine, value in replies if not fine]
        if errors:
            self._forget()
            raise errors[0]
        done = []
        for number, share in enumerate(shares):
            done.append(self._checked(number, share, replies[number][1]))
            self._turns[number].after(share)
        return done

    def each(self, share: Share) -> list[list[Completion]]:
        """The same share to every sampler."""
        return self.call_each("generate", [share] * self.count)

    def sleep(self) -> None:
        """Have all leave their GPUs; who is lost on the way is replaced first."""
        if self._processes and not self._all_sleep:
            self.cpu_seconds()
            self._some_sleep = True
            self._call_all("sleep", ())
            self._all_sleep = True

    def wake(self) -> None:
        """Have all take their GPUs again, which nobody else may hold; who died asleep is replaced.

        Processes that start later are awake.
        """
        if self._processes and self._some_sleep:
            self._all_sleep = False
            self._call_all("wake", ())
            self._some_sleep = False

    def cpu_seconds(self) -> float:
        """Of those that run; as they fell asleep, where they are.

        Sleepers are not asked: a lost one would be replaced, on GPUs that trainers compute on.
        """
        if self._processes and not self._some_sleep:
            self._cpu_seconds = float(sum(self._call_all("cpu_seconds", ())))
        return self._cpu_seconds

    def close(self, kill: bool = False) -> None:
        """End them; the next call starts new ones."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.end(kill)
        self._forget()
        self._weights = None
        self._cpu_seconds = 0.0

    def _start(self) -> None:
        self._processes = self._places.start(self._roles)
        self._some_sleep = self._all_sleep = False

    def _forget(self) -> None:
        self._turns = [Turns() for _ in self._roles]

    # ------------------------------------------------------------ messages

    def _call_all(self, message: str, arguments: tuple[Any, ...]) -> list[Any]:
        """A message to every sampler that leaves it as a new one would be."""
        replies = self._exchange(message, [arguments] * self.count)
        for fine, value in replies:
            if not fine:
                raise value
        return [value for _, value in replies]

    def _exchange(self, message: str, arguments: Sequence[tuple[Any, ...]]) -> list[Reply]:
        """A message to each, and their replies; whoever is lost meanwhile is replaced."""
        try:
            return _Exchange(self, message, arguments).replies()
        except BaseException:
            # Replies under way would be taken for those of the next message.
            self.close(kill=True)
            raise

    def replace(self, number: int, message: str) -> None:
        """A new sampler where one was lost, as that one was before the message."""
        self._processes[number].end(kill=True)
        new = self._places.start([self._roles[number]])[0]
        self._processes[number] = new
        # The message itself brings what a new sampler lacks.
        if self._weights is None or message == "load":
            return

        weights = self._weights
        _ask(new, "load", (weights.base, weights.version))
        if weights.moved and message != "take":
            folder = self._source.folder(weights.version)
            if folder is None:
                return  # it is asked for another model; before the policy's turn newer ones come
            _ask(new, "take", (folder, weights.version))
        for turn in self._turns[number].shares:
            _ask(new, "generate", turn)

    def as_kept(self, number: int, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """A share as a new sampler can do it: from the start where it has no earlier turns."""
        if self._turns[number].are_all or len(arguments) != 3:
            return arguments
        folder, requests, _ = arguments
        return folder, requests, [0] * len(requests)

    def answered(self, processes: Sequence[Process], seconds: float) -> list[Process]:
        """Those that have answered or died, when any has."""
        return self._places.answered(processes, seconds)

    # ------------------------------------------------------------ what comes back

    def _checked(self, number: int, share: Share, answer: tuple[int, list[Any]]) -> list[Any]:
        """The completions of a share, where they can be those of its requests."""
        folder, requests, _ = share
        version, done = answer
        name = self._roles[number].name
        if folder is None and self._weights is not None and version != self._weights.version:
            raise RunFailed(
                f"{name} sampled from version {version} of the weights, the policy is at version "
                f"{self._weights.version}: nothing is trained on that"
            )
        if len(done) != len(requests):
            raise RunFailed(f"{name} gave {len(done)} completions for {len(requests)} requests")
        for (_, how, seed), completion in zip(requests, done, strict=True):
            if fault := _fault(how, completion):
                raise RunFailed(f"{name}, request of seed {seed}: {fault}")
        return done


class _Exchange:
    """One message to every sampler, until all have answered."""

    def __init__(
        self, replicas: Replicas, message: str, arguments: Sequence[tuple[Any, ...]]
    ) -> None:
        self._replicas = replicas
        self._message = message
        self._arguments = list(arguments)
        self._replies: dict[int, Reply] = {}
        self._looks = [0] * replicas.count
        """By sampler: looks in which nobody had answered."""
        self._lost = 0

    def replies(self) -> list[Reply]:
        """Their answers, in order."""
        replicas = self._replicas
        # All are asked before any is waited for: they compute side by side.
        for number in range(replicas.count):
            self._send(number)

        while len(self._replies) < replicas.count:
            owing = [n for n in range(replicas.count) if n not in self._replies]
            processes = [replicas.processes[number] for number in owing]
            ready = replicas.answered(processes, LOOK_S)
            for number, process in zip(owing, processes, strict=True):
                if process in ready:
                    self._receive(number)
                elif not ready:
                    self._wait_on(number)
        return [self._replies[number] for number in range(replicas.count)]

    def _send(self, number: int) -> None:
        try:
            self._replicas.processes[number].send(self._message, self._arguments[number])
        except Died as death:
            self._again(number, str(death))

    def _receive(self, number: int) -> None:
        try:
            self._replies[number] = self._replicas.processes[number].receive()
        except Died as death:
            self._again(number, str(death))

    def _wait_on(self, number: int) -> None:
        """Nobody has answered in this look; who is silent for too long is lost."""
        self._looks[number] += 1
        if self._looks[number] >= self._replicas.most_looks:
            name = self._replicas.processes[number].name
            seconds = self._looks[number] * LOOK_S
            self._again(number, f"{name} has not answered for {seconds:,.0f} s")

    def _again(self, number: int, why: str) -> None:
        """A new sampler does what the lost one owes."""
        self._lost += 1
        if self._lost > MOST_LOST:
            raise EngineLost(f"{why}; {self._lost} samplers were lost in one `{self._message}`")
        name = self._replicas.processes[number].name
        echo(f"engine: {why}; a new {name} does its share again", err=True)
        self._replicas.replace(number, self._message)
        self._looks[number] = 0
        self._arguments[number] = self._replicas.as_kept(number, self._arguments[number])
        self._send(number)


def _ask(process: Process, message: str, arguments: tuple[Any, ...]) -> Any:
    """A message to one sampler, that has nothing else to do."""
    try:
        process.send(message, arguments)
        fine, value = process.receive()
    except Died as death:
        raise EngineLost(f"{death}; it had just replaced a lost one (in `{message}`)") from None
    if not fine:
        raise value
    return value


def _fault(how: Sampling, completion: Completion) -> str:
    """What no sampler can have drawn; empty for what it can."""
    tokens, logprobs = len(completion.ids), completion.logprobs
    if not 1 <= tokens <= how.max_tokens:
        return f"{tokens} tokens came back, 1 to {how.max_tokens} were asked for"
    if len(logprobs) != tokens:
        return f"{len(logprobs)} log-probs came back with {tokens} tokens"
    worst = max(logprobs)
    if not all(map(math.isfinite, logprobs)) or worst > 1e-3:
        return f"a log-prob is {worst}: no probability is that"
    return ""
