"""Every key of a recipe in words that a person knows, for `linn explain`."""

from __future__ import annotations

from collections.abc import Iterator
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from linn.recipe.base import alternatives, block_in
from linn.recipe.benchmarks import BenchmarkUse
from linn.recipe.evaluation import EvaluateConfig
from linn.recipe.scale import SamplersConfig, TrainersConfig
from linn.recipe.schema import (
    DomainConfig,
    JudgeConfig,
    NewModelConfig,
    Recipe,
    ScaleConfig,
)
from linn.recipe.stages import CurriculumConfig, DistillConfig, RlConfig, SftConfig

BLOCKS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("", Recipe),
    ("model.", NewModelConfig),
    ("domains.NAME.", DomainConfig),
    ("domains.NAME.judge.", JudgeConfig),
    ("evaluate.", EvaluateConfig),
    ("evaluate.benchmarks.NAME.", BenchmarkUse),
    ("scale.", ScaleConfig),
    ("scale.trainers.", TrainersConfig),
    ("scale.samplers.", SamplersConfig),
    ("sft.", SftConfig),
    ("rl.", RlConfig),
    ("rl.curriculum.", CurriculumConfig),
    ("distill.", DistillConfig),
)
"""Every block with what stands before its keys."""

_WORDS = {
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    list: "list of stages",
    Any: "any",
}


class Key(NamedTuple):
    """One key of a recipe."""

    name: str
    """Its path, such as `evaluate.test` or `rl.steps`."""
    type: str
    """What it takes, in words."""
    default: str
    """Its default as YAML has it, or `required`."""
    meaning: str
    """What it does, with its unit."""


def every_key() -> Iterator[Key]:
    """Every key of every block, in the recipe's order."""
    for prefix, block in BLOCKS:
        for name, field in block.model_fields.items():
            default = "required"
            if not field.is_required():
                default = _default_in_words(field.get_default(call_default_factory=True))
            yield Key(
                name=f"{prefix}{field.alias or name}",
                type=type_in_words(field.annotation),
                default=default,
                meaning=field.description or "",
            )
        if block is DomainConfig:
            yield Key(
                name=f"{prefix}OPTION",
                type="any",
                default="the domain's own",
                meaning="an option of the domain's constructor, such as preference's pairs; "
                "see docs/domains.md",
            )


def type_in_words(annotation: Any) -> str:
    """What a key takes, such as `whole number` or `text or NAME: NUMBER pairs`."""
    words = [_plain_in_words(plain) for plain in alternatives(annotation) if plain is not NoneType]
    return " or ".join(dict.fromkeys(words))


def _plain_in_words(plain: Any) -> str:
    origin = get_origin(plain)
    parts = get_args(plain)
    if origin is Literal:
        values = ", ".join(str(value) for value in parts)
        return values if len(parts) == 1 else f"one of {values}"

    if origin is dict:
        of_value = type_in_words(parts[1])
        return f"NAME: {of_value.upper()} pairs"

    # The tuples of a recipe are all pairs, its lists are all of stages.
    if origin is tuple:
        return f"two {type_in_words(parts[0])}s"
    if block_in(plain) is not None:
        return "keys"
    return _WORDS[origin or plain]


def _default_in_words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, BaseModel):
        return "those of its own keys"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return str(list(value))
    return str(value)
