"""Whether an output is right: linn's own comparisons, and checkers that come with problems."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Any

from linn.domains.code.outputs import same_output
from linn.errors import UserError
from linn.sandbox import Limits, Sandbox
from linn.sandbox.outcome import Ran
from linn.solve.contest.problem import Checker, Source, Test
from linn.solve.contest.programs import Programs
from linn.solve.contest.verdicts import TestVerdict, verdict_of_share

_LIMITS = Limits(cpu=20.0, wall=60.0, memory=1 << 30, output=1 << 20)
_TESTLIB = {0: 1.0, 1: 0.0, 2: 0.0, 4: 0.0, 8: 0.0}
"""Exit codes: right, wrong, presentation, dirt, unexpected end. 7 and 16 to 116 give a share."""
_TESTLIB_POINTS = 7
_TESTLIB_PARTLY = 16


class Checking:
    """Checks outputs. Thread-safe."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.programs = Programs()

    def check(self, checker: Checker, test: Test, output: str) -> TestVerdict:
        """The verdict on an output. UserError where the checker itself is at fault."""
        match checker.kind:
            case "tokens":
                return _equal(output.split() == test.answer.split())
            case "lines":
                return _equal(same_output(output, test.answer))
            case "numbers":
                return _equal(same_numbers(output, test.answer, checker.tolerance))
        assert checker.source is not None, checker.kind
        if checker.kind == "function":
            return self._by_function(checker.source, test, output)
        return self._by_program(checker, checker.source, test, output)

    def _by_function(self, source: Source, test: Test, output: str) -> TestVerdict:
        arguments = [test.input, output, test.answer]
        (outcome,) = self.sandbox.call(source.text, "check", [arguments], _LIMITS)
        if outcome.status != "ok":
            raise UserError(f"checker, test {test.name}: {outcome.error}")
        return verdict_of_share(*share_and_note(outcome.value, f"checker, test {test.name}"))

    def _by_program(self, checker: Checker, source: Source, test: Test, output: str) -> TestVerdict:
        texts = {"input": test.input, "output": output, "answer": test.answer}
        # The two conventions differ in the order of the last two files.
        words = ["input", "output", "answer"]
        if checker.kind == "cms":
            words = ["input", "answer", "output"]
        what = f"checker, test {test.name}"
        ran = self.programs.run(source, checker.files, texts, words, what)
        if checker.kind == "cms":
            return _of_cms(ran, what)
        return verdict_of_testlib(ran, what)


def _equal(equal: bool) -> TestVerdict:
    return verdict_of_share(float(equal))


def same_numbers(output: str, answer: str, tolerance: float) -> bool:
    """Whether two texts hold the same words, decimals up to `tolerance`, absolute or relative."""
    words, expected = output.split(), answer.split()
    if len(words) != len(expected):
        return False
    return all(_near(*pair, tolerance) for pair in zip(words, expected, strict=True))


def _near(word: str, expected: str, tolerance: float) -> bool:
    if word == expected:
        return True
    try:
        left, right = Decimal(word), Decimal(expected)
        if not (left.is_finite() and right.is_finite()):
            return False
        return abs(left - right) <= Decimal(tolerance) * max(Decimal(1), abs(right))
    except (InvalidOperation, ArithmeticError, ValueError):
        return False


def share_and_note(value: Any, where: str) -> tuple[float, str]:
    """(share, message) of what a checker or an interactor gave: a number, or both in a list."""
    note = ""
    if isinstance(value, list | tuple) and len(value) == 2:
        value, note = value[0], str(value[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise UserError(f"{where}: gave {value!r}; allowed: a share from 0 to 1")
    return float(value), note


def _of_cms(ran: Ran, where: str) -> TestVerdict:
    """CMS: the share stands on the first line of stdout, the message on that of stderr.

    One that prints no share is testlib's as it comes: the exit code decides.
    """
    lines = ran.stdout.split()
    try:
        share = float(lines[0])
    except (IndexError, ValueError):
        return verdict_of_testlib(ran, where)
    note = (ran.stderr.splitlines() or [""])[0]
    return verdict_of_share(*share_and_note(share, where)[:1], note)


def verdict_of_testlib(ran: Ran, where: str) -> TestVerdict:
    """testlib: the exit code decides; a share of 100 follows from 16, `points X` from 7."""
    # testlib speaks on stderr.
    note = " ".join((ran.stderr or ran.stdout).split())[:200]
    if ran.code in _TESTLIB:
        return verdict_of_share(_TESTLIB[ran.code], note)
    if _TESTLIB_PARTLY <= ran.code <= _TESTLIB_PARTLY + 100:
        return verdict_of_share((ran.code - _TESTLIB_PARTLY) / 100, note)
    if ran.code == _TESTLIB_POINTS:
        # `points 0.5 …`: the first number is the share.
        for word in note.split():
            try:
                return verdict_of_share(float(word), note)
            except ValueError:
                continue
    raise UserError(f"{where}: failed (exit code {ran.code}): {note or ran.status}")
