"""YAML -> a typed recipe. Every mistake is one line: where, what was found and what is allowed.

Unknown keys are errors that name the nearest key. `--set STAGE.KEY=VALUE` changes one value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from linn.errors import UserError, nearest
from linn.recipe.base import annotation_at, block_in, keys_of
from linn.recipe.places import located
from linn.recipe.schema import DomainConfig, JudgeConfig, Recipe
from linn.recipe.stages import KINDS, StageConfig
from linn.recipe.validate import block_of, recipe_of

SHOWN = 4
"""Mistakes that one message names at most."""


_BEFORE = {"share_prompts": False, "cache": 256}
"""Keys of `scale` whose default is another one now: what it was."""

MOST_VALUES = 100_000
"""Values in a recipe at most, those that aliases (`*name`) repeat included."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses two things which plain YAML takes.

    A key written twice, of which the last would silently count; and aliases of aliases, by which a
    file of a few lines stands for billions of values.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._values = 0
        """Values so far, each alias counted as what it stands for."""
        self._sizes: dict[str, int] = {}
        """Values behind each anchor that is complete."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        anchor: str | None = getattr(event, "anchor", None)
        before = self._values
        if isinstance(event, yaml.AliasEvent):
            # An unknown one is PyYAML's to refuse; one of itself is not complete yet.
            if anchor in self.anchors and anchor not in self._sizes:
                raise _fault(f"alias *{anchor} stands within itself", event)
            self._values += self._sizes.get(str(anchor), 0)
        else:
            self._values += 1
        if self._values > MOST_VALUES:
            raise _fault(f"its aliases stand for more than {MOST_VALUES:,} values", event)

        node: yaml.Node | None = super().compose_node(parent, index)
        if anchor is not None:
            self._sizes[anchor] = self._values - before
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in names and key.value != "<<":
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is there twice", key.start_mark
                    )
                names.add(key.value)
        return super().construct_mapping(node, deep)


def _fault(problem: str, event: yaml.Event) -> yaml.YAMLError:
    mark: Any = event.start_mark
    return yaml.constructor.ConstructorError(None, None, problem, mark)


# ---------------------------------------------------------------- a file


def load(path: Path, changes: Sequence[str] = (), scale: Path | None = None) -> Recipe:
    """Read a recipe and apply `STAGE.KEY=VALUE` (or `KEY=VALUE`) changes.

    scale: a file of other hardware, laid over the recipe before them (`recipes/scale/`).

    Relative names of files mean those beside the recipe, else those in the working folder; in
    `changes`, which a person types there, the working folder alone. Raises UserError in one line.
    """
    tree = located(_tree_of(path), path.parent)
    if scale is not None:
        _lay_over(tree, scale)
    for change in changes:
        _change(tree, change)
    # A key that is wrong may stand in either.
    return parse(tree, str(path) if scale is None else f"{path} with {scale}")


def _lay_over(tree: dict[str, Any], file: Path) -> None:
    """Take the `scale` block of a file in place of the recipe's, and its keys of stages."""
    over = _tree_of(file, "scale file", "scale and stages")
    if unknown := sorted(over.keys() - {"scale", "stages"}):
        raise UserError(f"{file}: {unknown[0]!r}: a scale file holds `scale` and `stages` alone")
    if "scale" in over:
        tree["scale"] = over["scale"]

    own = over.get("stages") or {}
    if not isinstance(own, dict) or not all(isinstance(keys, dict) for keys in own.values()):
        raise UserError(f"{file}: stages: must hold NAME: keys, as in `sft: {{max_length: 4096}}`")
    stages = _stages_by_name(tree)
    for name, keys in own.items():
        if name not in stages:
            raise UserError(f"{file}: no stage {name!r} in the recipe{nearest(name, stages)}")
        stages[name].update(keys)


def load_resolved(path: Path) -> Recipe:
    """Read the recipe that a run folder holds, whose names of files are as they were used.

    Every default of its day is written out, so a key that is missing came later.
    """
    tree = _tree_of(path)
    scale = tree.setdefault("scale", {})
    if isinstance(scale, dict):
        scale.setdefault("share_prompts", False)
        if scale.get("engine") == "cluster":
            scale.pop("processes", None)  # once it could stand there, and nobody read it
    return parse(tree, str(path))


def continued(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe as a run goes on with it in a folder that may have begun.

    Some keys of `scale` had another default once. A run that began with it goes on so, unless its
    recipe now names the key: no setting changes under a run because linn did.
    """
    path = folder / "recipe.yaml"
    unnamed = _BEFORE.keys() - recipe.scale.model_fields_set
    if not unnamed or not path.exists():
        return recipe
    begun = load_resolved(path).scale
    kept = {key: _BEFORE[key] for key in unnamed if getattr(begun, key) == _BEFORE[key]}
    if not kept:
        return recipe
    scale = recipe.scale.model_copy(update=kept)
    return recipe.model_copy(update={"scale": scale})


def _tree_of(
    path: Path, kind: str = "recipe", keys: str = "keys such as name, domains, stages"
) -> dict[str, Any]:
    tree = _read_yaml(path, kind)
    if not isinstance(tree, dict):
        held = {"NoneType": "nothing", "list": "a list"}.get(type(tree).__name__, "no keys")
        raise UserError(f"{kind} {path}: holds {held}, expected {keys}")
    return tree


def parse(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from a parsed tree.

    Raises UserError that says where, what was found and what is allowed.
    """
    issues: list[str] = []
    recipe = recipe_of(tree, issues)
    if recipe is None:
        raise _refusal(where, issues)
    return recipe


def resolved(recipe: Recipe) -> str:
    """The recipe as YAML with every default written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, width=120)


def _read_yaml(path: Path, kind: str) -> Any:
    examples = {"recipe": "recipes/tiny.yaml", "scale file": "recipes/scale/8xh200.yaml"}
    advice = f"give a YAML file such as {examples[kind]}"
    try:
        text = path.read_text()
    except OSError as error:
        raise UserError(f"{kind} {path}: cannot be read ({error.strerror}); {advice}") from None
    except UnicodeDecodeError:
        raise UserError(f"{kind} {path}: is not UTF-8 text; {advice}") from None

    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{kind} {path}{_problem_of(error)}") from None
    except RecursionError:  # brackets without end
        raise UserError(f"{kind} {path}: not YAML: nested too deeply") from None
    except ValueError as error:  # a date or a number that cannot be
        raise UserError(f"{kind} {path}: not YAML: {error}") from None
    except AttributeError:  # PyYAML's own, at a tag such as !!timestamp before another text
        raise UserError(f"{kind} {path}: not YAML: a value does not fit its tag") from None


def _problem_of(error: yaml.YAMLError) -> str:
    """What is wrong with a file, and in which line where YAML knows it."""
    mark = getattr(error, "problem_mark", None)
    line = f" line {mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"{line}: not YAML: {problem}"


def _refusal(where: str, issues: Sequence[str]) -> UserError:
    first = list(dict.fromkeys(issues))[:SHOWN]
    return UserError(" ".join(f"{where}: {'; '.join(first)}".split()))


# ---------------------------------------------------------------- the command line


def domain_config(name: str, judge: str | None, options: Sequence[str]) -> DomainConfig:
    """A domain's block from the command line: `--judge` and `--option KEY=VALUE`."""
    tree: dict[str, Any] = {}
    if judge:
        tree["judge"] = {"model": judge}
    for option in options:
        where = f"--option {option!r}"
        key, value = _assignment(option, where, expected="KEY=VALUE")
        _put(tree, DomainConfig, key.split("."), value, where)

    issues: list[str] = []
    config = block_of(DomainConfig, tree, f"domains.{name}", issues)
    if config is None:
        raise _refusal("options", issues)

    # Nothing but a run has stages whose checkpoints could judge.
    if config.judge is not None and config.judge.stage is not None:
        model = config.judge.model
        raise UserError(
            f"--judge {model}: names a stage of a run, and there is none here; say RUN{model}"
        )
    return config


def _change(tree: dict[str, Any], change: str) -> None:
    """Apply one `--set`."""
    where = f"--set {change!r}"
    key, value = _assignment(change, where, expected="STAGE.KEY=VALUE or KEY=VALUE")
    head, *rest = key.split(".")
    stages = _stages_by_name(tree)

    # A stage's name comes before a key of the recipe that is spelt alike.
    if rest and head in stages:
        stage = stages[head]
        kind = str(stage.get("kind"))
        schema = KINDS.get(kind, StageConfig)
        _put(stage, schema, rest, value, where)
        return

    keys = keys_of(Recipe)
    if rest and head not in keys:
        names = [*stages, *keys]
        raise UserError(f"{where}: no stage or key {head!r}{nearest(head, names)}")
    _put(tree, Recipe, [head, *rest], value, where)


def _assignment(text: str, where: str, expected: str) -> tuple[str, Any]:
    """The two sides of KEY=VALUE."""
    key, separator, value = text.partition("=")
    if not separator:
        raise UserError(f"{where}: expected {expected}")
    return key, _value(value, where)


def _stages_by_name(tree: dict[str, Any]) -> dict[str, dict[str, Any]]:
    stages = tree.get("stages")
    if not isinstance(stages, list):
        return {}
    return {str(stage.get("name")): stage for stage in stages if isinstance(stage, dict)}


def _value(text: str, where: str) -> Any:
    try:
        value = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise UserError(f"{where}: the value is not YAML") from None
    if isinstance(value, str) and value.lower() not in {"nan", "inf"}:
        with contextlib.suppress(ValueError):  # YAML reads 1e-3 as text
            return float(value)
    return value


def _put(node: dict[str, Any], schema: Any, path: Sequence[str], value: Any, where: str) -> None:
    """Set the value at `path` below `node`, of which `schema` is the annotation."""
    *holders, last = path
    for part in holders:
        schema = _schema_under(schema, part, where)
        below = _holder(node.get(part), schema, part, where)
        node[part] = below
        node = below

    # Whether `last` is a key, and takes this value, shows when the recipe is validated.
    node[last] = value


def _schema_under(schema: Any, key: str, where: str) -> Any:
    """The annotation of what stands under a key; UserError where there is no such key."""
    below = annotation_at(schema, key)
    if below is None:
        block = block_in(schema)
        assert block is not None, key
        raise UserError(f"{where}: unknown key {key!r}{nearest(key, keys_of(block))}")
    return below


def _holder(value: Any, schema: Any, key: str, where: str) -> dict[str, Any]:
    """What stands under a key, as a mapping to set a value in."""
    block = block_in(schema)
    has_names = annotation_at(schema, "") is not None
    if block is None and not has_names:
        raise UserError(f"{where}: {key!r} holds no keys")

    if value is None:
        return {}
    if isinstance(value, dict):
        return value

    # `judge: MODEL` is short for {model: MODEL}.
    if isinstance(value, str) and block is JudgeConfig:
        return {"model": value}
    raise UserError(f"{where}: {key!r} is {value!r}, which holds no keys")
