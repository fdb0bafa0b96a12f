"""What a domain is: prompts, a grader, gold answers.

Optionally it has an environment, a group judge and demonstrations. A domain is one file (or
package) holding one subclass of `Domain`; the file's name is the domain's name. A new one writes
`make`, `verify` and `gold`; everything else has a default. No domain imports another.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

from linn.data.tally import Tally
from linn.errors import UserError
from linn.judges.text import Question
from linn.types import Message, Prompt, Reply, Split, Verdict, seed_of

_MOST_MISSES = 20_000
"""Draws in a row without a new prompt of a split, after which its generator counts as exhausted."""


class Env(Protocol):
    """The counterpart of one multi-turn conversation; holds its state."""

    def step(self, message: Message) -> tuple[Message, ...] | None:
        """React to an assistant turn: `tool` turns to append, or None to end the conversation.

        A model's mistake (unknown tool, broken arguments, crash of its code) is text for the
        model, never an exception. Infrastructure failure raises InfrastructureError.
        """
        ...

    def close(self) -> None:
        """Free what the environment holds; called once, always."""
        ...


class Sums:
    """Running sums by name, that threads may add to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sums: dict[str, float] = {}

    def add(self, **amounts: float) -> None:
        """Add to each of the named sums."""
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] = self._sums.get(name, 0.0) + amount

    def read(self) -> dict[str, float]:
        """The sums so far."""
        with self._lock:
            return dict(self._sums)

    def __reduce__(self) -> tuple[type[Sums], tuple[()]]:
        """A copy in another process counts for itself."""
        return Sums, ()


class Domain:
    """Prompts and a grader.

    Subclasses override `make`, `verify`, `gold`, and what else they need.
    """

    name: ClassVar[str]
    """The file's name."""
    levels: ClassVar[tuple[str, ...]] = ("tiny",)
    """The generator's levels.

    `tiny` is the laptop recipe's; `full` is as hard as the paper's data.
    """
    judged: bool = False
    """Whether a judge model decides; set by the constructor of domains that a model can judge."""
    questions_per_reply: int = 1
    """Questions to the judge model about one reply, at most; used to estimate cost."""
    skip_bad: bool = False
    """Whether rows that cannot be used are counted in `tally` and skipped; if not, the first of
    them is an error."""
    workers: int = 8
    """Replies graded at once; more wait in order."""
    max_turns: int = 1
    """Most assistant turns of a conversation; above 1, `env` must be there."""

    def __init__(self, level: str = "tiny", rows: str | Path | None = None) -> None:
        """`level`: which generator.

        `rows`: JSONL in the released layout (a path or `hf://…`) instead of a generator.
        """
        if level not in self.levels:
            allowed = ", ".join(self.levels)
            raise UserError(
                f"domain {self.name}: level {level!r} is unknown; allowed: {allowed}. "
                "For real data give rows: FILE.jsonl"
            )
        self.level = level
        self.rows = rows
        self.tally = Tally()
        """What became of the rows read so far."""
        self.grading = Sums()
        """Grading totals: replies `verified`, `seconds` spent verifying, seconds `waited` in the
        queue."""

    # -------------------------------------------------- to be written by a domain

    def make(self, rng: random.Random) -> Prompt:
        """One prompt of the generator, a function of `rng` alone; `id` may be left empty."""
        raise NotImplementedError

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Grade one reply. Never raises on any reply, never overruns its time limit."""
        raise NotImplementedError

    def gold(self, prompt: Prompt) -> Reply:
        """A reply that earns full reward."""
        raise NotImplementedError

    # -------------------------------------------------- with defaults

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """A prompt from a row of the released layout; UserError names the field that is wrong."""
        raise UserError(f"domain {self.name} does not read rows")

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The turns after the prompt of a demonstration.

        Clean, or with this domain's one systematic fault.
        """
        raise NotImplementedError(f"domain {self.name} has no demonstrations")

    def env(self, prompt: Prompt) -> Env:
        """A fresh environment for one conversation (multi-turn domains)."""
        raise NotImplementedError(f"domain {self.name} is single-turn")

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """What a judge model is asked about these siblings; empty if no model decides.

        In evaluation a reply is judged alone, as a group of one.
        """
        return ()

    def question_count(self, siblings: int) -> int:
        """Upper bound on judge questions for this many siblings; used to estimate cost."""
        if not self.judged:
            return 0
        return siblings * self.questions_per_reply

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """One verdict per sibling, if rewards depend on the others or on a judge model.

        None leaves each reply to `verify`. `answers`: every question of `questions` with the
        judge's answer to it, the judge's reasoning removed; empty text if none was readable.
        `Question.replies` tells which replies an answer is about.
        """
        return None

    def totals(self) -> Mapping[str, float]:
        """Totals of what its worker processes did (`executions`, `seconds`, `timeouts`, …).

        Empty if it has none.
        """
        return {}

    def close(self) -> None:
        """Free what the domain holds (worker processes, temporary folders)."""

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """The stream of a split: endless from the generator, finite from rows.

        It is the same each time for the same arguments. Splits are disjoint by content
        (`split_of`). `seed` reorders train only, so every seed is measured on the same test
        prompts. Validation and test never repeat a prompt.
        """
        if self.rows is not None:
            yield from self._rows(split, seed)
            return
        held_out = split != "train"
        order = 0 if held_out else seed
        seen: set[str] = set()
        index = misses = 0
        # Nine draws of ten belong to other splits. A small generator runs out of new prompts for a
        # held-out split: the stream then ends.
        while misses < _MOST_MISSES:
            rng = random.Random(seed_of("prompts", self.name, split, order, index))
            index += 1
            prompt = self.make(rng)
            key = content_key(prompt)
            if split_of(key) != split or key in seen:
                misses += 1
                continue

            misses = 0
            if held_out:
                seen.add(key)
                yield replace(prompt, id=key)
            else:
                yield replace(prompt, id=f"{key}.{index}")

    def _rows(self, split: Split, seed: int) -> Iterator[Prompt]:
        """Prompts from `rows`, as the file is read.

        Train comes in blocks shuffled by `seed`; the held-out splits come in the file's order,
        each prompt once.
        """
        from linn.data.names import located
        from linn.data.rows import Lines, shuffled

        assert self.rows is not None
        path = located(self.rows)
        held_out = split != "train"
        lines: Iterable[tuple[int, bytes]]
        if held_out:
            lines = Lines(path)
        else:
            lines = shuffled(path, seed_of("rows", self.name, seed))

        # Training may repeat a prompt that the file repeats; a held-out score may not.
        seen: set[str] = set()
        for line, raw in lines:
            prompt = self._of_line(path, line, raw)
            if prompt is None:
                continue
            key = content_key(prompt)
            if split_of(key) != split or key in seen:
                continue
            if held_out:
                seen.add(key)
            yield prompt

    def _of_line(self, path: Path, line: int, raw: bytes) -> Prompt | None:
        """The prompt of a line; all lines are counted in `tally`.

        None for another domain's row and, with `skip_bad`, for a bad one.
        """
        from linn.data.agents import check_signal, is_for, owner, owner_in_words
        from linn.data.layouts import present
        from linn.data.rows import object_of
        from linn.data.tally import fault

        fresh = self.tally.new(line)
        try:
            row = present(object_of(raw))
            agent = owner(row)
            if agent is not None and not is_for(agent, self.name):
                if fresh:
                    self.tally.add_other(owner_in_words(agent))
                return None
            check_signal(row, self.name)
            prompt = replace(self.from_row(row, line - 1), pass_rate=_pass_rate(row))
        except UserError as error:
            message, reason = fault(error)
            line_text = f"{path} line {line}: {message}"
            if not self.skip_bad:
                raise UserError(
                    f"{line_text}; domains.{self.name}.skip_bad: true (linn filter: --skip-bad) "
                    f"counts and skips such rows; linn data {path} shows them all"
                ) from None
            if fresh:
                self.tally.add_bad(reason, line_text)
            return None
        self.tally.good += fresh
        return prompt


def _pass_rate(row: Mapping[str, Any]) -> float | None:
    """A row's pass rate, where it is a number; a curriculum refuses rows without one."""
    rate = row.get("pass_rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        return None
    return float(rate)


def content_key(prompt: Prompt) -> str:
    """A short hash of what the model reads.

    Equal prompts have equal keys, so splits made from it cannot overlap.
    """
    text = repr([(m.role, m.content) for m in prompt.messages])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def split_of(key: str) -> Split:
    """Which split a content key belongs to: a tenth test, a tenth validation, the rest train."""
    bucket = int(key[:8], 16) % 10
    if bucket == 0:
        return "test"
    if bucket == 1:
        return "validation"
    return "train"
