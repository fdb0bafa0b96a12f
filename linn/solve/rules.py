"""The rules of a strategy from `--set KEY=VALUE`: typed, with defaults, unknown keys refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar, get_type_hints

from linn.errors import UserError, nearest

Rules = TypeVar("Rules")


def check_at_least(least: int, **counts: int) -> None:
    """Raise ValueError for a count below `least`."""
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{name} must be {least} or more, found {count}")


def rules_from(kind: type[Rules], changes: Sequence[str], strategy: str) -> Rules:
    """The rules of `kind`, a dataclass, with these `KEY=VALUE`s in place of its defaults.

    UserError names the key, and what is allowed.
    """
    import yaml
    from pydantic import TypeAdapter, ValidationError

    # YAML's notation for values, as in recipes.
    assert dataclasses.is_dataclass(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    types = get_type_hints(kind)
    values: dict[str, Any] = {}
    for change in changes:
        name, separator, text = change.partition("=")
        where = f"--set {change!r}, strategy {strategy}"
        if not separator:
            raise UserError(f"{where}: expected KEY=VALUE")
        if name not in names:
            raise UserError(f"{where}: unknown key {name!r}{nearest(name, names)}")
        try:
            values[name] = TypeAdapter(types[name]).validate_python(yaml.safe_load(text))
        except (ValidationError, yaml.YAMLError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                reason = str(error.errors()[0]["msg"]).replace("Input should be", "must be")
            raise UserError(f"{where}: {name} {reason}, found {text!r}") from None
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(f"--set, strategy {strategy}: {error}") from None
