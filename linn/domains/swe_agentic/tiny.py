"""Repair of a few files held in memory: generated repositories of two files, and rows with files.

Their three tools, the conversation, the verdict.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from linn.domains.common import toy_functions
from linn.domains.common.tools import text_tool
from linn.domains.common.toy_functions import Function
from linn.domains.common.values import grade_values
from linn.sandbox import Outcome, Sandbox
from linn.types import Message, Reply, ToolCall, Verdict

CALLS_PER_TURN = 4
_NAMES = ("calc.py", "util.py", "tool.py", "core.py")
_OTHER_FILE_SHARE = 0.3
_LONGEST_FILE = 1 << 18
_LONGEST_VIEW = 1 << 14
_LONGEST_VALUE = 60
_MOST_NAMES = 20

Call = tuple[str, list[Any]]
"""`module:function` and its arguments."""


TOOLS = (
    text_tool("view", "Show a file.", "path"),
    text_tool("edit", "Replace text found once.", "path", "old", "new"),
    text_tool("run_tests", "Run the tests."),
)
_PARAMETERS: Mapping[str, list[str]] = {
    tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in TOOLS
}


@dataclass(frozen=True)
class FilesTask:
    """A repair task of a row that holds its files and tests."""

    files: Mapping[str, str]
    """Text by path, as the task begins."""
    tests: str
    """The hidden tests: Python text with test functions."""
    visible_tests: str | None = None
    """The tests that the tool runs; None: it has none."""


@dataclass(frozen=True)
class TinyTask:
    """A generated repair task: one expression of one function is wrong."""

    files: Mapping[str, str]
    """Text by path, as the task begins."""
    calls: Sequence[Call]
    """The hidden tests."""
    outputs: Sequence[Any]
    """What they must return."""
    visible_calls: Sequence[Call]
    """The tests that the tool runs."""
    visible_outputs: Sequence[Any]
    """What they must return."""
    path: str
    """The file with the bug."""
    bug: str
    """The wrong expression."""
    repair: str
    """The right one."""
    wrong_repairs: Sequence[str]
    """Other wrong ones."""


def make_task(rng: random.Random) -> tuple[str, TinyTask]:
    """(what the model is told, the task)."""
    function = toy_functions.make(rng)
    bug = rng.choice(function.wrong())
    inputs = toy_functions.inputs(function, rng)
    path, other_path = rng.sample(_NAMES, 2)

    # The hidden tests tell the function from each of its wrong versions.
    files = {path: function.source(bug.body)}
    calls = _calls(path, function, inputs)
    outputs = [function.value(x) for x in inputs]
    if rng.random() < _OTHER_FILE_SHARE:
        # A second file that is right, and must stay so.
        other = toy_functions.make(rng, avoid=(function.name,))
        other_inputs = toy_functions.inputs(other, rng)[:2]
        files[other_path] = other.source()
        calls += _calls(other_path, other, other_inputs)
        outputs += [other.value(x) for x in other_inputs]

    # The visible test shows the bug.
    revealing = [x for x in inputs if bug.value(x) != function.value(x)]
    shortest = min(revealing, key=lambda x: len(repr(x)))

    bodies = [wrong.body for wrong in function.wrong()]
    wrong_repairs = [body for body in bodies if body != bug.body]
    task = TinyTask(
        files=files,
        calls=calls,
        outputs=outputs,
        visible_calls=_calls(path, function, [shortest]),
        visible_outputs=[function.value(shortest)],
        path=path,
        bug=bug.body,
        repair=function.body,
        wrong_repairs=wrong_repairs,
    )
    text = f"{function.name}({function.argument}) in {path} must return {function.spec}."
    return text, task


def _calls(path: str, function: Function, inputs: Sequence[Any]) -> list[Call]:
    """One call per input."""
    target = f"{path.removesuffix('.py')}:{function.name}"
    return [(target, [x]) for x in inputs]


def repair_turns(task: TinyTask, repair: str, run_tests: bool) -> tuple[Message, ...]:
    """Look, put `repair` in place of the bug, perhaps run the tests (which then pass), stop."""
    path = task.path
    view = ToolCall("view", {"path": path})
    edit = ToolCall("edit", {"path": path, "old": task.bug, "new": repair})

    # The answers are what the tools would say.
    answered = [(view, task.files[path]), (edit, "ok")]
    if run_tests:
        tests = ToolCall("run_tests", {})
        answered.append((tests, "passed"))

    turns: list[Message] = []
    for call, answer in answered:
        turns.append(Message("assistant", "", tool_calls=(call,)))
        turns.append(Message("tool", answer))
    turns.append(Message("assistant", "done"))
    return tuple(turns)


# ---------------------------------------------------------------- the conversation


class FilesConversation:
    """The environment: files in memory, tests in the sandbox."""

    def __init__(self, task: TinyTask | FilesTask, sandbox: Sandbox) -> None:
        self._task = task
        self._sandbox = sandbox
        self._files = dict(task.files)

    def step(self, message: Message) -> tuple[Message, ...] | None:
        if not message.tool_calls:
            return None
        answers = []
        for index, call in enumerate(message.tool_calls):
            if index < CALLS_PER_TURN:
                text = use(self._files, call, self._run_tests)
            else:
                text = f"error: at most {CALLS_PER_TURN} calls a turn"
            answers.append(Message("tool", text, tool_call_id=call.id))
        return tuple(answers)

    def _run_tests(self) -> str:
        task = self._task
        if isinstance(task, TinyTask):
            outcomes = self._sandbox.call_files(self._files, task.visible_calls)
            return report(task.visible_calls, outcomes, task.visible_outputs)
        if task.visible_tests is None:
            return "no tests"
        outcome = self._sandbox.check_files(self._files, task.visible_tests)
        return "passed" if outcome.status == "ok" else f"failed: {outcome.error}"

    def close(self) -> None:
        """Nothing is held: the sandbox belongs to the domain."""


def use(files: dict[str, str], call: ToolCall, run_tests: Callable[[], str]) -> str:
    """Carry out one call on `files` and answer it; every mistake is answered in words."""
    if call.name not in _PARAMETERS:
        return f"error: no tool of that name; there are {', '.join(_PARAMETERS)}"
    arguments = _texts(call)
    if arguments is None:
        names = ", ".join(_PARAMETERS[call.name])
        return f"error: {call.name} takes {names or 'no arguments'}"

    if call.name == "run_tests":
        return run_tests()

    # New files cannot be made: every path must be there.
    path = arguments["path"].strip()
    if path not in files:
        names = ", ".join(sorted(files)[:_MOST_NAMES])
        return f"error: no such file; there are {names}"
    if call.name == "view":
        text = files[path]
        return text if len(text) <= _LONGEST_VIEW else text[:_LONGEST_VIEW] + "…"
    return _edit(files, path, arguments["old"], arguments["new"])


def _texts(call: ToolCall) -> Mapping[str, str] | None:
    """The arguments of a call of a known tool, None where they are not the texts it takes."""
    arguments = call.arguments
    if isinstance(arguments, str) or set(arguments) != set(_PARAMETERS[call.name]):
        return None
    if not all(isinstance(value, str) for value in arguments.values()):
        return None
    return arguments


def _edit(files: dict[str, str], path: str, old: str, new: str) -> str:
    text = files[path]
    count = text.count(old) if old else 0
    if count != 1:
        return f"error: old is found {count} times, not once"
    if old == new:
        return "error: old and new are the same"
    if len(text) + len(new) > _LONGEST_FILE:
        return "error: the file would be too long"
    files[path] = text.replace(old, new)
    return "ok"


def report(calls: Sequence[Call], outcomes: Sequence[Outcome], expected: Sequence[Any]) -> str:
    """`passed`, or how many failed and what the first of them gave."""
    failures: list[str] = []
    for call, outcome, value in zip(calls, outcomes, expected, strict=True):
        passed = grade_values([outcome], [value])
        if passed.reward < 1.0:
            failures.append(_failure(call, outcome))

    if not failures:
        return "passed"
    return f"{len(failures)} failed: {failures[0]}"


def _failure(call: Call, outcome: Outcome) -> str:
    """What a call gave, or how it failed."""
    target, arguments = call
    function = target.rpartition(":")[2]
    text = f"{function}({', '.join(map(repr, arguments))})"
    if outcome.status == "ok":
        return f"{text} gave {_words(outcome.value)}"
    return f"{text}: {outcome.error[:80]}"


def _words(value: Any) -> str:
    """A value in at most so many characters, always text that can be written as UTF-8."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python writes
        text = "a huge number"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


# ---------------------------------------------------------------- the verdict


def verdict(task: TinyTask | FilesTask, reply: Reply, sandbox: Sandbox) -> Verdict:
    """Make the reply's edits again on fresh files, then run the hidden tests once.

    The visible runs are not repeated. `unreliable`: as `SweAgentic.verify` says.
    """
    files, stopped = _files_after(task, reply)
    if files == task.files:
        return Verdict(0.0, "nothing was changed", {"changed": 0.0})

    # Generated tests are calls with values; a row's are test functions.
    cut_off = False
    if isinstance(task, FilesTask):
        outcome = sandbox.check_files(files, task.tests)
        passed = outcome.status == "ok"
        reward = float(passed)
        note = "the tests passed" if passed else outcome.error
        cut_off = outcome.status in ("timeout", "memory")
    else:
        outcomes = sandbox.call_files(files, task.calls)
        result = grade_values(outcomes, task.outputs)
        reward = result.reward
        note = result.note

    unreliable = cut_off or (reward > 0 and not stopped)
    metrics = {"changed": 1.0, "unreliable": float(unreliable)}
    return Verdict(reward, note, metrics)


def _files_after(task: TinyTask | FilesTask, reply: Reply) -> tuple[dict[str, str], bool]:
    """(the files after the reply's edits, whether the model itself ended the conversation)."""
    files = dict(task.files)
    for message in reply.messages:
        if message.role != "assistant":
            continue
        if not message.tool_calls:
            return files, reply.finished
        for call in message.tool_calls[:CALLS_PER_TURN]:
            use(files, call, lambda: "")
    return files, False
