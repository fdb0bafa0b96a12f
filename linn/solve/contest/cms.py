"""Problems in the folders of CMS (its Italian format): task.yaml, gen/GEN, input/, output/."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from linn.errors import UserError
from linn.sandbox import Sandbox
from linn.solve.contest.files import (
    above_0,
    answer_of,
    check_file_name,
    check_tests,
    dict_at,
    first_program,
    includes_in,
    points_at,
    statement_in,
    text_of,
)
from linn.solve.contest.problem import Checker, Problem, Rule, Subtask, Test

_RULES: dict[str, Rule] = {
    "GroupMin": "min",
    "GroupMul": "multiply",
    "GroupSum": "sum",
    "Sum": "sum",
}
_SUBTASK = re.compile(r"#\s*ST:\s*([0-9.]+)\s*(.*)")
_INPUT = re.compile(r"input\d+\.txt")
_COPY = re.compile(r"#\s*COPY:")


def is_cms(folder: Path) -> bool:
    """Whether a folder holds a problem of this layout."""
    return (folder / "task.yaml").is_file()


def read_cms(folder: Path, sandbox: Sandbox) -> Problem:
    """The problem. UserError names the file that is wrong, or the kind of task not read."""
    block = _yaml(folder / "task.yaml")
    if (folder / "check" / "manager.cpp").is_file() or block.get("task_type") == "Communication":
        raise UserError(f"{folder}: Communication tasks are not read: they need CMS managers")

    tests = _tests(folder)
    check_tests(folder, len(tests))
    stubs: dict[str, str] = {}

    # Functions of a contestant are called by the judges' grader, compiled with them.
    grader = first_program(folder / "sol", ["grader"])
    if grader is not None and grader.language == "cpp":
        stubs = {"grader.cpp": grader.text, **includes_in([folder / "sol"])}
    name = str(block.get("name") or folder.name)
    return Problem(
        name=name,
        title=str(block.get("title") or name),
        statement=statement_in([folder / "statement", folder / "testo", folder], folder),
        kind="output_only" if block.get("output_only") else "batch",
        tests=tests,
        subtasks=_subtasks(folder, block, list(tests)),
        seconds=_number(folder, block, "time_limit", 1.0),
        memory=max(1, int(_number(folder, block, "memory_limit", 256))),
        checker=_checker(folder),
        input_file="" if block.get("output_only") else _file(folder, block, "infile"),
        output_file="" if block.get("output_only") else _file(folder, block, "outfile"),
        stubs=stubs,
        folder=folder,
    )


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        block = yaml.safe_load(text_of(path))
    # ValueError: a date that no calendar has.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    return dict_at(str(path), block)


def _number(folder: Path, block: Mapping[str, Any], key: str, default: float) -> float:
    value = block.get(key)
    return default if value is None else above_0(f"{folder / 'task.yaml'}: {key}", value)


def _file(folder: Path, block: Mapping[str, Any], key: str) -> str:
    """The file that programs read or write; standard input and output where the key is absent.

    Older versions of CMS took input.txt and output.txt then.
    """
    name = str(block.get(key) or "")
    check_file_name(f"{folder / 'task.yaml'}: {key}", name)
    return name


def _tests(folder: Path) -> dict[str, Test]:
    """`input/inputN.txt` and `output/outputN.txt`, in the order of N, which leaves none out."""
    tests = {}
    count = 0
    while (path := folder / "input" / f"input{count}.txt").is_file():
        answer = answer_of(folder / "output" / f"output{count}.txt")
        tests[str(count)] = Test(str(count), text_of(path), answer)
        count += 1
    # Those behind a gap would be left out without a word.
    more = len([one for one in folder.glob("input/*") if _INPUT.fullmatch(one.name)]) - count
    if more > 0:
        raise UserError(f"{path}: is not there, and {more} later inputs are")
    return tests


def _checker(folder: Path) -> Checker:
    """Its own; else CMS compares words, whatever the white space."""
    for place, names in (("check", ["checker"]), ("cor", ["correttore"])):
        source = first_program(folder / place, names)
        if source is not None:
            return Checker("cms", source, includes_in([folder / place, folder]))
    return Checker("tokens")


# ---------------------------------------------------------------- subtasks


def _subtasks(folder: Path, block: Mapping[str, Any], names: list[str]) -> tuple[Subtask, ...]:
    """By gen/GEN, by the score type's parameters, or each test for its share."""
    if block.get("score_type_parameters") is not None:
        return _by_parameters(folder, block, names)

    # Without subtasks each test counts for its share, as CMS's Sum has it.
    path = folder / "gen" / "GEN"
    groups = _groups(path) if path.is_file() else []
    if not groups:
        points = points_at(f"{folder / 'task.yaml'}: total_value", block.get("total_value", 100))
        return (Subtask("1", points, tuple(names), "", "sum"),)

    # A GEN that does not fit the inputs would give points for the wrong ones.
    counts = sum(count for _, _, count in groups)
    if counts != len(names):
        raise UserError(f"{path}: it makes {counts} inputs, and input/ holds {len(names)}")
    parameters = [[points, count, text] for points, text, count in groups]
    return _cut(str(path), names, parameters, "min")


def _groups(path: Path) -> list[tuple[float, str, int]]:
    """(points, words, number of inputs) of each `#ST:` of a GEN file."""
    groups: list[tuple[float, str, int]] = []
    for line in map(str.strip, text_of(path).splitlines()):
        subtask = _SUBTASK.fullmatch(line)
        if subtask:
            groups.append((points_at(f"{path}: {line!r}", subtask[1]), subtask[2].strip(), 0))
        elif line and (_COPY.match(line) or not line.startswith("#")) and groups:
            points, words, count = groups[-1]
            groups[-1] = points, words, count + 1
    return groups


def _by_parameters(folder: Path, block: Mapping[str, Any], names: list[str]) -> tuple[Subtask, ...]:
    where = f"{folder / 'task.yaml'}: score_type_parameters"
    parameters = block["score_type_parameters"]
    rule = _RULES.get(str(block.get("score_type", "GroupMin")))
    if rule is None:
        raise UserError(
            f"{where}: score_type {block['score_type']!r}; read are {', '.join(_RULES)}"
        )
    if isinstance(parameters, int | float):
        # Sum: the points of one test.
        points = points_at(where, parameters)
        return (Subtask("1", points * len(names), tuple(names), "", "sum"),)
    if not isinstance(parameters, list) or not all(
        isinstance(each, list) and len(each) >= 2 for each in parameters
    ):
        raise UserError(f"{where}: expected a list of [points, tests]")
    return _cut(where, names, parameters, rule)


def _cut(
    where: str, names: list[str], parameters: Sequence[Any], rule: Rule
) -> tuple[Subtask, ...]:
    """Subtasks of so many tests each, or of those whose names match. Groups of 0 points go."""
    subtasks = []
    at = 0
    for number, (worth, tests, *more) in enumerate(parameters, 1):
        points = points_at(f"{where}: the points of group {number}", worth)
        # CMS takes a number of tests, or a pattern that their names begin with.
        if isinstance(tests, str):
            own = _matching(f"{where}: the tests of group {number}", tests, names)
        elif type(tests) is int and 0 <= tests <= len(names) - at:
            own = tuple(names[at : at + tests])
            at += tests
        else:
            raise UserError(
                f"{where}: the tests of group {number} are {tests!r}; allowed: a number, "
                f"{len(names) - at} at most here, or a pattern"
            )

        # Groups of no points are the statement's samples.
        if points > 0 and own:
            text = str(more[0]) if more else ""
            subtasks.append(Subtask(str(number), points, own, text, rule))
    if not subtasks:
        raise UserError(f"{where}: no subtask earns points")
    return tuple(subtasks)


def _matching(where: str, pattern: str, names: Sequence[str]) -> tuple[str, ...]:
    try:
        found = re.compile(pattern)
    except re.error as error:
        raise UserError(f"{where} are {pattern!r}, which is no pattern ({error})") from None
    return tuple(name for name in names if found.match(name))
