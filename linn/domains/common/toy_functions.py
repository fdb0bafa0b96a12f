"""One-line functions for the tiny coding tasks: in words, in Python, and by our own evaluation."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

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
"""Arguments that a function is called with."""


@dataclass(frozen=True)
class Function:
    """A template with its constant and its names."""

    template: Template
    """What it does."""
    constant: int
    """The template's `{c}`, from 1 to 9."""
    name: str
    """The function's name."""
    argument: str
    """The argument's name, the template's `{x}`."""

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
        """The same function with one fault.

        Either it does something else with the same kind of argument, or its constant is off by one.
        """
        versions = []
        for template in TEMPLATES:
            if template.kind == self.template.kind and template is not self.template:
                versions.append(replace(self, template=template))
        for constant in (self.constant - 1, self.constant + 1):
            if 1 <= constant <= 9:
                versions.append(replace(self, constant=constant))
        return versions


def make(rng: random.Random, avoid: Sequence[str] = ()) -> Function:
    """A random function whose name is not in `avoid`."""
    names = [name for name in NAMES if name not in avoid]
    return Function(
        template=rng.choice(TEMPLATES),
        constant=rng.randint(1, 9),
        name=rng.choice(names),
        argument=rng.choice(ARGUMENTS),
    )


def inputs(function: Function, rng: random.Random, count: int = TESTS) -> list[Any]:
    """Arguments on at least one of which each of the function's wrong versions differs from it."""
    wrong = function.wrong()
    while True:
        arguments = [_argument(function, rng) for _ in range(count)]
        if all(_differs(function, version, arguments) for version in wrong):
            return arguments


def _differs(function: Function, version: Function, arguments: list[Any]) -> bool:
    return any(version.value(x) != function.value(x) for x in arguments)


def _argument(function: Function, rng: random.Random) -> Any:
    """One random argument of the function's kind."""
    kind = function.template.kind
    if kind == "int":
        return rng.randint(-5, 15)
    if kind == "str":
        length = rng.randint(1, 14)
        return "".join(rng.choice("abcdefgh") for _ in range(length))

    # Numbers near the constant, so that a list has something to count and to compare with it.
    constant = function.constant
    near = (constant - 1, constant, constant + 1)
    items = []
    for _ in range(rng.randint(1, 12)):
        if rng.random() < 0.4:
            items.append(rng.choice(near))
        else:
            items.append(rng.randint(0, 12))
    return items
