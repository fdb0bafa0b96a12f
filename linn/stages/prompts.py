"""The training prompts of a stage: domains in their weights' proportions, epoch after epoch.

Where a stage stands in its data is a handful of counts, so a resumed stage goes on with the very
next prompt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from linn.data.tally import Tally
from linn.domains.base import Domain
from linn.errors import UserError
from linn.recipe.stages import CurriculumConfig, RlConfig, StageConfig
from linn.stages.curriculum import Pool
from linn.stages.lengths import Lengths
from linn.types import Prompt, seed_of


@dataclass
class Position:
    """Where a stage stands in its data; part of its saved state."""

    taken: dict[str, int] = field(default_factory=dict)
    """Prompts taken so far per domain, or lines taken so far per file of an SFT stage."""
    skipped: dict[str, int] = field(default_factory=dict)
    """How many of those were not trained: bad rows, and sequences over `max_length`."""
    inside: dict[str, int] = field(default_factory=dict)
    """Training texts passed of the line taken last of a file; 0 where it has no more."""
    further: dict[str, int] = field(default_factory=dict)
    """Samples beyond the first that lines of a file gave."""
    tally: Tally = field(default_factory=Tally)
    """What became of the rows of an SFT stage's files."""
    lengths: Lengths = field(default_factory=Lengths)
    """Tokens of the sequences that an SFT stage met, long ones included."""

    def record(self) -> dict[str, Any]:
        """The position as JSON."""
        return {
            "taken": dict(self.taken),
            "skipped": dict(self.skipped),
            "inside": dict(self.inside),
            "further": dict(self.further),
            "rows": self.tally.record(),
            "lengths": self.lengths.record(),
        }

    def restore(self, record: Mapping[str, Any]) -> None:
        """Go to the position that `record` gave; states of older runs hold no skips."""
        self.taken = dict(record["taken"])
        self.skipped = dict(record.get("skipped", {}))
        self.inside = dict(record.get("inside", {}))
        self.further = dict(record.get("further", {}))
        self.tally.restore(record["rows"])
        self.lengths.restore(record.get("lengths", {}))

    def skip(self, name: str) -> None:
        """Count what was taken last of a domain or file as not trained."""
        self.skipped[name] = self.skipped.get(name, 0) + 1

    def behind(self, weights: Mapping[str, float]) -> str:
        """Whose turn it is: the name furthest behind its share, the next one included.

        Shares are of what is trained, so that a name of which much is skipped gives no less.
        """
        used = {}
        for name in weights:
            lines = self.taken.get(name, 0) - self.skipped.get(name, 0)
            used[name] = lines + self.further.get(name, 0)
        total = sum(used.values()) + 1
        return max(weights, key=lambda name: weights[name] * total - used[name])


class PromptStream:
    """An endless stream of training prompts over a stage's domains."""

    def __init__(
        self,
        config: StageConfig,
        domains: Mapping[str, Domain],
        weights: Mapping[str, float],
        seed: int,
        position: Position,
    ) -> None:
        """`weights`: share of each domain in a batch; they sum to 1."""
        self.config = config
        self.domains = domains
        self.weights = weights
        self.seed = seed
        self.position = position
        self._epochs: dict[str, tuple[int, Iterator[Prompt]]] = {}
        """Per domain: the number of the next epoch, and what is left of the current one."""
        self._pools: dict[str, Pool] = {}
        """Under a curriculum: the prompts of each domain that wait to be drawn."""
        self._saved_pools: dict[str, Any] = {}
        """Pools of a saved state, to be restored at their first use."""

    def take(self, count: int, step: int = 0) -> list[Prompt]:
        """The next `count` prompts; `step`, 0-based, moves the curriculum.

        Domains are interleaved, so that every batch holds them in their weights' proportions.
        """
        return [self._next_of(self.position.behind(self.weights), step) for _ in range(count)]

    def pool_states(self) -> dict[str, Any]:
        """What `restore_pools` needs; pools not used since the last save stay as they were."""
        return self._saved_pools | {name: pool.state() for name, pool in self._pools.items()}

    def restore_pools(self, states: Mapping[str, Any]) -> None:
        """Take the pools of a saved state."""
        self._saved_pools = dict(states)

    def _next_of(self, name: str, step: int) -> Prompt:
        taken = self.position.taken.get(name, 0)
        config = self.config
        if isinstance(config, RlConfig) and config.curriculum:
            progress = step / max(1, config.steps - 1)
            prompt = self._pool(name, config.curriculum).take(progress)
        else:
            self._walk_to(name, taken)
            prompt = self._draw(name)
        self.position.taken[name] = taken + 1
        return prompt

    def _walk_to(self, name: str, taken: int) -> None:
        """After a resume: go to where the stage stood in a domain's stream."""
        if name in self._epochs:
            return
        self._epochs[name] = (0, iter(()))
        for _ in range(taken):
            self._draw(name)

    def _pool(self, name: str, config: CurriculumConfig) -> Pool:
        if name not in self._pools:
            # A pool walks its own stream again, from the start of the first epoch.
            self._epochs[name] = (0, iter(()))
            seed = seed_of(self.seed, "curriculum", name)
            self._pools[name] = Pool(config, draw=lambda: self._draw(name), seed=seed)
            if name in self._saved_pools:
                self._pools[name].restore(self._saved_pools.pop(name))
        return self._pools[name]

    def _draw(self, name: str) -> Prompt:
        """The domain's next prompt; a new epoch, in another order, begins where one ends."""
        epoch, prompts = self._epochs[name]
        prompt = next(prompts, None)
        if prompt is not None:
            return prompt

        # Each epoch has its own order, a function of the stage's seed.
        domain = self.domains[name]
        order = seed_of(self.seed, "train", epoch)
        prompts = map(domain.in_mode, domain.prompts("train", order))
        self._epochs[name] = (epoch + 1, prompts)
        prompt = next(prompts, None)
        if prompt is None:
            rows = f" (of its rows: {domain.tally})" if domain.rows is not None else ""
            raise UserError(
                f"stage {self.config.name}: domain {name} has no training prompts{rows}; "
                "give it rows or another level"
            )
        return prompt
