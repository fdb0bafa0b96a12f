"""YAML -> a typed recipe, every mistake one line that says where, what was found and what is allowed.

Unknown keys are errors that name the nearest key. `--set STAGE.KEY=VALUE` changes one value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from linn.errors import UserError, nearest
from linn.recipe.schema import (
    CurriculumConfig,
    DistillConfig,
    DomainConfig,
    EvaluateConfig,
    JudgeConfig,
    NewModelConfig,
    Recipe,
    RlConfig,
    ScaleConfig,
    SftConfig,
    StageConfig,
)


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key written twice, where plain YAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen and key.value != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def load(path: Path, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply `STAGE.KEY=VALUE` (or `KEY=VALUE`) changes; raises UserError in one line."""
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(
            f"recipe {path}: cannot be read ({error.strerror}); give a YAML file such as recipes/tiny.yaml"
        ) from None
    except UnicodeDecodeError:
        raise UserError(
            f"recipe {path}: is not UTF-8 text; give a YAML file such as recipes/tiny.yaml"
        ) from None
    try:
        tree = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        said = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"recipe {path}{where}: not YAML: {said}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a date or a number that cannot be, brackets without end
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise UserError(f"recipe {path}: not YAML: {reason}") from None
    if not isinstance(tree, dict):
        found = {"NoneType": "nothing", "list": "a list"}.get(type(tree).__name__, "no keys")
        raise UserError(
            f"recipe {path}: holds {found}, expected keys such as name, domains, stages"
        )
    for change in changes:
        _change(tree, change)
    return parse(tree, str(path))


def parse(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from a parsed tree; raises UserError that says where, what was found and what is allowed."""
    domains = tree.get("domains")
    if isinstance(domains, dict):
        tree = {**tree, "domains": {name: value or {} for name, value in domains.items()}}
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        said = [line for e in error.errors() if (line := _explain(tree, e))]
        raise UserError(
            " ".join(f"{where}: {'; '.join(list(dict.fromkeys(said))[:4])}".split())
        ) from None


def domain_keys(name: str, judge: str | None, options: Sequence[str]) -> DomainConfig:
    """A domain's block from the command line: `--judge` and `--option KEY=VALUE`."""
    if judge and judge.startswith("@"):
        raise UserError(
            f"--judge {judge}: names a stage of a run, and there is none here; say RUN{judge}"
        )
    tree: dict[str, Any] = {"domains": {name: {"judge": {"model": judge}} if judge else {}}}
    for option in options:
        key, sep, raw = option.partition("=")
        if not sep:
            raise UserError(f"--option {option!r}: expected KEY=VALUE")
        _put(
            tree["domains"][name],
            key.split("."),
            _value(f"--option {option!r}", raw),
            f"--option {option!r}",
        )
    tree |= {"name": "options", "stages": [{"name": "rl", "kind": "rl"}]}
    return parse(tree, "options").domains[name]


def _value(where: str, raw: str) -> Any:
    try:
        value = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{where}: the value is not YAML") from None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):  # YAML reads 1e-3 as text
            value = float(value) if value.lower() not in {"nan", "inf"} else value
    return value


def _put(node: Any, path: Sequence[str], value: Any, where: str) -> None:
    for part in path[:-1]:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise UserError(f"{where}: {part!r} holds no keys")
    node[path[-1]] = value


def _change(tree: dict[str, Any], change: str) -> None:
    key, sep, raw = change.partition("=")
    if not sep:
        raise UserError(f"--set {change!r}: expected STAGE.KEY=VALUE or KEY=VALUE")
    value = _value(f"--set {change!r}", raw)
    head, *rest = key.split(".")
    listed = tree.get("stages")
    stages = (
        {str(s.get("name")): s for s in listed if isinstance(s, dict)}
        if isinstance(listed, list)
        else {}
    )
    node: Any = stages.get(head) if rest and head in stages else tree
    path = rest if node is not tree else [head, *rest]
    if node is tree and len(path) > 1 and path[0] not in Recipe.model_fields:
        raise UserError(
            f"--set {change!r}: no stage or key {head!r}{nearest(head, [*stages, *keys_of(Recipe)])}"
        )
    _put(node, path, value, f"--set {change!r}")


_BLOCKS: dict[str, type[BaseModel]] = {
    "evaluate": EvaluateConfig,
    "scale": ScaleConfig,
    "model": NewModelConfig,
    "judge": JudgeConfig,
    "curriculum": CurriculumConfig,
}
_KINDS: dict[str, type[StageConfig]] = {"sft": SftConfig, "rl": RlConfig, "distill": DistillConfig}


_MAPPINGS = {
    "str": False,
    "float": False,
    "literal['best']": False,
    "NewModelConfig": True,
    "dict[str,float]": True,
    "dict[str,str]": True,
}
"""Branches of a union as pydantic names them: whether the branch holds keys."""


def _explain(tree: dict[str, Any], error: Any) -> str:
    """One mistake in a recipe's words; empty for the branch of a union that the person did not mean."""
    block: type[BaseModel] = Recipe
    names: list[str] = []
    node: Any = tree
    for part in error["loc"]:
        if part in _MAPPINGS:
            if _MAPPINGS[part] != isinstance(node, dict) and (
                _MAPPINGS[part] or isinstance(node, dict)
            ):
                return ""
            continue
        if (
            isinstance(part, str)
            and part in _KINDS
            and isinstance(node, dict)
            and node.get("kind") == part
        ):
            continue  # pydantic names the union's branch; the person wrote no such key
        if part == "[key]":
            return f"{'.'.join(names)}: a name must be text; put it in quotes"
        if names and names[-1] == "stages" and isinstance(part, int) and isinstance(node, list):
            node = node[part]
            names[-1] = (
                f"stage {node.get('name', part)!r}" if isinstance(node, dict) else f"stage {part}"
            )
            block = (
                _KINDS.get(str(node.get("kind")), StageConfig)
                if isinstance(node, dict)
                else StageConfig
            )
            continue
        names.append(str(part))
        node = node.get(part) if isinstance(node, dict) else None
        block = _BLOCKS.get(str(part), block)
        if len(names) == 2 and names[0] == "domains":
            block = DomainConfig
    at = ".".join(names) or "recipe"
    match error["type"]:
        case "extra_forbidden":
            return f"{'.'.join(names[:-1]) or 'recipe'}: unknown key {names[-1]!r}{nearest(names[-1], keys_of(block))}"
        case "missing":
            return f"{at}: is missing"
        case "union_tag_invalid" | "union_tag_not_found":
            return f"{at}: kind must be one of sft, rl, distill"
        case "value_error":
            said = str(error["msg"]).removeprefix("Value error, ")
            if not names or said.startswith(("stage ", "domains: two")):
                return said
            return f"{at}: {said.removeprefix(names[-1] + ': ')}"
        case "model_type" | "model_attributes_type":
            said = f"must hold keys ({', '.join(keys_of(block))})"
        case "dict_type":
            said = "must hold NAME: VALUE pairs"
        case "list_type" | "tuple_type":
            said = "must be a list, [a, b]"
        case _:
            said = (
                str(error["msg"])
                .replace("Input should be", "must be")
                .replace(" after validation", "")
            )
    found = {list: "a list", dict: "keys", type(None): "nothing"}.get(type(node), f"{node!r}")
    return f"{at}: {said}, found {found}"


def keys_of(block: type[BaseModel]) -> list[str]:
    """The keys of a block as written in YAML."""
    return [field.alias or name for name, field in block.model_fields.items()]


def resolved(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, width=120)


def every_key() -> Iterator[tuple[str, str, str, str]]:
    """(block.key, type, default, meaning) of every recipe key, for `linn explain`."""
    blocks: list[tuple[str, type[BaseModel]]] = [
        ("", Recipe), ("model.", NewModelConfig), ("domains.NAME.", DomainConfig),
        ("domains.NAME.judge.", JudgeConfig), ("evaluate.", EvaluateConfig), ("scale.", ScaleConfig),
        ("sft.", SftConfig), ("rl.", RlConfig), ("rl.curriculum.", CurriculumConfig), ("distill.", DistillConfig),
    ]  # fmt: skip
    for prefix, block in blocks:
        for name, field in block.model_fields.items():
            if field.is_required():
                default = "required"
            else:
                value = field.get_default(call_default_factory=True)
                default = "…" if isinstance(value, BaseModel) else str(value)
            kind = (
                getattr(field.annotation, "__name__", None)
                if not hasattr(field.annotation, "__args__")
                else None
            )
            shown = kind or str(field.annotation).replace("typing.", "").replace(
                "linn.recipe.schema.", ""
            )
            yield f"{prefix}{field.alias or name}", shown, default, field.description or ""
        if block is DomainConfig:
            yield (
                f"{prefix}OPTION",
                "any",
                "the domain's own",
                "an option of the domain's constructor, such as preference's pairs; see docs/domains.md",
            )
