"""GRPO, strictly on-policy: sample groups, grade, one update (paper §4.1.2, Eq. 1).

How it departs from textbook GRPO, as the paper does:

1. no ratio clipping: one update per batch, so the ratio is 1;
2. no entropy term, and KL only where the recipe sets it (RLHF);
3. token-level averaging over the global batch;
4. dynamic filtering with refill (IF-RL);
5. three separate rules for overlong replies, and a mask for whole groups (agentless SWE).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from linn import stopping
from linn.engine.training.trees import first_trained
from linn.play.credit import grouped, informative, judged_rewards, samples_of
from linn.play.failures import check_failures, is_judged
from linn.play.rollout import Job, play
from linn.play.thoughts import rewritten_share, unclosed_share
from linn.recipe.stages import RlConfig, RolloutConfig
from linn.stages.curriculum import check_rates
from linn.stages.records import sampled_length
from linn.stages.stage_run import StageRun
from linn.types import Group, Loss, Prompt, Rollout, Sample, Sampling, seed_of


def rl(stage: StageRun) -> None:
    """The whole stage, from where it stands."""
    config = stage.config
    assert isinstance(config, RlConfig)
    if config.curriculum:
        check_rates(config.name, [stage.domains[name] for name in stage.weights])
    loss = Loss("grpo", config.normalise, kl=config.kl, temperature=config.temperature)

    first_step = stage.resume()
    for step in range(first_step, config.steps):
        before = stage.costs()
        # Every reply is sampled from the weights that this step then updates.
        groups, batch_metrics = stopping.run(batch_of_groups(stage, config, step))
        samples = samples_to_train(stage, config, groups)

        metrics = stage.train(step, samples, loss)
        metrics |= rollout_metrics(groups)
        metrics |= batch_metrics
        metrics |= stage.judges.metrics()

        stage.record(step, metrics, before, groups)
        stage.evaluate_if_due(step)
        stage.keep_if_due(step)
        stage.save_if_due(step)
    stage.finish()


async def batch_of_groups(
    stage: StageRun, config: RlConfig, step: int
) -> tuple[list[Group], dict[str, float]]:
    """The step's groups and the metrics of sampling them.

    With `dynamic_filter`, groups of equal rewards are dropped and the batch is refilled, in at most
    `refill` rounds. `groups`, `reward` and `sampled_tokens` are of all groups of all rounds;
    `surplus_groups` counts informative ones beyond the batch, which are dropped too.
    """
    batch: list[Group] = []
    sampled, tokens = 0, 0
    means: list[float] = []
    for _ in range(config.refill if config.dynamic_filter else 1):
        count = _prompts_to_ask(config, len(batch), sampled)
        prompts = stage.prompts.take(count, step)
        groups = await sample_groups(stage, config, step, prompts, first=sampled)

        # These count what the filter drops, too: its price is part of the step.
        means += mean_rewards(groups)
        tokens += sampled_tokens(groups)
        sampled += len(groups)
        if config.dynamic_filter:
            batch += filter(informative, groups)
        else:
            batch += groups
        if len(batch) >= config.prompts:
            break

    surplus = max(0, len(batch) - config.prompts)
    batch = batch[: config.prompts]
    metrics = {
        "groups": float(sampled),
        "kept_groups": float(sum(map(informative, batch))),
        "surplus_groups": float(surplus),
        "sampled_tokens": float(tokens),
    }
    if means:
        metrics["reward"] = sum(means) / len(means)
    # Without any informative group the last round stands for the step, so that it is on record.
    return batch or groups, metrics


def _prompts_to_ask(config: RlConfig, batched: int, sampled: int) -> int:
    """Prompts of a round: as many as are missing, divided by the share kept so far.

    That share counts as a quarter at least, and a round never exceeds a batch.
    """
    missing = config.prompts - batched
    if not sampled:
        return missing
    share = max(0.25, batched / sampled)
    return min(config.prompts, math.ceil(missing / share))


async def sample_groups(
    stage: StageRun, config: RolloutConfig, step: int, prompts: Sequence[Prompt], first: int = 0
) -> list[Group]:
    """`config.rollouts` graded rollouts of every prompt.

    Raises RunFailed where more than `max_failed` of a domain's rollouts failed. Seeds follow from
    (stage, step, place in the step, prompt, sibling); `first`: the place of the first prompt.
    """
    sampling = Sampling(config.max_tokens, config.temperature, config.top_p)
    jobs = [
        Job(
            prompt=prompt,
            sibling=sibling,
            how=sampling,
            seed=seed_of(stage.seed, step, first + place, prompt.id, sibling),
            max_turns=config.max_turns,
            max_sequence=config.max_sequence,
        )
        for place, prompt in enumerate(prompts)
        for sibling in range(config.rollouts)
    ]
    rollouts = await play(jobs, stage.domains, stage.engine.sampler, stage.codec)
    check_failures(rollouts, config.max_failed, f"stage {config.name} step {step + 1}")

    # No reward enters the loss of distillation, so no judge is asked there.
    if not isinstance(config, RlConfig):
        return await grouped(rollouts, config.rollouts, stage.domains)
    return await grouped(
        rollouts,
        config.rollouts,
        stage.domains,
        overlong=config.overlong,
        judges=stage.judges,
        seed=seed_of(stage.seed, step, first),
    )


def samples_to_train(stage: StageRun, config: RlConfig, groups: Sequence[Group]) -> list[Sample]:
    """One sample per rollout, with the reference's log-probs where a KL term needs them."""
    samples = samples_of(groups, config.baseline, config.std, config.overlong, config.group_mask)
    if config.kl:
        return with_other(stage, samples, stage.start, config.temperature)
    if any(map(informative, groups)):
        return samples

    # Nothing to learn: a masked batch is idle, so AdamW's momentum does not move the weights.
    return [replace(sample, mask=[False] * len(sample.mask)) for sample in samples]


def with_other(
    stage: StageRun, samples: Sequence[Sample], folder: Path, temperature: float
) -> list[Sample]:
    """The samples with another checkpoint's log-probs as `teacher`: MOPD's, or RLHF's reference."""
    tokens = [sample.tokens for sample in samples]
    # Where nothing is trained, nothing is asked for.
    prompts = [first_trained(sample) or len(sample.tokens) for sample in samples]
    scores = stage.engine.score(folder, tokens, temperature, prompts)
    return [replace(sample, teacher=score) for sample, score in zip(samples, scores, strict=True)]


# ---------------------------------------------------------------- metrics


def rollout_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """What a person watches: lengths, shares of replies that failed somehow, and means per domain.

    The means are of rewards and of the verdicts' own metrics, over the rollouts that were judged.
    """
    statuses = []
    rollouts: list[Rollout] = []
    undecided = 0
    values_by_name: dict[str, list[float]] = defaultdict(list)
    for group in groups:
        for rollout, reward in zip(group.rollouts, group.rewards, strict=True):
            statuses.append(rollout.status)
            rollouts.append(rollout)
            undecided += rollout.verdict.undecided
            if not is_judged(rollout):
                continue
            domain = rollout.prompt.domain
            values_by_name[f"reward/{domain}"].append(reward)
            for name, value in rollout.verdict.metrics.items():
                values_by_name[f"{domain}/{name}"].append(value)

    n = len(statuses)
    metrics = {
        "length": sampled_tokens(groups) / n,
        "truncated": statuses.count("truncated") / n,
        "failed": statuses.count("failed") / n,
        "unclosed": unclosed_share(rollouts),
        "rewritten": rewritten_share(rollouts),
    }
    if undecided:
        metrics["undecided"] = undecided / n

    # Which domain came first differs from step to step: in alphabetical order it does not show.
    for name in sorted(values_by_name):
        values = values_by_name[name]
        metrics[name] = sum(values) / len(values)
    return metrics


def sampled_tokens(groups: Sequence[Group]) -> int:
    """Tokens that the policy sampled in all rollouts of the groups."""
    return sum(sampled_length(rollout.turns) for group in groups for rollout in group.rollouts)


def mean_rewards(groups: Sequence[Group]) -> list[float]:
    """The mean over each group's judged siblings; groups without any are left out."""
    means = []
    for group in groups:
        rewards = judged_rewards(group)
        if rewards:
            means.append(sum(rewards) / len(rewards))
    return means
