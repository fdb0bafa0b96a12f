"""Multi-domain on-policy distillation: the student samples, each domain's best checkpoint scores.

One update per batch (paper §4.4, Eq. 2-4). No reward enters the loss; rollouts are graded all the
same, so that the curves can be read, but no judge model is asked. K teachers cost the memory of
one: samples are scored teacher by teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from linn import stopping
from linn.play.credit import sample_of
from linn.recipe.stages import DistillConfig
from linn.stages.rl import (
    mean_rewards,
    rollout_metrics,
    sample_groups,
    sampled_tokens,
    with_other,
)
from linn.stages.stage_run import StageRun
from linn.types import Group, Loss, Sample


def distill(stage: StageRun, teachers: Mapping[str, Path]) -> None:
    """The whole stage, from where it stands.

    `teachers`: a checkpoint folder for every domain of the stage.
    """
    config = stage.config
    assert isinstance(config, DistillConfig)
    loss = Loss("mopd", config.normalise, band=config.band, temperature=config.temperature)

    first_step = stage.resume()
    for step in range(first_step, config.steps):
        before = stage.costs()
        prompts = stage.prompts.take(config.prompts, step)
        groups = stopping.run(sample_groups(stage, config, step, prompts))
        samples = scored_by_teachers(stage, unrewarded(groups), teachers, config.temperature)

        metrics = stage.train(step, samples, loss)
        metrics |= rollout_metrics(groups)
        if means := mean_rewards(groups):
            metrics["reward"] = sum(means) / len(means)
        metrics["sampled_tokens"] = float(sampled_tokens(groups))

        stage.record(step, metrics, before, groups)
        stage.evaluate_if_due(step)
        stage.keep_if_due(step)
        stage.save_if_due(step)
    stage.finish()


def unrewarded(groups: Sequence[Group]) -> list[Sample]:
    """One sample per rollout, without an advantage: the teacher's log-probs are the signal."""
    return [
        sample_of(rollout, advantage=0.0, group=number)
        for number, group in enumerate(groups)
        for rollout in group.rollouts
    ]


def scored_by_teachers(
    stage: StageRun, samples: Sequence[Sample], teachers: Mapping[str, Path], temperature: float
) -> list[Sample]:
    """Each sample with the log-probs of its own domain's teacher, in the given order.

    Every distinct teacher is loaded once.
    """
    # Domains may share a teacher: the engine holds one other checkpoint at a time.
    places_by_folder: dict[Path, list[int]] = {folder: [] for folder in teachers.values()}
    for place, sample in enumerate(samples):
        places_by_folder[teachers[sample.domain]].append(place)

    results = list(samples)
    for folder, places in places_by_folder.items():
        if not places:
            continue
        of_teacher = [samples[place] for place in places]
        with_teacher = with_other(stage, of_teacher, folder, temperature)
        for place, sample in zip(places, with_teacher, strict=True):
            results[place] = sample
    return results
