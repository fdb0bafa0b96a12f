"""Values that a program returned, against the values expected."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

from linn.sandbox import Outcome
from linn.types import Verdict

_ABSOLUTE, _RELATIVE = 1e-8, 1e-5
"""How far floats may be from the value expected, as in the reference."""


def grade_values(
    outcomes: Iterable[Outcome], expected: Sequence[Any], tolerance: float = 0.0
) -> Verdict:
    """Reward 1 when every call returned the expected value; stops at the first that did not."""
    for index, (outcome, value) in enumerate(zip(outcomes, expected, strict=True), 1):
        if outcome.status != "ok":
            return Verdict(0.0, f"test {index}: {outcome.error}")
        if not same_value(outcome.value, value, tolerance):
            return Verdict(0.0, f"test {index}: wrong value")
    return Verdict(1.0, f"all {len(expected)} tests passed")


def same_value(value: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether two values are equal as JSON has them, at any depth.

    Tuples count as lists and keys as texts, since JSON has only those. Floats may be near: as in
    the reference, or by `tolerance`, absolutely or relatively. Whole numbers may not.
    """
    if isinstance(value, (list, tuple)) and isinstance(expected, (list, tuple)):
        return _same_items(value, expected, tolerance)
    if isinstance(value, dict) and isinstance(expected, dict):
        return _same_entries(value, expected, tolerance)
    return bool(value == expected) or _near(value, expected, tolerance)


def _same_items(values: Sequence[Any], expected: Sequence[Any], tolerance: float) -> bool:
    if len(values) != len(expected):
        return False
    pairs = zip(values, expected, strict=True)
    return all(same_value(left, right, tolerance) for left, right in pairs)


def _same_entries(value: dict[Any, Any], expected: dict[Any, Any], tolerance: float) -> bool:
    left = {_key(key): item for key, item in value.items()}
    right = {_key(key): item for key, item in expected.items()}
    # Two keys of the program's value that are one text in JSON hide an entry.
    if len(left) != len(value) or left.keys() != right.keys():
        return False
    return all(same_value(left[key], right[key], tolerance) for key in right)


def _key(key: Any) -> str:
    try:
        return key if isinstance(key, str) else json.dumps(key, default=repr)
    except ValueError:  # an integer with more digits than Python writes; no key of a row's
        return "\0"


def _near(value: Any, expected: Any, tolerance: float) -> bool:
    """Whether two numbers differ by rounding alone."""
    if not (_is_number(value) and _is_number(expected)):
        return False
    try:
        left, right = float(value), float(expected)
    except OverflowError:  # an integer beyond the floats
        return False

    # A whole number that is expected is not met by another, even where that is a float, nor by a
    # fraction that is near it for its size alone.
    if isinstance(expected, int):
        most = max(tolerance, min(_RELATIVE, _ABSOLUTE + _RELATIVE * abs(right)))
        return not left.is_integer() and abs(left - right) <= most
    if tolerance and math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance):
        return True
    if math.isnan(left) and math.isnan(right):
        return True

    # The second comparison fails where the expected value is infinite: then nothing is near.
    margin = _ABSOLUTE + _RELATIVE * abs(right)
    return abs(left - right) <= margin < math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
