"""Equational derivations (`x = y + 3 = 2 * z + 3 = …`): a generator, and a program that grades."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from linn.domains.proof.terms import (
    NotATerm,
    Term,
    is_one_step,
    is_two_steps,
    letters,
    next_step,
    parse,
    show,
    value,
)

_LONGEST = 2_000
_MOST_STEPS = 60
_LETTERS = "abcdfghkmnpqrstuvwxyz"
_DIGITS = re.compile(r"[0-9]+")


@dataclass(frozen=True)
class Derivation:
    """Letters defined one by the next, and the equation to prove with its proof."""

    definitions: tuple[tuple[str, str], ...]
    """(letter, expression), the first letter's definition first."""
    goal: tuple[str, str]
    """(left, right): the first letter and its value."""
    chain: tuple[str, ...]
    """A derivation in which every step is one replacement."""

    def text(self) -> str:
        """`x = y + 3, y = 2 * z, z = 4`."""
        return ", ".join(f"{letter} = {expression}" for letter, expression in self.definitions)


def make(rng: random.Random) -> Derivation:
    """Three letters: the first from the second, the second from the third, the third a number."""
    x, y, z = rng.sample(_LETTERS, 3)
    a = rng.randint(2, 9)
    b = rng.randint(2, 5)
    c = rng.randint(2, 9)

    # The second form keeps the result positive.
    forms = (
        (f"{y} + {a}", f"{b} * {z}"),
        (f"{y} - {a}", f"{b + 10} * {z}"),
        (f"{a} + {y}", f"{z} * {b}"),
    )
    first, second = rng.choice(forms)

    definitions = ((x, first), (y, second), (z, str(c)))
    chain = _worked_out(x, definitions)
    return Derivation(
        definitions=definitions,
        goal=(x, chain[-1]),
        chain=chain,
    )


def _worked_out(letter: str, definitions: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """The derivation of a letter's value, a replacement per step."""
    terms = {name: parse(expression) for name, expression in definitions}
    chain: list[Term] = [letter]
    while not isinstance(chain[-1], int):
        chain.append(next_step(chain[-1], terms))
    return tuple(show(term) for term in chain)


def spoiled(derivation: Derivation, rng: random.Random, score: float) -> tuple[str, ...]:
    """The chain as it earns a score.

    1: whole; 0.5: with a step left out; 0: with a number changed inside.
    """
    chain = list(derivation.chain)
    if score == 0.5:
        del chain[rng.randrange(1, len(chain) - 1)]
    elif score == 0:
        inside = range(1, len(chain) - 1)
        place = rng.choice([index for index in inside if _DIGITS.search(chain[index])])
        chain[place] = _with_other_number(chain[place], rng)
    return tuple(chain)


def _with_other_number(expression: str, rng: random.Random) -> str:
    """The expression with its first number raised by 1 to 3."""
    digits = _DIGITS.search(expression)
    assert digits is not None, expression
    number = int(digits[0]) + rng.randint(1, 3)
    return expression.replace(digits[0], str(number), 1)


# ---------------------------------------------------------------- grading


def grade(text: str, given: Mapping[str, str], goal: tuple[str, str]) -> tuple[float, str]:
    """(score, why) of a derivation written as one chain of `=`.

    1: it leads from the goal's left to its right, every step replaces one letter by its definition
    (or back) or works out one operation, and nothing comes twice. 0.5: one such step is left out,
    all that is stated is true, and something is stated that the problem does not say. 0:
    everything else.
    """
    if len(text) > _LONGEST:
        return 0.0, f"the derivation is longer than {_LONGEST} characters"
    try:
        chain = [parse(part) for part in text.split("=")]
    except NotATerm as error:
        return 0.0, str(error)

    definitions = {letter: parse(expression) for letter, expression in given.items()}
    fault = _fault(chain, definitions, goal)
    if fault:
        return 0.0, fault

    # True throughout and without a circle: what is left to ask is whether the steps are small.
    jumps: list[tuple[Term, Term]] = []
    for before, after in itertools.pairwise(chain):
        if not is_one_step(before, after, definitions):
            jumps.append((before, after))
    if not jumps:
        return 1.0, ""

    # A jump over several steps is no derivation, nor is a copy of what the problem says.
    before, after = jumps[0]
    is_small = len(jumps) == 1 and is_two_steps(before, after, definitions)
    said = {*definitions, *definitions.values(), *map(parse, goal)}
    score = 0.5 if is_small and not said.issuperset(chain) else 0.0
    return score, f"{show(before)} = {show(after)} is more than one replacement"


def _fault(chain: list[Term], definitions: Mapping[str, Term], goal: tuple[str, str]) -> str:
    """Why a chain is worth nothing, whatever its steps.

    Empty where there is no such reason.
    """
    if len(chain) > _MOST_STEPS:
        return f"more than {_MOST_STEPS} steps"

    left, right = goal
    if chain[0] != parse(left) or chain[-1] != parse(right):
        return "the derivation does not lead from the left of the statement to its right"
    if len(set(chain)) < len(chain):
        return "the derivation goes in a circle"

    # Right steps cannot follow a false one, but a single missing step may be false.
    result = value(chain[-1], definitions)
    for term in chain:
        if value(term, definitions) != result:
            return f"{show(term)} is not equal to {right}"
    return ""


# ---------------------------------------------------------------- rows


def read(given: str, goal: str) -> tuple[dict[str, str], tuple[str, str]]:
    """(definitions, goal) of `x = y + 3, y = 4` and `x = 7`.

    Raises NotATerm where the texts are something else, or the goal is not true.
    """
    definitions = _read_definitions(given)
    terms = {letter: parse(expression) for letter, expression in definitions.items()}
    _check_order(terms)

    # Without a `=` the right side is empty, which is not an expression.
    left, _, right = goal.partition("=")
    left, right = left.strip(), right.strip()
    if not _is_true(parse(left), parse(right), terms):
        raise NotATerm(f"{goal[:30]!r} does not follow")
    return definitions, (left, right)


def _is_true(left: Term, right: Term, definitions: Mapping[str, Term]) -> bool:
    """Whether two sides have the same value; False where a letter has no definition."""
    undefined = (letters(left) | letters(right)) - definitions.keys()
    return not undefined and value(left, definitions) == value(right, definitions)


def _read_definitions(given: str) -> dict[str, str]:
    definitions: dict[str, str] = {}
    for part in given.split(","):
        letter, mark, expression = (piece.strip() for piece in part.partition("="))
        if not mark or not re.fullmatch(r"[a-z]", letter) or letter in definitions:
            raise NotATerm(f"{part.strip()[:30]!r} is not a new letter = its expression")
        definitions[letter] = expression
    return definitions


def _check_order(terms: Mapping[str, Term]) -> None:
    """Raises NotATerm unless each letter is defined by later ones: then no definition circles."""
    defined: set[str] = set()
    for letter in reversed(list(terms)):
        if not letters(terms[letter]) <= defined:
            raise NotATerm(f"{letter} rests on a letter that is not defined after it")
        defined.add(letter)
