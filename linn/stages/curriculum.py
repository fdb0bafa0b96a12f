"""Prompts from easy to hard (Nemotron 3 Nano §3.2.2).

The prompt whose pass rate is nearest a target is taken; targets come from a Gaussian whose mean
falls linearly over the stage. The domains' shares in a batch stay as they are. Prompts wait in a
bounded pool, a window over the domain's stream, so files of any length serve.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from linn.data.agents import check_signal, is_for, owner
from linn.data.names import located
from linn.data.rows import BadRow, Lines, object_of
from linn.domains.base import Domain
from linn.errors import UserError
from linn.recipe.stages import CurriculumConfig
from linn.types import Prompt, seed_of

LOOK = 16
"""Prompts read in vain per draw at most.

They are read to fill the pool of a file that is smaller, or in search of a prompt within a standard
deviation.
"""


class Pool:
    """The prompts of one domain that wait to be drawn, oldest first."""

    def __init__(self, config: CurriculumConfig, draw: Callable[[], Prompt], seed: int) -> None:
        """`draw`: the next prompt of the domain's stream, which never ends."""
        self.config = config
        self.draw = draw
        self.seed = seed
        self.position = 0
        """Prompts read from the stream so far."""
        self.waiting: list[tuple[int, Prompt]] = []
        """(place in the stream, prompt)."""
        self.taken = 0
        """Prompts taken so far."""
        self._waiting_ids: set[str] = set()

    def take(self, progress: float) -> Prompt:
        """The waiting prompt nearest this draw's target, the oldest of equals.

        `progress` goes from 0 (the stage begins) to 1 (its last step). While no prompt is within a
        standard deviation, up to `LOOK` of the oldest give way to new ones; they come again in the
        next epoch.
        """
        deviation = self.config.width
        target = self._target(progress)
        self._fill()

        nearest = self._nearest(target)
        looks = 0
        while self._distance(nearest, target) > deviation and looks < LOOK:
            looks += 1
            if self._read():
                self._remove(0)
            nearest = self._nearest(target)
        self.taken += 1
        return self._remove(nearest)

    def state(self) -> dict[str, Any]:
        """What `restore` needs."""
        return {
            "read": self.position,
            "taken": self.taken,
            "waiting": [place for place, _ in self.waiting],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Walk a fresh stream to where the pool stood, keeping what waited."""
        waiting = set(state["waiting"])
        for place in range(state["read"]):
            prompt = self.draw()
            if place in waiting:
                self._add(place, prompt)
        self.position = state["read"]
        self.taken = state["taken"]

    def _target(self, progress: float) -> float:
        """This draw's pass rate, which may lie outside [0, 1]."""
        config = self.config
        mean = config.start + (config.end - config.start) * progress
        return random.Random(seed_of(self.seed, self.taken)).gauss(mean, config.width)

    def _fill(self) -> None:
        """Read on until the pool is full, or too many prompts in a row were there already."""
        vain = 0
        while len(self.waiting) < self.config.pool and vain < LOOK:
            if not self._read():
                vain += 1

    def _read(self) -> bool:
        """Read one more prompt; whether it was not waiting already."""
        prompt = self.draw()
        place = self.position
        self.position += 1
        return self._add(place, prompt)

    def _add(self, place: int, prompt: Prompt) -> bool:
        if prompt.id in self._waiting_ids:
            return False
        self.waiting.append((place, prompt))
        self._waiting_ids.add(prompt.id)
        return True

    def _remove(self, index: int) -> Prompt:
        _, prompt = self.waiting.pop(index)
        self._waiting_ids.remove(prompt.id)
        return prompt

    def _nearest(self, target: float) -> int:
        return min(range(len(self.waiting)), key=lambda index: self._distance(index, target))

    def _distance(self, index: int, target: float) -> float:
        _, prompt = self.waiting[index]
        return abs(_rate(prompt) - min(1.0, max(0.0, target)))


def _rate(prompt: Prompt) -> float:
    assert prompt.pass_rate is not None, prompt.id  # `check_rates` has looked
    return prompt.pass_rate


def check_rates(stage: str, domains: Iterable[Domain]) -> None:
    """Refuse rows without a `pass_rate` from 0 to 1, before a stage begins."""
    for domain in domains:
        assert domain.rows is not None, domain.name
        path = located(domain.rows)
        for line, raw in Lines(path):
            # Every row is read now: a row without a rate must not show after hours.
            try:
                row = object_of(raw)
                if not is_for(owner(row), domain.name):
                    continue  # another domain's row
                check_signal(row, domain.name)
            except BadRow:
                continue  # the domain's own business, when it comes to that row
            rate = row.get("pass_rate")
            if not _is_share(rate):
                fault = "has no pass_rate" if rate is None else f"has pass_rate {rate!r}"
                raise UserError(
                    f"stage {stage}: curriculum: {path} line {line}: the row {fault}; expected a "
                    f"share from 0 to 1, as linn filter {domain.name} --rows … writes it"
                )


def _is_share(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= 1
