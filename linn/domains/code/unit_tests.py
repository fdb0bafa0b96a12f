"""Tests of a program: by returned values, by printed output or by a check text; read from rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from linn.domains.code.programs import LANGUAGES, Language, check_text
from linn.domains.common.options import is_number
from linn.errors import UserError
from linn.types import Message

_MOST_SECONDS = 3600
_MOST_MEMORY = 1 << 16
_LONG_INTEGER = 4_000
"""Digits."""
_LISTS = "unit_tests.inputs and .outputs must be lists of the same length, at least 1"


@dataclass(frozen=True)
class Budget:
    """What a row's program may use per test."""

    seconds: float
    """CPU seconds of a C++ program; Python programs may get more."""
    memory: int
    """MiB."""


@dataclass(frozen=True)
class Solution:
    """The known solution of a generated task, a function of two lines."""

    head: str
    """Its first line."""
    body: str
    """The expression that it returns."""
    wrong: tuple[str, ...]
    """The expression with its constant off by one."""


@dataclass(frozen=True)
class CallTests:
    """A function is called once per test; what it returns decides."""

    function: str
    """The function's name."""
    inputs: Sequence[Sequence[Any]]
    """The arguments of each call."""
    outputs: Sequence[Any]
    """The value expected of each call."""
    budget: Budget | None = None
    """None: generated tests, under the sandbox's own limits."""
    language: Language | None = None
    """None: the domain's."""
    solution: Solution | None = None
    """None: a row's tests."""


@dataclass(frozen=True)
class PrintedTests:
    """A script reads each test's input; what it prints decides."""

    inputs: Sequence[str]
    """What each run reads."""
    outputs: Sequence[str]
    """What each run is expected to print."""
    budget: Budget | None = None
    """None: under the sandbox's own limits."""
    language: Language | None = None
    """None: the domain's."""


@dataclass(frozen=True)
class CheckTest:
    """A text that defines `check(candidate)`, which must not raise on the program's function."""

    text: str
    """The Python text."""
    entry_point: str
    """The name of the function that it is called with."""
    before: str = ""
    """What stands before a reply's program: the imports and the beginning that HumanEval's prompt
    gives, and that its own script puts there too."""
    budget: Budget | None = None
    """None: under the sandbox's own limits."""
    language: Language | None = None
    """None: the domain's."""


Tests = CallTests | PrintedTests | CheckTest


# ---------------------------------------------------------------- rows


def read_tests(
    meta: Mapping[str, Any], messages: Sequence[Message], where: str, most: int | None
) -> Tests:
    """The tests of a row's `verifier_metadata`, at most so many; raises UserError."""
    tests = meta.get("unit_tests")
    if isinstance(tests, str):
        try:
            tests = json.loads(tests)
        except (ValueError, RecursionError):
            raise UserError(f"{where}: verifier_metadata.unit_tests is not JSON") from None
    if isinstance(tests, Mapping):
        return _unit_tests(tests, where, most)

    # As in HumanEval, whose prompts may hold helper functions that the check calls.
    test, entry_point = meta.get("test"), meta.get("entry_point")
    if isinstance(test, str) and isinstance(entry_point, str):
        task = "\n".join(message.content for message in messages if message.role == "user")
        text = check_text(test, entry_point, task, where)
        return CheckTest(text, entry_point)

    raise UserError(
        f"{where}: verifier_metadata needs unit_tests {{inputs, outputs}}, or test and entry_point"
    )


def _unit_tests(tests: Mapping[str, Any], where: str, most: int | None) -> Tests:
    """Tests by value where a function is named, else by output."""
    inputs, outputs = _pairs(tests, where, most)
    function = tests.get("fn_name")
    if function is not None and not isinstance(function, str):
        raise UserError(f"{where}: unit_tests.fn_name is {function!r}; allowed: a function's name")

    if not function:
        if not all(isinstance(text, str) for text in [*inputs, *outputs]):
            raise UserError(
                f"{where}: without fn_name, unit_tests.inputs and .outputs must be texts"
            )
        return PrintedTests(inputs, outputs)

    # A malformed row is refused here: its tests could never pass.
    try:
        arguments = [_json_lines(text) for text in inputs]
        values = [_json(text) for text in outputs]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{where}: with fn_name, unit_tests.inputs need one JSON value a line, "
            ".outputs one JSON value each"
        ) from None
    return CallTests(function, arguments, values)


def _pairs(tests: Mapping[str, Any], where: str, most: int | None) -> tuple[list[Any], list[Any]]:
    """The inputs and outputs of the tests, at most so many."""
    inputs = tests.get("inputs")
    outputs = tests.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise UserError(f"{where}: {_LISTS}")
    if not inputs or len(inputs) != len(outputs):
        raise UserError(f"{where}: {_LISTS}")
    return _spread(inputs, most), _spread(outputs, most)


def _spread(items: list[Any], most: int | None) -> list[Any]:
    """At most so many of the items, evenly: the tests of a row often grow from first to last."""
    if most is None or len(items) <= most:
        return items
    return [items[index * len(items) // most] for index in range(most)]


def _json_lines(text: str) -> list[Any]:
    return [_json(line) for line in text.split("\n") if line.strip()]


def _json(text: str) -> Any:
    """A JSON value, whose integers may be of any length."""
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int:
    """Python's own reading stops at 4,300 digits; a decimal holds as many as there are."""
    return int(digits) if len(digits) <= _LONG_INTEGER else int(Decimal(digits))


def read_budget(meta: Mapping[str, Any], default: Budget, where: str) -> Budget:
    """A row's `time_limit` and `memory_limit`; raises UserError."""
    seconds = meta.get("time_limit")
    if seconds is None:
        seconds = default.seconds
    elif not _is_limit(seconds, _MOST_SECONDS):
        raise UserError(
            f"{where}: verifier_metadata.time_limit is {seconds!r}; "
            f"allowed: seconds above 0, at most {_MOST_SECONDS}"
        )
    memory = meta.get("memory_limit")
    if memory is None:
        memory = default.memory
    elif not _is_limit(memory, _MOST_MEMORY):
        raise UserError(
            f"{where}: verifier_metadata.memory_limit is {memory!r}; "
            f"allowed: MiB above 0, at most {_MOST_MEMORY}"
        )
    return Budget(seconds=float(seconds), memory=math.ceil(memory))


def _is_limit(value: Any, most: float) -> bool:
    return is_number(value) and 0 < value <= most


def read_language(meta: Mapping[str, Any], tests: Tests, where: str) -> Language | None:
    """The language that a row names; raises UserError.

    Where the row names none, tests that call a function are in Python; None (the domain's) for
    others.
    """
    calls_function = not isinstance(tests, PrintedTests)
    name = meta.get("language")
    if name is None:
        return "python" if calls_function else None

    language = LANGUAGES.get(name.lower()) if isinstance(name, str) else None
    if language is None:
        raise UserError(f"{where}: verifier_metadata.language is {name!r}; allowed: python, cpp")

    # Our caller of functions is a Python program.
    if language == "cpp" and calls_function:
        raise UserError(
            f"{where}: verifier_metadata.language is {name!r}, "
            "but tests that call a function are for Python only"
        )
    return language
