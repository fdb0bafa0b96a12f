"""Every domain on held-out prompts, sampled and greedy: scores with intervals and n, and the replies behind them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from linn import files
from linn.chat.codec import Codec
from linn.domains.base import Domain
from linn.engine.protocol import Sampler
from linn.errors import UserError
from linn.judges.panel import Judges, Siblings
from linn.ledger import score
from linn.play.rollout import Job, play, transcript
from linn.recipe.schema import EvaluateConfig
from linn.types import Prompt, Rollout, Sampling, Score, Split, seed_of


@dataclass(frozen=True)
class Probe:
    """One way to measure."""

    split: Split
    """Which prompts."""
    metric: str
    """Its name in the ledger."""
    temperature: float
    """0 is greedy."""
    siblings: int = 1
    """Rollouts a prompt."""

    def how(self, keys: EvaluateConfig) -> Sampling:
        """The sampling of its conversations."""
        return Sampling(keys.max_tokens, self.temperature)


class Evaluation:
    """The held-out prompts of a recipe's domains; the same after every stage, whatever the run's seed."""

    def __init__(self, domains: Mapping[str, Domain], keys: EvaluateConfig) -> None:
        self.domains = domains
        self.keys = keys
        self.prompts: dict[Split, list[Prompt]] = {
            "test": self._draw("test", keys.test),
            "validation": self._draw("validation", keys.validation),
        }

    def _draw(self, split: Split, count: int) -> list[Prompt]:
        drawn: list[Prompt] = []
        for name, domain in self.domains.items():
            mine = list(itertools.islice(domain.prompts(split), count))
            if not mine:
                told = f" (of its rows: {domain.tally})" if domain.rows is not None else ""
                raise UserError(f"domain {name} has no {split} prompts{told}; give it more rows")
            drawn += mine
        return drawn

    @property
    def whole(self) -> list[Probe]:
        """Everything that is measured after a stage: `accuracy` on both splits, `greedy` on test, `pass@k` on validation where asked."""
        warm = self.keys.temperature
        found = [
            Probe("test", "accuracy", warm),
            Probe("test", "greedy", 0.0),
            Probe("validation", "accuracy", warm),
        ]
        return (
            [*found, Probe("validation", f"pass@{self.keys.pass_at}", warm, self.keys.pass_at)]
            if self.keys.pass_at
            else found
        )

    @property
    def curve(self) -> list[Probe]:
        """What is measured within a stage (`curve_every`)."""
        return self.whole[:1]

    async def measure(
        self,
        stage: str,
        step: int,
        sampler: Sampler,
        codec: Codec,
        seed: int,
        probes: Sequence[Probe],
        names: Sequence[str] = (),
        folder: Path | None = None,
        on_done: Callable[[int, int], None] = lambda done, total: None,
        judges: Judges | None = None,
    ) -> list[Score]:
        """Scores of the sampler's model, for every probe and each domain in `names` (empty: all). All conversations are held at once.

        With `folder`, the graded replies are kept there as `SPLIT-METRIC.jsonl`. `on_done` hears how many conversations are over, of how many.
        A judge model decides on each reply alone in the domains that have one, in place of `verify`.
        """
        chosen = list(names or self.domains)
        plan = [
            (
                number,
                Job(
                    prompt,
                    sibling,
                    probe.how(self.keys),
                    seed_of(
                        "evaluate",
                        seed,
                        probe.split,
                        probe.metric,
                        prompt.domain,
                        prompt.id,
                        sibling,
                    ),
                    max_sequence=self.keys.max_sequence,
                ),
            )
            for number, probe in enumerate(probes)
            for prompt in self.prompts[probe.split]
            if prompt.domain in chosen
            for sibling in range(probe.siblings)
        ]
        rollouts = await play(
            [job for _, job in plan],
            self.domains,
            sampler,
            codec,
            lambda done: on_done(done, len(plan)),
        )
        rollouts = await judged_alone(
            rollouts, self.domains, judges or Judges(), seed_of("evaluate", seed)
        )
        scores = []
        for number, probe in enumerate(probes):
            mine = [
                rollout for rollout, (of, _) in zip(rollouts, plan, strict=True) if of == number
            ]
            for name in chosen:
                rewards = [r.verdict.reward for r in mine if r.prompt.domain == name]
                scores.append(
                    score(
                        stage,
                        step,
                        name,
                        probe.split,
                        probe.metric,
                        solved_shares(rewards, probe.siblings),
                    )
                )
            if folder is not None:
                files.write_jsonl(
                    folder / f"{probe.split}-{probe.metric}.jsonl", (_row(r) for r in mine)
                )
        return scores


async def judged_alone(
    rollouts: Sequence[Rollout], domains: Mapping[str, Domain], judges: Judges, seed: int
) -> list[Rollout]:
    """The rollouts, those of judged domains with the judge model's verdict on each as a group of one; failed ones stay failed."""
    mine = [
        i
        for i, r in enumerate(rollouts)
        if domains[r.prompt.domain].judged and r.status != "failed"
    ]
    groups = [
        Siblings(domains[rollouts[i].prompt.domain], rollouts[i].prompt, [rollouts[i].reply])
        for i in mine
    ]
    found = list(rollouts)
    for i, verdicts in zip(mine, await judges.verdicts(groups, seed), strict=True):
        if verdicts is not None:
            found[i] = replace(rollouts[i], verdict=verdicts[0])
    return found


def solved_shares(rewards: Sequence[float], siblings: int) -> list[float]:
    """One number a prompt: its reward, or with several siblings the estimate of pass@siblings."""
    if siblings == 1:
        return list(rewards)
    solved = [reward >= 1.0 - 1e-9 for reward in rewards]
    return [
        pass_at_k(siblings, sum(solved[i : i + siblings]), siblings)
        for i in range(0, len(solved), siblings)
    ]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k rollouts is right, from c right ones of n: 1 - C(n-c, k) / C(n, k)."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def _row(rollout: Rollout) -> dict[str, object]:
    return {
        "prompt_id": rollout.prompt.id, "domain": rollout.prompt.domain, "sibling": rollout.sibling, "reward": rollout.verdict.reward,
        "status": rollout.status, "note": rollout.verdict.note, "text": transcript(rollout),
    }  # fmt: skip
