"""Where the files are that a recipe names: beside it, or in the working folder.

A recipe that lies with its rows is run from anywhere. Relative names that are not found beside it
mean the working folder, as they did in every run before.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_NOT_PATHS = re.compile(r"(https?:|hf:|@|/|~)|tiny(-\d+)?$")
"""Names that are no relative path: of endpoints, of the Hub, of stages, of kept bases."""


def located(tree: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The parsed tree of a recipe, with the names of files that stand beside it, in `folder`.

    What is no mapping or no text where one belongs is left for the recipe's validation.
    """
    if folder.resolve() == Path.cwd():
        return tree
    tree = dict(tree)
    if "model" in tree:
        tree["model"] = _beside(tree["model"], folder)
    if isinstance(tree.get("domains"), dict):
        tree["domains"] = _domains(tree["domains"], folder)
    if isinstance(tree.get("evaluate"), dict):
        tree["evaluate"] = _evaluate(tree["evaluate"], folder)
    if isinstance(tree.get("stages"), list):
        tree["stages"] = [_stage(stage, folder) for stage in tree["stages"]]
    return tree


def _domains(domains: dict[Any, Any], folder: Path) -> dict[Any, Any]:
    found = {}
    for name, block in domains.items():
        is_file = isinstance(name, str) and name.endswith(".py")
        found[_beside(name, folder) if is_file else name] = _domain(block, folder)
    return found


def _evaluate(block: dict[Any, Any], folder: Path) -> dict[Any, Any]:
    """The block, with its benchmarks' own files and rows where they stand."""
    uses = block.get("benchmarks")
    if isinstance(uses, list):
        return {**block, "benchmarks": [_protocol(name, folder) for name in uses]}
    if not isinstance(uses, dict):
        return block
    found = {}
    for name, use in uses.items():
        if isinstance(use, dict):
            use = {
                **use,
                **{key: _beside(use[key], folder) for key in ("rows", "judge") if key in use},
            }
        found[_protocol(name, folder)] = use
    return {**block, "benchmarks": found}


def _protocol(name: Any, folder: Path) -> Any:
    is_file = isinstance(name, str) and name.endswith((".yaml", ".yml"))
    return _beside(name, folder) if is_file else name


def _domain(block: Any, folder: Path) -> Any:
    if not isinstance(block, dict):
        return block
    block = dict(block)
    # `test` and `validation` are held-out files where a domain has them.
    for key in ("rows", "test", "validation", "judge"):
        if key in block:
            block[key] = _beside(block[key], folder)
    judge = block.get("judge")
    if isinstance(judge, dict) and "model" in judge:
        block["judge"] = {**judge, "model": _beside(judge["model"], folder)}
    return block


def _stage(stage: Any, folder: Path) -> Any:
    if not isinstance(stage, dict) or "data" not in stage:
        return stage
    data = stage["data"]
    if isinstance(data, dict):
        return {**stage, "data": {_beside(name, folder): data[name] for name in data}}
    return {**stage, "data": _beside(data, folder)}


def _beside(name: Any, folder: Path) -> Any:
    if not isinstance(name, str) or not name or _NOT_PATHS.match(name):
        return name
    path = folder / name
    return str(path) if path.exists() else name


def is_same_file(old: Any, new: Any) -> bool:
    """Whether two names mean one file, as seen from the working folder."""
    if not isinstance(old, str) or not isinstance(new, str):
        return False
    return old == new or Path(old).resolve() == Path(new).resolve()


def has_moved(old: Any, new: Any) -> bool:
    """Whether the second name means the first's file in another folder: of that, nothing is left.

    It is known by its name alone.
    """
    if not isinstance(old, str) or not isinstance(new, str) or "://" in old:
        return False
    return Path(old).name == Path(new).name and not Path(old).exists() and Path(new).exists()
