"""What a judge says of a submission: a verdict per test, points per subtask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from linn.solve.contest.problem import Problem, Rule

Word = Literal[
    "accepted",
    "partly right",
    "wrong answer",
    "time limit exceeded",
    "memory limit exceeded",
    "output limit exceeded",
    "runtime error",
    "compilation error",
    "no program",
]
_STATUS: dict[str, Word] = {
    "timeout": "time limit exceeded",
    "memory": "memory limit exceeded",
    "output": "output limit exceeded",
    "error": "runtime error",
}


@dataclass(frozen=True)
class TestVerdict:
    """One test's."""

    share: float
    """0 to 1."""
    word: Word
    """The official word."""
    note: str = ""
    """Why, in one line."""


def verdict_of_share(share: float, note: str = "") -> TestVerdict:
    """The verdict of an output that earned this share."""
    share = min(1.0, max(0.0, share))
    if share == 1:
        return TestVerdict(1.0, "accepted", note)
    return TestVerdict(share, "partly right" if share else "wrong answer", note)


def verdict_of_status(status: str, note: str) -> TestVerdict:
    """The verdict of a program that did not end well."""
    return TestVerdict(0.0, _STATUS[status], note)


@dataclass(frozen=True)
class Judged:
    """A submission's verdict."""

    shares: Mapping[str, float]
    """Of each subtask, 0 to 1."""
    words: Mapping[str, TestVerdict]
    """Of each subtask: its worst test's."""
    tests: Mapping[str, TestVerdict] = field(default_factory=dict)
    """Of every test that ran."""

    def points(self, problem: Problem) -> float:
        """What it earns by itself."""
        return sum(s.points * self.shares.get(s.name, 0.0) for s in problem.subtasks)


def judged_row(judged: Judged) -> dict[str, Any]:
    """A verdict as JSON, without its tests'."""
    words = {name: [v.share, v.word, v.note] for name, v in judged.words.items()}
    return {"shares": dict(judged.shares), "words": words}


def judged_from(row: Mapping[str, Any]) -> Judged:
    """The verdict that `judged_row` wrote."""
    words = {name: TestVerdict(*parts) for name, parts in row["words"].items()}
    return Judged(dict(row["shares"]), words)


def together(rule: Rule, shares: Sequence[float], weights: Sequence[float] = ()) -> float:
    """A subtask's share from those of its tests; `weights`: of a mean that has some."""
    if rule == "sum" and weights:
        pairs = zip(shares, weights, strict=True)
        return sum(share * weight for share, weight in pairs) / sum(weights)
    if rule == "sum":
        return sum(shares) / len(shares)
    if rule == "min":
        return min(shares)
    product = 1.0
    for share in shares:
        product *= share
    return product
