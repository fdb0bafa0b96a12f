"""Prompts from easy to hard: the prompt whose pass rate is nearest a target drawn from a moving Gaussian (Nemotron 3 Nano §3.2.2).

The mean falls linearly over the stage; the domains' shares in a batch stay as they are. Prompts wait in a bounded pool, a window over the
domain's stream, so files of any length serve.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from linn.data.agents import whose
from linn.data.names import located
from linn.data.rows import BadRow, Lines, object_of
from linn.domains.base import Domain
from linn.errors import UserError
from linn.recipe.schema import CurriculumConfig
from linn.types import Prompt, seed_of

LOOK = 16
"""Prompts read in vain at most, a draw: to fill the pool of a file that is smaller, or in search of one within a standard deviation."""


class Pool:
    """The prompts of one domain that wait to be drawn, oldest first."""

    def __init__(self, keys: CurriculumConfig, draw: Callable[[], Prompt], seed: int) -> None:
        """`draw`: the next prompt of the domain's stream, which never ends."""
        self.keys, self.draw, self.seed = keys, draw, seed
        self.read = 0
        """Prompts read from the stream so far."""
        self.waiting: list[tuple[int, Prompt]] = []
        """(place in the stream, prompt)."""
        self.taken = 0
        """Prompts taken so far."""
        self._there: set[str] = set()

    def take(self, progress: float) -> Prompt:
        """The waiting prompt nearest this draw's target, the oldest of equals; `progress` from 0 (the stage begins) to 1 (its last step).

        While none is within a standard deviation, up to `LOOK` of the oldest give way to new ones; they come again in the next epoch.
        """
        keys = self.keys
        mean = keys.start + (keys.end - keys.start) * progress
        target = random.Random(seed_of(self.seed, self.taken)).gauss(mean, keys.width)
        vain = 0
        while len(self.waiting) < keys.pool and vain < LOOK:
            vain += not self._read()
        looked = 0
        while self._distance(best := self._nearest(target), target) > keys.width and looked < LOOK:
            looked += 1
            if self._read():
                self._leave(0)
        self.taken += 1
        return self._leave(best)

    def _read(self) -> bool:
        """Read one more prompt; whether it was not waiting already."""
        return self._wait(self.draw())

    def _wait(self, prompt: Prompt) -> bool:
        place, self.read = self.read, self.read + 1
        if prompt.id in self._there:
            return False
        self.waiting.append((place, prompt))
        self._there.add(prompt.id)
        return True

    def _leave(self, index: int) -> Prompt:
        prompt = self.waiting.pop(index)[1]
        self._there.remove(prompt.id)
        return prompt

    def _nearest(self, target: float) -> int:
        return min(range(len(self.waiting)), key=lambda i: self._distance(i, target))

    def _distance(self, index: int, target: float) -> float:
        return abs(_rate(self.waiting[index][1]) - min(1.0, max(0.0, target)))

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {
            "read": self.read,
            "taken": self.taken,
            "waiting": [place for place, _ in self.waiting],
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Walk a fresh stream to where the pool stood, keeping what waited."""
        wanted = set(kept["waiting"])
        for place in range(kept["read"]):
            prompt = self.draw()
            if place in wanted:
                self._wait(prompt)
            self.read = place + 1
        self.taken = kept["taken"]


def _rate(prompt: Prompt) -> float:
    assert prompt.pass_rate is not None, prompt.id  # `check_rates` has looked
    return prompt.pass_rate


def check_rates(stage: str, domains: Iterable[Domain]) -> None:
    """Refuse rows without a `pass_rate` from 0 to 1, before a stage begins."""
    for domain in domains:
        assert domain.rows is not None, domain.name
        path = located(domain.rows)
        for line, raw in Lines(path):
            try:
                row = object_of(raw)
                rate = 0.0 if whose(row, domain.name) else row.get("pass_rate")
            except BadRow:
                continue  # the domain's own business, when it comes to that row
            if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
                found = "has no pass_rate" if rate is None else f"has pass_rate {rate!r}"
                raise UserError(
                    f"stage {stage}: curriculum: {path} line {line}: the row {found}; expected a share from 0 to 1, "
                    f"as linn filter {domain.name} --rows … writes it"
                )
