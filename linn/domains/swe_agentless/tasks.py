"""What the grader knows of a prompt, by kind of task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from linn.domains.common import diffs
from linn.domains.swe_agentless.instance import IssueRow, changed_functions
from linn.errors import UserError

TaskKind = Literal["repair", "localise", "test"]
Mode = Literal["tests", "judge", "patch"]


@dataclass(frozen=True)
class Example:
    """A call that shows a generated fault."""

    function: str
    """The function's name."""
    argument: Any
    """What it is called with."""
    right: Any
    """What it must return."""
    wrong: Any
    """What it returns."""


@dataclass(frozen=True)
class ToyFault:
    """The fault of a generated file: a wrong expression in a function of two lines."""

    path: str
    """The file."""
    bug: str
    """The expression that the function returns."""
    body: str
    """The expression that it must return."""
    wrong: tuple[str, ...]
    """Other wrong expressions, the bug's among them."""
    calls: Sequence[tuple[str, Sequence[Any]]]
    """Hidden tests: functions as `module:name`, and arguments."""
    outputs: Sequence[Any]
    """What each of the calls must return."""
    example: Example
    """A call that shows the fault."""


@dataclass(frozen=True)
class RepairTask:
    """Edits that repair the files; graded by tests, a judge model, or by whether they apply."""

    issue: str
    """The problem statement."""
    files: Mapping[str, str]
    """The files that the prompt shows; edits may change these."""
    mode: Mode
    """Who decides; `patch`: 1 when the edits apply."""
    repository: Mapping[str, str] = field(default_factory=dict)
    """Every file that is known; hidden tests run on these after the edits."""
    patch: str = ""
    """The gold patch; empty where the row has none."""
    repo_name: bool = False
    """Whether the files' paths begin with a folder that the patch's paths lack."""
    tests: str | None = None
    """Hidden tests: a Python text with test functions."""
    toy: ToyFault | None = None
    """The fault of a generated prompt; None for a row."""


@dataclass(frozen=True)
class LocaliseTask:
    """Naming the files that have to change."""

    issue: str
    """The problem statement."""
    repository: Mapping[str, str]
    """The files to choose from."""
    golden: tuple[str, ...]
    """Those that have to change."""
    functions: tuple[str, ...]
    """`path::name` of the functions that have to change."""
    top: int = 0
    """How many files may be named."""
    generated: bool = False
    """Whether the generator made it."""


@dataclass(frozen=True)
class WriteTestTask:
    """A test that fails on the files as they are and passes on the repaired ones."""

    issue: str
    """The problem statement."""
    files: Mapping[str, str]
    """The files that the prompt shows."""
    repository: Mapping[str, str]
    """Every file that is known, as it is."""
    after: Mapping[str, str]
    """Every file that is known, repaired."""
    tests: str | None = None
    """A right test; None where the row has none."""
    toy: ToyFault | None = None
    """The fault of a generated prompt; None for a row."""


Task = RepairTask | LocaliseTask | WriteTestTask


def one_of(value: Any, allowed: Any, where: str) -> str:
    """A value of a Literal; UserError for another."""
    if value not in get_args(allowed):
        raise UserError(f"{where} is {value!r}; allowed: {', '.join(get_args(allowed))}")
    return str(value)


# ---------------------------------------------------------------- rows


def repair_of(row: IssueRow, mode: Mode, where: str) -> RepairTask:
    """A row's repair; UserError where its mode needs what the row lacks."""
    if mode == "tests" and row.tests is None:
        raise UserError(
            f"{where}: grading_mode 'tests' needs metadata.tests, a Python text with test "
            "functions; rows without can be graded by judge or patch"
        )
    return RepairTask(
        issue=row.issue,
        files=row.files,
        mode=mode,
        repository=row.repository,
        patch=row.patch,
        repo_name=row.repo_name,
        tests=row.tests,
    )


def localise_of(row: IssueRow, most: int, where: str) -> LocaliseTask:
    """A row's localisation, at most `most` files to name unless the patch changes more.

    UserError where the patch does not fit, or there is nothing to choose from.
    """
    after = _repaired(row, where)
    golden = row.golden()
    count = len(row.repository)
    top = max(len(golden), min(most, count // 2))
    if top >= count:
        raise UserError(
            f"{where}: task localise needs metadata.files, the repository's files; "
            f"{count} are known"
        )
    return LocaliseTask(
        issue=row.issue,
        repository=row.repository,
        golden=golden,
        functions=changed_functions(row.repository, after),
        top=top,
    )


def write_test_of(row: IssueRow, where: str) -> WriteTestTask:
    """A row's test to write; UserError where the patch does not fit."""
    return WriteTestTask(
        issue=row.issue,
        files=row.files,
        repository=row.repository,
        after=_repaired(row, where),
        tests=row.tests,
    )


def _repaired(row: IssueRow, where: str) -> dict[str, str]:
    """All known files after the row's gold patch."""
    try:
        return row.changed()
    except diffs.BadPatch as error:
        raise UserError(
            f"{where}: task localise or test needs a golden_patch that fits the files: {error}"
        ) from None
