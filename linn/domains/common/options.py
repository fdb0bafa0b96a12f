"""Options of a domain's constructor."""

from __future__ import annotations

from linn.errors import UserError


def check_option(domain: str, name: str, value: object, fits: bool, allowed: str) -> None:
    """UserError that names the option, its value and what is `allowed`, unless the value `fits`."""
    if not fits:
        raise UserError(f"domain {domain}: {name} is {value!r}; allowed: {allowed}")


def is_whole(value: object) -> bool:
    """Whether a value is an integer; a truth value is not."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Whether a value is an integer or a float; a truth value is not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
