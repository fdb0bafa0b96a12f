"""Multi-domain on-policy distillation: the student samples, each domain's best checkpoint scores, one update (paper §4.4, Eq. 2-4).

No reward enters the loss; rollouts are graded all the same, so that the curves can be read, but no judge model is asked. K teachers cost the memory of one: samples are
scored teacher by teacher.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from linn.play.credit import sample_of
from linn.recipe.schema import DistillConfig
from linn.stages.rl import figures_of, sample_groups, with_other
from linn.stages.stage_run import StageRun
from linn.types import Loss, Sample


def distill(run: StageRun, teachers: Mapping[str, Path]) -> None:
    """The whole stage, from where it stands. `teachers`: a checkpoint folder for every domain of the stage."""
    keys = run.keys
    assert isinstance(keys, DistillConfig)
    loss = Loss("mopd", keys.normalise, band=keys.band, temperature=keys.temperature)
    for step in run.steps():
        began = run.clock()
        groups = asyncio.run(sample_groups(run, keys, step, run.next_prompts(keys.prompts)))
        samples = [
            sample_of(r, 0.0, group=number) for number, g in enumerate(groups) for r in g.rollouts
        ]
        samples = scored_by_teachers(run, samples, teachers, keys.temperature)
        figures = figures_of(groups) | {
            "reward": sum(sum(g.rewards) / len(g.rewards) for g in groups) / len(groups)
        }
        run.train(step, samples, loss, figures, began, groups)


def scored_by_teachers(
    run: StageRun, samples: list[Sample], teachers: Mapping[str, Path], temperature: float
) -> list[Sample]:
    """Each sample with its own domain's teacher's log-probs, in the given order; every distinct teacher is loaded once."""
    scored: dict[int, Sample] = {}
    for folder in dict.fromkeys(teachers.values()):
        mine = [i for i, s in enumerate(samples) if teachers[s.domain] == folder]
        if mine:
            scored.update(
                zip(
                    mine,
                    with_other(run, [samples[i] for i in mine], folder, temperature),
                    strict=True,
                )
            )
    return [scored[i] for i in range(len(samples))]
