"""Whether what a program printed is what a test expects."""

from __future__ import annotations

from decimal import Decimal

NEAR = 1e-6
"""How far printed decimals may be from those expected, as in nemo-gym 0.7.0."""
_VERDICTS = ("yes", "no")
"""Lines of which the case does not matter."""
_WHOLE = frozenset("+-0123456789_")


def same_output(output: str, expected: str, tolerance: float = NEAR, exact: bool = False) -> bool:
    """Whether two outputs agree line by line.

    Spaces around the whole and around a line do not matter, nor does the case of a line that says
    yes or no. Lines of numbers agree by value, where decimals may differ by `tolerance`, absolutely
    or relatively; whole numbers may not. `exact`: the case matters, and `tolerance` is 0.
    """
    if exact:
        tolerance = 0.0
    lines = output.strip().split("\n")
    expected_lines = expected.strip().split("\n")
    if len(lines) != len(expected_lines):
        return False

    for line, expected_line in zip(lines, expected_lines, strict=True):
        if _same_line(line.strip(), expected_line.strip(), tolerance):
            continue
        if exact or not _same_verdict(line, expected_line):
            return False
    return True


def _same_verdict(line: str, expected: str) -> bool:
    """Whether both lines say yes, or both no, in any case."""
    verdict = expected.strip().lower()
    return verdict in _VERDICTS and line.strip().lower() == verdict


def _same_line(line: str, expected: str, tolerance: float) -> bool:
    if line == expected:
        return True
    words, expected_words = line.split(), expected.split()
    if len(words) != len(expected_words):
        return False
    pairs = zip(words, expected_words, strict=True)
    return all(_same_number(left, right, tolerance) for left, right in pairs)


def _same_number(word: str, expected: str, tolerance: float) -> bool:
    """Whether two words are the same number; decimals, since floats would make long ones equal."""
    try:
        left, right = Decimal(word), Decimal(expected)
        if left == right:
            return True
        if not tolerance or not (left.is_finite() and right.is_finite()):
            return False

        # A whole number that is asked for is not met by another, however it is written, nor by one
        # that is near it for its size alone.
        if _WHOLE.issuperset(expected):
            is_whole = left == left.to_integral_value()
            return not is_whole and abs(left - right) <= Decimal(tolerance)
        return abs(left - right) <= Decimal(tolerance) * max(Decimal(1), abs(right))
    except (ArithmeticError, ValueError):
        return False
