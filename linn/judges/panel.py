"""The judges of a run: questions about many groups asked at once and turned into verdicts."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from linn.errors import RunFailed, UserError
from linn.judges.model import Judge, ask
from linn.judges.text import Question
from linn.types import Prompt, Reply, Verdict, seed_of

MAX_UNREADABLE = 0.2
"""Share of a judge's questions that may stay without a readable answer, where nobody says."""

_ROW = 5
"""Questions in a row without a readable answer after which a judge counts as unreadable."""


class Judged(Protocol):
    """What `Judges` needs of a domain."""

    @property
    def name(self) -> str:
        """By which its judge is found."""
        ...

    @property
    def judged(self) -> bool:
        """Whether a judge model decides."""
        ...

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """What the judge is asked about these siblings."""
        ...

    def judge(
        self, prompt: Prompt, replies: Sequence[Reply], answers: Sequence[tuple[Question, str]]
    ) -> list[Verdict] | None:
        """One verdict per sibling from the judge's answers, or None: each is left to `verify`."""
        ...


@dataclass(frozen=True)
class Siblings:
    """Replies to one prompt that are judged together."""

    domain: Judged
    """Asks and judges."""
    prompt: Prompt
    """What they answer."""
    replies: Sequence[Reply]
    """One or more."""


@dataclass
class _Batch:
    """All questions to one judge."""

    judge: Judge
    """Is asked."""
    questions: list[Question] = field(default_factory=list)
    """In the order of their groups."""
    seeds: list[int] = field(default_factory=list)
    """One per question."""
    places: list[int] = field(default_factory=list)
    """Which group each question belongs to."""
    domains: list[str] = field(default_factory=list)
    """Whose question each is."""

    def with_answers(self, texts: Sequence[str]) -> Iterator[tuple[int, Question, str]]:
        """(group, question, answer) of every question; a group's stay in their order."""
        return zip(self.places, self.questions, texts, strict=True)


@dataclass
class Judges:
    """Who judges which domain, and what asking has taken since the last `metrics`."""

    by_domain: Mapping[str, Judge] = field(default_factory=dict)
    """A judge for every domain that a model judges; domains may share one."""
    questions: int = 0
    """Number of questions asked, each counted once however often it was asked again."""
    unreadable: int = 0
    """Those of them that never got a readable answer."""
    seconds: float = 0.0
    """Time spent waiting for judges."""
    max_unreadable: Mapping[str, float] = field(default_factory=dict)
    """By domain: the share of questions that may stay without a readable answer; default 0.2."""
    in_a_row: dict[str, int] = field(default_factory=dict)
    """By domain: the last questions that all stayed without a readable answer."""

    async def verdicts(self, groups: Sequence[Siblings], seed: int) -> list[list[Verdict] | None]:
        """One verdict per reply of every group, or None where the domain leaves each to `verify`.

        All questions for one judge are asked in one go; their seeds follow from (seed, place of
        the group, place of the question). Raises UserError if a judged domain has no judge, and
        RunFailed where more than `max_unreadable` of the questions stay unreadable.
        """
        batches = self._batches(groups, seed)
        answers: list[list[tuple[Question, str]]] = [[] for _ in groups]

        # One judge after the other: checkpoints share the place of one model in the engine.
        began = time.monotonic()
        for batch in batches:
            texts, unread = await ask(batch.judge, batch.questions, batch.seeds)
            self.questions += len(texts)
            self.unreadable += len(unread)
            self._check_readable(batch, unread)
            for place, question, text in batch.with_answers(texts):
                answers[place].append((question, text))
        self.seconds += time.monotonic() - began

        # Domains without questions are called too: they may compare siblings by themselves.
        return [_judged(group, pairs) for group, pairs in zip(groups, answers, strict=True)]

    def _batches(self, groups: Sequence[Siblings], seed: int) -> list[_Batch]:
        """The questions of all groups, those to one judge together."""
        batches: dict[int, _Batch] = {}
        for place, group in enumerate(groups):
            if not group.domain.judged:
                continue
            questions = group.domain.questions(group.prompt, group.replies)
            if not questions:  # then it needs no judge either
                continue

            # By identity: two domains that name the same judge share one batch.
            judge = self._judge_of(group.domain)
            if id(judge) not in batches:
                batches[id(judge)] = _Batch(judge)
            batch = batches[id(judge)]
            for number, question in enumerate(questions):
                own_seed = seed_of(seed, "judge", place, number)
                batch.questions.append(question)
                batch.seeds.append(own_seed)
                batch.places.append(place)
                batch.domains.append(group.domain.name)
        return list(batches.values())

    def _check_readable(self, batch: _Batch, unread: Mapping[int, str]) -> None:
        """A judge that cannot be read decides nothing: better no training than training on that.

        Domain by domain, since a judge may be readable on the questions of one alone. A single
        unreadable answer never stops a run, where few are asked: it is a large share. Several in a
        row do, however few were asked at a time.
        """
        for domain in sorted(set(batch.domains)):
            own = [i for i, name in enumerate(batch.domains) if name == domain]
            causes = [unread[i] for i in own if i in unread]
            row = 0
            if len(causes) == len(own):
                row = self.in_a_row.get(domain, 0) + len(own)
            self.in_a_row[domain] = row

            most = self.max_unreadable.get(domain, MAX_UNREADABLE)
            is_over = len(causes) > max(1, most * len(own))
            if is_over:
                found = f"{len(causes)} of {len(own)} questions have"
            elif row >= _ROW and most < 1:
                found = f"the last {row} questions, asked one by one, have"
            else:
                continue
            raise RunFailed(
                f"judge of {domain}: {found} no readable answer "
                f"(max_unreadable {most:g}); the first: {causes[0]}; "
                "take another judge, more of its max_tokens, or a higher max_unreadable"
            )

    def _judge_of(self, domain: Judged) -> Judge:
        if domain.name not in self.by_domain:
            raise UserError(
                f"domain {domain.name} is judged by a model; "
                f"name it under domains.{domain.name}.judge, or --judge"
            )
        return self.by_domain[domain.name]

    def metrics(self) -> dict[str, float]:
        """Metrics since the last call; empty if no question was asked.

        `judge_questions`, `judge_unreadable` (a share of them) and `judge_s`.
        """
        count, unreadable, seconds = self.questions, self.unreadable, self.seconds
        self.questions, self.unreadable, self.seconds = 0, 0, 0.0
        if not count:
            return {}
        return {
            "judge_questions": float(count),
            "judge_unreadable": unreadable / count,
            "judge_s": seconds,
        }


def _judged(group: Siblings, answers: Sequence[tuple[Question, str]]) -> list[Verdict] | None:
    """The domain's verdicts; an infinite or missing reward would spoil the whole group."""
    verdicts = group.domain.judge(group.prompt, group.replies, answers)
    for verdict in verdicts or ():
        assert math.isfinite(verdict.reward), (group.domain.name, verdict)
    return verdicts
