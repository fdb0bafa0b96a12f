"""Agentless software engineering: repair by search/replace edits, naming the files to change, or a test that shows the problem."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

from linn.domains.base import Domain, content_key
from linn.domains.common import diffs as patches
from linn.domains.common import edits
from linn.domains.common import toy_functions as functions
from linn.domains.swe_agentless import asking, localisation, retrieve, scoring, written_tests
from linn.domains.swe_agentless.instance import Instance, changed_functions
from linn.domains.swe_agentless.instance import from_row as instance_from_row
from linn.errors import UserError
from linn.judges.text import Question
from linn.sandbox import Limits, Sandbox
from linn.types import Message, Prompt, Reply, Split, Verdict

Task = Literal["repair", "localise", "test"]
Mode = Literal["tests", "judge", "patch"]
Variants = Literal["golden", "retrieved", "both"]
_NAMES = ("calc.py", "util.py", "tool.py", "core.py")


class SweAgentless(Domain):
    """One small file, one fault, one edit; or released rows, with the files of the gold patch, with retrieved ones, or both."""

    name = "swe_agentless"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        judged: bool = False,
        task: Task = "repair",
        grading_mode: Mode | None = None,
        variants: Variants = "golden",
        top: int = 5,
        file_tokens: int = 60_000,
        strict: bool = False,
    ) -> None:
        """`task`: of rows that name none. `grading_mode`: of repairs whose row names none (`patch`: 1 when the edits apply); left out:
        `judge` with a judge model, else `tests`. `variants`: the row's own files, the `top` retrieved ones, or a prompt of each.
        `file_tokens`: whole files are shown while they fit into so many. `strict`: edits that could be read or applied in two ways are
        refused, as `patch` always does, where the reference takes the first.
        """
        super().__init__(level, rows)
        self.judged = judged
        self.task: str = _one_of(task, Task, f"domain {self.name}: task")
        self.grading_mode = self._mode(
            grading_mode or ("judge" if judged else "tests"), f"domain {self.name}: grading_mode"
        )
        self.variants: str = _one_of(variants, Variants, f"domain {self.name}: variants")
        if top < 1 or file_tokens < 1:
            raise UserError(
                f"domain {self.name}: top is {top}, file_tokens {file_tokens}; both must be at least 1"
            )
        self.top, self.file_tokens, self.strict = top, file_tokens, strict
        self._alone: set[str] = set()
        """Rows counted because `variants: both` finds nothing to retrieve from."""
        self.sandbox = Sandbox(
            Limits(cpu=10, wall=60.0, memory=1 << 30) if rows is not None else Limits()
        )

    def _mode(self, mode: Any, where: str) -> str:
        if _one_of(mode, Mode, where) == "judge" and not self.judged:
            raise UserError(
                f"{where} is 'judge', which needs a judge model; give the domain one, or choose tests or patch"
            )
        return str(mode)

    # -------------------------------------------------- the tiny generator

    def make(self, rng: random.Random) -> Prompt:
        """Tiny: a repair of a two-line function; or which of three files, or a test for one."""
        if self.task == "localise":
            return self._make_localise(rng)
        function = functions.make(rng)
        bug = rng.choice(function.wrong())
        parts, calls = (
            [function.source(bug.body)],
            [(function, x) for x in functions.inputs(function, rng)],
        )
        if rng.random() < 0.5:
            other = functions.make(rng, avoid=(function.name,))
            while other.body in (bug.body, function.body):
                other = functions.make(rng, avoid=(function.name,))
            parts.insert(rng.randint(0, 1), other.source())
            calls += [(other, x) for x in functions.inputs(other, rng)[:2]]
        path = rng.choice(_NAMES)
        file = "\n".join(parts)
        hidden = {
            "task": self.task,
            "mode": "tests" if self.rows is not None else self.grading_mode,
            "issue": f"{function.name}({function.argument}) must return {function.spec}.",
            "files": {path: file},
            "calls": [(f"{path[:-3]}:{f.name}", [x]) for f, x in calls],
            "outputs": [f.value(x) for f, x in calls],
            "path": path,
            "bug": bug.body,
            "body": function.body,
            "wrong": [wrong.body for wrong in function.wrong()],
        }
        text = f"{hidden['issue']}\n\n### {path}\n{file}"
        if self.task == "test":
            shown = next(x for f, x in calls if f is function and bug.value(x) != function.value(x))
            hidden["after"] = {
                path: file.replace(f"    return {bug.body}\n", f"    return {function.body}\n")
            }
            hidden["shows"] = (function.name, shown, function.value(shown), bug.value(shown))
            text = f"write a test. {text}"
        return Prompt(self.name, "", (Message("user", text),), thinking=True, hidden=hidden)

    def _make_localise(self, rng: random.Random) -> Prompt:
        """Three files of one function each, shown by name; the issue names one function."""
        files: dict[str, str] = {}
        chosen: list[functions.Function] = []
        for path in sorted(rng.sample(_NAMES, 3)):
            chosen.append(functions.make(rng, avoid=[one.name for one in chosen]))
            files[path] = chosen[-1].source()
        at = rng.randrange(3)
        function, path = chosen[at], list(files)[at]
        files[path] = function.source(rng.choice(function.wrong()).body)
        issue = f"{function.name}({function.argument}) must return {function.spec}."
        tree = "\n".join(f"{name}: {one.name}" for name, one in zip(files, chosen, strict=True))
        hidden = {
            "task": "localise",
            "issue": issue,
            "repository": files,
            "golden": [path],
            "top": 1,
            "functions": [f"{path}::{function.name}"],
        }
        return Prompt(
            self.name,
            "",
            (Message("user", f"which file? {issue}\n\n{tree}"),),
            thinking=True,
            hidden=hidden,
        )

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the replacement is the faulty line again, or another wrong one; another file; a test of what the fault returns."""
        hidden = prompt.hidden
        if hidden["task"] == "localise":
            others = [path for path in hidden["repository"] if path not in hidden["golden"]]
            path = rng.choice(others) if faulty else hidden["golden"][0]
            return (
                Message(
                    "assistant",
                    f"<solution>\n{path}\n</solution>",
                    reasoning=hidden["functions"][0].partition("::")[2],
                ),
            )
        if hidden["task"] == "test":
            name, given, right, wrong = hidden["shows"]
            value = wrong if faulty else right
            text = f"from {hidden['path'][:-3]} import {name}\n\n\ndef test_{name}():\n    assert {name}({given!r}) == {value!r}"
            return (
                Message(
                    "assistant",
                    f"<solution>\n```python\n{text}\n```\n</solution>",
                    reasoning=hidden["body"],
                ),
            )
        body = hidden["body"]
        if faulty:
            body = hidden["bug"] if rng.random() < 0.5 else rng.choice(hidden["wrong"])
        edit = edits.Edit(hidden["path"], f"    return {hidden['bug']}", f"    return {body}")
        return (Message("assistant", _solution([edit]), reasoning=body),)

    def gold(self, prompt: Prompt) -> Reply:
        """The clean demonstration; for a row its gold patch as edits, its golden files, its hidden tests."""
        hidden = prompt.hidden
        if "body" in hidden or (hidden["task"] == "localise" and "patch" not in hidden):
            (message,) = self.demonstrate(prompt, random.Random(0), faulty=False)
            return Reply(text=message.content, reasoning=message.reasoning or "")
        if hidden["task"] == "localise":
            return Reply(text="<solution>\n" + "\n".join(hidden["golden"]) + "\n</solution>")
        if hidden["task"] == "test" and hidden["tests"]:
            return Reply(text=f"<solution>\n```python\n{hidden['tests']}\n```\n</solution>")
        if hidden["task"] == "repair" and hidden["patch"]:
            try:
                after = patches.apply(hidden["files"], hidden["patch"], hidden["repo_name"])
                return Reply(text=_solution(patches.edits_between(hidden["files"], after)))
            except patches.BadPatch as error:
                raise UserError(
                    f"prompt {prompt.id}: the row's patch does not fit the files shown: {error}"
                ) from None
        raise UserError(f"prompt {prompt.id}: the row holds no answer")

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """One reply alone. A repair that only a judge model can score earns 0 here; its tests, where there are any, decide instead."""
        hidden = prompt.hidden
        if hidden["task"] == "localise":
            return localisation.judge(
                reply.text, hidden["golden"], hidden["top"], hidden["functions"]
            )
        if hidden["task"] == "test":
            try:
                test = written_tests.read(reply.text)
            except written_tests.BadTest as error:
                return Verdict(0.0, str(error), {"passes_after": 0.0})
            return written_tests.judge(
                self.sandbox,
                test,
                hidden.get("repository", hidden.get("files", {})),
                hidden["after"],
            )
        after = self._after(hidden, reply)
        if isinstance(after, str):
            return Verdict(0.0, after, {"applied": 0.0})
        if hidden["mode"] == "patch":
            return Verdict(1.0, "the edits apply", {"applied": 1.0})
        return replace(self._by_tests(hidden, after), metrics={"applied": 1.0})

    def _by_tests(self, hidden: Mapping[str, Any], after: Mapping[str, str]) -> Verdict:
        if hidden.get("tests"):
            outcome = self.sandbox.check_files(
                {**hidden.get("repository", {}), **after}, hidden["tests"]
            )
            passed = outcome.status == "ok"
            return Verdict(float(passed), "the tests passed" if passed else outcome.error)
        if "calls" in hidden:
            return functions.judge_values(
                self.sandbox.call_files(after, hidden["calls"]), hidden["outputs"]
            )
        return Verdict(0.0, "the edits apply; a judge model decides")

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """One question a repair that applies; edits that cannot be read or applied are not shown to the judge."""
        if not self._asks(prompt):
            return ()
        hidden = prompt.hidden
        gold = hidden.get("patch", "")
        questions = []
        for index, reply in enumerate(replies):
            after = self._after(hidden, reply)
            if isinstance(after, dict):
                questions.append(
                    scoring.question(hidden["issue"], hidden["files"], after, gold, index)
                )
        return questions

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """The judge's score of each repair, 0 for edits that do not apply; a score that nobody could read is `unreliable`: not trained."""
        if not self._asks(prompt):
            return None
        by_reply = {question.replies[0]: answer for question, answer in answers}
        verdicts = []
        for index, reply in enumerate(replies):
            after = self._after(prompt.hidden, reply)
            if isinstance(after, str):
                verdicts.append(Verdict(0.0, after, {"applied": 0.0}))
                continue
            if index not in by_reply:
                return None
            score = scoring.score_of(by_reply[index])
            if score is None:
                verdicts.append(
                    Verdict(0.0, "the judge gave no score", {"applied": 1.0, "unreliable": 1.0})
                )
            else:
                verdicts.append(Verdict(score, f"the judge's score: {score:g}", {"applied": 1.0}))
        return verdicts

    def _asks(self, prompt: Prompt) -> bool:
        return (
            self.judged and prompt.hidden["task"] == "repair" and prompt.hidden["mode"] == "judge"
        )

    def _after(self, hidden: Mapping[str, Any], reply: Reply) -> dict[str, str] | str:
        """The files after a reply's edits, or why they do not apply."""
        strict = self.strict or hidden["mode"] == "patch"
        try:
            return edits.apply(hidden["files"], edits.parse(reply.text, strict), strict)
        except edits.BadEdit as error:
            return str(error)

    # -------------------------------------------------- rows

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """Rows as `agentless/instance.py` names them; `task` and `grading_mode` beside the row's metadata or in it."""
        where = f"{self.name} row {index}"
        instance = instance_from_row(row, index, where)
        meta = row.get("metadata") or {}
        task = _one_of(row.get("task", meta.get("task", self.task)), Task, f"{where}: task")
        known = {
            "task": task,
            "issue": instance.issue,
            "files": instance.files,
            "repository": instance.repository,
        }
        hidden: dict[str, Any] = {
            **known,
            "patch": instance.patch,
            "repo_name": instance.repo_name,
            "tests": instance.tests,
        }
        if task == "repair":
            hidden["mode"] = self._mode(
                row.get("grading_mode", meta.get("grading_mode", self.grading_mode)),
                f"{where}: grading_mode",
            )
            if hidden["mode"] == "tests" and instance.tests is None:
                raise UserError(
                    f"{where}: grading_mode 'tests' needs metadata.tests, a Python text with test functions;"
                    " rows without can be graded by judge or patch"
                )
        else:
            hidden |= self._known_repair(instance, where)
        request = instance.request
        prompt = Prompt(self.name, "", request.messages, request.thinking, request.tools, hidden)
        prompt = self._asked(prompt, where)
        return replace(prompt, id=f"{content_key(prompt)}.{index}")

    def _known_repair(self, instance: Instance, where: str) -> dict[str, Any]:
        """What localisation and tests are graded by; needs a gold patch that fits."""
        try:
            after, golden = instance.changed(), instance.golden()
        except patches.BadPatch as error:
            raise UserError(
                f"{where}: task localise or test needs a golden_patch that fits the files: {error}"
            ) from None
        return {
            "after": after,
            "golden": list(golden),
            "functions": changed_functions(instance.repository, after),
        }

    def _asked(self, prompt: Prompt, where: str) -> Prompt:
        """The prompt in words, with the files it shows."""
        hidden = dict(prompt.hidden)
        if hidden["task"] == "localise":
            count = len(hidden["repository"])
            hidden["top"] = max(len(hidden["golden"]), min(self.top, count // 2))
            if hidden["top"] >= count:
                raise UserError(
                    f"{where}: task localise needs metadata.files, the repository's files; {count} are known"
                )
            text = asking.with_tree(
                hidden["issue"],
                hidden["repository"],
                self.file_tokens,
                asking.localise(hidden["top"]),
            )
            return replace(prompt, messages=(Message("user", text),), hidden=hidden)
        if self.variants == "retrieved":
            return self._with_retrieved(prompt, where)
        if hidden["task"] == "repair" and prompt.messages:
            return prompt
        return self._with_files(prompt, list(hidden["files"]))

    def _with_retrieved(self, prompt: Prompt, where: str) -> Prompt:
        """The same task over the files that the issue's words find."""
        repository = prompt.hidden["repository"]
        if len(repository) <= len(prompt.hidden["files"]):
            raise UserError(
                f"{where}: variants {self.variants!r} needs metadata.files, the repository's files to retrieve from"
            )
        return self._with_files(
            prompt, retrieve.Index(repository).ranked(prompt.hidden["issue"])[: self.top]
        )

    def _with_files(self, prompt: Prompt, paths: Sequence[str]) -> Prompt:
        task = asking.REPAIR if prompt.hidden["task"] == "repair" else asking.TEST
        text, shown = asking.with_files(
            prompt.hidden["issue"], prompt.hidden["repository"], paths, self.file_tokens, task
        )
        return replace(
            prompt, messages=(Message("user", text),), hidden={**prompt.hidden, "files": shown}
        )

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """As `Domain`; with `variants: both` each row's prompt is followed by the same task over retrieved files, if it has more files."""
        for prompt in super().prompts(split, seed):
            yield prompt
            if self.rows is None or self.variants != "both" or prompt.hidden["task"] == "localise":
                continue
            if len(prompt.hidden["repository"]) > len(prompt.hidden["files"]):
                yield replace(self._with_retrieved(prompt, self.name), id=f"{prompt.id}.retrieved")
            elif prompt.id not in self._alone:
                self._alone.add(prompt.id)
                self.tally.add_other("with no files to retrieve from: one prompt each")

    def close(self) -> None:
        self.sandbox.close()


def _one_of(value: Any, allowed: Any, where: str) -> str:
    if value not in get_args(allowed):
        raise UserError(f"{where} is {value!r}; allowed: {', '.join(get_args(allowed))}")
    return str(value)


def _solution(found: Sequence[edits.Edit]) -> str:
    return "<solution>\n" + "\n".join(edits.block(edit) for edit in found) + "\n</solution>"
