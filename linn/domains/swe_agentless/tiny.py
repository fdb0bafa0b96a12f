"""The generator of tiny tasks: files of two-line functions with one fault, and demonstrations."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from linn.domains.common import edits, toy_functions
from linn.domains.common.toy_functions import Function
from linn.domains.swe_agentless.solution import solution
from linn.domains.swe_agentless.tasks import (
    Example,
    LocaliseTask,
    Mode,
    RepairTask,
    Task,
    ToyFault,
    WriteTestTask,
)
from linn.types import Message

_NAMES = ("calc.py", "util.py", "tool.py", "core.py")


# ---------------------------------------------------------------- prompts


def localise(rng: random.Random) -> tuple[str, LocaliseTask]:
    """Three files of one function each, shown by name; the issue names one function."""
    functions: dict[str, Function] = {}
    for path in sorted(rng.sample(_NAMES, 3)):
        taken = [function.name for function in functions.values()]
        functions[path] = toy_functions.make(rng, avoid=taken)

    # The names alone tell the file: the texts are not shown.
    golden = list(functions)[rng.randrange(3)]
    function = functions[golden]
    files = {path: other.source() for path, other in functions.items()}
    files[golden] = function.source(rng.choice(function.wrong()).body)

    issue = _issue(function)
    tree = "\n".join(f"{path}: {other.name}" for path, other in functions.items())
    task = LocaliseTask(
        issue=issue,
        repository=files,
        golden=(golden,),
        functions=(f"{golden}::{function.name}",),
        top=1,
        generated=True,
    )
    return f"which file? {issue}\n\n{tree}", task


def repair(rng: random.Random, mode: Mode) -> tuple[str, RepairTask]:
    """A file of one or two functions, one of them faulty, to be repaired."""
    issue, file, toy = _faulty_file(rng)
    files = {toy.path: file}
    task = RepairTask(issue, files, mode, repository=files, toy=toy)
    return _shown(issue, files), task


def write_test(rng: random.Random) -> tuple[str, WriteTestTask]:
    """The same file, for which a test is to be written."""
    issue, file, toy = _faulty_file(rng)
    files = {toy.path: file}

    # With the line's end, or a longer line that begins with the faulty one would change.
    repaired = file.replace(f"{_line(toy.bug)}\n", f"{_line(toy.body)}\n")
    task = WriteTestTask(
        issue=issue,
        files=files,
        repository=files,
        after={toy.path: repaired},
        toy=toy,
    )
    return f"write a test. {_shown(issue, files)}", task


def _issue(function: Function) -> str:
    return f"{function.name}({function.argument}) must return {function.spec}."


def _shown(issue: str, files: Mapping[str, str]) -> str:
    """The issue with its one file."""
    ((path, text),) = files.items()
    return f"{issue}\n\n### {path}\n{text}"


def _faulty_file(rng: random.Random) -> tuple[str, str, ToyFault]:
    """(issue, the file's text, its fault)."""
    function = toy_functions.make(rng)
    bug = rng.choice(function.wrong())
    arguments = toy_functions.inputs(function, rng)
    sources = [function.source(bug.body)]
    calls = [(function, x) for x in arguments]

    # Half of the files hold a second function, which an edit must leave alone.
    if rng.random() < 0.5:
        other = _other_function(rng, function, bug)
        sources.insert(rng.randint(0, 1), other.source())
        other_arguments = toy_functions.inputs(other, rng)
        calls += [(other, x) for x in other_arguments[:2]]

    path = rng.choice(_NAMES)
    toy = ToyFault(
        path=path,
        bug=bug.body,
        body=function.body,
        wrong=tuple(version.body for version in function.wrong()),
        calls=[(f"{_module(path)}:{called.name}", [x]) for called, x in calls],
        outputs=[called.value(x) for called, x in calls],
        example=_example(function, bug, arguments),
    )
    file = "\n".join(sources)
    return _issue(function), file, toy


def _module(path: str) -> str:
    """The name under which a file is imported."""
    return path.removesuffix(".py")


def _other_function(rng: random.Random, function: Function, bug: Function) -> Function:
    """A second function of the file, whose line is neither the faulty nor the right one.

    Otherwise an edit's line could be found twice.
    """
    while True:
        other = toy_functions.make(rng, avoid=(function.name,))
        if other.body not in (bug.body, function.body):
            return other


def _example(function: Function, bug: Function, arguments: Sequence[object]) -> Example:
    """The first of the arguments on which the fault shows; there is one (see `inputs`)."""
    for x in arguments:
        right, wrong = function.value(x), bug.value(x)
        if right != wrong:
            return Example(function.name, argument=x, right=right, wrong=wrong)
    raise AssertionError(arguments)


def _line(body: str) -> str:
    """The line of a function that returns an expression."""
    return f"    return {body}"


# ---------------------------------------------------------------- demonstrations


def demonstration(task: Task, rng: random.Random, faulty: bool) -> Message:
    """An answer to a generated prompt, with its thought.

    The fault: another file; a test of what the faulty function returns; a replacement that is the
    faulty line again, or another wrong one.
    """
    if isinstance(task, LocaliseTask):
        return _localisation(task, rng, faulty)
    toy = task.toy
    assert toy is not None, task.issue
    if isinstance(task, WriteTestTask):
        text = solution(_test_text(toy, faulty))
        return Message("assistant", text, reasoning=toy.body)

    # Both must lose: an edit that changes nothing, and one that puts another fault in.
    body = toy.body
    if faulty and rng.random() < 0.5:
        body = toy.bug
    elif faulty:
        body = rng.choice(toy.wrong)

    edit = edits.Edit(toy.path, old=_line(toy.bug), new=_line(body))
    text = solution(edits.block(edit))
    return Message("assistant", text, reasoning=body)


def _localisation(task: LocaliseTask, rng: random.Random, faulty: bool) -> Message:
    """The golden file, or another; the thought is the function that the issue names."""
    path = task.golden[0]
    if faulty:
        path = rng.choice([other for other in task.repository if other not in task.golden])
    _, _, function = task.functions[0].partition("::")
    return Message("assistant", solution(path), reasoning=function)


def _test_text(toy: ToyFault, faulty: bool) -> str:
    """A fenced test of the example: of the right value, or of the faulty function's."""
    example = toy.example
    name = example.function
    value = example.wrong if faulty else example.right
    return (
        "```python\n"
        f"from {_module(toy.path)} import {name}\n\n\n"
        f"def test_{name}():\n"
        f"    assert {name}({example.argument!r}) == {value!r}\n"
        "```"
    )
