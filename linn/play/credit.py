"""Verdicts -> per-token training signal: group advantages, overlong rules, group mask, and samples (paper §3.1, §3.4, §4.7)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from linn.domains.base import Domain
from linn.judges.panel import Judges, Siblings
from linn.types import Group, Rollout, Sample, Verdict

EPSILON = 1e-6
"""Guards the division by a group's deviation; a group of equal rewards has advantage exactly 0."""


def grouped(
    rollouts: Sequence[Rollout],
    size: int,
    domains: Mapping[str, Domain],
    overlong: str = "keep",
    judges: Judges | None = None,
    seed: int = 0,
) -> list[Group]:
    """Every `size` consecutive rollouts are the siblings of one prompt; rewards from comparing them where the domain does.

    Without `judges` no model is asked: a domain that one judges keeps `verify`'s rewards. `overlong` = `penalty`: a truncated rollout's
    reward is 0, whatever its verdict.
    """
    assert len(rollouts) % size == 0, (len(rollouts), size)
    families = [rollouts[first : first + size] for first in range(0, len(rollouts), size)]
    compared = [f for f in families if judges is not None or not domains[f[0].prompt.domain].judged]
    asked = [
        Siblings(domains[f[0].prompt.domain], f[0].prompt, [r.reply for r in f]) for f in compared
    ]
    found = dict(zip(map(id, compared), (judges or Judges()).verdicts(asked, seed), strict=True))
    groups = []
    for siblings in families:
        if (verdicts := found.get(id(siblings))) is not None:
            siblings = [
                replace(r, verdict=_both(r.verdict, v))
                for r, v in zip(siblings, verdicts, strict=True)
            ]
        rewards = [
            0.0 if overlong == "penalty" and r.status == "truncated" else r.verdict.reward
            for r in siblings
        ]
        groups.append(Group(tuple(siblings), tuple(rewards)))
    return groups


def _both(alone: Verdict, among: Verdict) -> Verdict:
    """The judge's reward, with the reply's own quality kept as a metric."""
    return Verdict(
        among.reward,
        among.note or alone.note,
        {**alone.metrics, **among.metrics, "quality": alone.reward},
    )


def informative(group: Group) -> bool:
    """Whether a group's rewards differ: otherwise its advantages are all 0."""
    return max(group.rewards) - min(group.rewards) > 1e-9


def advantages(
    rewards: Sequence[float],
    baseline: str = "mean",
    std: Literal["population", "sample", "none"] | str = "population",
) -> list[float]:
    """Group-normalised advantage, one a sibling (Eq. 1): (r - baseline) / std.

    `leave_one_out`: the baseline of r_i is the mean of the others. Equal rewards give exactly 0.
    """
    n = len(rewards)
    if n < 2 or max(rewards) - min(rewards) <= 1e-9:
        return [0.0] * n
    mean = sum(rewards) / n
    centred = [r - mean for r in rewards]
    if baseline == "leave_one_out":
        centred = [c * n / (n - 1) for c in centred]
    if std == "none":
        return centred
    spread = statistics.pstdev(rewards) if std == "population" else statistics.stdev(rewards)
    return [c / (spread + EPSILON) for c in centred]


def samples_of(
    groups: Sequence[Group],
    baseline: str = "mean",
    std: str = "population",
    overlong: str = "keep",
    group_mask: float | None = None,
) -> list[Sample]:
    """One sample a rollout, in order: every sampled token carries its rollout's advantage.

    Masked out of the loss (their rewards still count in the group): truncated rollouts where `overlong` is `mask`, rollouts whose verdict
    says `unreliable`, failed ones (environment or grader broke: nobody judged them), and whole groups whose best reward is not above
    `group_mask`.
    """
    samples = []
    for number, group in enumerate(groups):
        silent = group_mask is not None and max(group.rewards) <= group_mask
        for rollout, advantage in zip(
            group.rollouts, advantages(group.rewards, baseline, std), strict=True
        ):
            unjudged = rollout.status == "failed" or bool(rollout.verdict.metrics.get("unreliable"))
            dropped = silent or unjudged or (overlong == "mask" and rollout.status == "truncated")
            samples.append(sample_of(rollout, advantage, trained=not dropped, group=number))
    return samples


def sample_of(rollout: Rollout, advantage: float, trained: bool = True, group: int = 0) -> Sample:
    """The tokens of a rollout with their signal; prompt, tool and environment tokens are never trained."""
    tokens: list[int] = []
    mask: list[bool] = []
    behaviour: list[float] = []
    for turn in rollout.turns:
        own = turn.logprobs is not None
        tokens += turn.ids
        mask += [own and trained] * len(turn.ids)
        behaviour += turn.logprobs if turn.logprobs is not None else [0.0] * len(turn.ids)
    return Sample(
        tokens, mask, [advantage if m else 0.0 for m in mask], behaviour,
        domain=rollout.prompt.domain, source=f"{rollout.prompt.id}/{rollout.sibling}", group=group,
    )  # fmt: skip
