"""Expressions over integers, letters, `+`, `-`, `*` and brackets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_MOST_TOKENS = 100
_DEEPEST = 30
_TOKEN = re.compile(r"\s*(?:([0-9]{1,6})|([a-z])(?![a-z0-9])|([-+*()]))")
_LETTER = re.compile(r"[a-z]")

Term = int | str | tuple[str, "Term", "Term"]
"""An integer, a letter, or (operator, left, right)."""


class NotATerm(ValueError):
    """A text that is not an expression; the message says why."""


# ---------------------------------------------------------------- reading and writing


def parse(text: str) -> Term:
    """The expression a text holds; raises NotATerm, whatever the text."""
    tokens = _tokens(text)
    if len(tokens) > _MOST_TOKENS:
        raise NotATerm(f"an expression has more than {_MOST_TOKENS} parts")
    tokens.reverse()  # read from the end, popping
    term = _sum(tokens, 0)
    if tokens:
        raise NotATerm(f"{text.strip()[:30]!r} is not an expression")
    return term


def _tokens(text: str) -> list[int | str]:
    """The numbers, letters and signs of a text; NotATerm where it holds something else."""
    tokens: list[int | str] = []
    place = 0
    end = len(text.rstrip())
    while place < end:
        match = _TOKEN.match(text, place)
        if match is None:
            raise NotATerm(f"{text.strip()[:30]!r} is not an expression")

        digits, letter, sign = match.groups()
        if digits:
            tokens.append(int(digits))
        else:
            tokens.append(letter or sign)
        place = match.end()
    return tokens


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
    """A number with or without a minus, a letter, or an expression in brackets."""
    token = tokens.pop() if tokens else ""

    # The depth is limited, since each bracket is a call of this function.
    if token == "(" and depth < _DEEPEST:
        term = _sum(tokens, depth + 1)
        if not tokens or tokens.pop() != ")":
            raise NotATerm("a bracket is not closed")
        return term

    # A minus belongs to a number alone: `-x` is not an expression.
    if token == "-" and tokens and isinstance(tokens[-1], int):
        return -int(tokens.pop())
    if isinstance(token, int) or token.isalpha():
        return token

    raise NotATerm("an expression is missing or has a sign too many")


def show(term: Term) -> str:
    """The text of an expression, brackets only where they are needed."""
    if not isinstance(term, tuple):
        return str(term)
    operator, left, right = term
    before, after = show(left), show(right)

    is_product = operator == "*"
    if is_product and _is_loose(left):
        before = f"({before})"
    # To the right of an operator even a product needs brackets inside a product.
    if _is_loose(right) or (is_product and isinstance(right, tuple)):
        after = f"({after})"

    return f"{before} {operator} {after}"


def _is_loose(term: Term) -> bool:
    """Whether a term falls apart beside a `*` unless it stands in brackets."""
    if isinstance(term, tuple):
        return term[0] != "*"
    return isinstance(term, int) and term < 0


# ---------------------------------------------------------------- calculating


def value(term: Term, definitions: Mapping[str, Term]) -> int | None:
    """The number that a term stands for; None where a letter has no definition."""
    if isinstance(term, int):
        return term
    if isinstance(term, str):
        return value(definitions[term], definitions) if term in definitions else None
    operator, left, right = term
    left_value, right_value = value(left, definitions), value(right, definitions)
    if left_value is None or right_value is None:
        return None
    return _calculated(operator, left_value, right_value)


def letters(term: Term) -> set[str]:
    """The letters in a term."""
    if isinstance(term, str):
        return {term}
    if isinstance(term, tuple):
        return letters(term[1]) | letters(term[2])
    return set()


def _calculated(operator: str, left: int, right: int) -> int:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    return left * right


# ---------------------------------------------------------------- replacing


def is_one_step(before: Term, after: Term, definitions: Mapping[str, Term]) -> bool:
    """Whether one replacement, somewhere, leads from one expression to the other.

    A replacement puts a definition in place of its letter, or the letter in place of its
    definition, or works out one operation on two numbers.
    """
    if isinstance(before, str) and definitions.get(before) == after:
        return True
    if isinstance(after, str) and definitions.get(after) == before:
        return True
    if not isinstance(before, tuple):
        return False

    operator, left, right = before
    both_numbers = isinstance(left, int) and isinstance(right, int)
    if both_numbers and after == _reduced(before):
        return True

    # Otherwise one side stays and the step is in the other.
    if not isinstance(after, tuple) or after[0] != operator:
        return False
    _, left_after, right_after = after
    if left == left_after:
        return is_one_step(right, right_after, definitions)
    return right == right_after and is_one_step(left, left_after, definitions)


def is_two_steps(before: Term, after: Term, definitions: Mapping[str, Term]) -> bool:
    """Whether one replacement and another lead from one expression to the other."""
    for between in _replaced_once(before, definitions):
        if is_one_step(between, after, definitions):
            return True
    # A definition may also be put back into its letter: then the way is found from the end.
    backwards = _replaced_once(after, definitions)
    return any(is_one_step(before, between, definitions) for between in backwards)


def _replaced_once(term: Term, definitions: Mapping[str, Term]) -> Iterator[Term]:
    """What one replacement makes of an expression; none puts a letter for its definition."""
    if isinstance(term, str) and term in definitions:
        yield definitions[term]
    if not isinstance(term, tuple):
        return
    operator, left, right = term
    if isinstance(left, int) and isinstance(right, int):
        yield _calculated(operator, left, right)
    for part in _replaced_once(left, definitions):
        yield operator, part, right
    for part in _replaced_once(right, definitions):
        yield operator, left, part


def next_step(term: Term, definitions: Mapping[str, Term]) -> Term:
    """The expression after its next replacement.

    It replaces the first letter, or else works out the first operation on two numbers.
    """
    letter = _LETTER.search(show(term))
    if letter is None:
        return _reduced(term)
    return _substituted(term, letter[0], definitions[letter[0]])


def _substituted(term: Term, letter: str, definition: Term) -> Term:
    if isinstance(term, tuple):
        operator, left, right = term
        return (
            operator,
            _substituted(left, letter, definition),
            _substituted(right, letter, definition),
        )
    return definition if term == letter else term


def _reduced(term: Term) -> Term:
    if not isinstance(term, tuple):
        return term
    operator, left, right = term
    if isinstance(left, int) and isinstance(right, int):
        return _calculated(operator, left, right)
    if isinstance(left, tuple):
        return (operator, _reduced(left), right)
    return (operator, left, _reduced(right))
