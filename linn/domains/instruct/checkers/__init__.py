"""Verifiable instructions by id: the 25 of IFEval, the 29 further ones of IFBench's training set,
the 58 of its test set.

A checker is a pure function of the reply and of typed keyword arguments. Its time grows linearly
with the reply, or it refuses a reply that is too long for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple, get_args, get_type_hints

from linn.domains.instruct.checkers import (
    as_released,
    ifbench_custom,
    ifbench_test,
    ifbench_train,
    ifeval,
)
from linn.domains.instruct.checkers.text import seen
from linn.errors import InfrastructureError

CHECKERS: Mapping[str, Callable[..., bool]] = {
    **ifeval.CHECKERS,
    **ifbench_train.CHECKERS,
    **ifbench_test.CHECKERS,
    **ifbench_custom.CHECKERS,
}
"""Every instruction id with its checker."""


class Outcome(NamedTuple):
    """Whether a reply follows one instruction."""

    followed: bool
    """It does."""
    note: str = ""
    """Why not, with the instruction's id; empty when followed."""
    error: bool = False
    """Nothing could be checked: an unknown id, wrong arguments, a checker that raised. Counts as
    not followed.
    """


def follows(
    instruction_id: str,
    kwargs: Mapping[str, Any] | None,
    text: str,
    detect_language: bool = True,
    reference: bool = False,
) -> Outcome:
    """Whether `text` follows one instruction; nulls in `kwargs` are dropped.

    An empty reply follows nothing (as in IFEval's and IFBench's own evaluation), although it holds
    no comma; nor does one of which nothing can be seen. `detect_language` False checks the letter
    case of `change_case:english_*` and leaves out the language, for texts too short to tell.
    `reference`: as the graders of the released rows check it, where linn reads the instruction
    otherwise (see `as_released`). Raises InfrastructureError when a library that the checker needs
    is absent.
    """
    checker = CHECKERS.get(instruction_id)
    if reference:
        checker = as_released.AS_RELEASED.get(instruction_id, checker)
    if not detect_language:
        checker = ifeval.CASE_ONLY.get(instruction_id, checker)
    if checker is None:
        return Outcome(False, f"{instruction_id}: unknown instruction"[:200], error=True)
    if not text.strip() or not seen(text).strip():
        return Outcome(False, f"{instruction_id}: empty reply")
    try:
        arguments = _arguments(checker, kwargs or {})
        if not reference:
            # What a reader cannot see neither parts a forbidden word nor fills a paragraph.
            text, arguments = seen(text), _seen_arguments(arguments)
        followed = checker(text, **arguments)
    except InfrastructureError:
        raise
    except (
        Exception
    ) as error:  # the contract of the released rows: a checker that raises counts as failed
        return Outcome(
            False, f"{instruction_id}: {type(error).__name__}: {error}"[:200], error=True
        )

    return Outcome(True) if followed else Outcome(False, f"{instruction_id}: not followed")


def _arguments(checker: Callable[..., bool], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as the checker's signature types them; raises ValueError naming one that cannot
    be read so.
    """
    kinds = _kinds(checker)
    given = {name: value for name, value in kwargs.items() if value is not None}
    if unknown := sorted(given.keys() - kinds.keys()):
        raise ValueError(f"unknown argument {unknown[0]!r}; allowed: {', '.join(kinds) or 'none'}")
    return {name: _argument(name, kinds[name], value) for name, value in given.items()}


def _seen_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Texts as a reader sees them, as the reply's is."""
    shown = {}
    for name, value in arguments.items():
        if isinstance(value, str):
            value = seen(value) or value
        elif isinstance(value, list):
            value = [seen(word) or word for word in value]
        shown[name] = value
    return shown


@cache
def _kinds(checker: Callable[..., bool]) -> dict[str, Any]:
    return {
        name: kind
        for name, kind in get_type_hints(checker).items()
        if name not in ("text", "return")
    }


def _argument(name: str, kind: Any, value: Any) -> Any:
    """One argument as its annotation has it.

    Counts may come as whole floats, a word as a list of that one word; both stand in released rows.
    Raises ValueError for anything else.
    """
    if kind is int and _is_amount(value) and value == int(value):
        return int(value)
    if kind is float and _is_amount(value):
        return float(value)
    if kind is str:
        word = value[0] if isinstance(value, list) and len(value) == 1 else value
        if _is_word(word):
            return word

    if kind == list[str] and isinstance(value, list) and value and all(map(_is_word, value)):
        return value
    if value in get_args(kind):
        return value
    raise ValueError(f"argument {name} is {value!r:.60}, not {_allowed(kind)}")


def _is_amount(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value) and value >= 0  # type: ignore[operator,arg-type]


def _is_word(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _allowed(kind: Any) -> str:
    """What an argument of this kind may be, in words."""
    if kind == list[str]:
        return "a list of words"
    words = {int: "a whole number", float: "a number", str: "a text"}
    return words.get(kind) or " or ".join(map(repr, get_args(kind)))
