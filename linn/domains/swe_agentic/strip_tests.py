"""Hidden tests without their numbers: expected values are taken out of the test text, so that the tested code cannot meet them.

Code under test shares a process with the tests and could declare any of them passed. So in `assert f(x) == [1, 2]` the process gets
only the left side to compute; it sends the value out, and who holds `[1, 2]` compares outside. A repair earns by computing the values.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_EQUAL = {
    "assertEqual",
    "assertListEqual",
    "assertDictEqual",
    "assertTupleEqual",
    "assertSetEqual",
    "assertSequenceEqual",
    "assertMultiLineEqual",
}
_EQUAL |= {"assert_equal", "eq_"}  # helpers that many suites write for themselves
_LONGEST_VALUE = 20_000
SEND = "_linn_send"
"""The name of the function that stripped tests call: (site, value) or (site, value, row)."""


@dataclass(frozen=True)
class Site:
    """One place where a value was expected."""

    test: str
    """The test function, with its class."""
    values: tuple[Any, ...]
    """What was expected: one value, or one a row of the test's parameters."""
    parameter: str
    """The test's parameter that held the expected value; empty: it stood in the assertion."""
    asked: ast.expr
    """The expression whose value was compared."""
    before: tuple[ast.stmt, ...] | None
    """The statements of the test before it, in order; None where it stands inside another statement."""


@dataclass(frozen=True)
class Stripped:
    """A test module without expected values."""

    text: str
    """The module to run."""
    sites: Mapping[int, Site]
    """What was taken out, by number."""
    tests: Mapping[str, ast.AST]
    """Every test function by `Class.name`, as it was."""


def constant(node: ast.expr) -> Any:
    """The value of an expression that is plain data written out; raises ValueError for any other."""
    if isinstance(node, ast.Call) and not node.keywords and len(node.args) == 1:
        if (
            isinstance(node.func, ast.Attribute)
            and node.func.attr == "join"
            and isinstance(node.func.value, ast.Constant)
        ):
            separator, parts = node.func.value.value, constant(node.args[0])
            if (
                isinstance(separator, str)
                and isinstance(parts, (list, tuple))
                and all(isinstance(part, str) for part in parts)
            ):
                return separator.join(parts)
        raise ValueError
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError from None


def _plain(node: ast.expr) -> bool:
    try:
        return len(repr(constant(node))) <= _LONGEST_VALUE
    except ValueError:
        return False


def strip(text: str, spared: Collection[int] = ()) -> Stripped:
    """Take the expected values out of a test module, except at the sites numbered in `spared` (their values cannot cross the border).

    Sites are numbered in the order of the text, the same each time for the same text. Raises SyntaxError.
    """
    tree = ast.parse(text)
    sites: dict[int, Site] = {}
    tests: dict[str, ast.AST] = {}
    work = _Strip(sites, spared)
    for name, function in _tests(tree):
        tests[name] = ast.parse(ast.unparse(function)).body[0]
        work.function(name, function)
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module))
            and ast.get_docstring(node, clean=False) is not None
        ):
            node.body[0] = ast.Expr(ast.Constant(None))  # may show values
    return Stripped(ast.unparse(ast.fix_missing_locations(tree)), sites, tests)


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith("test"):
                    yield f"{node.name}.{inner.name}", inner


class _Strip:
    """Rewrites one test function after the other, numbering the sites."""

    def __init__(self, sites: dict[int, Site], spared: Collection[int]) -> None:
        self.sites, self.spared, self.count = sites, spared, 0

    def function(self, name: str, function: ast.FunctionDef) -> None:
        self._inline(function)
        parameters = _parameters(function)
        found = []
        blocked: set[str] = set()
        for place, index, before in _statements(function.body):
            compared = _compared(place[index], parameters)
            if compared is not None:
                found.append((self.count, place, index, before, *compared))
                if isinstance(compared[1], ast.Name) and self.count in self.spared:
                    blocked.add(compared[1].id)
                self.count += 1
        for parameter in parameters:
            if not _only_compared(function, parameter, len(_names(function, parameter))):
                blocked.add(parameter)
        hidden: set[str] = set()
        for number, place, index, before, asked, expected in found:
            parameter = expected.id if isinstance(expected, ast.Name) else ""
            if number in self.spared or parameter in blocked:
                continue
            values = tuple(parameters[parameter][1]) if parameter else (constant(expected),)
            self.sites[number] = Site(name, values, parameter, asked, before)
            arguments: list[ast.expr] = [
                ast.Constant(number),
                asked,
                *([ast.Name(parameter, ast.Load())] if parameter else []),
            ]
            place[index] = ast.copy_location(
                ast.Expr(ast.Call(ast.Name(SEND, ast.Load()), arguments, [])), place[index]
            )
            hidden |= {parameter} - {""}
        for parameter in hidden:
            _hide_parameter(*parameters[parameter][0])

    def _inline(self, function: ast.FunctionDef) -> None:
        """Put `expected = [1, 2]`, used only as one side of comparisons, where it is used."""
        for at in reversed(range(len(function.body))):
            node = function.body[at]
            if not (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], ast.Name)
                and _plain(node.value)
            ):
                continue
            name = node.targets[0].id
            uses = _names(function, name)
            if sum(isinstance(use.ctx, ast.Store) for use in uses) != 1 or not _only_compared(
                function, name, len(uses) - 1
            ):
                continue
            for place, index, _ in _statements(function.body):
                place[index] = (
                    _Substitute(name, node.value).visit(place[index])
                    if _sides(place[index])
                    else place[index]
                )
            function.body.pop(at)
            function.body = function.body or [ast.Pass()]


class _Substitute(ast.NodeTransformer):
    def __init__(self, name: str, value: ast.expr) -> None:
        self.name, self.value = name, value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.value if node.id == self.name and isinstance(node.ctx, ast.Load) else node


def _names(function: ast.FunctionDef, name: str) -> list[ast.Name]:
    return [
        node
        for part in function.body
        for node in ast.walk(part)
        if isinstance(node, ast.Name) and node.id == name
    ]


def _statements(
    body: list[ast.stmt], top: bool = True
) -> Iterator[tuple[list[ast.stmt], int, tuple[ast.stmt, ...] | None]]:
    """Every statement of a function, nested ones too, as (list, index, those before it where it is at the top level)."""
    before = tuple(body)
    for index, node in enumerate(before):
        yield body, index, before[:index] if top else None
        for field in ("body", "orelse", "finalbody"):
            if not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                yield from _statements(getattr(node, field, []), False)


def _sides(node: ast.stmt) -> tuple[ast.expr, ast.expr] | None:
    """The two sides of an assertion that they are equal."""
    if (
        isinstance(node, ast.Assert)
        and isinstance(node.test, ast.Compare)
        and len(node.test.ops) == 1
        and isinstance(node.test.ops[0], ast.Eq)
    ):
        return node.test.left, node.test.comparators[0]
    if (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Call)
        and len(node.value.args) in (2, 3)
        and not node.value.keywords
    ):
        function = node.value.func
        named = (
            function.attr
            if isinstance(function, ast.Attribute)
            else function.id
            if isinstance(function, ast.Name)
            else ""
        )
        if named in _EQUAL:
            return node.value.args[0], node.value.args[1]
    return None


def _compared(node: ast.stmt, parameters: Mapping[str, Any]) -> tuple[ast.expr, ast.expr] | None:
    """(what is asked, what is expected) of an assertion that a value equals plain data or a parameter that holds plain data."""
    sides = _sides(node)
    if sides is None:
        return None
    for asked, expected in (sides, sides[::-1]):
        known = isinstance(expected, ast.Name) and expected.id in parameters
        if (known or _plain(expected)) and not _plain(asked):
            return asked, expected
    return None


def _only_compared(function: ast.FunctionDef, name: str, uses: int) -> bool:
    """Whether every use of a name is as one whole side of an assertion of equality."""
    found = 0
    for place, index, _ in _statements(function.body):
        sides = _sides(place[index])
        found += sum(isinstance(side, ast.Name) and side.id == name for side in sides or ())
    return found == uses > 0


def _parameters(
    function: ast.FunctionDef,
) -> dict[str, tuple[tuple[ast.expr, int | None], list[Any]]]:
    """Parameters of a test whose rows are all plain data: name -> (where they stand, the values)."""
    found: dict[str, tuple[tuple[ast.expr, int | None], list[Any]]] = {}
    for decorator in function.decorator_list:
        if not (
            isinstance(decorator, ast.Call)
            and ast.unparse(decorator.func).endswith("mark.parametrize")
            and len(decorator.args) == 2
        ):
            continue
        if decorator.keywords or not isinstance(decorator.args[1], (ast.List, ast.Tuple)):
            continue
        try:
            names = constant(decorator.args[0])
        except ValueError:
            continue
        split = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
        rows = decorator.args[1].elts
        for index, name in enumerate(split):
            cells = [
                _cell(row, index if len(split) > 1 or not isinstance(names, str) else None)
                for row in rows
            ]
            if rows and all(cell is not None and _plain(cell) for cell in cells):
                position = index if len(split) > 1 or not isinstance(names, str) else None
                found[name] = (
                    (decorator.args[1], position),
                    [constant(cell) for cell in cells if cell is not None],
                )
    return found


def _cell(row: ast.expr, index: int | None) -> ast.expr | None:
    if index is None:
        return row
    return (
        row.elts[index]
        if isinstance(row, (ast.Tuple, ast.List)) and index < len(row.elts)
        else None
    )


def _hide_parameter(rows: ast.expr, index: int | None) -> None:
    """Put the row's number where its expected value stood."""
    assert isinstance(rows, (ast.List, ast.Tuple))
    for number, row in enumerate(rows.elts):
        if index is None:
            rows.elts[number] = ast.Constant(number)
        else:
            assert isinstance(row, (ast.Tuple, ast.List))
            row.elts[index] = ast.Constant(number)
