"""What a model reads of a contest problem (paper App. C.1), and of candidates to choose from."""

from __future__ import annotations

from collections.abc import Sequence

from linn.judges.text import FENCES, fenced, shown
from linn.solve.contest.problem import Problem, Subtask
from linn.solve.contest.submission import Submission
from linn.solve.contest.verdicts import TestVerdict

_LONGEST_INPUT = 4_000
"""Characters of an output-only problem's input that a prompt shows."""
_NAMES = {"python": "Python 3", "cpp": "C++20", "any": "Python 3 or C++20"}
_MARKS = {"python": "python", "cpp": "cpp", "any": "python or cpp"}
_READS = {
    "batch": "It reads standard input and writes standard output.",
    "interactive": "It talks to the judge by standard input and output, flushed after every line.",
    "output_only": (
        "It reads one input on standard input and writes its output; it is run on every input. "
        "Instead you may give outputs themselves, each in a block marked ```output NAME."
    ),
}


def task_text(language: str, problem: Problem) -> str:
    """What is to be written, and where."""
    kind = problem.kind
    if problem.stubs:
        kind_text = "Implement the functions of the statement; the judge's code calls them."
    else:
        kind_text = _READS[kind]
    if problem.input_file or problem.output_file:
        kind_text = (
            f"It reads {_place(problem.input_file, 'standard input')} and writes "
            f"{_place(problem.output_file, 'standard output')}."
        )
    return (
        f"Write {_NAMES[language]} code that solves the task below, in one block fenced by "
        f"```{_MARKS[language]}. {kind_text} It may use {problem.seconds:g} seconds and "
        f"{problem.memory} MiB on each test."
    )


def _place(name: str, otherwise: str) -> str:
    return f"the file {name}" if name else otherwise


def ioi_text(
    problem: Problem,
    subtask: Subtask,
    siblings: Sequence[tuple[Subtask, Submission, float]],
    history: Sequence[tuple[Submission, TestVerdict]],
    language: str,
) -> str:
    """Instruction, statement, this subtask, siblings' accepted code, this subtask's submissions."""
    parts = [
        task_text(language, problem),
        f"# Problem\n\n{problem.statement.strip()}",
        f"# Your subtask ({subtask.points:g} points)\n\n{subtask.text or 'As the statement says.'}",
    ]
    parts += _inputs(problem, subtask)

    # The paper's order: siblings' code first, then this subtask's own history.
    if siblings:
        lines = [
            "# Code of other subtasks\n\nThe judge has accepted these, or parts of them, under the "
            "constraints named. What they do may carry over to yours."
        ]
        for other, submission, share in siblings:
            lines.append(
                f"Subtask {other.name} ({other.text or 'no further constraints'}), "
                f"{share * other.points:g} of {other.points:g} points:\n\n{_block(submission)}"
            )
        parts.append("\n\n".join(lines))
    if history:
        lines = [
            "# Your submissions so far\n\nNone of them solves this subtask. Verdicts and scores "
            "are the official judge's and fully reliable: find what is wrong, and do better."
        ]
        for submission, verdict in history:
            lines.append(f"{_block(submission)}\n\n{_told(subtask, verdict)}")
        parts.append("\n\n".join(lines))
    return "\n\n".join(parts)


def icpc_text(problem: Problem, language: str) -> str:
    """Instruction and statement."""
    return f"{task_text(language, problem)}\n\n# Problem\n\n{problem.statement.strip()}"


def choice_text(problem: Problem, subtask: Subtask, submissions: Sequence[Submission]) -> str:
    """Asks which of these programs should be submitted."""
    parts = [("problem", problem.statement), ("subtask", subtask.text or "no further constraints")]
    for number, submission in enumerate(submissions, 1):
        parts.append((f"candidate_{number}", shown(submission.text)))
    count = len(submissions)
    return (
        f"Below are a contest problem, a subtask of it and {count} programs. Only one can be "
        f"submitted. Find the one that is most likely right and fast enough for the subtask. "
        f"{FENCES}\n\n{fenced(parts)}\n\n"
        f"End your reply with its number, 1 to {count}, in \\boxed{{}}."
    )


def _inputs(problem: Problem, subtask: Subtask) -> list[str]:
    """The inputs of an output-only problem's subtask, long ones cut."""
    if problem.kind != "output_only":
        return []
    lines = ["# Inputs"]
    for name in subtask.tests:
        text = problem.tests[name].input
        cut = text[:_LONGEST_INPUT]
        more = f"\n[{len(text) - len(cut)} characters more]" if len(text) > len(cut) else ""
        lines.append(f"Input {name}:\n\n```\n{cut.rstrip()}{more}\n```")
    return ["\n\n".join(lines)]


def _block(submission: Submission) -> str:
    """A submission in a fence that it cannot close."""
    text = submission.text.rstrip()
    ticks = "```"
    while ticks in text:
        ticks += "`"
    return f"{ticks}{submission.language}\n{text}\n{ticks}"


def _told(subtask: Subtask, verdict: TestVerdict) -> str:
    """A verdict as the official judge tells it: word and score, nothing of the tests."""
    score = verdict.share * subtask.points
    return f"Verdict: {verdict.word}. Score: {score:g} of {subtask.points:g}."
