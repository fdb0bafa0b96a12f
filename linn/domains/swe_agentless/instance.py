"""An issue, the files it is about, and what is known of its repair; read from the released rows."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from linn.chat.request import Request, request_of, truth_of
from linn.domains.common import diffs, edits
from linn.errors import UserError
from linn.judges.text import history

_ISSUE = re.compile(r"<issue>\s*(.*?)\s*</issue>", re.DOTALL)


@dataclass(frozen=True)
class IssueRow:
    """A row: an issue with its files."""

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
        return diffs.apply(self.repository, self.patch, self.repo_name)

    def golden(self) -> tuple[str, ...]:
        """The known files that the gold patch changes; raises BadPatch."""
        return tuple(_touched(self.repository, self.patch, self.repo_name))


def _touched(files: Mapping[str, str], patch: str, repo_name: bool) -> dict[str, str]:
    """Those of the files that a patch changes; raises BadPatch."""
    changed = diffs.read(patch)
    return {
        path: content
        for path, content in files.items()
        if diffs.patch_path(path, repo_name) in changed
    }


# ---------------------------------------------------------------- rows


def from_row(row: Mapping[str, Any], index: int, where: str) -> IssueRow:
    """A row of one of three layouts; raises UserError naming the field.

    `metadata.relevant_file_contents` with `instance` (swerl_gen); the same names at the top
    (Nemotron-Cascade-RL-SWE); or `metadata.files` with `problem_statement` (the agentic rows that
    carry their files).
    """
    meta = row.get("metadata") or {}
    instance = row.get("instance") or {}
    if not isinstance(meta, Mapping) or not isinstance(instance, Mapping):
        raise UserError(f"{where}: metadata and instance must be objects")
    if (row.get("mode") or "eval") != "eval":
        raise UserError(
            f"{where}: mode is {row['mode']!r}, which asks for a script to be run in a container "
            "image; allowed: eval"
        )

    places = (meta, instance, row)
    request = _request_of(row, index)
    issue = _text_of(places, ("problem_statement",), where) or _issue_in(request)
    if not issue.strip():
        raise UserError(
            f"{where}: neither responses_create_params.input, prompt "
            "nor metadata.problem_statement holds an issue"
        )

    patch = _text_of(places, ("golden_patch", "patch"), where)
    repo_name = False
    if meta.get("remove_repo_name") is not None:
        repo_name = truth_of(meta["remove_repo_name"], f"{where}: metadata.remove_repo_name")
    files, repository = _files(row, meta, patch, repo_name, where)
    return IssueRow(
        issue=issue,
        files=files,
        repository=repository,
        patch=patch,
        repo_name=repo_name,
        tests=_text_of(places, ("tests",), where) or None,
        request=request,
    )


def _text_of(places: tuple[Mapping[str, Any], ...], names: tuple[str, ...], where: str) -> str:
    """The first of these fields that is there, wherever rows keep it; empty without."""
    for name in names:
        for place in places:
            value = place.get(name)
            if value is None:
                continue
            if not isinstance(value, str):
                raise UserError(f"{where}: {name} is {type(value).__name__}; allowed: text")
            return value
    return ""


def _request_of(row: Mapping[str, Any], index: int) -> Request:
    if _has_conversation(row):
        return request_of(row, index)
    # The question is the domain's own; tools and mode are still the row's.
    return replace(request_of({**row, "messages": "-"}, index), messages=())


def _issue_in(request: Request) -> str:
    """The issue of a conversation: what stands between its marks, or else all of it."""
    text = "\n".join(message.content for message in history(request.messages))
    marked = _ISSUE.search(text)
    return marked[1] if marked else text


def _has_conversation(row: Mapping[str, Any]) -> bool:
    params = row.get("responses_create_params")
    return bool(row.get("prompt") or (isinstance(params, Mapping) and params.get("input")))


def _files(
    row: Mapping[str, Any], meta: Mapping[str, Any], patch: str, repo_name: bool, where: str
) -> tuple[dict[str, str], dict[str, str]]:
    """(golden files, all known files)."""
    relevant = meta.get("relevant_file_contents", row.get("relevant_file_contents"))
    if relevant is not None:
        files = edits.files_of(relevant, f"{where}: relevant_file_contents")
        others = meta.get("files")
        if others is None:
            return files, files
        # Where both name a file, the prompt's version counts.
        repository = edits.files_of(others, f"{where}: metadata.files")
        return files, {**repository, **files}

    if "files" not in meta:
        raise UserError(
            f"{where}: relevant_file_contents (in metadata or beside it) or metadata.files "
            "must hold the files"
        )
    repository = edits.files_of(meta["files"], f"{where}: metadata.files")
    if not patch:
        return repository, repository

    # The row names no files to show: those that its patch changes.
    try:
        files = _touched(repository, patch, repo_name)
    except diffs.BadPatch as error:
        raise UserError(f"{where}: golden_patch: {error}") from None
    return files or repository, repository


# ---------------------------------------------------------------- changed functions


def changed_functions(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[str, ...]:
    """`path::name` (or `path::Class.name`) of the functions of Python files that differ.

    Those that only one side has do not count.
    """
    names: list[str] = []
    for path, old_text in before.items():
        new_text = after.get(path, old_text)
        if not path.endswith(".py") or old_text == new_text:
            continue

        # Syntax trees differ only where the code does, not its layout or comments.
        old, new = _functions(old_text), _functions(new_text)
        for name in old:
            if name in new and new[name] != old[name]:
                names.append(f"{path}::{name}")
    return tuple(names)


def _functions(text: str) -> dict[str, str]:
    """The syntax tree, as text, of each function and method of a Python file by its name."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    functions = _definitions(tree.body, "")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            functions |= _definitions(node.body, f"{node.name}.")
    return functions


def _definitions(body: list[ast.stmt], prefix: str) -> dict[str, str]:
    """The functions that a module or a class defines itself."""
    return {
        prefix + node.name: ast.dump(node)
        for node in body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
