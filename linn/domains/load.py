"""Domains by name or by a user's own file."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import itertools
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from linn.domains.base import Domain
from linn.domains.splits import Splits
from linn.errors import LinnError, UserError, nearest

_NOT_DOMAINS = ("base", "check", "common", "load", "splits")
"""What stands beside the domains in this folder."""


def _names() -> Iterator[str]:
    for path in sorted(Path(__file__).parent.iterdir()):
        name = path.stem
        is_module = path.suffix == ".py" or (path / "__init__.py").is_file()
        if is_module and not name.startswith("_") and name not in _NOT_DOMAINS:
            yield name


NAMES = tuple(_names())
"""Every domain that comes with linn: a file or a package of this folder each."""


def check_name(name: str) -> None:
    """Refuse a name that `load` could not find."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"domain file {name}: not found")
    elif name not in NAMES:
        raise UserError(f"domain {name!r} is unknown (your own: ./FILE.py){nearest(name, NAMES)}")


def load(name: str, options: Mapping[str, Any] | None = None) -> Domain:
    """The domain `name`, or the one in the file `./name.py`.

    `options`: `skip_bad`, `thinking`, `test`, `validation`, and arguments of the domain's
    constructor.
    """
    check_name(name)
    kind = _class_of(name)
    arguments = dict(options or {})
    skip_bad = bool(arguments.pop("skip_bad", False))
    splits = Splits(arguments.pop("test", None), arguments.pop("validation", None))
    thinking = arguments.pop("thinking", None)
    if thinking not in (None, True, False):
        raise UserError(f"domain {name}: thinking must be true or false, found {thinking!r}")

    try:
        domain = kind(**_fitting(name, kind, arguments))
    except LinnError:
        raise
    except TypeError as error:
        raise UserError(f"domain {name}: {error}") from None
    except Exception as error:
        cause = f"{type(error).__name__}: {error}"
        raise UserError(f"domain {name}: its constructor raised {cause}") from None

    domain.skip_bad = skip_bad
    domain.splits = splits
    domain.thinking = thinking

    return domain


def outline(name: str) -> Domain:
    """What can be known of a domain in a file without running it: its name, and its turns.

    It cannot make or grade anything. Raises UserError where the file is not Python, or holds no
    class of a domain.
    """
    check_name(name)
    path = Path(name)
    try:
        tree = ast.parse(path.read_bytes(), filename=name)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        where = f" line {line}" if line else ""
        raise UserError(f"domain file {path}{where}: {type(error).__name__}: {error}") from None

    domain = Domain()
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    if not classes:
        raise UserError(
            f"domain {name}: its file must hold exactly one subclass of "
            "linn.domains.base.Domain, found 0"
        )
    # A value that is written down counts; one that is computed would have to be run.
    for node in itertools.chain.from_iterable(each.body for each in classes):
        target, value = _assigned(node)
        literal = value.value if isinstance(value, ast.Constant) else None
        if target == "max_turns" and isinstance(literal, int):
            domain.max_turns = literal
    return domain


def _assigned(node: ast.stmt) -> tuple[str, ast.expr | None]:
    """Name and value of `NAME = VALUE` or `NAME: TYPE = VALUE`; empty for another statement."""
    target: ast.expr | None = None
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target = node.targets[0]
    elif isinstance(node, ast.AnnAssign):
        target = node.target
    if isinstance(target, ast.Name) and isinstance(node, ast.Assign | ast.AnnAssign):
        return target.id, node.value
    return "", None


def reader(name: str, options: Mapping[str, Any] | None = None) -> Domain:
    """The domain to read prompts with; nothing is graded.

    It is loaded as if a model judged it where one can, so that it takes rows that only a model can
    grade.
    """
    try:
        return load(name, {**(options or {}), "judged": True})
    except UserError:
        return load(name, options)


def load_all(options_of: Mapping[str, Mapping[str, Any]]) -> dict[str, Domain]:
    """Every domain of a recipe by its short name, ready to use. `options_of`: by full name."""
    return {Path(name).stem: load(name, options) for name, options in options_of.items()}


def _class_of(name: str) -> type[Domain]:
    """The one subclass of `Domain` that a domain's module defines."""
    if name.endswith(".py"):
        module = _of_file(Path(name))
    else:
        module = importlib.import_module(f"linn.domains.{name}")

    classes = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Domain)
        and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise UserError(
            f"domain {name}: its file must hold exactly one subclass of "
            f"linn.domains.base.Domain, found {len(classes)}"
        )

    kind = classes[0]
    own_name = getattr(kind, "name", None)
    if own_name != Path(name).stem:
        raise UserError(
            f"domain {name}: class {kind.__name__} has name {own_name!r}; "
            f"it must be the file's: {Path(name).stem!r}"
        )

    return kind


def _fitting(name: str, kind: type[Domain], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with values as the constructor's annotations have them.

    Raises UserError for an option that the constructor does not take.
    """
    parameters = inspect.signature(kind).parameters
    arguments = dict(options)
    if arguments.get("judged") and "judged" not in parameters:
        raise UserError(f"domain {name}: no model can judge it; take its judge away")
    # Every recipe gives these two; a domain without them must not refuse their defaults.
    for key, default in (("level", "tiny"), ("rows", None)):
        if key not in parameters and arguments.get(key, default) == default:
            arguments.pop(key, None)

    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return arguments
    for key in arguments:
        if key not in parameters:
            # `judged` is the constructor's word; a recipe says `judge`.
            allowed = ["judge" if other == "judged" else other for other in parameters]
            raise UserError(f"domain {name}: unknown option {key!r}{nearest(key, allowed)}")

    return {key: _typed(name, kind, key, value) for key, value in arguments.items()}


def _typed(
    name: str,
    kind: type[Domain],
    key: str,
    value: Any,
) -> Any:
    """`value` as the annotation of the constructor's parameter `key` has it.

    A mapping for a dataclass, a number for a number.
    """
    if key in ("level", "rows", "judged"):
        return value
    from typing import get_type_hints

    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        annotation = get_type_hints(kind.__init__).get(key, Any)
        return TypeAdapter(annotation).validate_python(value)
    except (PydanticUserError, NameError):  # an annotation that says nothing about values
        return value
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([key, *map(str, first["loc"])])
        reason = str(first["msg"]).replace("Input should be", "must be")
        raise UserError(
            f"domain {name}: option {place}: {reason}, found {first['input']!r}"
        ) from None


def _of_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"linn_user_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their own module up here while they are made.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        # The last line of the user's own file on the way to the error.
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if Path(frame.filename).resolve() == path.resolve()]
        line = f" line {own[-1].lineno}" if own else ""
        cause = f"{type(error).__name__}: {error}"
        raise UserError(f"domain file {path}{line}: {cause}") from None
    return module
