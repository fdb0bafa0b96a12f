"""Domains by name or by a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from linn.domains.base import Domain
from linn.errors import LinnError, UserError

NAMES = (
    "arithmetic",
    "math",
    "proof",
    "instruct",
    "mcqa",
    "structured",
    "workplace",
    "preference",
    "genrm",
    "longctx",
    "code",
    "swe_agentless",
    "swe_agentic",
)
"""Every domain that comes with linn."""


def check_exists(name: str) -> None:
    """Refuse a name that `load` could not find."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"domain file {name}: not found")
    elif name not in NAMES:
        from linn.errors import nearest

        raise UserError(f"domain {name!r} is unknown{nearest(name, NAMES)}; your own: ./FILE.py")


def load(name: str, options: Mapping[str, Any] | None = None) -> Domain:
    """The domain `name`, or the one in the file `./name.py`; `options` are `skip_bad` and its constructor's arguments."""
    check_exists(name)
    module = (
        _of_file(Path(name))
        if name.endswith(".py")
        else importlib.import_module(f"linn.domains.{name}")
    )
    found = [
        v
        for v in vars(module).values()
        if isinstance(v, type) and issubclass(v, Domain) and v.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise UserError(
            f"domain {name}: its file must hold exactly one subclass of linn.domains.base.Domain, found {len(found)}"
        )
    if (said := getattr(found[0], "name", None)) != Path(name).stem:
        raise UserError(
            f"domain {name}: class {found[0].__name__} has name {said!r}; it must be the file's: {Path(name).stem!r}"
        )
    arguments = dict(options or {})
    skip_bad = bool(arguments.pop("skip_bad", False))
    try:
        domain = found[0](**_fitting(name, found[0], arguments))
    except LinnError:
        raise
    except TypeError as error:
        raise UserError(f"domain {name}: {error}") from None
    except Exception as error:
        raise UserError(
            f"domain {name}: its constructor raised {type(error).__name__}: {error}"
        ) from None
    domain.skip_bad = skip_bad
    return domain


def reader(name: str, options: Mapping[str, Any] | None = None) -> Domain:
    """The domain to read prompts with, graded by nobody: as if a model judged it where one can, for rows that only a model can grade."""
    try:
        return load(name, {**(options or {}), "judged": True})
    except UserError:
        return load(name, options)


def load_all(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Domain]:
    """Every domain of a recipe by its short name, ready to use."""
    return {Path(name).stem: load(name, options) for name, options in named.items()}


def _fitting(name: str, kind: type[Domain], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with values as the constructor's annotations have them; UserError for one that it does not take."""
    taken = inspect.signature(kind).parameters
    given = dict(options)
    if given.get("judged") and "judged" not in taken:
        raise UserError(f"domain {name}: no model can judge it; take its judge away")
    for key, default in (("level", "tiny"), ("rows", None)):
        if key not in taken and given.get(key, default) == default:
            given.pop(key, None)
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values()):
        return given
    for key in given:
        if key not in taken:
            from linn.errors import nearest

            raise UserError(
                f"domain {name}: unknown option {key!r}{nearest(key, ['judge' if k == 'judged' else k for k in taken])}"
            )
    return {key: _typed(name, kind, key, value) for key, value in given.items()}


def _typed(name: str, kind: type[Domain], key: str, value: Any) -> Any:
    """`value` as the annotation of the constructor's parameter `key` has it: a mapping for a dataclass, a number for a number."""
    if key in ("level", "rows", "judged"):
        return value
    from typing import get_type_hints

    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(get_type_hints(kind.__init__).get(key, Any)).validate_python(value)
    except (PydanticUserError, NameError):  # an annotation that says nothing about values
        return value
    except ValidationError as error:
        first = error.errors()[0]
        said = str(first["msg"]).replace("Input should be", "must be")
        raise UserError(
            f"domain {name}: option {'.'.join([key, *map(str, first['loc'])])}: {said}, found {first['input']!r}"
        ) from None


def _of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"linn_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"domain file {path}: {type(error).__name__}: {error}") from None
    return module
