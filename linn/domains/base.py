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
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, Protocol

from linn.data.overlap import asked
from linn.data.rows import BadRow
from linn.data.tally import Tally
from linn.domains.splits import NEAR, SURVEYED, Draw, Measured, Splits
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
    splits: Splits = Splits()
    """Where test and validation prompts come from; set from the recipe."""
    thinking: bool | None = None
    """Whether replies open with a thought, where the recipe says so; None: as each prompt does."""
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
        self.measured_tallies: dict[str, Tally] = {}
        """What became of the rows of test and validation files, by split."""
        self._drawn: dict[Split, list[Prompt]] = {}
        """Held-out prompts drawn from the whole of `rows`."""
        self._measured: Measured | None = None
        """What the test and validation files hold, once it was needed."""
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

    def unjudged(self, prompt: Prompt) -> str:
        """Why nobody can judge a reply to this prompt alone; empty where somebody can.

        Such a prompt is not measured, and that is told.
        """
        return ""

    @property
    def has_rows(self) -> bool:
        """Whether prompts come from rows, be it those of a test file alone."""
        return self.rows is not None or bool(self.splits.files)

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
        prompts. Validation and test never repeat a prompt; a file of their own is given whole.
        """
        file = self.splits.file(split)
        if file is not None:
            yield from self._whole_file(split, file)
            return
        if self.rows is not None:
            yield from self._rows(split, seed)
            return
        held_out = split != "train"
        order = 0 if held_out else seed
        measured = self._files_hold().keys
        seen: set[str] = set()
        index = misses = 0
        # Nine draws of ten belong to other splits. A small generator runs out of new prompts for a
        # held-out split: the stream then ends.
        while misses < _MOST_MISSES:
            rng = random.Random(seed_of("prompts", self.name, split, order, index))
            index += 1
            prompt = self.make(rng)
            key = content_key(prompt)
            if self.splits.of(key) != split or key in seen or key in measured:
                misses += 1
                continue

            misses = 0
            if held_out:
                seen.add(key)
                yield replace(prompt, id=key)
            else:
                yield replace(prompt, id=f"{key}.{index}")

    def in_mode(self, prompt: Prompt) -> Prompt:
        """The prompt in the recipe's mode, where the recipe sets one."""
        if self.thinking is None:
            return prompt
        return replace(prompt, thinking=self.thinking)

    def _rows(self, split: Split, seed: int) -> Iterator[Prompt]:
        """Prompts from `rows`, as the file is read.

        Train comes in blocks shuffled by `seed`; the held-out splits come as they were drawn, or in
        the file's order, each prompt once.
        """
        if split in self._drawn:
            yield from self._drawn[split]
            return
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
        ids: set[str] = set()
        for line, raw in lines:
            prompt = self._of_line(path, line, raw)
            if prompt is None:
                continue
            key = content_key(prompt)
            if self.splits.of(key) != split or key in seen:
                continue
            if held_out:
                seen.add(key)
                prompt = _apart(prompt, ids)
            yield prompt

    def split_rows(self) -> Iterator[tuple[Split, dict[str, Any]]]:
        """(split, row) of every row of `rows` that can be used, in the file's order."""
        from linn.data.names import located
        from linn.data.rows import Lines, object_of

        assert self.rows is not None, self.name
        path = located(self.rows)
        for line, raw in Lines(path):
            prompt = self._of_line(path, line, raw)
            if prompt is not None:
                yield self.splits.of(content_key(prompt)), object_of(raw)

    def measured_prompts(self, counts: Mapping[Split, int]) -> dict[Split, list[Prompt]]:
        """At most so many prompts of each split, to be measured.

        Of a domain's own rows they are drawn from the whole file, so that the order of the file
        decides nothing. One prompt more than `counts` says tells that there are others.
        """
        shared = [split for split in counts if self.splits.file(split) is None]
        if self.rows is not None and shared and not self._drawn:
            self._draw_held_out({split: counts[split] + 1 for split in shared})

        prompts = {}
        for split, count in counts.items():
            prompts[split] = list(islice(self.prompts(split), count + 1))
            file = self.splits.file(split)
            if file is not None and split not in self.measured_tallies:
                raise UserError(
                    f"domains.{self.name}.{split}: {file} is not read, because the domain makes "
                    f"its prompts itself; take {split} away, or let its prompts() call super()"
                )
        return prompts

    def _draw_held_out(self, counts: Mapping[Split, int]) -> None:
        """Read `rows` once, as far as SURVEYED, and keep a sample of each split."""
        from linn.data.names import located
        from linn.data.rows import Lines

        assert self.rows is not None
        path = located(self.rows)
        draws = {split: Draw(count) for split, count in counts.items()}
        size = 0
        for line, raw in Lines(path):
            size += len(raw)
            if size > SURVEYED:
                break
            prompt = self._of_line(path, line, raw)
            if prompt is None:
                continue
            key = content_key(prompt)
            draw = draws.get(self.splits.of(key))
            if draw is not None:
                draw.add(key, prompt)
        for split, draw in draws.items():
            ids: set[str] = set()
            self._drawn[split] = [_apart(prompt, ids) for prompt in draw.prompts()]

    def _whole_file(self, split: Split, file: str) -> Iterator[Prompt]:
        """Every row of a file of its own, in order; equal ids are told apart by their lines."""
        seen: set[str] = set()
        for place, (prompt, _) in enumerate(self._file_rows(split, file), 1):
            if prompt.id in seen:
                prompt = replace(prompt, id=f"{prompt.id}.{place}")
            seen.add(prompt.id)
            yield prompt

    def _file_rows(self, split: Split, file: str) -> Iterator[tuple[Prompt, dict[str, Any]]]:
        """(prompt, row) of a test or validation file, in order."""
        from linn.data.names import located
        from linn.data.rows import Lines, object_of

        path = located(file)
        tally = self.measured_tallies.setdefault(split, Tally())
        for line, raw in Lines(path):
            prompt = self._of_line(path, line, raw, tally)
            if prompt is not None:
                yield prompt, object_of(raw)

    def _files_hold(self) -> Measured:
        """What the test and validation files hold; they are read at the first need."""
        if self._measured is None:
            self._measured = Measured()
            for split, file in self.splits.files.items():
                for prompt, row in self._file_rows(split, file):
                    self._measured.add(content_key(prompt), _texts_asked(row, prompt))
        return self._measured

    def _is_measured(self, prompt: Prompt, row: Mapping[str, Any], fresh: bool) -> bool:
        """Whether a row of `rows` also stands in a test or validation file.

        Those, and those that come near one, are counted where `fresh`.
        """
        measured = self._files_hold()
        if content_key(prompt) in measured.keys:
            if fresh:
                self.tally.add_other("also in the test or validation file, and not trained")
            return True
        if fresh and measured.is_near(_texts_asked(row, prompt)):
            self.tally.note(f"near the test or validation file ({NEAR} words in a row)")
        return False

    def _of_line(
        self, path: Path, line: int, raw: bytes, measured: Tally | None = None
    ) -> Prompt | None:
        """The prompt of a line; all lines are counted in `tally`.

        None for another domain's row, for one that is measured instead and, with `skip_bad`, for a
        bad one. `measured`: the tally of a test or validation file, where the line is of one.
        """
        from linn.data.agents import check_signal, is_for, owner, owner_in_words
        from linn.data.layouts import present
        from linn.data.rows import object_of
        from linn.data.tally import fault

        tally = self.tally if measured is None else measured
        fresh = tally.new(line)
        try:
            row = present(object_of(raw))
            agent = owner(row)
            if agent is not None and not is_for(agent, self.name):
                if fresh:
                    tally.add_other(owner_in_words(agent))
                return None
            check_signal(row, self.name)
            prompt = self.in_mode(self.from_row(row, line - 1))
            prompt = replace(prompt, pass_rate=_pass_rate(row))
        except UserError as error:
            message, reason = fault(error)
            line_text = f"{path} line {line}: {message}"
            if not self.skip_bad:
                raise UserError(
                    f"{line_text}; domains.{self.name}.skip_bad: true (linn filter: --skip-bad) "
                    f"counts and skips such rows; linn data {path} shows them all"
                ) from None
            if fresh:
                tally.add_bad(reason, line_text)
            return None
        if measured is None and self._is_measured(prompt, row, fresh):
            return None
        tally.good += fresh
        return prompt


def _apart(prompt: Prompt, ids: set[str]) -> Prompt:
    """The prompt with an id that is not among `ids`, which it joins.

    Rewards are kept and compared by the id, and rows may share one.
    """
    if prompt.id in ids:
        prompt = replace(prompt, id=f"{prompt.id}.{content_key(prompt)}")
    ids.add(prompt.id)
    return prompt


def _pass_rate(row: Mapping[str, Any]) -> float | None:
    """A row's pass rate, where it is a number; a curriculum refuses rows without one."""
    rate = row.get("pass_rate")
    if isinstance(rate, bool) or not isinstance(rate, int | float):
        return None
    return float(rate)


def _texts_asked(row: Mapping[str, Any], prompt: Prompt) -> list[str]:
    """What a row asks in its own words; a domain's words around it say nothing of overlap."""
    try:
        return asked(row)
    except BadRow:
        return [message.content for message in prompt.messages if message.role == "user"]


def content_key(prompt: Prompt) -> str:
    """A short hash of what the model reads.

    Equal prompts have equal keys, so splits made from it cannot overlap.
    """
    text = repr([(m.role, m.content) for m in prompt.messages])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
