"""Whether what a program printed is what a test expects."""

from __future__ import annotations

import math
from decimal import Decimal, InvalidOperation


def same_output(output: str, expected: str, tolerance: float = 0.0) -> bool:
    """Whether two outputs agree line by line.

    Spaces around the whole and around a line do not matter. Lines of numbers agree by value, where
    numbers may differ by `tolerance`, absolutely or relatively.
    """
    lines = output.strip().split("\n")
    expected_lines = expected.strip().split("\n")
    if len(lines) != len(expected_lines):
        return False
    pairs = zip(lines, expected_lines, strict=True)
    return all(_same_line(left.strip(), right.strip(), tolerance) for left, right in pairs)


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
        return tolerance > 0 and math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)
    except (InvalidOperation, ValueError, OverflowError):
        return False
