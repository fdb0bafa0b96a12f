"""One checkpoint evaluated on a recipe's domains, outside a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from linn.chat.codec import Codec
from linn.domains.load import load_all
from linn.engine.open import open_engine
from linn.evals.evaluate import Evaluation
from linn.judges.open import judges_of
from linn.recipe.schema import JudgeConfig, Recipe
from linn.types import Optim, Score


async def evaluate_once(
    checkpoint: Path,
    recipe: Recipe,
    name: str,
    judges: Mapping[str, JudgeConfig],
    folders: Mapping[str, Path],
) -> list[Score]:
    """Scores of `checkpoint`, as stage `name` at step 0.

    `judges`: by domain; `folders`: the checkpoint of each judge that is no endpoint.
    """
    domains = load_all(recipe.domain_options())
    engine = open_engine(recipe.scale)
    try:
        engine.load(checkpoint, Optim())
        evaluation = Evaluation(domains, recipe.evaluate)
        return await evaluation.measure(
            stage=name,
            step=0,
            sampler=engine.sampler,
            codec=Codec.load(checkpoint),
            seed=recipe.seed,
            probes=evaluation.whole,
            judges=judges_of(judges, folders, engine),
        )
    finally:
        engine.close()
        for domain in domains.values():
            domain.close()
