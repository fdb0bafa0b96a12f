"""Rows of repair tasks: our own, which name a released package, and those of container images."""

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

_HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@dataclass(frozen=True)
class RepairTask:
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
class ImageTask:
    """A row of SWE-Gym, R2E-Gym or the recipe's own release: it needs its container image."""

    instance: str
    """The instance_id."""
    repo: str
    """The repository."""
    base_commit: str
    """The commit at which the task starts."""
    image: str
    """The container image; empty where the row does not name it."""


# ---------------------------------------------------------------- reading rows


def task(meta: Mapping[str, Any], where: str) -> RepairTask:
    """A row's `metadata` that names a package; raises UserError naming the field."""
    if meta.get("python") != package.PYTHON:
        raise UserError(
            f"{where}: metadata.python is {meta.get('python')!r}, this is {package.PYTHON};"
            " make the tasks again under it: linn tasks"
        )
    values, spared = _sites(meta, where)

    requirement = _text(meta, "package", where)
    if "==" not in requirement or not re.fullmatch(package.REQUIREMENT, requirement):
        raise UserError(
            f"{where}: metadata.package must be NAME==VERSION, found {requirement[:80]!r}"
        )
    failing = _test_ids(meta, "FAIL_TO_PASS", where)
    passing = _test_ids(meta, "PASS_TO_PASS", where)
    if not failing or set(values) != set(failing):
        raise UserError(
            f"{where}: metadata.FAIL_TO_PASS must name tests,"
            " and metadata.values the values of each"
        )
    return RepairTask(
        instance=_text(meta, "instance_id", where),
        requirement=requirement,
        statement=_text(meta, "problem_statement", where),
        patch=_text(meta, "golden_patch", where),
        failing=failing,
        passing=passing,
        values=values,
        spared=spared,
    )


def _sites(
    meta: Mapping[str, Any], where: str
) -> tuple[dict[str, list[tuple[int, int]]], dict[str, list[int]]]:
    """The fields `values` and `spared` of a row."""
    raw_values = _parsed(meta, "values", dict, where)
    raw_spared = _parsed(meta, "spared", dict, where)

    # Numbers written as texts are taken as well.
    values: dict[str, list[tuple[int, int]]] = {}
    spared: dict[str, list[int]] = {}
    try:
        for test, pairs in raw_values.items():
            values[test] = [(int(site), int(row)) for site, row in pairs]

        for path, sites in raw_spared.items():
            spared[path] = [int(site) for site in sites]
    except (TypeError, ValueError, OverflowError):  # JSON numbers may be infinite
        raise UserError(
            f"{where}: metadata.values must hold pairs of whole numbers,"
            " metadata.spared whole numbers"
        ) from None
    return values, spared


def image_task(row: Mapping[str, Any], where: str) -> ImageTask | None:
    """A row of the released layouts, None where it is of another.

    Raises UserError naming the field that is wrong.
    """
    meta = row.get("metadata") or {}
    if not isinstance(meta, Mapping):
        return None
    if "package" in meta or "files" in meta:
        return None
    # Each of the released layouts has one of these.
    if not {"instance_dict", "base_commit", "commit_hash"} & {*row, *meta}:
        return None

    # The same field may stand in several places; the metadata's own counts most.
    fields: dict[str, Any] = {}
    if meta.get("instance_dict"):
        fields |= _parsed(meta, "instance_dict", dict, where)
    fields |= {key: value for key, value in row.items() if value is not None and key != "metadata"}
    fields |= {key: value for key, value in meta.items() if value is not None}

    fields["golden_patch"] = fields.get("golden_patch") or fields.get("patch")
    if "commit_hash" in fields:
        _name_as_ours(fields)
    for name in ("instance_id", "base_commit", "problem_statement", "golden_patch"):
        _text(fields, name, where)

    # SWE-Gym names instances `owner__repo-number`.
    instance = fields["instance_id"]
    owner_and_repo = instance.rpartition("-")[0].replace("__", "/")
    repo = fields.get("repo") or fields.get("repo_name") or owner_and_repo
    image = fields.get("docker_image") or fields.get("image_name") or ""
    return ImageTask(
        instance=instance,
        repo=str(repo),
        base_commit=fields["base_commit"],
        image=str(image),
    )


def _name_as_ours(fields: dict[str, Any]) -> None:
    """R2E-Gym's own rows have no id but the image's, and their patch as a parsed commit."""
    for ours, theirs in (
        ("base_commit", "commit_hash"),
        ("instance_id", "docker_image"),
        ("golden_patch", "parsed_commit_content"),
    ):
        fields[ours] = fields.get(ours) or fields.get(theirs)


def _text(meta: Mapping[str, Any], name: str, where: str) -> str:
    value = meta.get(name)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: {name} must be a text, found {str(value)[:60]!r}")
    return value


def _parsed(meta: Mapping[str, Any], name: str, kind: type, where: str) -> Any:
    """A field that is a list or an object, or its JSON text."""
    value = meta.get(name)
    try:
        if isinstance(value, str):
            value = json.loads(value)
    except (ValueError, RecursionError):
        raise UserError(f"{where}: {name} is not JSON") from None

    if not isinstance(value, kind):
        expected = "an object" if kind is dict else "a list"
        raise UserError(
            f"{where}: {name} must be {expected} or its JSON text, found {type(value).__name__}"
        )
    return value


def _test_ids(meta: Mapping[str, Any], name: str, where: str) -> tuple[str, ...]:
    ids = _parsed(meta, name, list, where)
    if not all(isinstance(test, str) for test in ids):
        raise UserError(f"{where}: {name} must be a list of test ids")
    return tuple(ids)


# ---------------------------------------------------------------- the files a task begins with


def broken(source: Package, patch: str) -> dict[str, str]:
    """The package's own files as the task begins: the golden patch taken back.

    Raises ValueError where it does not fit them.
    """
    files = source.own_files()
    lines = patch.split("\n")
    path = ""
    shift = 0  # lines that the hunks so far added to the file
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("+++ b/"):
            path, shift = line.removeprefix("+++ b/"), 0
            if path not in files:
                raise ValueError(f"{path} is not one of the package's files")
            continue
        header = _HUNK.match(line)
        if header is None or not path:
            continue

        old_count, new_count = int(header[1] or 1), int(header[3] or 1)
        before, after, at = _hunk(lines, at, old_count, new_count)

        # A hunk without new lines names the line before it, not its first one.
        begin = int(header[2]) - (1 if new_count else 0) + shift
        place = slice(begin, begin + len(after))
        text = files[path].split("\n")
        if text[place] != after:
            raise ValueError(f"the patch does not fit {path} at line {header[2]}")
        text[place] = before
        files[path] = "\n".join(text)
        shift += len(before) - len(after)

    if files == source.own_files():
        raise ValueError("the patch changes nothing")
    return files


def _hunk(
    lines: list[str], at: int, old_count: int, new_count: int
) -> tuple[list[str], list[str], int]:
    """(lines before, lines after, where the next line of the patch is)."""
    before: list[str] = []
    after: list[str] = []
    while at < len(lines) and (len(before) < old_count or len(after) < new_count):
        mark, text = lines[at][:1], lines[at][1:]
        if mark != "-":
            after.append(text)
        if mark != "+":
            before.append(text)
        at += 1
    return before, after, at


def visible(source: Package, failing: tuple[str, ...]) -> dict[str, str]:
    """The test modules that the model sees: the released ones without the failing tests.

    A test is left out whatever class it stands in or inherits from: its id tells where it ran.
    """
    names: dict[str, set[str]] = {}
    for test in failing:
        path = test.partition("::")[0]
        function = test.partition("[")[0].rpartition("::")[2]
        names.setdefault(path, set()).add(function)
    return {path: _without(source.files[path], names[path]) for path in names}


def _without(text: str, names: set[str]) -> str:
    """A module without these functions; what is left stays on its lines."""
    # Outer functions come before inner ones.
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        head = lines[node.lineno - 1]
        if node.name not in names or not head:  # without a head it stood in one that is gone
            continue

        # Its decorators may show values as well.
        first = node.lineno
        for decorator in node.decorator_list:
            first = min(first, decorator.lineno)
        last = node.end_lineno or first
        indent = head[: node.col_offset]
        empty = [""] * (last - first)
        lines[first - 1 : last] = [f"{indent}pass", *empty]
    return "\n".join(lines)
