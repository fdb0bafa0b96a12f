"""What every block of a recipe shares, and how to walk through the blocks' annotations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Tag,
    model_validator,
)


def _check_plain_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ValueError(
            "must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit, "
            "because it names a folder"
        )
    return name


PlainName = Annotated[str, AfterValidator(_check_plain_name)]
"""A name that can also name a folder, and that RUN@STAGE:STEP can hold."""


def short(domain: str) -> str:
    """A domain's name: `mine` of `./mine.py`."""
    return Path(domain).stem if domain.endswith(".py") else domain


def _is_number(annotation: Any) -> bool:
    """Whether a key takes numbers, alone or among other things, and no yes or no."""
    kinds = [annotation]
    if get_origin(annotation) in (Union, UnionType):
        kinds = list(get_args(annotation))
    plain = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    return bool not in plain and (int in plain or float in plain)


class Config(BaseModel):
    """Base of every block of a recipe: unknown keys refused, values frozen, numbers finite."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )

    @model_validator(mode="before")
    @classmethod
    def _check_numbers(cls, tree: Any) -> Any:
        # YAML reads `yes` as True, which Python would take for 1.
        if isinstance(tree, dict):
            for key, field in cls.model_fields.items():
                if isinstance(tree.get(key), bool) and _is_number(field.annotation):
                    raise ValueError(f"{key}: must be a number, found {tree[key]}")
        return tree


SHARE = 0.1
"""Of a domain's rows that are test prompts, and that are validation prompts, by default."""


def splits_fault(splits: Mapping[str, str | float | None]) -> str:
    """What is wrong with test and validation of a domain; empty where nothing is."""
    total = 0.0
    for name, value in splits.items():
        if isinstance(value, str):
            continue
        if value is not None and not 0 < value < 1:
            return (
                f"{name}: must be a file of rows, or a share above 0 and below 1; found {value:g}"
            )
        total += SHARE if value is None else value
    return "test and validation: together they leave nothing to train on" if total >= 1 else ""


# ---------------------------------------------------------------- one value, or keys

VALUE, KEYS = "<value>", "<keys>"
"""Our tags for the two branches of a key that takes one value or a mapping.

pydantic puts them into the path of an error. They are no key of the person's.
"""


def _branch_of(value: Any) -> str:
    return KEYS if isinstance(value, dict | BaseModel) else VALUE


ValueOrKeys = Discriminator(_branch_of)
"""Chooses the branch by whether keys stand there, so that only that branch's errors come."""

TextOrWeights = Annotated[
    Annotated[str, Tag(VALUE)] | Annotated[dict[str, float], Tag(KEYS)], ValueOrKeys
]
"""One name, or several with their weights."""

NumberOrNumbers = Annotated[
    Annotated[float, Tag(VALUE)] | Annotated[dict[str, float], Tag(KEYS)], ValueOrKeys
]
"""One number for all, or one per name."""

BestOrNames = Annotated[
    Annotated[Literal["best"], Tag(VALUE)] | Annotated[dict[str, str], Tag(KEYS)], ValueOrKeys
]
"""The word `best` for all, or one name per name."""


# ---------------------------------------------------------------- walking through annotations


def alternatives(annotation: Any) -> list[Any]:
    """The plain types behind an annotation: unions and `Annotated` taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [plain for part in get_args(annotation) for plain in alternatives(part)]
    return [annotation]


def block_in(annotation: Any) -> type[Config] | None:
    """The block among the alternatives of an annotation, if there is one."""
    for plain in alternatives(annotation):
        if get_origin(plain) is None and isinstance(plain, type) and issubclass(plain, Config):
            return plain
    return None


def annotation_at(annotation: Any, key: str) -> Any:
    """The annotation of what may stand under `key`; None where nothing may."""
    block = block_in(annotation)
    if block is not None:
        for name, field in block.model_fields.items():
            if key == (field.alias or name):
                return field.annotation
        return Any if block.model_config.get("extra") == "allow" else None

    for plain in alternatives(annotation):
        if get_origin(plain) is dict:
            return get_args(plain)[1]
        if plain is Any:
            return Any
    return None


def keys_of(block: type[BaseModel]) -> list[str]:
    """The keys of a block as written in YAML."""
    return [field.alias or name for name, field in block.model_fields.items()]
