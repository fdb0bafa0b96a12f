"""linn's own problem folders: problem.yaml, a statement, and programs that make the tests.

`make.py` gives an input for (subtask, index), `full.py` its answer, `validate.py` whether it is
what the statement allows. So a folder is small, and every machine makes the same tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from linn.errors import UserError
from linn.sandbox import Limits, Sandbox
from linn.solve.contest.files import source_of, text_of
from linn.solve.contest.problem import (
    Checker,
    Interactor,
    Kind,
    Problem,
    Rule,
    Subtask,
    Test,
)

_MAKING = Limits(cpu=60.0, wall=240.0, memory=2 << 30, output=256 << 20)
PROGRAMS = ("full", "brute")


class _SubtaskBlock(BaseModel):
    model_config = ConfigDict(extra="forbid")
    points: float = Field(gt=0)
    tests: int = Field(ge=1)
    text: str = ""
    rule: Rule = "min"


class _ProblemBlock(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    kind: Kind = "batch"
    seconds: float = Field(1.0, gt=0)
    memory: int = Field(256, ge=16)
    samples: int = Field(0, ge=0)
    subtasks: list[_SubtaskBlock] = Field(min_length=1)
    checker: str | dict[Literal["numbers"], float] = "tokens"
    interactor: str | None = None
    solved_by: dict[str, list[int]] = {}


def is_own(folder: Path) -> bool:
    """Whether a folder holds a problem of this layout."""
    return (folder / "problem.yaml").is_file()


def read_own(folder: Path, sandbox: Sandbox) -> Problem:
    """The problem, its tests made and validated. UserError names the file that is wrong."""
    block = _block_of(folder / "problem.yaml")
    tests: dict[str, Test] = {}
    subtasks = []
    inputs: list[tuple[int, int]] = [(0, index) for index in range(block.samples)]
    for number, subtask in enumerate(block.subtasks, 1):
        names = tuple(f"{number}-{index + 1}" for index in range(subtask.tests))
        subtasks.append(Subtask(str(number), subtask.points, names, subtask.text, subtask.rule))
        inputs += [(number, index) for index in range(subtask.tests)]

    # Samples are subtask 0.
    texts = _made(folder, inputs, sandbox)
    _validate(folder, inputs, texts, sandbox)
    answers = [""] * len(texts)
    if block.kind != "interactive":
        answers = _answers(folder, texts, sandbox)

    samples = []
    for (number, index), text, answer in zip(inputs, texts, answers, strict=True):
        test = Test(f"{number}-{index + 1}", text, answer)
        if number:
            tests[test.name] = test
        else:
            samples.append(test)

    return Problem(
        name=folder.name,
        title=block.title,
        statement=text_of(folder / "statement.md"),
        kind=block.kind,
        tests=tests,
        subtasks=tuple(subtasks),
        samples=tuple(samples),
        seconds=block.seconds,
        memory=block.memory,
        checker=_checker(folder, block.checker),
        interactor=_interactor(folder, block),
        folder=folder,
        references={
            name: source_of(folder / f"{name}.py")
            for name in PROGRAMS
            if (folder / f"{name}.py").is_file()
        },
    )


def solved_by(folder: Path) -> Mapping[str, list[int]]:
    """Which subtasks each of the folder's own solutions must solve."""
    return _block_of(folder / "problem.yaml").solved_by


def _block_of(path: Path) -> _ProblemBlock:
    import yaml

    try:
        return _ProblemBlock.model_validate(yaml.safe_load(text_of(path)))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"{path}: {place}: {first['msg']}, found {first['input']!r}") from None


def _checker(folder: Path, named: str | Mapping[Literal["numbers"], float]) -> Checker:
    if not isinstance(named, str):
        return Checker("numbers", tolerance=named["numbers"])
    if named in ("tokens", "lines"):
        return Checker("tokens" if named == "tokens" else "lines")
    if not named.endswith(".py"):
        raise UserError(
            f"{folder / 'problem.yaml'}: checker {named!r}; allowed: tokens, lines, "
            "{numbers: TOLERANCE}, or a Python file with check(input, output, answer)"
        )
    return Checker("function", source_of(folder / named))


def _interactor(folder: Path, block: _ProblemBlock) -> Interactor | None:
    if block.kind != "interactive":
        return None
    if block.interactor is None:
        raise UserError(f"{folder / 'problem.yaml'}: an interactive problem names its interactor")
    return Interactor("verdict", source_of(folder / block.interactor))


# ---------------------------------------------------------------- tests


def _made(folder: Path, places: Sequence[tuple[int, int]], sandbox: Sandbox) -> list[str]:
    path = folder / "make.py"
    outcomes = sandbox.call(text_of(path), "make", [list(place) for place in places], _MAKING)
    texts = []
    for (subtask, index), outcome in zip(places, outcomes, strict=True):
        if outcome.status != "ok" or not isinstance(outcome.value, str):
            why = outcome.error or f"gave {type(outcome.value).__name__}, no text"
            raise UserError(f"{path}: make({subtask}, {index}): {why}")
        texts.append(outcome.value)
    return texts


def _validate(
    folder: Path, places: Sequence[tuple[int, int]], texts: Sequence[str], sandbox: Sandbox
) -> None:
    path = folder / "validate.py"
    if not path.is_file():
        return
    calls: list[list[Any]] = []
    for (subtask, _), text in zip(places, texts, strict=True):
        calls.append([text, subtask])

    # In the sandbox, as all programs of a folder: it may come from anywhere.
    outcomes = sandbox.call(text_of(path), "validate", calls, _MAKING)
    for (subtask, index), outcome in zip(places, outcomes, strict=True):
        if outcome.status != "ok":
            raise UserError(f"{path}: input {index} of subtask {subtask}: {outcome.error}")


def _answers(folder: Path, texts: Sequence[str], sandbox: Sandbox) -> list[str]:
    path = folder / "full.py"
    program = text_of(path)
    answers = []
    for place, text in enumerate(texts):
        outcome = sandbox.script(program, text, _MAKING)
        if outcome.status != "ok":
            raise UserError(f"{path}: input {place}: {outcome.error}")
        answers.append(outcome.stdout)
    return answers
