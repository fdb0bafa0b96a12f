"""Names of models and the folders that hold them: `RUN@STAGE[:STEP]`, the weights a recipe starts from, the checkpoints of judges."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from linn import files
from linn.domains.base import Domain
from linn.errors import UserError
from linn.judges.open import key_of
from linn.recipe.schema import JudgeKeys, NewModelKeys, Recipe, nearest
from linn.types import seed_of

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
    if isinstance(recipe.model, NewModelKeys):
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


def prepare_start(recipe: Recipe, folder: Path, domains: Mapping[str, Domain]) -> None:
    """Make the weights of `model: {vocab, seed}`: a tokenizer from the domains' clean text and a random laptop hybrid."""
    if (
        not isinstance(recipe.model, NewModelKeys)
        or (target := start_folder(recipe, folder)).exists()
    ):
        return
    from linn.bases.make import new_model
    from linn.bases.tokenizer import save_tokenizer, train_tokenizer

    tokenizer = train_tokenizer(clean_texts(domains), recipe.model.vocab)
    with files.whole_folder(target) as made:
        save_tokenizer(tokenizer, made)
        new_model(made, tokenizer.get_vocab_size(), recipe.model.seed)


def clean_texts(domains: Mapping[str, Domain], each: int = 400) -> Iterator[str]:
    """Rendered clean demonstrations of every domain; the same for every seed, so that all laptop bases share one vocabulary."""
    import itertools
    import random

    from linn.chat import render as chat

    for name, domain in domains.items():
        for prompt in itertools.islice(domain.prompts("train"), each):
            turns = domain.demonstrate(
                prompt, random.Random(seed_of("vocabulary", name, prompt.id)), False
            )
            yield chat.render(
                (*prompt.messages, *turns), prompt.tools, prompt.thinking, True, False
            )


def judge_folders(
    named: Mapping[str, JudgeKeys], checkpoint: Callable[[str], Path] | None
) -> dict[str, Path]:
    """The checkpoint of every judge that is no endpoint, by the recipe's word for it; `checkpoint`: that of a stage of this run."""
    found = {}
    for keys in named.values():
        if keys.endpoint is None:
            if keys.stage is not None and checkpoint is None:
                raise UserError(
                    f"judge {keys.model}: names a stage of a run, and there is none here; say RUN{keys.model}"
                )
            found[keys.model] = (
                checkpoint(keys.stage)
                if keys.stage is not None and checkpoint is not None
                else resolve(keys.model)
            )
    return found


def judge_holds(keys: JudgeKeys) -> None:
    """Refuse a judge whose checkpoint or key is not there; whether an endpoint answers shows when it is asked."""
    key_of(keys)
    if keys.endpoint is None and keys.stage is None:
        resolve(keys.model)
