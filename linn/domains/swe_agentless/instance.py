"""One instance of the agentless tasks: an issue, the files it is about, what is known of its repair; read from the released rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from linn.chat.request import Request, request_of
from linn.domains.common import diffs as patches
from linn.domains.common import edits
from linn.errors import UserError
from linn.judges.text import history

_ISSUE = re.compile(r"<issue>\s*(.*?)\s*</issue>", re.DOTALL)


@dataclass(frozen=True)
class Instance:
    """An issue with its files."""

    issue: str
    """The problem statement."""
    files: Mapping[str, str]
    """The files that the row's own prompt shows: the golden localisation."""
    repository: Mapping[str, str]
    """Every file that is known, `files` among them; what is retrieved from."""
    patch: str
    """The gold patch, a unified diff; empty where the row has none."""
    repo_name: bool
    """Whether the files' paths begin with a folder that the patch's paths lack."""
    tests: str | None
    """Hidden tests: a Python text with test functions."""
    request: Request
    """The row's own conversation, tools and mode; no messages where it has no conversation."""

    def changed(self) -> dict[str, str]:
        """All known files after the gold patch; raises BadPatch."""
        return patches.apply(self.repository, self.patch, self.repo_name)

    def golden(self) -> tuple[str, ...]:
        """The known files that the gold patch changes; raises BadPatch."""
        wanted = patches.read(self.patch)
        return tuple(
            path
            for path in self.repository
            if (path.partition("/")[2] if self.repo_name else path) in wanted
        )


def from_row(row: Mapping[str, Any], index: int, where: str) -> Instance:
    """Three layouts: `metadata.relevant_file_contents` with `instance` (swerl_gen), the same names at the top (Nemotron-Cascade-RL-SWE),
    or `metadata.files` with `problem_statement` (the agentic rows that carry their files). Raises UserError naming the field.
    """
    meta = row.get("metadata") or {}
    instance = row.get("instance") or {}
    if not isinstance(meta, Mapping) or not isinstance(instance, Mapping):
        raise UserError(f"{where}: metadata and instance must be objects")
    if row.get("mode", "eval") != "eval":
        raise UserError(
            f"{where}: mode is {row['mode']!r}, which asks for a script to be run in a container image; allowed: eval"
        )

    def text(*names: str) -> str:
        """The first of these fields that is there, wherever rows keep it."""
        for name in names:
            for place in (meta, instance, row):
                if (value := place.get(name)) is not None:
                    if not isinstance(value, str):
                        raise UserError(f"{where}: {name} is {type(value).__name__}; allowed: text")
                    return value
        return ""

    if _has_conversation(row):
        request = request_of(row, index)
    else:
        # The question is the domain's own; tools and mode are still the row's.
        request = replace(request_of({**row, "messages": "-"}, index), messages=())
    said = "\n".join(message.content for message in history(request.messages))
    issue = text("problem_statement") or (found[1] if (found := _ISSUE.search(said)) else said)
    if not issue.strip():
        raise UserError(
            f"{where}: neither responses_create_params.input, prompt nor metadata.problem_statement holds an issue"
        )
    patch = text("golden_patch", "patch")
    repo_name = bool(meta.get("remove_repo_name"))
    files, repository = _files(row, meta, patch, repo_name, where)
    return Instance(issue, files, repository, patch, repo_name, text("tests") or None, request)


def _has_conversation(row: Mapping[str, Any]) -> bool:
    params = row.get("responses_create_params")
    return bool(row.get("prompt") or (isinstance(params, Mapping) and params.get("input")))


def _files(
    row: Mapping[str, Any], meta: Mapping[str, Any], patch: str, repo_name: bool, where: str
) -> tuple[dict[str, str], dict[str, str]]:
    """(golden files, all known files)."""
    found = meta.get("relevant_file_contents", row.get("relevant_file_contents"))
    if found is not None:
        files = edits.files_of(found, f"{where}: relevant_file_contents")
        more = meta.get("files")
        return files, {
            **(edits.files_of(more, f"{where}: metadata.files") if more is not None else {}),
            **files,
        }
    if "files" not in meta:
        raise UserError(
            f"{where}: relevant_file_contents (in metadata or beside it) or metadata.files must hold the files"
        )
    repository = edits.files_of(meta["files"], f"{where}: metadata.files")
    if not patch:
        return repository, repository
    try:
        wanted = patches.read(patch)
    except patches.BadPatch as error:
        raise UserError(f"{where}: golden_patch: {error}") from None
    files = {
        path: content
        for path, content in repository.items()
        if (path.partition("/")[2] if repo_name else path) in wanted
    }
    return files or repository, repository


def changed_functions(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """`path::name` (or `path::Class.name`) of the functions of Python files that differ; those only one side has do not count."""
    found = []
    for path in before:
        if path.endswith(".py") and path in after and before[path] != after[path]:
            new = _functions(after[path])
            found += [
                f"{path}::{name}"
                for name, body in _functions(before[path]).items()
                if new.get(name, body) != body
            ]
    return tuple(found)


def _functions(text: str) -> dict[str, str]:
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    found: dict[str, str] = {}
    for node in tree.body:
        members = (
            [(f"{node.name}.", part) for part in node.body]
            if isinstance(node, ast.ClassDef)
            else [("", node)]
        )
        for prefix, part in members:
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
                found[prefix + part.name] = ast.dump(part)
    return found
