"""The samplers of a cluster: independent of each other, each replaced when it is lost.

No torch in this process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linn.errors import EngineLost, RunFailed
from linn.scale.places import Died, Places, Process, Reply, Role
from linn.terminal import echo
from linn.types import Completion, Sampling

MOST_LOST = 3
"""Samplers that may be lost in one batch; a fourth is no accident."""
LOOK_S = 5.0
"""Seconds between two looks at who has answered."""

Request = tuple[tuple[int, ...], Sampling, int]
Share = tuple[Path | None, Sequence[Request], Sequence[int]]
"""A checkpoint (None: the policy), requests, and how many leading tokens of each are known."""


@dataclass(frozen=True)
class Weights:
    """The policy that samplers are to have."""

    base: Path
    """The Hugging Face folder that it was loaded from."""
    folder: Path | None
    """Where its weights are now; None: those of `base`."""
    version: int
    """Grows with every change."""


class Replicas:
    """Processes that hold a whole policy each and sample from it."""

    def __init__(self, places: Places, roles: Sequence[Role], deadline_s: float) -> None:
        """deadline_s: a sampler that has not answered its share after so long is lost."""
        self.count = len(roles)
        self._places = places
        self._roles = list(roles)
        self._looks = max(1, math.ceil(deadline_s / LOOK_S))
        self._processes: list[Process] = []
        self._weights: Weights | None = None
        self._turns: list[list[Share]] = [[] for _ in roles]
        """By sampler: the shares whose kept states its next share may go on from."""

    @property
    def processes(self) -> Sequence[Process]:
        """By number."""
        return self._processes

    def take(self, weights: Weights) -> None:
        """Bring the policy's weights to every sampler."""
        before, self._weights = self._weights, weights
        self._forget()
        if not self._processes:
            self._processes = self._places.start(self._roles)
            before = None
        if before is None or before.base != weights.base:
            self._call_all("load", (weights.base, weights.version))
        if weights.folder is not None:
            self._call_all("take", (weights.folder, weights.version))
        elif before is not None and before.base == weights.base:
            self._call_all("load", (weights.base, weights.version))

    def call_each(self, message: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """A share to each sampler (`generate` alone); completions in the order of the samplers.

        Who dies or hangs is replaced: the new one takes the current weights and does the shares
        again that this one goes on from, and then this one. Its completions are those that the
        lost one would have given, to the bit.
        """
        assert message == "generate" and len(arguments) == self.count
        shares: list[Share] = [(folder, own, known) for folder, own, known in arguments]
        if not self._processes:
            self._processes = self._places.start(self._roles)
        try:
            for number, share in enumerate(shares):
                if share[0] is None and not any(share[2]):
                    self._turns[number] = []  # nobody goes on: what came before is of no use
            replies = self._exchange("generate", shares)
        except BaseException:
            self.close(kill=True)
            raise

        errors = [value for fine, value in replies if not fine]
        if errors:
            self._forget()
            raise errors[0]
        done = []
        for number, share in enumerate(shares):
            done.append(self._checked(number, share, replies[number][1]))
            if share[0] is None:
                self._turns[number].append(share)
        return done

    def each(self, share: Share) -> list[list[Completion]]:
        """The same share to every sampler."""
        return self.call_each("generate", [share] * self.count)

    def cpu_seconds(self) -> float:
        """Of those that run."""
        return float(sum(self._call_all("cpu_seconds", ()))) if self._processes else 0.0

    def close(self, kill: bool = False) -> None:
        """End them; the next call starts new ones."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.end(kill)
        self._forget()
        self._weights = None

    def _forget(self) -> None:
        self._turns = [[] for _ in self._roles]

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
        replies: dict[int, Reply] = {}
        looks = [0] * self.count
        lost = 0

        def again(number: int, why: str) -> None:
            nonlocal lost
            lost += 1
            looks[number] = 0
            self._replace(number, why, lost, message)
            self._processes[number].send(message, arguments[number])

        for number in range(self.count):
            try:
                self._processes[number].send(message, arguments[number])
            except Died as death:
                again(number, str(death))

        while len(replies) < self.count:
            owing = [n for n in range(self.count) if n not in replies]
            ready = self._places.answered([self._processes[n] for n in owing], LOOK_S)
            for number in owing:
                process = self._processes[number]
                if process in ready:
                    try:
                        replies[number] = process.receive()
                    except Died as death:
                        again(number, str(death))
                elif not ready:
                    looks[number] += 1
                    if looks[number] >= self._looks:
                        seconds = looks[number] * LOOK_S
                        again(number, f"{process.name} has not answered for {seconds:,.0f} s")
        return [replies[number] for number in range(self.count)]

    def _replace(self, number: int, why: str, lost: int, message: str) -> None:
        """A new sampler where one was lost, as that one was before the message."""
        role = self._roles[number]
        if lost > MOST_LOST:
            raise EngineLost(f"{why}; {lost} samplers were lost in one call of `{message}`")
        echo(f"engine: {why}; a new {role.name} does its share again", err=True)
        self._processes[number].end(kill=True)
        new = self._places.start([role])[0]
        self._processes[number] = new

        if self._weights is not None and message != "load":
            weights = self._weights
            _ask(new, "load", (weights.base, weights.version))
            if weights.folder is not None and message != "take":
                _ask(new, "take", (weights.folder, weights.version))
        for turn in self._turns[number]:
            _ask(new, "generate", turn)

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
