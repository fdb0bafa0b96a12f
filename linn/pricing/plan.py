"""What a run would do, before it does it.

Stages, prompts, rollouts, updates, and what is done already.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from linn.bases.make import tiny_config
from linn.chat.codec import Codec
from linn.checkpoints import known_config, start_folder
from linn.data.names import is_remote
from linn.data.rows import Lines
from linn.domains.base import Domain
from linn.domains.load import load, outline
from linn.errors import UserError
from linn.evals.benchmarks.in_run import opened
from linn.judges.open import check_judge
from linn.pricing.shape import Shape, read_shape, shape_of
from linn.recipe.base import short
from linn.recipe.schema import NewModelConfig, Recipe
from linn.recipe.stages import DistillConfig, RlConfig, RolloutConfig, SftConfig, StageConfig


def check_inputs(recipe: Recipe, folder: Path, dry: bool = False) -> dict[str, Domain]:
    """Refuse a recipe whose model, domains or files are missing, before anything is written.

    Also refuses a run folder that cannot be one. `dry`: weights may be missing where linn keeps the
    model's config, and a domain's file is read but not run. Returns every domain by its short name,
    closed.
    """
    if not (dry and known_config(recipe)):
        start_folder(recipe, folder)
    domains = {}
    for name, config in recipe.domains.items():
        for key in ("rows", "test", "validation"):
            if isinstance(file := getattr(config, key), str):
                _check_file(f"domains.{name}.{key}", file)
        # Who only wants to see what a recipe would do must not run somebody's code for it.
        domain = outline(name) if dry and name.endswith(".py") else load(name, config.options)
        domains[short(name)] = domain
        domain.close()
        if config.judge is not None:
            check_judge(config.judge)

    for benchmark in opened(recipe.evaluate.benchmarks):
        benchmark.domain.close()

    for stage in recipe.stages:
        files = stage.files if isinstance(stage, SftConfig) else ()
        for file in files:
            _check_file(f"stage {stage.name!r}.data", file)

    _check_folder(folder)

    return domains


def _check_file(key: str, name: str) -> None:
    """Refuse a file that cannot be opened or is of another kind.

    Its rows are read when they are needed.
    """
    if is_remote(name):
        return
    try:
        Lines(name).close()
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _check_folder(folder: Path) -> None:
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"run folder {folder}: {place} is a file; give --out another folder")


def model_shape(recipe: Recipe, folder: Path) -> Shape:
    """The shape of the model that the recipe starts from. Its weights need not be there."""
    if isinstance(recipe.model, NewModelConfig):
        return shape_of(tiny_config(recipe.model.vocab), "model")
    return read_shape(known_config(recipe) or start_folder(recipe, folder))


def tokenizer_of(recipe: Recipe, folder: Path) -> Codec | None:
    """The codec of the model that the recipe starts from; None where it is not there yet."""
    if isinstance(recipe.model, NewModelConfig):
        return None
    try:
        return Codec.load(start_folder(recipe, folder), recipe.template)
    except UserError:
        return None


def plan(recipe: Recipe, folder: Path) -> str:
    """What each stage does, in lines of 79.

    Where it starts, how much it samples at most, on what, and whether the folder has it.
    """
    there = " (there already)" if (folder / "run.json").exists() else ""
    lines = [f"run folder {folder}{there}"]

    for index, stage in enumerate(recipe.stages, 1):
        done = (folder / "stages" / f"{index:02d}-{stage.name}" / "DONE").exists()
        title = f"{index:>2} {stage.name}: {stage.kind} from {recipe.parent(stage.name)}"
        lines.append(title + ("  [done]" if done else ""))
        lines += textwrap.wrap(
            _work_of(recipe, stage),
            79,
            initial_indent="   ",
            subsequent_indent="   ",
            break_on_hyphens=False,
        )
        lines += [f"   {share}" for share in _mix_of(recipe, stage)]

    for name in recipe.domains:
        if name.endswith(".py"):
            lines.append(f"{name}: read, not run; linn check {name} runs and proves it")

    lines += textwrap.wrap(
        _evaluation_of(recipe), 79, subsequent_indent="   ", break_on_hyphens=False
    )

    return "\n".join(lines)


def _evaluation_of(recipe: Recipe) -> str:
    """What is held after the stages; where `evaluate.greedy` names some, what those cost more."""
    domains = len(recipe.domains)
    measured = [name for name in recipe.stage_names() if recipe.is_measured(name)]
    counts = {name: domains * recipe.conversations_after(name) for name in measured}
    least = min(counts.values(), default=0)
    text = f"after every stage: {least:,} held-out conversations over {domains} domains"
    greedy = [name for name in measured if counts[name] > least]
    if greedy:
        text += f"; {domains * recipe.evaluate.test:,} greedy ones more after {', '.join(greedy)}"
    return text


def _work_of(recipe: Recipe, stage: StageConfig) -> str:
    parts = [f"{stage.steps:,} steps at lr {stage.lr:g}"]
    if isinstance(stage, SftConfig):
        unit = f"packed rows of {recipe.scale.width:,} tokens" if stage.packed else "sequences"
        parts.append(f"{stage.steps * stage.batch:,} {unit}")

    if isinstance(stage, RolloutConfig):
        total = stage.steps * stage.prompts * stage.rollouts
        parts.append(f"{stage.prompts} x {stage.rollouts} rollouts a step")
        parts.append(f"{total:,} in all")
        limit = f"{stage.max_tokens:,} tokens a turn at most"
        if isinstance(stage, RlConfig) and stage.dynamic_filter:
            limit += f" (up to {stage.refill} times that while refilling)"
        parts.append(limit)

    if isinstance(stage, DistillConfig) and stage.teachers == "best":
        parts.append("the best teacher of each domain")

    return ", ".join(parts)


def _mix_of(recipe: Recipe, stage: StageConfig) -> list[str]:
    """A line per file or domain with its share; with its teacher where the recipe names one."""
    shares = stage.files if isinstance(stage, SftConfig) else {}
    lines = []
    for name, share in (shares or recipe.weights_of(stage)).items():
        line = f"{share:6.1%} {name}"
        if isinstance(stage, DistillConfig) and stage.teachers != "best":
            line += f" <- {stage.teachers.get(name)}"
        lines.append(line)
    return lines
