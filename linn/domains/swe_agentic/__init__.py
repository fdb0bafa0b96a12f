"""Repair in a repository with tools: look, edit, run the tests, stop; judged by hidden tests on the files as they end.

Three sizes: generated repositories of two files (`tiny`); rows that hold files and tests; rows that name a published package (`full`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from linn.data.agents import metadata_of
from linn.data.names import located
from linn.data.rows import BadRow, Lines
from linn.domains.base import Domain, Env, content_key
from linn.domains.common import edits
from linn.domains.common import toy_functions as functions
from linn.domains.common.values import grade_values
from linn.domains.swe_agentic import episode, rows
from linn.domains.swe_agentic.episode import Ends, Episode
from linn.errors import UserError
from linn.sandbox import Limits, Outcome, Sandbox
from linn.types import Message, Prompt, Reply, Split, ToolCall, Verdict, seed_of

_NAMES = ("calc.py", "util.py", "tool.py", "core.py")
_CALLS_A_TURN = 4
_LONGEST_FILE = 1 << 18
_LONGEST_VIEW = 1 << 14


def _tool(name: str, description: str, *parameters: str) -> dict[str, Any]:
    properties = {parameter: {"type": "string"} for parameter in parameters}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


TOOLS = (
    _tool("view", "Show a file.", "path"),
    _tool("edit", "Replace text found once.", "path", "old", "new"),
    _tool("run_tests", "Run the tests."),
)


class SweAgentic(Domain):
    """The conversation ends with a turn that calls nothing, or at its limit of turns."""

    name = "swe_agentic"
    levels = ("tiny", "full")

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        max_turns: int | None = None,
        held_out: Sequence[str] | None = None,
    ) -> None:
        """`max_turns`: None: 5 at `tiny`, 200 at `full` (paper §4.8.2). `held_out`: packages of which validation and test are made, train of
        the others; None: each row goes where its text's hash says."""
        super().__init__(level, rows)
        if level == "full" and rows is None:
            raise UserError(
                f"domain {self.name}: level full needs rows; make some: linn tasks --out tasks.jsonl"
            )
        if max_turns is not None and max_turns < 1:
            raise UserError(f"domain {self.name}: max_turns must be 1 or more, found {max_turns}")
        self.max_turns = max_turns or (200 if level == "full" else 5)
        self.held_out = None if held_out is None else frozenset(held_out)
        if held_out is not None and level != "full":
            raise UserError(f"domain {self.name}: held_out has a meaning at level full only")
        self._ends = Ends()
        self.sandbox = Sandbox(
            Limits(cpu=10, wall=60.0, memory=1 << 30) if rows is not None else Limits()
        )

    def make(self, rng: random.Random) -> Prompt:
        function = functions.make(rng)
        bug = rng.choice(function.wrong())
        tests = functions.inputs(function, rng)
        path, other_path = rng.sample(_NAMES, 2)
        files = {path: function.source(bug.body)}
        calls, outputs = (
            [(f"{path[:-3]}:{function.name}", [x]) for x in tests],
            [function.value(x) for x in tests],
        )
        if rng.random() < 0.3:
            other = functions.make(rng, avoid=(function.name,))
            files[other_path] = other.source()
            sample = functions.inputs(other, rng)[:2]
            calls += [(f"{other_path[:-3]}:{other.name}", [x]) for x in sample]
            outputs += [other.value(x) for x in sample]
        shown = min(
            (x for x in tests if bug.value(x) != function.value(x)), key=lambda x: len(repr(x))
        )
        hidden = {
            "files": files,
            "calls": calls,
            "outputs": outputs,
            "shown_calls": [(f"{path[:-3]}:{function.name}", [shown])],
            "shown_outputs": [function.value(shown)],
            "path": path,
            "bug": bug.body,
            "body": function.body,
            "wrong": [wrong.body for wrong in function.wrong() if wrong.body != bug.body],
        }
        text = f"{function.name}({function.argument}) in {path} must return {function.spec}."
        return Prompt(
            self.name, "", (Message("user", text),), thinking=False, tools=TOOLS, hidden=hidden
        )

    def _turns(self, prompt: Prompt, body: str, tests: bool) -> tuple[Message, ...]:
        """Look, put `body` in place of the fault, perhaps run the tests (which then pass), stop."""
        path, bug = prompt.hidden["path"], prompt.hidden["bug"]
        calls = [
            ToolCall("view", {"path": path}),
            ToolCall("edit", {"path": path, "old": bug, "new": body}),
        ]
        answers = [prompt.hidden["files"][path], "ok"]
        if tests:
            calls.append(ToolCall("run_tests", {}))
            answers.append("passed")
        turns: list[Message] = []
        for call, answer in zip(calls, answers, strict=True):
            turns += [Message("assistant", "", tool_calls=(call,)), Message("tool", answer)]
        return (*turns, Message("assistant", "done"))

    def gold(self, prompt: Prompt) -> Reply:
        if "task" in prompt.hidden:
            return episode.gold(prompt.hidden["task"])
        if "body" not in prompt.hidden:
            raise UserError(f"prompt {prompt.id}: the row holds no repair")
        turns = self._turns(prompt, prompt.hidden["body"], tests=True)
        return Reply(text=turns[-1].content, messages=turns)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: a wrong repair, declared done without a test run. Rows hold no demonstrations."""
        if "bug" not in prompt.hidden:
            raise UserError(
                f"prompt {prompt.id}: rows hold no demonstrations; they are for evaluation and reinforcement learning"
            )
        return self._turns(
            prompt,
            rng.choice(prompt.hidden["wrong"]) if faulty else prompt.hidden["body"],
            tests=not faulty,
        )

    def env(self, prompt: Prompt) -> Env:
        if "task" in prompt.hidden:
            return Episode(prompt.hidden["task"], self._ends)
        return _Conversation(prompt, self.sandbox)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Make the reply's edits again on fresh files, then run the hidden tests once. The visible runs are not repeated.

        `unreliable`, never trained (paper §4.8.2): a repair that passes though the conversation ended at a limit of turns or tokens, and one
        whose tests of a row ended at a limit.
        """
        if "task" in prompt.hidden:
            return episode.verdict(prompt.hidden["task"], reply, self._ends)
        files = dict(prompt.hidden["files"])
        stopped = False
        for message in reply.messages:
            if message.role == "assistant":
                if not message.tool_calls:
                    stopped = reply.finished
                    break
                for call in message.tool_calls[:_CALLS_A_TURN]:
                    use(files, call, lambda: "")
        if files == prompt.hidden["files"]:
            return Verdict(0.0, "nothing was changed", {"changed": 0.0})
        cut = False
        if "tests" in prompt.hidden:
            outcome = self.sandbox.check_files(files, prompt.hidden["tests"])
            reward, note = (
                float(outcome.status == "ok"),
                "the tests passed" if outcome.status == "ok" else outcome.error,
            )
            cut = outcome.status in ("timeout", "memory")
        else:
            verdict = grade_values(
                self.sandbox.call_files(files, prompt.hidden["calls"]), prompt.hidden["outputs"]
            )
            reward, note = verdict.reward, verdict.note
        return Verdict(
            reward, note, {"changed": 1.0, "unreliable": float(cut or (reward > 0 and not stopped))}
        )

    def _rows(self, split: Split, seed: int) -> Iterator[Prompt]:
        if self.held_out is None:
            yield from super()._rows(split, seed)
            return
        assert self.rows is not None
        path = located(self.rows)
        prompts = [
            prompt
            for line, raw in Lines(path)
            if (prompt := self._of_line(path, line, raw)) is not None
        ]
        known = {_package(prompt) for prompt in prompts} - {""}
        if unknown := sorted(self.held_out - known):
            raise UserError(
                f"domain {self.name}: held_out names {unknown[0]!r}; {self.rows} has {', '.join(sorted(known))}"
            )
        parts: dict[Split, dict[str, Prompt]] = {"train": {}, "validation": {}, "test": {}}
        for prompt in prompts:
            key = content_key(prompt)
            out = _package(prompt) in self.held_out
            parts[("validation", "test")[int(key[:8], 16) % 2] if out else "train"].setdefault(
                key, prompt
            )
        chosen = list(parts[split].values())
        if split == "train":
            random.Random(seed_of("rows", self.name, seed)).shuffle(chosen)
        yield from chosen

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        where = f"{self.name} row {index}"
        row = {**row, "metadata": metadata_of(row)}
        meta = row["metadata"]
        if released := rows.instance(row, where):
            raise BadRow(
                f"{where}: {released.instance} is {released.repo} at {released.base_commit[:12]} in its container image {released.image or '(not named)'};"
                " that needs docker or apptainer and the image, which linn does not run. Rows that run without: linn tasks; or metadata.files and"
                " metadata.tests",
                "needs its container image",
            )
        if not isinstance(meta, Mapping):
            raise UserError(f"{where}: metadata must be an object, found {type(meta).__name__}")
        if "package" in meta:
            if self.rows is not None and self.level != "full":
                raise UserError(
                    f"{where}: a row that names a package needs level: full, found {self.level}"
                )
            return episode.prompt(rows.task(meta, where), self.name, where)
        if not isinstance(meta.get("problem_statement"), str):
            raise UserError(f"{where}: metadata.problem_statement must be a text")
        if "files" not in meta or not isinstance(meta.get("tests"), str):
            raise UserError(
                f"{where}: metadata.files (path to text) and metadata.tests (Python text with test functions) are needed"
            )
        hidden: dict[str, Any] = {
            "files": edits.files_of(meta["files"], f"{where}: metadata.files"),
            "tests": meta["tests"],
        }
        if isinstance(meta.get("visible_tests"), str):
            hidden["shown_tests"] = meta["visible_tests"]
        text = f"{meta['problem_statement']}\n\nFiles:\n" + "\n".join(sorted(hidden["files"]))
        prompt = Prompt(
            self.name, "", (Message("user", text),), thinking=False, tools=TOOLS, hidden=hidden
        )
        return Prompt(
            self.name, f"{content_key(prompt)}.{index}", prompt.messages, False, TOOLS, hidden
        )

    def close(self) -> None:
        self.sandbox.close()


def _package(prompt: Prompt) -> str:
    """The package that a row's task is in; empty where the row carries its files."""
    return prompt.hidden["task"].requirement.partition("==")[0] if "task" in prompt.hidden else ""


class _Conversation:
    """The environment: files in memory, tests in the sandbox."""

    def __init__(self, prompt: Prompt, sandbox: Sandbox) -> None:
        self.hidden, self.sandbox = prompt.hidden, sandbox
        self.files: dict[str, str] = dict(prompt.hidden["files"])

    def step(self, message: Message) -> tuple[Message, ...] | None:
        if not message.tool_calls:
            return None
        answers = []
        for index, call in enumerate(message.tool_calls):
            text = (
                use(self.files, call, self._tests)
                if index < _CALLS_A_TURN
                else f"error: at most {_CALLS_A_TURN} calls a turn"
            )
            answers.append(Message("tool", text, tool_call_id=call.id))
        return tuple(answers)

    def _tests(self) -> str:
        if "shown_calls" in self.hidden:
            calls = self.hidden["shown_calls"]
            return report(
                calls, self.sandbox.call_files(self.files, calls), self.hidden["shown_outputs"]
            )
        if "shown_tests" not in self.hidden:
            return "no tests"
        outcome = self.sandbox.check_files(self.files, self.hidden["shown_tests"])
        return "passed" if outcome.status == "ok" else f"failed: {outcome.error}"

    def close(self) -> None:
        """Nothing is held: the sandbox belongs to the domain."""


def use(files: dict[str, str], call: ToolCall, run_tests: Callable[[], str]) -> str:
    """Carry out one call on `files` and answer it; every mistake is answered in words."""
    wanted = {
        tool["function"]["name"]: tool["function"]["parameters"]["required"] for tool in TOOLS
    }
    if call.name not in wanted:
        return f"error: no tool of that name; there are {', '.join(wanted)}"
    given = call.arguments
    if (
        isinstance(given, str)
        or set(given) != set(wanted[call.name])
        or not all(isinstance(value, str) for value in given.values())
    ):
        return f"error: {call.name} takes {', '.join(wanted[call.name]) or 'no arguments'}"
    if call.name == "run_tests":
        return run_tests()
    path = given["path"].strip()
    if path not in files:
        return f"error: no such file; there are {_some(files)}"
    if call.name == "view":
        return (
            files[path] if len(files[path]) <= _LONGEST_VIEW else files[path][:_LONGEST_VIEW] + "…"
        )
    old, new = given["old"], given["new"]
    count = files[path].count(old) if old else 0
    if count != 1:
        return f"error: old is found {count} times, not once"
    if old == new:
        return "error: old and new are the same"
    if len(files[path]) + len(new) > _LONGEST_FILE:
        return "error: the file would be too long"
    files[path] = files[path].replace(old, new)
    return "ok"


def report(
    calls: Sequence[tuple[str, Sequence[Any]]], outcomes: Sequence[Outcome], expected: Sequence[Any]
) -> str:
    """`passed`, or how many failed and what the first of them gave."""
    failed = []
    for (target, arguments), outcome, value in zip(calls, outcomes, expected, strict=True):
        if grade_values([outcome], [value]).reward == 1.0:
            continue
        called = f"{target.rpartition(':')[2]}({', '.join(repr(x) for x in arguments)})"
        failed.append(
            f"{called} gave {_shown(outcome.value)}"
            if outcome.status == "ok"
            else f"{called}: {outcome.error[:80]}"
        )
    return f"{len(failed)} failed: {failed[0]}" if failed else "passed"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python writes
        text = "a huge number"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= 60 else text[:60] + "…"


def _some(files: Iterable[str]) -> str:
    return ", ".join(sorted(files)[:20])
