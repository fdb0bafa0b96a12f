"""Rows of repair tasks: our own, which name a released package, and the released ones, which name a container image."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linn.domains.swe_agentic import package
from linn.domains.swe_agentic.package import Package
from linn.errors import UserError


@dataclass(frozen=True)
class Task:
    """One repair task of a row."""

    instance: str
    """The row's instance_id."""
    requirement: str
    """`name==version`."""
    statement: str
    """What the model is told."""
    patch: str
    """The repair, as a unified diff."""
    failing: tuple[str, ...]
    """FAIL_TO_PASS."""
    passing: tuple[str, ...]
    """PASS_TO_PASS."""
    values: Mapping[str, list[tuple[int, int]]]
    """(site, row) of the values that each failing test computes when it is right."""
    spared: Mapping[str, list[int]]
    """Sites left as they are, by test module."""


@dataclass(frozen=True)
class Instance:
    """A row of SWE-Gym, R2E-Gym or the recipe's own release: it needs its container image."""

    instance: str
    """The instance_id."""
    repo: str
    """The repository."""
    base_commit: str
    """The commit at which the task starts."""
    statement: str
    """The problem."""
    patch: str
    """The golden patch."""
    test_patch: str
    """The hidden tests, as a patch; empty where the image holds them."""
    failing: tuple[str, ...]
    """FAIL_TO_PASS; empty where the row names none."""
    passing: tuple[str, ...]
    """PASS_TO_PASS."""
    image: str
    """The container image, where the row names it."""


def task(meta: Mapping[str, Any], where: str) -> Task:
    """A row's `metadata` that names a package; raises UserError naming the field."""
    if meta.get("python") != package.PYTHON:
        raise UserError(
            f"{where}: metadata.python is {meta.get('python')!r}, this is {package.PYTHON}; make the tasks again under it: linn tasks"
        )
    said, spared = (_parsed(meta, name, dict, where) for name in ("values", "spared"))
    try:
        values = {
            test: [(int(site), int(row)) for site, row in pairs] for test, pairs in said.items()
        }
        spared = {path: list(map(int, sites)) for path, sites in spared.items()}
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{where}: metadata.values must hold pairs of whole numbers, metadata.spared whole numbers"
        ) from None
    requirement = _text(meta, "package", where)
    if "==" not in requirement or not re.fullmatch(package.REQUIREMENT, requirement):
        raise UserError(
            f"{where}: metadata.package must be NAME==VERSION, found {requirement[:80]!r}"
        )
    failing, passing = _ids(meta, "FAIL_TO_PASS", where), _ids(meta, "PASS_TO_PASS", where)
    if not failing or set(values) != set(failing):
        raise UserError(
            f"{where}: metadata.FAIL_TO_PASS must name tests, and metadata.values the values of each"
        )
    texts = [
        _text(meta, name, where) for name in ("instance_id", "problem_statement", "golden_patch")
    ]
    return Task(texts[0], requirement, texts[1], texts[2], failing, passing, values, spared)


def instance(row: Mapping[str, Any], where: str) -> Instance | None:
    """A row of the released layouts, None where it is of another; raises UserError naming the field that is wrong."""
    meta = row.get("metadata") or {}
    if not isinstance(meta, Mapping) or {"package", "files"} & meta.keys():
        return None
    if not {"instance_dict", "base_commit", "commit_hash"} & {*row, *meta}:
        return None
    inner = _parsed(meta, "instance_dict", dict, where) if meta.get("instance_dict") else {}
    merged = {
        **inner,
        **{k: v for k, v in row.items() if v is not None and k != "metadata"},
        **{k: v for k, v in meta.items() if v is not None},
    }
    merged["golden_patch"] = merged.get("golden_patch") or merged.get("patch")
    if (
        "commit_hash" in merged
    ):  # R2E-Gym's own rows have no id but the image's, and their patch as a parsed commit
        for ours, theirs in (
            ("base_commit", "commit_hash"),
            ("instance_id", "docker_image"),
            ("golden_patch", "parsed_commit_content"),
        ):
            merged[ours] = merged.get(ours) or merged.get(theirs)
    name = _text(merged, "instance_id", where)
    return Instance(
        name,
        str(
            merged.get("repo")
            or merged.get("repo_name")
            or name.rpartition("-")[0].replace("__", "/")
        ),
        _text(merged, "base_commit", where),
        _text(merged, "problem_statement", where),
        _text(merged, "golden_patch", where),
        str(merged.get("test_patch") or ""),
        _ids(merged, "FAIL_TO_PASS", where) if merged.get("FAIL_TO_PASS") else (),
        _ids(merged, "PASS_TO_PASS", where) if merged.get("PASS_TO_PASS") else (),
        str(merged.get("docker_image") or merged.get("image_name") or ""),
    )


def _text(meta: Mapping[str, Any], name: str, where: str) -> str:
    value = meta.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} must be a text, found {str(value)[:60]!r}")
    return value


def _parsed(meta: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    value = meta.get(name)
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise UserError(f"{where}: {name} is not JSON") from None
    if not isinstance(value, kind):
        raise UserError(
            f"{where}: {name} must be {'an object' if kind is dict else 'a list'} or its JSON text, found {type(value).__name__}"
        )
    return value


def _ids(meta: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    value = _parsed(meta, name, list, where)
    if not all(isinstance(test, str) for test in value):
        raise UserError(f"{where}: {name} must be a list of test ids")
    return tuple(value)


def broken(source: Package, patch: str) -> dict[str, str]:
    """The package's own files as the task begins: the golden patch taken back. ValueError where it does not fit them."""
    files = {path: source.files[path] for path in source.sources}
    lines = patch.split("\n")
    path, shift = "", 0
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("+++ b/"):
            path, shift = line[6:], 0
            if path not in files:
                raise ValueError(f"{path} is not one of the package's files")
        elif (head := re.match(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", line)) and path:
            before, after = (int(count) if count is not None else 1 for count in (head[1], head[3]))
            now: list[str] = []
            old: list[str] = []
            while at < len(lines) and (len(old) < before or len(now) < after):
                mark, rest = lines[at][:1], lines[at][1:]
                now += [rest] if mark != "-" else []
                old += [rest] if mark != "+" else []
                at += 1
            text = files[path].split("\n")
            begin = int(head[2]) - (1 if after else 0) + shift
            if text[begin : begin + len(now)] != now:
                raise ValueError(f"the patch does not fit {path} at line {head[2]}")
            text[begin : begin + len(now)] = old
            files[path] = "\n".join(text)
            shift += len(old) - len(now)
    if files == {path: source.files[path] for path in source.sources}:
        raise ValueError("the patch changes nothing")
    return files


def visible(source: Package, failing: tuple[str, ...]) -> dict[str, str]:
    """The tests that the model sees: the released ones without the functions that judge it, whatever class they stand in or inherit from."""
    shown: dict[str, str] = {}
    for path in {test.partition("::")[0] for test in failing}:
        text = source.files[path]
        names = {
            test.partition("[")[0].rpartition("::")[2]
            for test in failing
            if test.startswith(path + "::")
        }
        lines = text.split("\n")
        for function in ast.walk(ast.parse(text)):
            if (
                not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
                or function.name not in names
            ):
                continue
            if head := lines[function.lineno - 1]:  # else it stood in one that is gone already
                first = min([function.lineno, *(d.lineno for d in function.decorator_list)])
                last = function.end_lineno or first
                lines[first - 1 : last] = [
                    head[: function.col_offset] + "pass",
                    *[""] * (last - first),
                ]
        shown[path] = "\n".join(lines)
    return shown
