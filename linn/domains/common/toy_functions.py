"""One-line functions for the tiny coding tasks: what they must do, in words, in Python, and by our own evaluation."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from linn.sandbox import Outcome
from linn.types import Verdict

Kind = Literal["int", "list", "str"]


@dataclass(frozen=True)
class Template:
    """A kind of function of one argument `{x}` and one constant `{c}` from 1 to 9."""

    kind: Kind
    """What the argument is."""
    spec: str
    """What it returns, in words."""
    body: str
    """The expression."""
    value: Callable[[Any, int], Any]
    """The same, computed by us."""


TEMPLATES: tuple[Template, ...] = (
    Template("int", "{x} plus {c}", "{x} + {c}", lambda x, c: x + c),
    Template("int", "{x} minus {c}", "{x} - {c}", lambda x, c: x - c),
    Template("int", "{x} times {c}", "{x} * {c}", lambda x, c: x * c),
    Template("int", "{c} minus {x}", "{c} - {x}", lambda x, c: c - x),
    Template("int", "the larger of {x} and {c}", "max({x}, {c})", lambda x, c: max(x, c)),
    Template("int", "the smaller of {x} and {c}", "min({x}, {c})", lambda x, c: min(x, c)),
    Template("list", "the first {c} items of {x}", "{x}[:{c}]", lambda x, c: x[:c]),
    Template("list", "{x} without its first {c} items", "{x}[{c}:]", lambda x, c: x[c:]),
    Template("list", "the sum of {x} plus {c}", "sum({x}) + {c}", lambda x, c: sum(x) + c),
    Template("list", "how often {c} is in {x}", "{x}.count({c})", lambda x, c: x.count(c)),
    Template("str", "the first {c} letters of {x}", "{x}[:{c}]", lambda x, c: x[:c]),
    Template("str", "{x} without its first {c} letters", "{x}[{c}:]", lambda x, c: x[c:]),
    Template("str", "{x} repeated {c} times", "{x} * {c}", lambda x, c: x * c),
)
NAMES = ("add", "calc", "run", "solve", "work", "make", "step", "go", "apply", "map", "get", "find")
ARGUMENTS = ("x", "y", "n", "a", "v", "k")
TESTS = 5


@dataclass(frozen=True)
class Function:
    """A template with its constant and its names."""

    template: Template
    constant: int
    name: str
    argument: str

    @property
    def spec(self) -> str:
        """What it returns, in words."""
        return self.template.spec.format(x=self.argument, c=self.constant)

    @property
    def body(self) -> str:
        """The expression it returns."""
        return self.template.body.format(x=self.argument, c=self.constant)

    @property
    def head(self) -> str:
        """Its first line."""
        return f"def {self.name}({self.argument}):"

    def source(self, body: str | None = None) -> str:
        """Its two lines, with another expression where `body` is given."""
        return f"{self.head}\n    return {self.body if body is None else body}\n"

    def value(self, x: Any) -> Any:
        """What it must return for `x`."""
        return self.template.value(x, self.constant)

    def wrong(self) -> list[Function]:
        """The same function with one fault: another operation on the same kind of argument, or a constant off by one."""
        others = [
            template
            for template in TEMPLATES
            if template.kind == self.template.kind and template is not self.template
        ]
        near = [
            constant for constant in (self.constant - 1, self.constant + 1) if 1 <= constant <= 9
        ]
        return [Function(t, self.constant, self.name, self.argument) for t in others] + [
            Function(self.template, c, self.name, self.argument) for c in near
        ]


def make(rng: random.Random, avoid: Sequence[str] = ()) -> Function:
    """A random function whose name is not in `avoid`."""
    names = [name for name in NAMES if name not in avoid]
    return Function(
        rng.choice(TEMPLATES), rng.randint(1, 9), rng.choice(names), rng.choice(ARGUMENTS)
    )


def inputs(function: Function, rng: random.Random, count: int = TESTS) -> list[Any]:
    """Arguments that tell the function from each of its wrong versions: every wrong version differs on at least one of them."""
    wrong = function.wrong()
    while True:
        found = [_argument(function, rng) for _ in range(count)]
        if all(any(other.value(x) != function.value(x) for x in found) for other in wrong):
            return found


def _argument(function: Function, rng: random.Random) -> Any:
    if function.template.kind == "int":
        return rng.randint(-5, 15)
    if function.template.kind == "str":
        return "".join(rng.choice("abcdefgh") for _ in range(rng.randint(1, 14)))
    near = (function.constant - 1, function.constant, function.constant + 1)
    return [
        rng.choice(near) if rng.random() < 0.4 else rng.randint(0, 12)
        for _ in range(rng.randint(1, 12))
    ]


def judge_values(
    outcomes: Iterable[Outcome], expected: Sequence[Any], tolerance: float = 0.0
) -> Verdict:
    """Strict: 1 when every call returned the expected value. Stops at the first that fails."""
    for index, (outcome, value) in enumerate(zip(outcomes, expected, strict=True), 1):
        if outcome.status != "ok":
            return Verdict(0.0, f"test {index}: {outcome.error}")
        if not same_value(outcome.value, value, tolerance):
            return Verdict(0.0, f"test {index}: wrong value")
    return Verdict(1.0, f"all {len(expected)} tests passed")


def same_value(found: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Equal, where tuples count as lists and keys as texts, as JSON has only those, and numbers may be near (`_near`)."""
    if isinstance(found, (list, tuple)) and isinstance(expected, (list, tuple)):
        return len(found) == len(expected) and all(
            same_value(a, b, tolerance) for a, b in zip(found, expected, strict=True)
        )
    if isinstance(found, dict) and isinstance(expected, dict):
        left, right = (
            {_key(key): value for key, value in each.items()} for each in (found, expected)
        )
        return (
            len(left) == len(found)
            and left.keys() == right.keys()
            and all(same_value(left[key], right[key], tolerance) for key in right)
        )
    return bool(found == expected) or _near(found, expected, tolerance)


def _key(key: Any) -> str:
    try:
        return key if isinstance(key, str) else json.dumps(key, default=repr)
    except ValueError:  # an integer with more digits than Python writes; no key of a row's
        return "\0"


def _near(found: Any, expected: Any, tolerance: float) -> bool:
    """Floats may differ by 1e-8 and 1e-5 of the value expected, as in the reference, and any numbers by `tolerance`."""
    if not all(
        isinstance(number, (int, float)) and not isinstance(number, bool)
        for number in (found, expected)
    ):
        return False
    try:
        a, b = float(found), float(expected)
    except OverflowError:
        return False
    if tolerance and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance):
        return True
    if isinstance(found, int) and isinstance(expected, int):
        return False
    return abs(a - b) <= 1e-8 + 1e-5 * abs(b) < math.inf or (math.isnan(a) and math.isnan(b))
