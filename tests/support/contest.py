"""A small contest: add two numbers, whatever their sign."""

from linn.solve.contest.problem import Problem, Source, Subtask, Test
from linn.solve.contest.submission import Submission

TESTS = {
    "small": Test("small", "1 2\n", "3\n"),
    "both": Test("both", "40 2\n", "42\n"),
    "signs": Test("signs", "-5 2\n", "-3\n"),
    "large": Test("large", f"{10**20} 1\n", f"{10**20 + 1}\n"),
}
SUM_PROBLEM = Problem(
    name="sum",
    title="Sum",
    statement="Print a + b.",
    kind="batch",
    tests=TESTS,
    subtasks=(
        Subtask("1", 30, ("small", "both"), "Both are positive and small."),
        Subtask("2", 30, ("signs", "both"), "Either may be negative."),
        Subtask("3", 40, ("large",), "They may be large."),
    ),
    samples=(Test("0-1", "2 2\n", "4\n"),),
)

RIGHT = "a, b = map(int, input().split())\nprint(a + b)\n"
POSITIVE = "a, b = map(int, input().split())\nprint(abs(a) + abs(b) if a + b < 10**9 else 0)\n"
"""Solves subtask 1."""
FLOATS = "a, b = map(float, input().split())\nprint(int(a + b))\n"
"""Solves subtasks 1 and 2."""
WRONG = "print(4)\n"
"""Right on the sample alone."""
BROKEN = "print(1 / 0)\n"


def fenced(program: str, language: str = "python") -> str:
    return f"</think>\nLike this:\n```{language}\n{program.rstrip()}\n```\n"


def python(program: str) -> Submission:
    return Submission(Source("python", program))


def cpp(program: str) -> Submission:
    return Submission(Source("cpp", program))
