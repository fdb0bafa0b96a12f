"""Processes of a cluster that are objects of this one: they die, hang and lie when told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linn.scale.places import Died, Process, Reply, Role
from linn.types import Completion, Sampling

Ask = Callable[["FakeProcess", str, tuple[Any, ...]], Reply | None]
"""Answers a message; None: never. Raises Died."""


@dataclass(eq=False)
class FakeProcess:
    """Keeps what it was asked."""

    name: str
    ask: Ask
    options: Any = None
    asked: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    ended: str = ""
    _reply: Reply | Died | None = None

    def send(self, message: str, arguments: tuple[Any, ...]) -> None:
        assert not self.ended, "asked after its end"
        self.asked.append((message, arguments))
        try:
            self._reply = self.ask(self, message, arguments)
        except Died as death:
            self._reply = death

    @property
    def has_answered(self) -> bool:
        return self._reply is not None

    def receive(self) -> Reply:
        reply, self._reply = self._reply, None
        if isinstance(reply, Died):
            raise reply
        assert reply is not None
        return reply

    def end(self, kill: bool = False) -> None:
        self.ended = self.ended or ("killed" if kill else "ended")


class FakePlaces:
    """Every process that was ever started, in order."""

    def __init__(self, ask: Ask, folder: Path) -> None:
        self.ask = ask
        self.processes: list[FakeProcess] = []
        self._folder = folder

    def start(self, roles: Sequence[Role]) -> list[Process]:
        started = [FakeProcess(role.name, self.ask, role.options) for role in roles]
        self.processes += started
        return [*started]

    def answered(self, processes: Sequence[Process], seconds: float) -> list[Process]:
        return [one for one in processes if isinstance(one, FakeProcess) and one.has_answered]

    def meeting(self) -> str:
        return f"file://{self._folder}/{len(self.processes)}"

    def folder(self) -> Path:
        return self._folder

    def close(self) -> None:
        for process in self.processes:
            process.end()

    def of(self, name: str) -> list[FakeProcess]:
        """Those of one name, the replaced ones first."""
        return [process for process in self.processes if process.name == name]


def drawn(ids: Sequence[int], how: Sampling, seed: int, weights: int = 0) -> Completion:
    """What a sampler of such weights says; a function of what it was asked."""
    tokens = tuple((sum(ids) + seed + weights + i) % 50 for i in range(how.max_tokens))
    return Completion(tokens, tuple(-0.5 - token / 100 for token in tokens), "length")
