"""Verdicts to per-token signal: advantages, overlong rules, masks (paper §3.1, §3.4, §4.7)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from linn.domains.base import Domain
from linn.judges.panel import Judges, Siblings
from linn.play.failures import is_judged
from linn.types import Group, Rollout, Sample, Verdict

EPSILON = 1e-6
"""Guards the division by a group's deviation; a group of equal rewards has advantage exactly 0."""


async def grouped(
    rollouts: Sequence[Rollout],
    size: int,
    domains: Mapping[str, Domain],
    overlong: str = "keep",
    judges: Judges | None = None,
    seed: int = 0,
) -> list[Group]:
    """Every `size` consecutive rollouts as the siblings of one prompt, with their rewards.

    Where a domain compares siblings or a model judges it, the rewards come from there, else from
    `verify`. Without `judges` no model is asked: such a domain then keeps `verify`'s rewards.
    A failed rollout is compared with nobody. `overlong` = `penalty`: a truncated rollout's reward
    is 0, whatever its verdict.
    """
    assert len(rollouts) % size == 0, (len(rollouts), size)
    groups = [rollouts[first : first + size] for first in range(0, len(rollouts), size)]

    # Every group goes to its domain, which may compare the siblings: all at once, so that a judge
    # model gets all questions in one batch. Left out are those that only a model could judge.
    places: list[int] = []
    compared: list[Siblings] = []
    for place, members in enumerate(groups):
        prompt = members[0].prompt
        domain = domains[prompt.domain]
        replies = [rollout.reply for rollout in members if rollout.status != "failed"]
        if replies and (judges is not None or not domain.judged):
            places.append(place)
            compared.append(Siblings(domain, prompt, replies))

    verdicts = await (judges or Judges()).verdicts(compared, seed)
    by_place = dict(zip(places, verdicts, strict=True))
    return [
        _with_rewards(members, by_place.get(place), overlong)
        for place, members in enumerate(groups)
    ]


def _with_rewards(
    siblings: Sequence[Rollout], verdicts: Sequence[Verdict] | None, overlong: str
) -> Group:
    """The group with the verdicts of comparing its siblings, if there are any."""
    # The tokens were sampled once and stay; only what they earned is replaced.
    rollouts = list(siblings)
    if verdicts is not None:
        places = [place for place, rollout in enumerate(rollouts) if rollout.status != "failed"]
        for place, verdict in zip(places, verdicts, strict=True):
            both = _both(rollouts[place].verdict, verdict)
            rollouts[place] = replace(rollouts[place], verdict=both)

    rewards = []
    for rollout in rollouts:
        reward = rollout.verdict.reward
        if overlong == "penalty" and rollout.status == "truncated":
            reward = 0.0
        rewards.append(reward)
    return Group(tuple(rollouts), tuple(rewards))


def _both(alone: Verdict, among: Verdict) -> Verdict:
    """The judge's reward, with the reply's own quality kept as a metric."""
    metrics = {**alone.metrics, **among.metrics, "quality": alone.reward}
    return Verdict(among.reward, among.note or alone.note, metrics, among.undecided)


def judged_rewards(group: Group) -> list[float]:
    """The rewards that are judgements: all statistics of a group are theirs alone."""
    pairs = zip(group.rollouts, group.rewards, strict=True)
    return [reward for rollout, reward in pairs if is_judged(rollout)]


def informative(group: Group) -> bool:
    """Whether a group's judged rewards differ; if they do not, its advantages are all 0."""
    rewards = judged_rewards(group)
    return bool(rewards) and max(rewards) - min(rewards) > 1e-9


def group_advantages(
    group: Group,
    baseline: str = "mean",
    std: str = "population",
) -> list[float]:
    """One advantage per sibling, among those that were judged; 0 for the others."""
    of_judged = iter(advantages(judged_rewards(group), baseline, std))
    return [next(of_judged) if is_judged(rollout) else 0.0 for rollout in group.rollouts]


def advantages(
    rewards: Sequence[float],
    baseline: str = "mean",
    std: Literal["population", "sample", "none"] | str = "population",
) -> list[float]:
    """Group-normalised advantage, one per sibling (Eq. 1): (r - baseline) / std.

    `leave_one_out`: baseline and deviation of r_i are those of the others, as NVIDIA's trainer has
    it; where the others are equal, the difference is left undivided. Equal rewards give exactly 0.
    """
    # Equal rewards say nothing about any sibling; dividing by their deviation would say much.
    n = len(rewards)
    if n < 2 or max(rewards) - min(rewards) <= 1e-9:
        return [0.0] * n
    if baseline == "leave_one_out":
        return [
            _normalised(reward, [*rewards[:i], *rewards[i + 1 :]], std)
            for i, reward in enumerate(rewards)
        ]
    return [_normalised(reward, rewards, std) for reward in rewards]


def _normalised(reward: float, among: Sequence[float], std: str) -> float:
    """How many deviations of `among` a reward is above their mean."""
    centred = reward - sum(among) / len(among)
    if std == "none" or max(among) - min(among) <= 1e-9:
        return centred
    spread = statistics.pstdev(among) if std == "population" else statistics.stdev(among)
    return centred / (spread + EPSILON)


def samples_of(
    groups: Sequence[Group],
    baseline: str = "mean",
    std: str = "population",
    overlong: str = "keep",
    group_mask: float | None = None,
) -> list[Sample]:
    """One sample per rollout, in order: every sampled token carries its rollout's advantage.

    Masked out of the loss, their rewards still counting in the group:
    - truncated rollouts if `overlong` is `mask`;
    - rollouts whose verdict says `unreliable`;
    - whole groups whose best reward is not above `group_mask`.

    Masked, and out of the group's statistics too: rollouts that nobody judged, since environment
    or grader broke, or no answer of the judge could be read.
    """
    samples = []
    for number, group in enumerate(groups):
        best = max(judged_rewards(group), default=-math.inf)
        group_masked = group_mask is not None and best <= group_mask
        per_rollout = group_advantages(group, baseline, std)
        for rollout, advantage in zip(group.rollouts, per_rollout, strict=True):
            masked = group_masked or _masked(rollout, overlong)
            samples.append(sample_of(rollout, advantage, trained=not masked, group=number))
    return samples


def _masked(rollout: Rollout, overlong: str) -> bool:
    if not is_judged(rollout):
        return True
    if rollout.status == "truncated" and overlong == "mask":
        return True
    return bool(rollout.verdict.metrics.get("unreliable"))


def sample_of(rollout: Rollout, advantage: float, trained: bool = True, group: int = 0) -> Sample:
    """The tokens of a rollout with their signal.

    Prompt, tool and environment tokens are never trained.
    """
    tokens: list[int] = []
    mask: list[bool] = []
    behaviour: list[float] = []
    signal: list[float] = []
    if not trained:
        advantage = 0.0

    for turn in rollout.turns:
        count = len(turn.ids)
        tokens += turn.ids
        if turn.logprobs is None:  # the policy did not sample these
            mask += [False] * count
            behaviour += [0.0] * count
            signal += [0.0] * count
        else:
            mask += [trained] * count
            behaviour += turn.logprobs
            signal += [advantage] * count

    return Sample(
        tokens=tokens,
        mask=mask,
        advantage=signal,
        behaviour=behaviour,
        domain=rollout.prompt.domain,
        source=f"{rollout.prompt.id}/{rollout.sibling}",
        group=group,
    )
