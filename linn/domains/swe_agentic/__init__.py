"""Repair in a repository with tools: look, edit, run the tests, stop.

Hidden tests judge the files as the conversation left them. Three sizes: generated repositories of
two files (`tiny`); rows that hold files and tests; rows that name a published package (`full`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from linn.data.agents import metadata_of
from linn.data.names import located
from linn.data.rows import BadRow, Lines
from linn.domains.base import Domain, Env, content_key
from linn.domains.common import edits
from linn.domains.swe_agentic import episode, tiny
from linn.domains.swe_agentic import rows as task_rows
from linn.domains.swe_agentic.episode import Endings, Episode
from linn.domains.swe_agentic.rows import ImageTask, RepairTask
from linn.domains.swe_agentic.tiny import FilesConversation, FilesTask, TinyTask
from linn.errors import UserError
from linn.sandbox import Limits, Sandbox
from linn.types import Message, Prompt, Reply, Split, Verdict, seed_of

_MAX_TURNS = {"tiny": 5, "full": 200}
"""By level; 200 as in paper §4.8.2."""
_ROW_LIMITS = Limits(cpu=10, wall=60.0, memory=1 << 30)
"""What the tests of a row that holds its files may use."""


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
        """`max_turns`: None: 5 at `tiny`, 200 at `full` (paper §4.8.2).

        `held_out`: packages of which validation and test are made, train of the others; None: each
        row goes where its text's hash says.
        """
        super().__init__(level, rows)
        if level == "full" and rows is None:
            raise UserError(
                f"domain {self.name}: level full needs rows; make some:"
                " linn tasks --out tasks.jsonl"
            )
        if max_turns is not None and max_turns < 1:
            raise UserError(f"domain {self.name}: max_turns must be 1 or more, found {max_turns}")
        if held_out is not None and level != "full":
            raise UserError(f"domain {self.name}: held_out has a meaning at level full only")
        self.max_turns = max_turns or _MAX_TURNS[level]
        self.held_out = None if held_out is None else frozenset(held_out)
        self.sandbox = Sandbox(Limits() if rows is None else _ROW_LIMITS)
        self._endings = Endings()

    def close(self) -> None:
        self.sandbox.close()

    def make(self, rng: random.Random) -> Prompt:
        text, task = tiny.make_task(rng)
        return self._files_prompt("", text, task)

    def _files_prompt(self, identity: str, text: str, task: TinyTask | FilesTask) -> Prompt:
        return Prompt(
            domain=self.name,
            id=identity,
            messages=(Message("user", text),),
            thinking=False,
            tools=tiny.TOOLS,
            hidden=task,
        )

    def gold(self, prompt: Prompt) -> Reply:
        task = prompt.hidden
        if isinstance(task, RepairTask):
            return episode.gold(task)
        if not isinstance(task, TinyTask):
            raise UserError(f"prompt {prompt.id}: the row holds no repair")
        turns = tiny.repair_turns(task, task.repair, run_tests=True)
        return Reply(text=turns[-1].content, messages=turns)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: a wrong repair, declared done without a test run.

        Rows hold no demonstrations.
        """
        task = prompt.hidden
        if not isinstance(task, TinyTask):
            raise UserError(
                f"prompt {prompt.id}: rows hold no demonstrations;"
                " they are for evaluation and reinforcement learning"
            )
        repair = rng.choice(task.wrong_repairs) if faulty else task.repair
        return tiny.repair_turns(task, repair, run_tests=not faulty)

    def env(self, prompt: Prompt) -> Env:
        task = prompt.hidden
        if isinstance(task, RepairTask):
            return Episode(task, self._endings)
        assert isinstance(task, (TinyTask, FilesTask)), task
        return FilesConversation(task, self.sandbox)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """1 iff the files as the conversation left them pass the hidden tests.

        `unreliable`, never trained (paper §4.8.2): a repair that passes though the conversation
        ended at a limit of turns, tokens or time, and one whose tests ended at a limit.
        """
        task = prompt.hidden
        if isinstance(task, RepairTask):
            return episode.verdict(task, reply, self._endings)
        assert isinstance(task, (TinyTask, FilesTask)), task
        return tiny.verdict(task, reply, self.sandbox)

    # ------------------------------------------------------------ rows

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A row that names a package, or one that holds its files and tests.

        Raises BadRow for a row that needs a container image, UserError naming the field that is
        wrong.
        """
        where = f"{self.name} row {index}"
        meta = metadata_of(row)
        row = {**row, "metadata": meta}
        image_task = task_rows.image_task(row, where)
        if image_task is not None:
            raise _needs_image(image_task, where)

        if not isinstance(meta, Mapping):
            raise UserError(f"{where}: metadata must be an object, found {type(meta).__name__}")

        if "package" not in meta:
            return self._from_files_row(meta, where, index)
        if self.rows is not None and self.level != "full":
            raise UserError(
                f"{where}: a row that names a package needs level: full, found {self.level}"
            )
        return episode.prompt(task_rows.task(meta, where), self.name, where)

    def _from_files_row(self, meta: Mapping[str, Any], where: str, index: int) -> Prompt:
        """A row's `metadata` that holds the files and tests."""
        statement = meta.get("problem_statement")
        if not isinstance(statement, str):
            raise UserError(f"{where}: metadata.problem_statement must be a text")
        if "files" not in meta or not isinstance(meta.get("tests"), str):
            raise UserError(
                f"{where}: metadata.files (path to text) and metadata.tests"
                " (Python text with test functions) are needed"
            )

        files = edits.files_of(meta["files"], f"{where}: metadata.files")
        visible_tests = meta.get("visible_tests")
        task = FilesTask(
            files=files,
            tests=meta["tests"],
            visible_tests=visible_tests if isinstance(visible_tests, str) else None,
        )
        names = "\n".join(sorted(files))
        text = f"{statement}\n\nFiles:\n{names}"

        # Rows with the same text keep apart by their index.
        key = content_key(self._files_prompt("", text, task))
        return self._files_prompt(f"{key}.{index}", text, task)

    def _rows(self, split: Split, seed: int) -> Iterator[Prompt]:
        """With `held_out` packages, those make validation and test, half each by content."""
        if self.held_out is None:
            yield from super()._rows(split, seed)
            return

        prompts = self._every_row()
        packages = {_package_of(prompt) for prompt in prompts} - {""}
        unknown = sorted(self.held_out - packages)
        if unknown:
            raise UserError(
                f"domain {self.name}: held_out names {unknown[0]!r};"
                f" {self.rows} has {', '.join(sorted(packages))}"
            )

        # Rows that read the same are one prompt.
        chosen: dict[str, Prompt] = {}
        for prompt in prompts:
            key = content_key(prompt)
            own_split: Split = "train"
            if _package_of(prompt) in self.held_out:
                own_split = "test" if int(key[:8], 16) % 2 else "validation"
            if own_split == split:
                chosen.setdefault(key, prompt)

        # Only training sees another order per seed.
        in_order = list(chosen.values())
        if split == "train":
            rng = random.Random(seed_of("rows", self.name, seed))
            rng.shuffle(in_order)
        yield from in_order

    def _every_row(self) -> list[Prompt]:
        assert self.rows is not None
        path = located(self.rows)
        prompts = [self._of_line(path, line, raw) for line, raw in Lines(path)]
        return [prompt for prompt in prompts if prompt is not None]


def _needs_image(task: ImageTask, where: str) -> BadRow:
    image = task.image or "(not named)"
    return BadRow(
        f"{where}: {task.instance} is {task.repo} at {task.base_commit[:12]}"
        f" in its container image {image};"
        " that needs docker or apptainer and the image, which linn does not run."
        " Rows that run without: linn tasks; or metadata.files and metadata.tests",
        "needs its container image",
    )


def _package_of(prompt: Prompt) -> str:
    """The package that a row's task is in; empty where the row carries its files."""
    task = prompt.hidden
    return task.requirement.partition("==")[0] if isinstance(task, RepairTask) else ""
