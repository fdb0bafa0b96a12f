"""A parsed tree -> a recipe, block by block, with every mistake in the recipe's own words.

Each domain and each stage is validated by its own class, so that the place of an error is the path
that the person wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from linn.errors import nearest
from linn.recipe.base import KEYS, VALUE, Config, annotation_at, block_in, keys_of
from linn.recipe.schema import DomainConfig, Recipe
from linn.recipe.stages import KINDS, StageConfig

B = TypeVar("B", bound=Config)


def recipe_of(tree: Mapping[str, Any], issues: list[str]) -> Recipe | None:
    """The recipe of a tree, or None with its mistakes added to `issues`, in the keys' order."""
    blocks = dict(tree)
    issues_by_key: dict[str, list[str]] = {}

    for key, build in (("domains", _domains), ("stages", _stages)):
        if key in tree:
            lines: list[str] = []
            blocks[key] = build(tree[key], lines)
            if lines:
                issues_by_key[key] = lines

    # The other keys are validated all the same. Without its stages the recipe is incomplete, so
    # that no check across blocks speaks of a domain that is only misspelt.
    for key in issues_by_key:
        blocks.pop(key)
    if issues_by_key:
        blocks.pop("stages", None)

    try:
        return Recipe.model_validate(blocks)
    except ValidationError as error:
        for entry in error.errors():
            key = str(entry["loc"][0]) if entry["loc"] else ""
            was_removed = key in tree and key not in blocks
            if not was_removed:
                line = _in_words(Recipe, blocks, "", entry)
                issues_by_key.setdefault(key, []).append(line)

    # In the order of the schema; unknown keys come last.
    for key in keys_of(Recipe):
        issues += issues_by_key.pop(key, [])
    for rest in issues_by_key.values():
        issues += rest
    return None


def block_of(block: type[B], value: Any, path: str, issues: list[str]) -> B | None:
    """`value` as a block, or None with its mistakes added to `issues`; `path`: where it stands."""
    try:
        return block.model_validate(value)
    except ValidationError as error:
        issues += [_in_words(block, value, path, entry) for entry in error.errors()]
        return None


def _domains(value: Any, issues: list[str]) -> Any:
    if not isinstance(value, dict):
        return value  # the recipe's own validation says what it must hold
    blocks = {}
    for name, block in value.items():
        if isinstance(name, str):
            blocks[name] = block_of(DomainConfig, block or {}, f"domains.{name}", issues)
        else:
            issues.append(f"domains.{name}: a name must be text; put it in quotes")
    return blocks


def _stages(value: Any, issues: list[str]) -> Any:
    if not isinstance(value, list):
        return value
    return [_stage(index, block, issues) for index, block in enumerate(value)]


def _stage(index: int, value: Any, issues: list[str]) -> StageConfig | None:
    if not isinstance(value, dict):
        return block_of(StageConfig, value, f"stage {index}", issues)

    path = f"stage {value.get('name', index)!r}"
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        issues.append(f"{path}: kind must be one of {', '.join(KINDS)}")
        return None
    return block_of(KINDS[kind], value, path, issues)


def _in_words(block: type[Config], value: Any, path: str, error: Any) -> str:
    """One of pydantic's errors as: where, what is wrong, what was found."""
    names = [path] if path else []
    node, annotation = value, block
    for part in error["loc"]:
        if part in (VALUE, KEYS):
            continue
        if part == "[key]":
            return f"{'.'.join(names)}: a name must be text; put it in quotes"
        names.append(str(part))
        node = _under(node, part)
        annotation = annotation_at(annotation, str(part))

    # The rest is by pydantic's error types, which are stable names; its messages are not.
    at = ".".join(names) or "recipe"
    message = str(error["msg"])
    match error["type"]:
        case "extra_forbidden":
            return _unknown_key(block, names, error["loc"])
        case "missing":
            return f"{at}: is missing"
        case "value_error":
            message = message.removeprefix("Value error, ")
            return f"{at}: {message}" if names else message
        case "model_type" | "model_attributes_type":
            expected = block_in(annotation)
            assert expected is not None, error
            message = f"must hold keys ({', '.join(keys_of(expected))})"
        case "dict_type":
            message = "must hold NAME: VALUE pairs"
        case "list_type" | "tuple_type":
            message = "must be a list, [a, b]"
        case _:
            message = message.replace("Input should be", "must be")
            message = message.replace(" after validation", "")
    return f"{at}: {message}, found {_named(node)}"


def _unknown_key(block: type[Config], names: Sequence[str], place: Sequence[str | int]) -> str:
    """The key that nobody knows, and the nearest of those that its block has."""
    annotation: Any = block
    for part in place[:-1]:
        if part not in (VALUE, KEYS):
            annotation = annotation_at(annotation, str(part))
    holder = block_in(annotation)
    assert holder is not None, place
    at = ".".join(names[:-1]) or "recipe"
    return f"{at}: unknown key {names[-1]!r}{nearest(names[-1], keys_of(holder))}"


def _under(node: Any, part: str | int) -> Any:
    """What stands under a key of a mapping, or at a place of a list; None where nothing does."""
    if isinstance(node, dict):
        return node.get(part)
    if isinstance(node, list | tuple) and isinstance(part, int) and part < len(node):
        return node[part]
    return None


def _named(value: Any) -> str:
    """A value as a message names it: its kind where it is long."""
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return "a list"
    return "keys" if isinstance(value, dict) else repr(value)
