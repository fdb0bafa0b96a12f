"""Equational derivations: `x = y + 3 = 2 * z + 3 = ...`, made by a generator and checked step by step by a program."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

_LONGEST = 2_000
_MOST_STEPS = 60
_MOST_TOKENS = 100
_DEEPEST = 30
_LETTERS = "abcdfghkmnpqrstuvwxyz"
_TOKEN = re.compile(r"\s*(?:([0-9]{1,6})|([a-z])(?![a-z0-9])|([-+*()]))")

Term = int | str | tuple[str, "Term", "Term"]
"""An integer, a letter, or (operator, left, right)."""


class NotATerm(ValueError):
    """A text that is no expression over integers, letters, `+`, `-`, `*` and brackets."""


@dataclass(frozen=True)
class Task:
    """Letters defined one by the next, and the equation to prove."""

    given: tuple[tuple[str, str], ...]
    """(letter, expression), the first letter's definition first."""
    goal: tuple[str, str]
    """(left, right): the first letter and its value."""
    chain: tuple[str, ...]
    """A derivation in which every step is one replacement."""

    def text(self) -> str:
        """`x = y + 3, y = 2 * z, z = 4`."""
        return ", ".join(f"{letter} = {value}" for letter, value in self.given)


def make(rng: random.Random) -> Task:
    """Three letters: the first from the second, the second from the third, the third a number."""
    x, y, z = rng.sample(_LETTERS, 3)
    a, b, c = rng.randint(2, 9), rng.randint(2, 5), rng.randint(2, 9)
    first, second = rng.choice(
        (
            (f"{y} + {a}", f"{b} * {z}"),
            (f"{y} - {a}", f"{b + 10} * {z}"),
            (f"{a} + {y}", f"{z} * {b}"),
        )
    )
    given = ((x, first), (y, second), (z, str(c)))
    chain: list[Term] = [x]
    definitions = {letter: parse(value) for letter, value in given}
    while not isinstance(chain[-1], int):
        chain.append(_replaced(chain[-1], definitions))
    texts = tuple(show(term) for term in chain)
    return Task(given, (x, texts[-1]), texts)


def spoiled(task: Task, rng: random.Random, score: float) -> tuple[str, ...]:
    """The task's derivation: whole for score 1, a step left out for 0.5, a number changed inside for 0."""
    chain = list(task.chain)
    if score == 0.5:
        del chain[rng.randrange(1, len(chain) - 1)]
    elif score == 0:
        place = rng.choice([i for i in range(1, len(chain) - 1) if re.search(r"[0-9]", chain[i])])
        chain[place] = re.sub(
            r"[0-9]+", lambda digits: str(int(digits[0]) + rng.randint(1, 3)), chain[place], count=1
        )
    return tuple(chain)


def judge(text: str, given: Mapping[str, str], goal: tuple[str, str]) -> tuple[float, str]:
    """(score, why) of a derivation written as one chain of `=`.

    1: it leads from the goal's left to its right, every step replaces one letter by its definition (or back) or works out one operation,
    and nothing comes twice. 0.5: one step of several is missing, though all that is said is true. 0: everything else.
    """
    if len(text) > _LONGEST:
        return 0.0, f"the derivation is longer than {_LONGEST} characters"
    try:
        chain = [parse(part) for part in text.split("=")]
    except NotATerm as error:
        return 0.0, str(error)
    definitions = {letter: parse(value) for letter, value in given.items()}
    if len(chain) > _MOST_STEPS:
        return 0.0, f"more than {_MOST_STEPS} steps"
    if (chain[0], chain[-1]) != (parse(goal[0]), parse(goal[1])):
        return 0.0, "the derivation does not lead from the left of the statement to its right"
    if len(set(chain)) < len(chain):
        return 0.0, "the derivation goes in a circle"
    true = _value(chain[-1], definitions)
    for term in chain:
        if _value(term, definitions) != true:
            return 0.0, f"{show(term)} is not equal to {goal[1]}"
    missing = [
        i for i in range(1, len(chain)) if not _one_step(chain[i - 1], chain[i], definitions)
    ]
    if not missing:
        return 1.0, ""
    what = f"{show(chain[missing[0] - 1])} = {show(chain[missing[0]])} is more than one replacement"
    return (0.5 if len(missing) == 1 < len(chain) - 1 else 0.0), what


def read(given: str, goal: str) -> tuple[dict[str, str], tuple[str, str]]:
    """(definitions, goal) of `x = y + 3, y = 4` and `x = 7`; NotATerm where they are no such texts, or the goal isn't true."""
    definitions: dict[str, str] = {}
    for part in given.split(","):
        letter, mark, value = (piece.strip() for piece in part.partition("="))
        if not mark or not re.fullmatch(r"[a-z]", letter) or letter in definitions:
            raise NotATerm(f"{part.strip()[:30]!r} is not a new letter = its expression")
        definitions[letter] = value
    terms = {letter: parse(value) for letter, value in definitions.items()}
    known: set[str] = set()
    for letter in reversed(definitions):
        if not _letters(terms[letter]) <= known:
            raise NotATerm(f"{letter} rests on a letter that is not defined after it")
        known.add(letter)
    left, _, right = (piece.strip() for piece in goal.partition("="))
    if not _letters(parse(left)) | _letters(parse(right)) <= known or _value(
        parse(left), terms
    ) != _value(parse(right), terms):
        raise NotATerm(f"{goal[:30]!r} does not follow")
    return definitions, (left, right)


def parse(text: str) -> Term:
    """The expression a text holds; raises NotATerm, whatever the text."""
    tokens: list[int | str] = []
    place, end = 0, len(text.rstrip())
    while place < end:
        found = _TOKEN.match(text, place)
        if found is None:
            raise NotATerm(f"{text.strip()[:30]!r} is not an expression")
        tokens.append(int(found[1]) if found[1] else found[2] or found[3])
        place = found.end()
    if len(tokens) > _MOST_TOKENS:
        raise NotATerm(f"an expression has more than {_MOST_TOKENS} parts")
    tokens.reverse()  # read from the end, popping
    term = _sum(tokens, 0)
    if tokens:
        raise NotATerm(f"{text.strip()[:30]!r} is not an expression")
    return term


def show(term: Term) -> str:
    """The text of an expression, brackets only where they are needed."""
    if not isinstance(term, tuple):
        return str(term)
    operator, left, right = term
    tight = operator == "*"
    before = f"({show(left)})" if tight and _loose(left) else show(left)
    after = (
        f"({show(right)})" if _loose(right) or (tight and isinstance(right, tuple)) else show(right)
    )
    return f"{before} {operator} {after}"


def _loose(term: Term) -> bool:
    return (isinstance(term, tuple) and term[0] != "*") or (isinstance(term, int) and term < 0)


def _sum(tokens: list[int | str], depth: int) -> Term:
    term = _product(tokens, depth)
    while tokens and tokens[-1] in ("+", "-"):
        operator = str(tokens.pop())
        term = (operator, term, _product(tokens, depth))
    return term


def _product(tokens: list[int | str], depth: int) -> Term:
    term = _atom(tokens, depth)
    while tokens and tokens[-1] == "*":
        tokens.pop()
        term = ("*", term, _atom(tokens, depth))
    return term


def _atom(tokens: list[int | str], depth: int) -> Term:
    token = tokens.pop() if tokens else ""
    if token == "(" and depth < _DEEPEST:
        term = _sum(tokens, depth + 1)
        if not tokens or tokens.pop() != ")":
            raise NotATerm("a bracket is not closed")
        return term
    if token == "-" and tokens and isinstance(tokens[-1], int):
        return -int(tokens.pop())
    if isinstance(token, int) or token.isalpha():
        return token
    raise NotATerm("an expression is missing or has a sign too many")


def _value(term: Term, definitions: Mapping[str, Term]) -> int | None:
    """What a term is worth under the definitions; None where a letter has none."""
    if isinstance(term, int):
        return term
    if isinstance(term, str):
        return _value(definitions[term], definitions) if term in definitions else None
    left, right = _value(term[1], definitions), _value(term[2], definitions)
    return None if left is None or right is None else _worked_out(term[0], left, right)


def _letters(term: Term) -> set[str]:
    return (
        {term}
        if isinstance(term, str)
        else _letters(term[1]) | _letters(term[2])
        if isinstance(term, tuple)
        else set()
    )


def _worked_out(operator: str, left: int, right: int) -> int:
    return left + right if operator == "+" else left - right if operator == "-" else left * right


def _one_step(before: Term, after: Term, definitions: Mapping[str, Term]) -> bool:
    """Whether one replacement, somewhere, leads from one expression to the other."""
    if (isinstance(before, str) and definitions.get(before) == after) or (
        isinstance(after, str) and definitions.get(after) == before
    ):
        return True
    if not isinstance(before, tuple):
        return False
    operator, left, right = before
    if (
        isinstance(left, int)
        and isinstance(right, int)
        and after == _worked_out(operator, left, right)
    ):
        return True
    if not isinstance(after, tuple) or after[0] != operator:
        return False
    if left == after[1]:
        return _one_step(right, after[2], definitions)
    return right == after[2] and _one_step(left, after[1], definitions)


def _replaced(term: Term, definitions: Mapping[str, Term]) -> Term:
    """The expression after the next replacement: the first letter, or else the first operation on two numbers."""
    letter = re.search(r"[a-z]", show(term))
    return _substituted(term, letter[0], definitions[letter[0]]) if letter else _reduced(term)


def _substituted(term: Term, letter: str, value: Term) -> Term:
    if isinstance(term, tuple):
        return (term[0], _substituted(term[1], letter, value), _substituted(term[2], letter, value))
    return value if term == letter else term


def _reduced(term: Term) -> Term:
    if not isinstance(term, tuple):
        return term
    operator, left, right = term
    if isinstance(left, int) and isinstance(right, int):
        return _worked_out(operator, left, right)
    return (
        (operator, _reduced(left), right)
        if isinstance(left, tuple)
        else (operator, left, _reduced(right))
    )
