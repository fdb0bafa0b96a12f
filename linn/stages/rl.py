"""GRPO, strictly on-policy: sample groups, grade, one update (paper §4.1.2, Eq. 1).

How it departs from textbook GRPO, as the paper does: no ratio clipping (one update a batch: the ratio is 1), no entropy term, KL only where
asked (RLHF), token-level averaging over the global batch, dynamic filtering with refill (IF-RL), three separate overlong rules, and a mask
for whole groups (agentless SWE).
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace

from linn.play.credit import grouped, informative, samples_of
from linn.play.rollout import Job, play
from linn.recipe.schema import RlConfig, RolloutConfig
from linn.stages.curriculum import check_rates
from linn.stages.stage_run import StageRun, sampled_length
from linn.types import Group, Loss, Prompt, Sample, Sampling, seed_of


def rl(run: StageRun) -> None:
    """The whole stage, from where it stands."""
    keys = run.keys
    assert isinstance(keys, RlConfig)
    if keys.curriculum:
        check_rates(keys.name, (run.domains[name] for name in run.weights))
    loss = Loss("grpo", keys.normalise, kl=keys.kl, temperature=keys.temperature)
    for step in run.steps():
        began = run.clock()
        groups, figures = asyncio.run(batch_of_groups(run, keys, step))
        samples = samples_of(groups, keys.baseline, keys.std, keys.overlong, keys.group_mask)
        if not keys.kl and not any(
            map(informative, groups)
        ):  # nothing to learn: AdamW's momentum must not move the weights either
            samples = [replace(sample, mask=[False] * len(sample.mask)) for sample in samples]
        if keys.kl:
            samples = with_other(run, samples, run.start, keys.temperature)
        run.train(
            step, samples, loss, figures_of(groups) | figures | run.judges.figures(), began, groups
        )


async def batch_of_groups(
    run: StageRun, keys: RlConfig, step: int
) -> tuple[list[Group], dict[str, float]]:
    """The step's groups. With `dynamic_filter`, groups of equal rewards are dropped (counted) and the batch is refilled.

    A refill round asks for as many prompts as are missing, divided by the share kept so far (at least a quarter). `surplus_groups` counts
    those beyond the batch, which are dropped too; `reward` and `sampled_tokens` are of all groups made.
    """
    kept: list[Group] = []
    made = tokens = 0
    reward = 0.0
    for _ in range(keys.refill if keys.dynamic_filter else 1):
        missing = keys.prompts - len(kept)
        ask = (
            missing
            if not made
            else min(keys.prompts, math.ceil(missing / max(0.25, len(kept) / made)))
        )
        groups = await sample_groups(run, keys, step, run.next_prompts(ask), first=made)
        reward += sum(sum(g.rewards) / len(g.rewards) for g in groups)
        tokens += sum(sampled_length(r.turns) for g in groups for r in g.rollouts)
        made += len(groups)
        kept += [g for g in groups if informative(g)] if keys.dynamic_filter else groups
        if len(kept) >= keys.prompts:
            break
    surplus, kept = kept[keys.prompts :], kept[: keys.prompts]
    figures = {
        "groups": float(made),
        "kept_groups": float(sum(informative(g) for g in kept)),
        "surplus_groups": float(len(surplus)),
        "reward": reward / made,
        "sampled_tokens": float(tokens),
    }
    return kept or groups, figures


async def sample_groups(
    run: StageRun, keys: RolloutConfig, step: int, prompts: Sequence[Prompt], first: int = 0
) -> list[Group]:
    """`keys.rollouts` graded rollouts of every prompt; seeds follow from (stage, step, place in the step, prompt, sibling)."""
    how = Sampling(keys.max_tokens, keys.temperature, keys.top_p)
    jobs = [
        Job(
            prompt,
            sibling,
            how,
            seed_of(run.seed, step, first + place, prompt.id, sibling),
            keys.max_turns,
            keys.max_sequence,
        )
        for place, prompt in enumerate(prompts)
        for sibling in range(keys.rollouts)
    ]
    rollouts = await play(jobs, run.domains, run.engine.sampler, run.codec)
    if not isinstance(
        keys, RlConfig
    ):  # no reward enters the loss of distillation: no judge is asked
        return await grouped(rollouts, keys.rollouts, run.domains)
    return await grouped(
        rollouts,
        keys.rollouts,
        run.domains,
        keys.overlong,
        run.judges,
        seed_of(run.seed, step, first),
    )


def with_other(
    run: StageRun, samples: Sequence[Sample], folder: object, temperature: float
) -> list[Sample]:
    """The samples with the log-probs of another checkpoint as `teacher` (MOPD's teacher, RLHF's reference)."""
    scores = run.engine.score(folder, [s.tokens for s in samples], temperature)  # type: ignore[arg-type]
    return [replace(sample, teacher=score) for sample, score in zip(samples, scores, strict=True)]


def figures_of(groups: Sequence[Group]) -> dict[str, float]:
    """What a person watches: reward by domain, lengths, truncated and failed shares, the verdicts' own metrics."""
    rollouts = [r for g in groups for r in g.rollouts]
    figures = {
        "length": sum(sampled_length(r.turns) for r in rollouts) / len(rollouts),
        "truncated": sum(r.status == "truncated" for r in rollouts) / len(rollouts),
        "failed": sum(r.status == "failed" for r in rollouts) / len(rollouts),
        "sampled_tokens": float(sum(sampled_length(r.turns) for r in rollouts)),
    }
    by_name: dict[str, list[float]] = {}
    for group in groups:
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
            by_name.setdefault(f"reward/{rollout.prompt.domain}", []).append(reward)
            for name, value in rollout.verdict.metrics.items():
                by_name.setdefault(f"{rollout.prompt.domain}/{name}", []).append(value)
    return figures | {name: sum(values) / len(values) for name, values in sorted(by_name.items())}
