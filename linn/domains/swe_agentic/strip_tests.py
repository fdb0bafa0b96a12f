"""Tests without their numbers: expected values are taken out, so that tested code cannot meet them.

Code under test shares a process with the tests and could declare any of them passed. So in
`assert f(x) == [1, 2]` the process gets only the left side to compute. It sends the value out, and
who holds `[1, 2]` compares outside. A repair earns by computing the values.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from linn.domains.swe_agentic.bugs import called_name

_UNITTEST_EQUAL = {
    "assertEqual",
    "assertListEqual",
    "assertDictEqual",
    "assertTupleEqual",
    "assertSetEqual",
    "assertSequenceEqual",
    "assertMultiLineEqual",
}
_EQUAL = _UNITTEST_EQUAL | {"assert_equal", "eq_"}  # helpers that many suites write for themselves
_LONGEST_VALUE = 20_000
SEND = "_linn_send"
"""Name of the function that stripped tests call: (site, value) or (site, value, row)."""


@dataclass(frozen=True)
class Site:
    """One place where a value was expected."""

    test: str
    """The test function, with its class."""
    values: tuple[Any, ...]
    """What was expected: one value, or one per row of the test's parameters."""
    parameter: str
    """The test's parameter that held the expected value; empty: it stood in the assertion."""
    computed: ast.expr
    """The expression whose value was compared."""
    before: tuple[ast.stmt, ...] | None
    """The statements of the test before it, in order; None inside another statement."""


@dataclass(frozen=True)
class StrippedTests:
    """A test module without expected values."""

    text: str
    """The module to run."""
    sites: Mapping[int, Site]
    """What was taken out, by number."""
    tests: Mapping[str, ast.AST]
    """Every test function by `Class.name`, as it was."""


@dataclass(frozen=True)
class _Column:
    """A parameter of a test whose values are all plain data."""

    rows: ast.List | ast.Tuple
    """The rows of all parameters, as they stand in the decorator."""
    index: int | None
    """Which cell of a row it is; None: a row is the value itself."""
    values: tuple[Any, ...]
    """Its value in each row."""

    def hide(self) -> None:
        """Put the row's number where each value stood."""
        for number, row in enumerate(self.rows.elts):
            if self.index is None:
                self.rows.elts[number] = ast.Constant(number)
            else:
                assert isinstance(row, (ast.Tuple, ast.List))
                row.elts[self.index] = ast.Constant(number)


@dataclass(frozen=True)
class _Place:
    """Where a statement of a function stands."""

    block: list[ast.stmt]
    """The list of statements it is in."""
    index: int
    """Its index there."""
    before: tuple[ast.stmt, ...] | None
    """The statements before it, at the function's top level; None further in."""

    @property
    def statement(self) -> ast.stmt:
        return self.block[self.index]

    def put(self, statement: ast.stmt) -> None:
        self.block[self.index] = statement


@dataclass(frozen=True)
class _Comparison:
    """An assertion that a value equals plain data, or a parameter that holds plain data."""

    number: int
    """The number of its site."""
    place: _Place
    """The assertion."""
    computed: ast.expr
    """The side to compute."""
    expected: ast.expr
    """The side that is known."""

    @property
    def parameter(self) -> str:
        """The parameter that holds the expected value; empty where the assertion does."""
        return self.expected.id if isinstance(self.expected, ast.Name) else ""


def strip(text: str, spared: Collection[int] = ()) -> StrippedTests:
    """Take the expected values out of a test module.

    `spared`: numbers of sites that stay, as their values cannot cross the border. Sites are
    numbered in the order of the text, the same each time for the same text. Raises SyntaxError.
    """
    tree = ast.parse(text)
    stripper = _Stripper(spared)
    tests: dict[str, ast.AST] = {}
    for name, function in _tests(tree):
        # A copy: stripping changes the function itself.
        source = ast.unparse(function)
        tests[name] = ast.parse(source).body[0]
        stripper.strip(name, function)

    _remove_docstrings(tree)
    stripped = ast.unparse(ast.fix_missing_locations(tree))
    return StrippedTests(stripped, stripper.sites, tests)


def _remove_docstrings(tree: ast.Module) -> None:
    """They may show values."""
    for node in ast.walk(tree):
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body[0] = ast.Expr(ast.Constant(None))


def _tests(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """The test functions of a module, and of its classes as `Class.name`."""
    for node in tree.body:
        if _is_test(node):
            yield node.name, node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if _is_test(inner):
                    yield f"{node.name}.{inner.name}", inner


def _is_test(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test")


class _Stripper:
    """Rewrites one test function after the other, numbering the sites."""

    def __init__(self, spared: Collection[int]) -> None:
        self.spared = spared
        self.sites: dict[int, Site] = {}
        self._count = 0

    def strip(self, test: str, function: ast.FunctionDef) -> None:
        """Take out the values of one test; the function is changed."""
        _inline_expected(function)
        columns = _columns(function)
        comparisons = self._comparisons(function, columns)

        # A parameter is hidden everywhere or nowhere.
        visible = {
            name
            for name in columns
            if not _is_only_compared(function, name, uses=len(_uses(function, name)))
        }
        for comparison in comparisons:
            if comparison.parameter and comparison.number in self.spared:
                visible.add(comparison.parameter)

        hidden: set[str] = set()
        for comparison in comparisons:
            parameter = comparison.parameter
            if comparison.number in self.spared or parameter in visible:
                continue
            if parameter:
                hidden.add(parameter)
                values = columns[parameter].values
            else:
                values = (constant(comparison.expected),)
            self._take_out(test, comparison, values)

        for parameter in hidden:
            columns[parameter].hide()

    def _comparisons(
        self, function: ast.FunctionDef, columns: Mapping[str, _Column]
    ) -> list[_Comparison]:
        comparisons = []
        for place in _places(function.body):
            sides = _compared(place.statement, columns)
            if sides is not None:
                comparisons.append(_Comparison(self._count, place, *sides))
                self._count += 1
        return comparisons

    def _take_out(self, test: str, comparison: _Comparison, values: tuple[Any, ...]) -> None:
        """Note the site, and send the value in place of comparing it."""
        parameter = comparison.parameter
        place = comparison.place

        self.sites[comparison.number] = Site(
            test=test,
            values=values,
            parameter=parameter,
            computed=comparison.computed,
            before=place.before,
        )

        number = ast.Constant(comparison.number)
        arguments: list[ast.expr] = [number, comparison.computed]
        if parameter:  # its value in the process is the row's number
            row = ast.Name(parameter, ast.Load())
            arguments.append(row)

        send = ast.Name(SEND, ast.Load())
        call = ast.Expr(ast.Call(send, arguments, []))
        place.put(ast.copy_location(call, place.statement))


# ---------------------------------------------------------------- plain data


def constant(node: ast.expr) -> Any:
    """The value of an expression that is plain data written out; raises ValueError for others."""
    if isinstance(node, ast.Call) and not node.keywords and len(node.args) == 1:
        return _joined(node.func, node.args[0])
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise ValueError from None


def _joined(function: ast.expr, argument: ast.expr) -> str:
    """The value of `"separator".join(["a", "b"])`; raises ValueError for any other call."""
    match function:
        case ast.Attribute(value=ast.Constant(value=str() as separator), attr="join"):
            parts = constant(argument)
        case _:
            raise ValueError

    if not isinstance(parts, (list, tuple)):
        raise ValueError
    if not all(isinstance(part, str) for part in parts):
        raise ValueError
    return separator.join(parts)


def _is_plain(node: ast.expr) -> bool:
    try:
        return len(repr(constant(node))) <= _LONGEST_VALUE
    except ValueError:
        return False


# ---------------------------------------------------------------- names and statements


def _inline_expected(function: ast.FunctionDef) -> None:
    """Put the value of `expected = [1, 2]` where `expected` is compared, if it is only compared."""
    # From the end, so that removing a statement moves none that is still to come.
    for index in reversed(range(len(function.body))):
        match function.body[index]:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                if _is_plain(value) and _is_assigned_once(function, name):
                    _substitute(function, name, value)
                    function.body.pop(index)

        # A function without statements cannot be written.
        if not function.body:
            function.body = [ast.Pass()]


def _is_assigned_once(function: ast.FunctionDef, name: str) -> bool:
    """Whether a name is given one value, and otherwise only compared."""
    uses = _uses(function, name)
    assignments = sum(isinstance(use.ctx, ast.Store) for use in uses)
    return assignments == 1 and _is_only_compared(function, name, uses=len(uses) - 1)


def _substitute(function: ast.FunctionDef, name: str, value: ast.expr) -> None:
    """Put a value in place of a name in all assertions of equality."""
    substitute = _Substitute(name, value)
    for place in _places(function.body):
        if _sides(place.statement):
            place.put(substitute.visit(place.statement))


class _Substitute(ast.NodeTransformer):
    """Puts a value in place of a name."""

    def __init__(self, name: str, value: ast.expr) -> None:
        self.name = name
        self.value = value

    def visit_Name(self, node: ast.Name) -> ast.expr:
        is_read = node.id == self.name and isinstance(node.ctx, ast.Load)
        return self.value if is_read else node


def _uses(function: ast.FunctionDef, name: str) -> list[ast.Name]:
    """Where a name stands in a function's body."""
    nodes = [node for statement in function.body for node in ast.walk(statement)]
    return [node for node in nodes if isinstance(node, ast.Name) and node.id == name]


def _places(block: list[ast.stmt], is_top: bool = True) -> Iterator[_Place]:
    """Every statement of a function, nested ones too, but not those of functions and classes."""
    statements = tuple(block)
    for index, statement in enumerate(statements):
        yield _Place(block, index, statements[:index] if is_top else None)
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            continue
        for field in ("body", "orelse", "finalbody"):
            yield from _places(getattr(statement, field, []), is_top=False)


def _sides(statement: ast.stmt) -> tuple[ast.expr, ast.expr] | None:
    """The two sides of an assertion that they are equal."""
    match statement:
        case ast.Assert(test=ast.Compare(left=left, ops=[ast.Eq()], comparators=[right])):
            return left, right
        case ast.Expr(value=ast.Call(func=function, args=arguments, keywords=[])):
            # A third argument is the message of unittest.
            if len(arguments) in (2, 3) and called_name(function) in _EQUAL:
                return arguments[0], arguments[1]
    return None


def _compared(statement: ast.stmt, parameters: Collection[str]) -> tuple[ast.expr, ast.expr] | None:
    """(what is computed, what is expected) of an assertion that a value equals plain data.

    The expected side may also be one of `parameters`.
    """
    sides = _sides(statement)
    if sides is None:
        return None

    # The expected value may stand on either side.
    for computed, expected in (sides, sides[::-1]):
        is_parameter = isinstance(expected, ast.Name) and expected.id in parameters
        if (is_parameter or _is_plain(expected)) and not _is_plain(computed):
            return computed, expected
    return None


def _is_only_compared(function: ast.FunctionDef, name: str, uses: int) -> bool:
    """Whether all `uses` of a name, at least one, are whole sides of assertions of equality."""
    compared = 0
    for place in _places(function.body):
        for side in _sides(place.statement) or ():
            compared += isinstance(side, ast.Name) and side.id == name
    return compared == uses > 0


# ---------------------------------------------------------------- parameters


def _columns(function: ast.FunctionDef) -> dict[str, _Column]:
    """Parameters of a test whose values are all plain data, by name."""
    columns: dict[str, _Column] = {}
    for decorator in function.decorator_list:
        match decorator:
            case ast.Call(
                func=called,
                args=[named, (ast.List() | ast.Tuple()) as rows],
                keywords=[],
            ):
                if ast.unparse(called).endswith("mark.parametrize"):
                    columns |= _columns_of(named, rows)
    return columns


def _columns_of(named: ast.expr, rows: ast.List | ast.Tuple) -> dict[str, _Column]:
    """The same for one decorator: the names, as it gives them, and the rows."""
    try:
        names = constant(named)
    except ValueError:
        return {}

    # With one name in a text, a row is the value itself.
    has_cells = True
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",")]
        has_cells = len(names) > 1

    columns = {}
    for position, name in enumerate(names):
        index = position if has_cells else None
        values = _column_values(rows, index)
        if values:
            columns[name] = _Column(rows, index, values)
    return columns


def _column_values(rows: ast.List | ast.Tuple, index: int | None) -> tuple[Any, ...]:
    """The values of a column; empty where one of them is missing or not plain data."""
    values = []
    for row in rows.elts:
        cell = _cell(row, index)
        if cell is None or not _is_plain(cell):
            return ()
        values.append(constant(cell))
    return tuple(values)


def _cell(row: ast.expr, index: int | None) -> ast.expr | None:
    if index is None:
        return row
    if isinstance(row, (ast.Tuple, ast.List)) and index < len(row.elts):
        return row.elts[index]
    return None
