"""Names of models and the folders that hold them: `RUN@STAGE[:STEP]`, the weights a recipe starts from."""

from __future__ import annotations

import re
from pathlib import Path

from linn.errors import UserError, nearest
from linn.recipe.schema import NewModelConfig, Recipe

BASES = Path(__file__).parent / "bases"
"""The laptop base models kept with linn: `tiny-0`, `tiny-1`, …"""


def resolve(name: str) -> Path:
    """A checkpoint's folder from `RUN@STAGE[:STEP]` or a plain Hugging Face folder."""
    if "@" not in name or (Path(name) / "config.json").is_file():
        path = Path(name)
        if name.startswith("tiny") and (BASES / ("tiny-0" if name == "tiny" else name)).is_dir():
            return BASES / ("tiny-0" if name == "tiny" else name)
        if not (path / "config.json").is_file():
            raise UserError(
                f"checkpoint {name!r}: neither RUN@STAGE[:STEP] nor a folder with config.json"
            )
        return path
    run, _, at = name.partition("@")
    stage, _, step = at.partition(":")
    folder = Path(run) if Path(run).is_dir() else Path("runs") / run
    stages = sorted(folder.glob("stages/[0-9]*-*"))
    names = {p.name.split("-", 1)[1]: p for p in stages}
    if step and not step.isdecimal():
        raise UserError(
            f"checkpoint {name!r}: {step!r} is no step; say RUN@STAGE:STEP with a number, or RUN@STAGE for the last"
        )
    if not stages:
        raise UserError(f"checkpoint {name!r}: no run with a stage {stage!r} in {folder}")
    if stage not in names:
        raise UserError(
            f"checkpoint {name!r}: no stage {stage!r} in {folder}{nearest(stage, list(names))}"
        )
    kept = sorted(
        (names[stage] / "checkpoints").glob(f"step-{int(step):04d}" if step else "step-*")
    )
    if not kept:
        raise UserError(
            f"checkpoint {name!r}: {names[stage]} holds none{' at step ' + step if step else ' yet'}"
        )
    return kept[-1]


def start_folder(recipe: Recipe, folder: Path) -> Path:
    """The folder of the weights a recipe starts from; raises UserError where there is none."""
    if isinstance(recipe.model, NewModelConfig):
        return folder / "stages" / "00-base" / "checkpoints" / "step-0000"
    name = "tiny-0" if recipe.model == "tiny" else recipe.model
    if name.startswith("tiny-") and (BASES / name).is_dir():
        return BASES / name
    path = Path(name)
    if not (path / "config.json").is_file():
        if re.fullmatch(r"[\w-]+/[\w.-]+", name) and not path.exists():
            raise UserError(
                f"model: the weights of {name!r} are not here; get them with hf download {name} --local-dir DIR, then --set model=DIR"
            )
        kept = ", ".join(sorted(p.name for p in BASES.glob("tiny-*"))) or "none"
        raise UserError(
            f"model: {recipe.model!r} is neither a kept base ({kept}) nor a folder with config.json"
        )
    return path


def known_config(recipe: Recipe) -> Path | None:
    """The folder kept with linn that holds the `config.json` of a model whose weights are not: enough to price it."""
    if not isinstance(recipe.model, str) or (Path(recipe.model) / "config.json").is_file():
        return None
    folders = [
        p.parent
        for p in sorted(BASES.glob("*/config.json"))
        if not (p.parent / "model.safetensors").exists()
    ]
    return next((folder for folder in folders if folder.name in recipe.model.lower()), None)
