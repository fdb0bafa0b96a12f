"""Problems as the IOI's own are kept (TPS): problem.json, subtasks.json, tests/ with a mapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from linn.errors import UserError
from linn.sandbox import Sandbox
from linn.solve.contest.files import (
    above_0,
    answer_of,
    check_tests,
    dict_at,
    first_program,
    includes_in,
    json_of,
    list_at,
    points_at,
    statement_in,
    text_of,
)
from linn.solve.contest.problem import Checker, Kind, Problem, Subtask, Test

_KINDS: dict[str, Kind] = {"Batch": "batch", "OutputOnly": "output_only"}


def is_ioi(folder: Path) -> bool:
    """Whether a folder holds a problem of this layout."""
    return (folder / "problem.json").is_file()


def read_ioi(folder: Path, sandbox: Sandbox) -> Problem:
    """The problem. UserError names the file that is wrong, or the kind of task not read.

    Subtasks stand in subtasks.json, their tests in tests/mapping; or each subtask in a file of its
    own, `subtasks/NAME.json` with `score` and `testcases`.
    """
    path = folder / "problem.json"
    block = json_of(path)
    kind = _KINDS.get(str(block.get("type", "Batch")))
    if kind is None:
        raise UserError(f"{path}: type {block['type']!r} is not read; read are {', '.join(_KINDS)}")
    checker = first_program(folder / "checker", ["checker"])
    tests = _tests(folder / "tests", has_answers=checker is None)
    check_tests(folder, len(tests))
    name = str(block.get("name") or block.get("code") or folder.name)
    return Problem(
        name=name,
        title=str(block.get("title") or name),
        statement=statement_in([folder / "statement", folder / "statements", folder], folder),
        kind=kind,
        tests=tests,
        subtasks=_subtasks(folder, tests),
        seconds=above_0(f"{path}: time_limit", block.get("time_limit", 1.0)),
        memory=max(1, int(above_0(f"{path}: memory_limit", block.get("memory_limit", 256)))),
        checker=_checker(folder, checker),
        stubs=_stubs(folder),
        folder=folder,
    )


def _checker(folder: Path, source: Any) -> Checker:
    if source is None:
        return Checker("tokens")
    return Checker("cms", source, includes_in([folder / "checker", folder]))


def _stubs(folder: Path) -> dict[str, str]:
    """The C++ grader that calls a contestant's functions, and its headers."""
    for place in (folder / "grader" / "cpp", folder / "graders" / "cpp", folder / "graders"):
        if (place / "grader.cpp").is_file():
            return {"grader.cpp": text_of(place / "grader.cpp"), **includes_in([place])}
    return {}


def _tests(folder: Path, has_answers: bool) -> dict[str, Test]:
    """`NAME.in` with `NAME.out`, which only a checker can do without."""
    tests = {}
    for path in sorted(folder.glob("*.in")):
        answer = answer_of(path.with_suffix(".out"), has_answers)
        tests[path.stem] = Test(path.stem, text_of(path), answer)
    return tests


def _subtasks(folder: Path, tests: dict[str, Test]) -> tuple[Subtask, ...]:
    """The subtasks that earn points, with their tests; each takes its worst test's share."""
    if (folder / "subtasks").is_dir():
        found = _of_files(sorted((folder / "subtasks").glob("*.json")))
    else:
        found = _of_mapping(folder)
    subtasks = []
    for name, points, names, text in found:
        # The samples are a subtask too, of no points.
        missing = [test for test in names if test not in tests]
        if missing:
            raise UserError(f"{folder}: subtask {name}: no test {missing[0]} in tests/")
        if points > 0 and names:
            subtasks.append(Subtask(name, points, tuple(names), text))
    if not subtasks:
        raise UserError(f"{folder}: no subtask earns points")
    return tuple(subtasks)


def _of_files(paths: list[Path]) -> list[tuple[str, float, list[str], str]]:
    found = []
    for path in paths:
        block = json_of(path)
        cases = list_at(f"{path}: testcases", block.get("testcases", []))
        text = str(block.get("description", ""))
        points = points_at(f"{path}: score", block.get("score", 0))
        found.append((path.stem, points, [str(name) for name in cases], text))
    return found


def _of_mapping(folder: Path) -> list[tuple[str, float, list[str], str]]:
    where = f"{folder / 'subtasks.json'}: subtasks"
    blocks = dict_at(where, json_of(folder / "subtasks.json").get("subtasks", {}))
    for name, block in blocks.items():
        dict_at(f"{where}: {name}", block)
        points_at(f"{where}: {name}: index", block.get("index", 0))

    # A test may belong to several subtasks: it stands there once for each.
    names: dict[str, list[str]] = {}
    path = folder / "tests" / "mapping"
    for number, line in enumerate(text_of(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2 or words[0] not in blocks:
            raise UserError(f"{path} line {number}: expected a subtask and a test, found {line!r}")
        names.setdefault(words[0], []).append(words[1])
    found = []
    for name in sorted(blocks, key=lambda name: blocks[name].get("index", 0)):
        block = blocks[name]
        points = points_at(f"{where}: {name}: score", block.get("score", 0))
        text = str(block.get("text", ""))
        found.append((name, points, names.get(name, []), text))
    return found
