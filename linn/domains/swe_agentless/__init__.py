"""Agentless software engineering: repairs by edits, the files to change, or a test to write."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

from linn.domains.base import Domain, content_key
from linn.domains.common import diffs, edits
from linn.domains.common.values import grade_values
from linn.domains.swe_agentless import (
    asking,
    instance,
    localisation,
    retrieve,
    scoring,
    tiny,
    written_tests,
)
from linn.domains.swe_agentless.solution import solution
from linn.domains.swe_agentless.tasks import (
    LocaliseTask,
    Mode,
    RepairTask,
    Task,
    TaskKind,
    WriteTestTask,
    localise_of,
    one_of,
    repair_of,
    write_test_of,
)
from linn.errors import UserError
from linn.judges.text import Question
from linn.sandbox import Limits, Sandbox
from linn.types import Message, Prompt, Reply, Split, Verdict

Variants = Literal["golden", "retrieved", "both"]


class SweAgentless(Domain):
    """One small file, one fault, one edit; or released rows.

    Rows are shown with the files of the gold patch, with retrieved ones, or both.
    """

    name = "swe_agentless"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        judged: bool = False,
        task: TaskKind = "repair",
        grading_mode: Mode | None = None,
        variants: Variants = "golden",
        top: int = 5,
        file_tokens: int = 60_000,
        strict: bool = False,
        reference: bool = False,
    ) -> None:
        """`task`: of rows that name none. `grading_mode`: of repairs whose row names none.

        `patch`: 1 when the edits apply; left out: `judge` with a judge model, else `tests`.
        `variants`: the row's own files, the `top` retrieved ones, or a prompt of each.
        `file_tokens`: whole files are shown while they fit into so many. `strict`: edits that could
        be read or applied in two ways are refused, as `patch` always does, where the reference
        takes the first. `reference`: an edit is divided at its first line of seven `=`, as
        nemo-gym does.
        """
        super().__init__(level, rows)
        where = f"domain {self.name}"
        self.judged = judged
        self.task = one_of(task, TaskKind, f"{where}: task")
        default_mode = "judge" if judged else "tests"
        self.grading_mode = self._mode(grading_mode or default_mode, f"{where}: grading_mode")
        self.variants = one_of(variants, Variants, f"{where}: variants")
        if top < 1 or file_tokens < 1:
            raise UserError(
                f"{where}: top is {top}, file_tokens {file_tokens}; both must be at least 1"
            )
        self.top = top
        self.file_tokens = file_tokens
        self.strict = strict
        self.reference = reference
        self._alone: set[str] = set()
        """Rows counted because `variants: both` finds nothing to retrieve from."""

        # Repositories of rows import more and run longer than a generated file.
        limits = Limits() if rows is None else Limits(cpu=10, wall=60.0, memory=1 << 30)
        self.sandbox = Sandbox(limits)

    def _mode(self, mode: Any, where: str) -> Mode:
        """A grading mode that this domain can use; UserError for another."""
        if one_of(mode, Mode, where) == "judge" and not self.judged:
            raise UserError(
                f"{where} is 'judge', which needs a judge model; "
                "give the domain one, or choose tests or patch"
            )
        return cast(Mode, mode)

    # -------------------------------------------------- prompts

    def make(self, rng: random.Random) -> Prompt:
        """A repair of a two-line function; or which of three files, or a test for one."""
        text, task = self._draw(rng)
        question = Message("user", text)
        return Prompt(self.name, "", (question,), thinking=True, hidden=task)

    def _draw(self, rng: random.Random) -> tuple[str, Task]:
        """A generated task and the text for the model."""
        if self.task == "localise":
            return tiny.localise(rng)
        if self.task == "test":
            return tiny.write_test(rng)
        # A generated prompt holds tests; a mode given for rows is not about it.
        return tiny.repair(rng, "tests" if self.rows is not None else self.grading_mode)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The faults: see `tiny.demonstration`."""
        return (tiny.demonstration(_task(prompt), rng, faulty),)

    def gold(self, prompt: Prompt) -> Reply:
        """The clean demonstration.

        For a row: its gold patch as edits, its golden files, its hidden tests.
        """
        task = _task(prompt)
        if _is_generated(task):
            message = tiny.demonstration(task, random.Random(0), faulty=False)
            return Reply(text=message.content, reasoning=message.reasoning or "")

        match task:
            case LocaliseTask():
                return Reply(text=solution("\n".join(task.golden)))
            case WriteTestTask() if task.tests:
                return Reply(text=solution(f"```python\n{task.tests}\n```"))
            case RepairTask() if task.patch:
                return Reply(text=solution(_gold_edits(task, prompt.id)))
            case _:
                raise UserError(f"prompt {prompt.id}: the row holds no answer")

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """The verdict that needs no judge model.

        A repair that only a judge can score earns 0 here; its tests, where there are any, decide
        instead.
        """
        task = _task(prompt)
        match task:
            case LocaliseTask():
                return localisation.grade(reply.text, task.golden, task.top, task.functions)
            case WriteTestTask():
                return self._verify_test(task, reply)
            case RepairTask():
                return self._verify_repair(task, reply)

    def _verify_test(self, task: WriteTestTask, reply: Reply) -> Verdict:
        try:
            test = written_tests.read(reply.text)
        except written_tests.BadTest as error:
            return Verdict(0.0, str(error), {"passes_after": 0.0})
        return written_tests.grade(self.sandbox, test, task.repository, task.after)

    def _verify_repair(self, task: RepairTask, reply: Reply) -> Verdict:
        after = self._after(task, reply)
        if isinstance(after, str):
            return Verdict(0.0, after, {"applied": 0.0})
        if task.mode == "patch":
            return Verdict(1.0, "the edits apply", {"applied": 1.0})
        return replace(self._by_tests(task, after), metrics={"applied": 1.0})

    def _by_tests(self, task: RepairTask, after: Mapping[str, str]) -> Verdict:
        """The verdict of the hidden tests on the files after the edits."""
        if task.tests:
            outcome = self.sandbox.check_files({**task.repository, **after}, task.tests)
            if outcome.status == "ok":
                return Verdict(1.0, "the tests passed")
            return Verdict(0.0, outcome.error)
        if task.toy is not None:
            outcomes = self.sandbox.call_files(after, task.toy.calls)
            return grade_values(outcomes, task.toy.outputs)
        return Verdict(0.0, "the edits apply; a judge model decides", undecided=True)

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """One question per repair that applies; the judge does not see the others."""
        task = self._judged_task(prompt)
        if task is None:
            return ()
        questions = []
        for index, reply in enumerate(replies):
            after = self._after(task, reply)
            if isinstance(after, dict):
                question = scoring.question(task.issue, task.files, after, task.patch, index)
                questions.append(question)
        return questions

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """The judge's score of each repair, 0 for edits that do not apply."""
        task = self._judged_task(prompt)
        if task is None:
            return None
        by_reply = {question.replies[0]: question.read(answer) for question, answer in answers}

        verdicts = []
        for index, reply in enumerate(replies):
            after = self._after(task, reply)
            if isinstance(after, str):
                verdicts.append(Verdict(0.0, after, {"applied": 0.0}))
                continue
            # Nobody asked the judge: each reply is left to `verify`.
            if index not in by_reply:
                return None
            verdicts.append(scoring.verdict_of(by_reply[index]))
        return verdicts

    def _judged_task(self, prompt: Prompt) -> RepairTask | None:
        """The prompt's repair where a judge model decides; None elsewhere."""
        task = _task(prompt)
        if self.judged and isinstance(task, RepairTask) and task.mode == "judge":
            return task
        return None

    def _after(self, task: RepairTask, reply: Reply) -> dict[str, str] | str:
        """The files after a reply's edits, or why they do not apply."""
        strict = self.strict or task.mode == "patch"
        try:
            files = None if self.reference else task.files
            return edits.apply(task.files, edits.parse(reply.text, strict, files), strict)
        except edits.BadEdit as error:
            return str(error)

    # -------------------------------------------------- rows

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """Rows as `instance.from_row` reads them.

        `task` and `grading_mode` may stand beside the row's metadata or in it.
        """
        where = f"{self.name} row {index}"
        issue_row = instance.from_row(row, index, where)
        meta = row.get("metadata") or {}
        kind = row.get("task", meta.get("task", self.task))
        one_of(kind, TaskKind, f"{where}: task")

        request = issue_row.request
        prompt = request.prompt(self.name, "")
        if kind == "localise":
            prompt = self._with_tree(prompt, localise_of(issue_row, self.top, where))
        elif kind == "test":
            prompt = self._asked(prompt, write_test_of(issue_row, where), where)
        else:
            mode = row.get("grading_mode", meta.get("grading_mode", self.grading_mode))
            mode = self._mode(mode, f"{where}: grading_mode")
            prompt = self._asked(prompt, repair_of(issue_row, mode, where), where)

        # The id follows from what the model reads, which is known only now.
        return replace(prompt, id=f"{content_key(prompt)}.{index}")

    def _with_tree(self, prompt: Prompt, task: LocaliseTask) -> Prompt:
        """The prompt of a localisation."""
        request = asking.localise(task.top)
        text = asking.with_tree(task.issue, task.repository, self.file_tokens, request)
        return replace(prompt, messages=(Message("user", text),), hidden=task)

    def _asked(self, prompt: Prompt, task: RepairTask | WriteTestTask, where: str) -> Prompt:
        """The prompt of a repair or a test to write, with the files it shows."""
        if self.variants == "retrieved":
            return self._with_retrieved(prompt, task, where)
        # A row's own conversation is a request for a repair.
        if isinstance(task, RepairTask) and prompt.messages:
            return replace(prompt, hidden=task)
        return self._with_files(prompt, task, list(task.files))

    def _with_retrieved(
        self, prompt: Prompt, task: RepairTask | WriteTestTask, where: str
    ) -> Prompt:
        """The same task over the files that the issue's words find."""
        if len(task.repository) <= len(task.files):
            raise UserError(
                f"{where}: variants {self.variants!r} needs metadata.files, "
                "the repository's files to retrieve from"
            )
        ranked = retrieve.Index(task.repository).ranked(task.issue)
        return self._with_files(prompt, task, ranked[: self.top])

    def _with_files(
        self, prompt: Prompt, task: RepairTask | WriteTestTask, paths: Sequence[str]
    ) -> Prompt:
        """The task over these files, as many as fit."""
        request = asking.REPAIR if isinstance(task, RepairTask) else asking.TEST
        text, shown = asking.with_files(
            task.issue, task.repository, paths, self.file_tokens, request
        )
        hidden = replace(task, files=shown)
        return replace(prompt, messages=(Message("user", text),), hidden=hidden)

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """As `Domain`; with `variants: both` each row gives two prompts.

        The second is the same task over retrieved files, if the row has more files.
        """
        for prompt in super().prompts(split, seed):
            yield prompt
            if self.rows is None or self.variants != "both":
                continue
            # A localisation shows the whole tree: nothing is retrieved.
            task = _task(prompt)
            if isinstance(task, LocaliseTask):
                continue

            if len(task.repository) > len(task.files):
                twin = self._with_retrieved(prompt, task, self.name)
                yield replace(twin, id=f"{prompt.id}.retrieved")
            elif prompt.id not in self._alone:
                # Counted once, though train comes back to a row.
                self._alone.add(prompt.id)
                self.tally.add_other("with no files to retrieve from: one prompt each")

    def close(self) -> None:
        """End the sandbox."""
        self.sandbox.close()


def _task(prompt: Prompt) -> Task:
    assert isinstance(prompt.hidden, Task), type(prompt.hidden)
    return prompt.hidden


def _is_generated(task: Task) -> bool:
    """Whether the generator made a task."""
    if isinstance(task, LocaliseTask):
        return task.generated
    return task.toy is not None


def _gold_edits(task: RepairTask, prompt_id: str) -> str:
    """A row's gold patch as edit blocks; UserError where it does not fit the files shown."""
    try:
        after = diffs.apply(task.files, task.patch, task.repo_name)
    except diffs.BadPatch as error:
        raise UserError(
            f"prompt {prompt_id}: the row's patch does not fit the files shown: {error}"
        ) from None
    return "\n".join(edits.block(edit) for edit in diffs.edits_between(task.files, after))
