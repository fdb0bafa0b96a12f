"""What a run would do, before it does it: stages, prompts, rollouts, updates, and what is done already."""

from __future__ import annotations

import textwrap
from pathlib import Path

from linn.bases.make import tiny_config
from linn.checkpoints import known_config, start_folder
from linn.data.names import is_remote
from linn.data.rows import Lines
from linn.domains.base import Domain
from linn.domains.load import load
from linn.errors import UserError
from linn.judges.open import check_judge
from linn.pricing.shape import Shape, read_shape, shape_of
from linn.recipe.schema import (
    DistillConfig,
    NewModelConfig,
    Recipe,
    RlConfig,
    RolloutConfig,
    SftConfig,
    StageConfig,
    short,
)


def check_inputs(recipe: Recipe, folder: Path, dry: bool = False) -> dict[str, Domain]:
    """Refuse a recipe whose model, domains or files are not there, or a folder that cannot be one, before anything is written.

    `dry`: weights may be missing where linn keeps the model's config. Gives every domain by its short name, closed.
    """
    if not (dry and known_config(recipe)):
        start_folder(recipe, folder)
    domains = {}
    for name, keys in recipe.domains.items():
        if keys.rows is not None:
            _check_file(f"domains.{name}.rows", keys.rows)
        domain = load(name, keys.options)
        domains[short(name)] = domain
        domain.close()
        if keys.judge is not None:
            check_judge(keys.judge)
    for stage in recipe.stages:
        for file in stage.files if isinstance(stage, SftConfig) else ():
            _check_file(f"stage {stage.name!r}.data", file)
    if found := next(
        (place for place in (folder, *folder.parents) if place.exists() and not place.is_dir()),
        None,
    ):
        raise UserError(f"run folder {folder}: {found} is a file; give --out another folder")
    return domains


def _check_file(key: str, name: str) -> None:
    """Refuse a file that cannot be opened, or is of another kind; its rows are read when they are needed."""
    if not is_remote(name):
        try:
            Lines(name).close()
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def model_shape(recipe: Recipe, folder: Path) -> Shape:
    """The shape of the model that the recipe starts from, which need not be there."""
    if isinstance(recipe.model, NewModelConfig):
        return shape_of(tiny_config(recipe.model.vocab), "model")
    return read_shape(known_config(recipe) or start_folder(recipe, folder))


def plan(recipe: Recipe, folder: Path) -> str:
    """What each stage does, in lines of 79: where it starts, how much it samples at most, on what, whether the folder has it."""
    lines = [
        f"run folder {folder}" + (" (there already)" if (folder / "run.json").exists() else "")
    ]
    for index, stage in enumerate(recipe.stages, 1):
        done = (folder / "stages" / f"{index:02d}-{stage.name}" / "DONE").exists()
        lines.append(
            f"{index:>2} {stage.name}: {stage.kind} from {recipe.parent(stage.name)}"
            + ("  [done]" if done else "")
        )
        lines += textwrap.wrap(
            _what(recipe, stage),
            79,
            initial_indent="   ",
            subsequent_indent="   ",
            break_on_hyphens=False,
        )
        shares = (
            stage.files
            if isinstance(stage, SftConfig) and stage.files
            else recipe.weights_of(stage)
        )
        mix = [f"{share:6.1%} {name}" for name, share in shares.items()]
        if isinstance(stage, DistillConfig) and stage.teachers != "best":
            mix = [
                f"{said} <- {teacher}"
                for said, teacher in zip(mix, map(stage.teachers.get, shares), strict=True)
            ]
        lines += [f"   {said}" for said in mix]
    held = recipe.evaluate
    each = (2 * held.test + held.validation * (1 + held.pass_at)) * len(recipe.domains)
    lines.append(
        f"after every stage: {each:,} held-out conversations over {len(recipe.domains)} domains"
    )
    return "\n".join(lines)


def _what(recipe: Recipe, stage: StageConfig) -> str:
    what = f"{stage.steps:,} steps at lr {stage.lr:g}"
    if isinstance(stage, SftConfig):
        what += f", {stage.steps * stage.batch:,} " + (
            f"packed rows of {recipe.scale.width:,} tokens" if stage.packed else "sequences"
        )
    if isinstance(stage, RolloutConfig):
        each = stage.prompts * stage.rollouts
        what += f", {stage.prompts} x {stage.rollouts} rollouts a step, {stage.steps * each:,} in all, {stage.max_tokens:,} tokens a turn at most"
    if isinstance(stage, RlConfig) and stage.dynamic_filter:
        what += f" (up to {stage.refill} times that while refilling)"
    if isinstance(stage, DistillConfig) and stage.teachers == "best":
        what += ", the best teacher of each domain"
    return what
