"""Domains by name or by a user's own file."""

from __future__ import annotations

import importlib
import importlib.util
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
    "longctx",
    "code",
    "swe_agentless",
    "swe_agentic",
)
"""Every domain that comes with linn."""


def exists(name: str) -> None:
    """Refuse a name that `load` could not find."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"domain file {name}: not found")
    elif name not in NAMES:
        from linn.recipe import nearest

        raise UserError(f"domain {name!r} is unknown{nearest(name, NAMES)}; your own: ./FILE.py")


def load(name: str, options: Mapping[str, Any] | None = None) -> Domain:
    """The domain `name`, or the one in the file `./name.py`; `options` are its constructor's arguments."""
    exists(name)
    module = _of_file(Path(name)) if name.endswith(".py") else importlib.import_module(f"linn.domains.{name}")
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Domain) and v.__module__ == module.__name__]
    if len(found) != 1:
        raise UserError(f"domain {name}: its file must hold exactly one subclass of linn.domains.base.Domain, found {len(found)}")
    if (said := getattr(found[0], "name", None)) != Path(name).stem:
        raise UserError(f"domain {name}: class {found[0].__name__} has name {said!r}; it must be the file's: {Path(name).stem!r}")
    try:
        return found[0](**dict(options or {}))
    except LinnError:
        raise
    except TypeError as error:
        raise UserError(f"domain {name}: {error}") from None
    except Exception as error:
        raise UserError(f"domain {name}: its constructor raised {type(error).__name__}: {error}") from None


def load_all(named: Mapping[str, Mapping[str, Any]]) -> dict[str, Domain]:
    """Every domain of a recipe by its short name, ready to use."""
    return {Path(name).stem: load(name, options) for name, options in named.items()}


def _of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"linn_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise UserError(f"domain file {path}: {type(error).__name__}: {error}") from None
    return module
