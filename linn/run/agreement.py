"""Whether what a run folder holds was made by the recipe that a run is to follow."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from linn.recipe.schema import Recipe

DECIDING = ("model", "seed", "domains", "scale", "evaluate")
"""Keys of a recipe that decide what every stage makes."""


@dataclass(frozen=True)
class Difference:
    """What was made with other values."""

    what: str
    """The stage, or the key of all stages."""
    redo: str
    """The stage from which on everything would have to be made again."""


def difference(
    old: Recipe, new: Recipe, folders: Collection[str], redo: str | None
) -> Difference | None:
    """Where something that is kept was made with other values; None where nothing was.

    `folders`: names of the stage folders in which something is; `redo`: it and all later stages are
    not kept.
    """
    names = new.stage_names()
    end = len(names) + len(old.stages)
    if redo is not None:
        end = names.index(redo)
    stages = []
    for index, stage in enumerate(old.stages, 1):
        if index < end and f"{index:02d}-{stage.name}" in folders:
            stages.append(stage)

    # What decides every stage's results must be as it was, if anything at all is kept.
    keeps_base = end > 0 and "00-base" in folders
    if stages or keeps_base:
        for key in DECIDING:
            if _deciding(old, key) != _deciding(new, key):
                return Difference(f"{key!r} of its stages", redo="base")

    # And so must each kept stage, and the stage that it started from.
    for stage in stages:
        index = old.stages.index(stage)
        now = new.stages[index] if index < len(new.stages) else None
        if now is None:
            return Difference(f"stage {stage.name!r}", redo=names[-1])
        if now != stage or old.parent(stage.name) != new.parent(now.name):
            return Difference(f"stage {stage.name!r}", redo=now.name)
    return None


def _deciding(recipe: Recipe, key: str) -> Any:
    """The values of a key that decide results.

    Where a judge is served, and how patiently it is asked, does not.
    """
    if key != "domains":
        return getattr(recipe, key)
    blocks = {name: config.model_dump() for name, config in recipe.domains.items()}
    for name, config in recipe.domains.items():
        if config.judge is None:
            continue
        judge = blocks[name]["judge"]
        for patience in ("concurrency", "timeout_s", "key_env"):
            judge.pop(patience)
        if config.judge.endpoint is not None:
            _, model = config.judge.endpoint
            judge["model"] = f"#{model}"
    return blocks
