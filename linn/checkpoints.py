"""Names of models and the folders that hold them: `RUN@STAGE[:STEP]`, a recipe's start."""

from __future__ import annotations

import json
import re
from pathlib import Path

from linn.errors import UserError, nearest
from linn.recipe.schema import NewModelConfig, Recipe

BASES = Path(__file__).parent / "bases"
"""The laptop base models kept with linn: `tiny-0`, `tiny-1`, …"""


def resolve(name: str) -> Path:
    """A checkpoint's folder from `RUN@STAGE[:STEP]` or a plain Hugging Face folder."""
    # A folder with an @ in its name is a folder all the same.
    plain = Path(name)
    if (plain / "config.json").is_file():
        return kept_base(name) or plain
    if "@" in name:
        return _of_run(name)
    base = kept_base(name)
    if base is None:
        raise UserError(
            f"checkpoint {name!r}: neither RUN@STAGE[:STEP] nor a folder with config.json"
        )
    return base


def devices_of(run_folder: Path) -> list[str]:
    """What a run was computed on so far, in order; nothing where its run.json does not say."""
    try:
        devices = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))["devices"]
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return []  # a run of an earlier version; whoever goes on with a broken one is told
    return [str(device) for device in devices] if isinstance(devices, list) else []


def start_folder(recipe: Recipe, folder: Path) -> Path:
    """The folder of the weights a recipe starts from; raises UserError where there is none."""
    if isinstance(recipe.model, NewModelConfig):
        return folder / "stages" / "00-base" / "checkpoints" / "step-0000"
    base = kept_base(recipe.model)
    if base is not None:
        return base

    path = Path(recipe.model)
    if (path / "config.json").is_file():
        return path

    # It looks like a name of the Hugging Face hub.
    if re.fullmatch(r"[\w-]+/[\w.-]+", recipe.model) and not path.exists():
        raise UserError(
            f"model: the weights of {recipe.model!r} are not here: there is no such folder; of a "
            f"model of the Hugging Face hub get them with hf download {recipe.model} --local-dir "
            "DIR, then --set model=DIR"
        )
    bases = ", ".join(sorted(path.name for path in BASES.glob("tiny-*"))) or "none"
    raise UserError(
        f"model: {recipe.model!r} is neither a kept base ({bases}) nor a folder with config.json"
    )


def known_config(recipe: Recipe) -> Path | None:
    """The folder kept with linn that holds the `config.json` of a model whose weights are not.

    That is enough to price it.
    """
    if not isinstance(recipe.model, str) or (Path(recipe.model) / "config.json").is_file():
        return None
    for config in sorted(BASES.glob("*/config.json")):
        has_weights = (config.parent / "model.safetensors").exists()
        if not has_weights and config.parent.name in recipe.model.lower():
            return config.parent
    return None


def kept_base(name: str) -> Path | None:
    """The base of this name that linn keeps; `tiny` is the first."""
    folder = BASES / ("tiny-0" if name == "tiny" else name)
    return folder if name.startswith("tiny") and folder.is_dir() else None


def _of_run(name: str) -> Path:
    """The folder of RUN@STAGE[:STEP]."""
    # From the right: a folder may have an @ in its name, a stage may not.
    run, _, place = name.rpartition("@")
    stage, _, step = place.partition(":")
    folder = Path(run)
    if not folder.is_dir():
        folder = Path("runs") / run

    # Stage folders are called NUMBER-NAME.
    stages = {}
    for path in sorted(folder.glob("stages/[0-9]*-*")):
        stages[path.name.split("-", 1)[1]] = path

    if step and not step.isdecimal():
        raise UserError(
            f"checkpoint {name!r}: {step!r} is no step; say RUN@STAGE:STEP with a number, "
            "or RUN@STAGE for the last"
        )
    if not stages:
        raise UserError(f"checkpoint {name!r}: no run with a stage {stage!r} in {folder}")
    if stage not in stages:
        raise UserError(
            f"checkpoint {name!r}: no stage {stage!r} in {folder}{nearest(stage, stages)}"
        )

    checkpoints = _checkpoints_of(stages[stage])
    at = int(step) if step else max(checkpoints, default=0)
    if at not in checkpoints:
        which = f"at step {step}" if step else "yet"
        there = f"; there are {', '.join(map(str, checkpoints))}" if checkpoints else ""
        if (stages[stage] / "DONE").exists() and not checkpoints:
            which = "any more, though it is finished: they were deleted"
            there = f"; put them back; linn run tells what --redo {stage} would remove"
        raise UserError(f"checkpoint {name!r}: {stages[stage]} holds none {which}{there}")
    return checkpoints[at]


def _checkpoints_of(stage: Path) -> dict[int, Path]:
    """The checkpoints in a stage's folder by their step, in order."""
    found = {}
    for path in (stage / "checkpoints").glob("step-*"):
        digits = path.name.removeprefix("step-")
        if digits.isdecimal():
            found[int(digits)] = path
    return dict(sorted(found.items()))
