"""What a contest problem is: statement, tests, subtasks, limits, and who decides on an output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["batch", "interactive", "output_only"]
Rule = Literal["min", "multiply", "sum"]


@dataclass(frozen=True)
class Source:
    """A program of the problem's or of a contestant's."""

    language: Literal["python", "cpp"]
    """What it is written in."""
    text: str
    """The program."""


@dataclass(frozen=True)
class Test:
    """One input."""

    __test__ = False  # pytest looks for classes of this name

    name: str
    """Unique in the problem."""
    input: str
    """What a program reads."""
    answer: str = ""
    """The judges' own output; empty where the checker needs none."""


@dataclass(frozen=True)
class Subtask:
    """Tests that earn points together."""

    name: str
    """Unique in the problem."""
    points: float
    """For a full score."""
    tests: tuple[str, ...]
    """Names of its tests, in the order in which they run."""
    text: str = ""
    """Its constraints, as the statement has them."""
    rule: Rule = "min"
    """Its score from those of its tests: the worst, the product, or the mean."""
    weights: tuple[float, ...] = ()
    """Of its tests, where the mean does not count all alike."""


@dataclass(frozen=True)
class Checker:
    """Who compares an output with a test."""

    kind: Literal["lines", "tokens", "numbers", "function", "cms", "testlib"]
    """`lines`, `tokens`, `numbers`: linn's own comparisons. `function`: a Python `check(input,
    output, answer)` that gives a share and a message. `cms`: a program (input, answer, output) that
    prints a share. `testlib`: a program (input, output, answer) whose exit code decides."""
    source: Source | None = None
    """The function or program."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What it includes, such as testlib.h."""
    tolerance: float = 0.0
    """`numbers`: how much decimals may differ, absolutely or relatively."""


@dataclass(frozen=True)
class Interactor:
    """Who a contestant's program talks to."""

    kind: Literal["verdict", "testlib"]
    """`verdict`: gets (input, file for the verdict) and writes `[share, message]` as JSON.
    `testlib`: gets (input, output, answer), and its exit code decides."""
    source: Source
    """The program."""
    files: Mapping[str, str] = field(default_factory=dict)
    """What it includes."""


@dataclass(frozen=True)
class Problem:
    """One problem of a contest."""

    name: str
    """Short and unique in its contest."""
    title: str
    """For people."""
    statement: str
    """What a contestant reads."""
    kind: Kind
    """`output_only`: the inputs are given, and outputs are submitted."""
    tests: Mapping[str, Test]
    """By name."""
    subtasks: tuple[Subtask, ...]
    """In order; an ICPC problem has one."""
    samples: tuple[Test, ...] = ()
    """Tests that the statement shows."""
    seconds: float = 1.0
    """CPU seconds per test."""
    memory: int = 256
    """MiB."""
    checker: Checker = field(default_factory=lambda: Checker("tokens"))
    """Decides, where there is no interactor."""
    interactor: Interactor | None = None
    """Interactive problems have one."""
    input_file: str = ""
    """The file that a program reads, in the folder where it runs; empty: standard input."""
    output_file: str = ""
    """The file that it writes; empty: standard output."""
    stubs: Mapping[str, str] = field(default_factory=dict)
    """C++ files compiled with each submission: the grader that calls its functions, and headers."""
    folder: Path | None = None
    """Where it was read."""
    references: Mapping[str, Source] = field(default_factory=dict)
    """The judges' own solutions, by name."""

    @property
    def points(self) -> float:
        """The most that can be earned."""
        return sum(subtask.points for subtask in self.subtasks)

    def subtask(self, name: str) -> Subtask:
        """The subtask of this name."""
        return next(subtask for subtask in self.subtasks if subtask.name == name)
