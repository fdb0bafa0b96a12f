"""One checkpoint evaluated on a recipe's domains, outside a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from linn.chat.codec import Codec
from linn.data.layouts import layout_of
from linn.data.names import located
from linn.data.rows import read_rows
from linn.domains.load import load_all
from linn.engine.open import open_engine
from linn.errors import UserError
from linn.evals.evaluate import Evaluation
from linn.judges.open import judges_of
from linn.recipe.base import short
from linn.recipe.schema import DomainConfig, JudgeConfig, Recipe
from linn.types import Optim, Score, Split

WHOLE = 10**9
"""Test prompts of a file that is measured whole."""


def on_files(recipe: Recipe, files: Sequence[str]) -> Recipe:
    """The recipe with these files of rows, and nothing else, as test sets that are taken whole.

    `files`: `DOMAIN=FILE`, or FILE alone, whose first row then says whose it is. A domain keeps the
    options that the recipe gives it.
    """
    domains: dict[str, DomainConfig] = {}
    for name in files:
        domain, _, file = name.rpartition("=")
        domain = domain or _domain_of(file)
        own = {short(key): (key, config) for key, config in recipe.domains.items()}
        key, config = own.get(short(domain), (domain, DomainConfig()))
        if key in domains:
            raise UserError(f"--rows {name}: domain {domain} has a file already; measure it apart")
        domains[key] = config.model_copy(update={"rows": None, "test": file, "validation": None})
    evaluate = recipe.evaluate.model_copy(update={"test": WHOLE})
    return recipe.model_copy(update={"domains": domains, "evaluate": evaluate})


def _domain_of(file: str) -> str:
    """The domain that a file's first row points to."""
    rows = read_rows(located(file))
    row = next(rows, None)
    domain = layout_of(row).domain if row is not None else None
    if domain is None:
        raise UserError(
            f"--rows {file}: its first row points to no domain; say --rows DOMAIN={file}"
        )
    return domain


async def evaluate_once(
    checkpoint: Path,
    recipe: Recipe,
    name: str,
    judges: Mapping[str, JudgeConfig],
    folders: Mapping[str, Path],
    splits: Sequence[Split] = ("test", "validation"),
    say: Callable[[str], None] = lambda line: None,
) -> list[Score]:
    """Scores of `checkpoint`, as stage `name` at step 0.

    `judges`: by domain; `folders`: the checkpoint of each judge that is no endpoint. `say` hears
    how much of each file is measured, which template it is, what the replies say about that, and
    of each score that is missing, since nobody judged any prompt.
    """
    domains = load_all(recipe.domain_options())
    engine = open_engine(recipe.scale)
    try:
        codec = Codec.load(checkpoint, recipe.template)
        say(codec.described())
        evaluation = Evaluation(domains, recipe.evaluate, splits, say, recipe.evaluation_sampling())
        evaluation.check(codec)
        engine.load(checkpoint, Optim())
        scores = await evaluation.measure(
            stage=name,
            step=0,
            sampler=engine.sampler,
            codec=codec,
            seed=recipe.seed,
            probes=evaluation.whole,
            judges=judges_of(judges, folders, engine, codec.template.name, say),
            on_unjudged=say,
        )
        for line in evaluation.warnings:
            say(line)
        return scores
    finally:
        engine.close()
        for domain in domains.values():
            domain.close()
