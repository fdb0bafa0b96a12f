"""Bugs put into Python source: one small change of one place, all else kept as it is."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_COMPARISONS: dict[type[ast.cmpop], tuple[str, tuple[str, ...]]] = {
    ast.Lt: ("<", ("<=", ">")),
    ast.LtE: ("<=", ("<", ">=")),
    ast.Gt: (">", (">=", "<")),
    ast.GtE: (">=", (">", "<=")),
    ast.Eq: ("==", ("!=",)),
    ast.NotEq: ("!=", ("==",)),
    ast.In: ("in", ("not in",)),
    ast.NotIn: ("not in", ("in",)),
    ast.Is: ("is", ("is not",)),
    ast.IsNot: ("is not", ("is",)),
}
"""How a comparison is written, and what may stand in its place."""
_ARITHMETIC: dict[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
}
"""How an operation is written, and what stands in its place."""
_NEIGHBOURS = dict(
    pair.split(":")
    for pair in """
    min:max max:min any:all all:any append:extend extend:append lstrip:rstrip rstrip:lstrip
    strip:lstrip startswith:endswith endswith:startswith upper:lower lower:upper find:rfind
    rfind:find split:rsplit keys:values values:keys popleft:pop appendleft:append
    union:intersection intersection:union floor:ceil ceil:floor bisect_left:bisect_right
    bisect_right:bisect_left update:setdefault partition:rpartition
    """.split()
)
"""Functions and methods that are mistaken for each other."""
_LONGEST_CHANGED_TEXT = 3
_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Bug:
    """One change."""

    operator: str
    """What kind of mistake it is."""
    path: str
    """The file."""
    start: int
    """Where the replaced text begins, in characters of the original file."""
    end: int
    """Where it ends."""
    text: str
    """What stands there instead."""
    function: str
    """The function it is in, with its classes."""


def inject(files: dict[str, str], bugs: Sequence[Bug]) -> dict[str, str]:
    """The files with these bugs, which must not overlap."""
    changed = dict(files)
    # From the end, so that no change moves the place of another.
    for bug in sorted(bugs, key=lambda bug: bug.start, reverse=True):
        text = changed[bug.path]
        changed[bug.path] = text[: bug.start] + bug.text + text[bug.end :]
    return changed


def overlap(one: Bug, other: Bug) -> bool:
    """Whether two changes touch the same text or the same function."""
    if one.path != other.path:
        return False
    if one.function == other.function:
        return True
    return one.start < other.end and other.start < one.end


def candidates(path: str, text: str, rng: random.Random) -> list[Bug]:
    """Every bug that the operators find in a file, in random order.

    Whether the file still compiles with it is for `compiles` to say.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    bugs: list[Bug] = []
    for name, node in _functions(tree, ""):
        bugs += _Operators(path, text, name, node, rng).bugs()
    rng.shuffle(bugs)
    return bugs


def compiles(text: str) -> bool:
    """Whether a text is a Python module."""
    try:
        compile(text, "<bug>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, _FunctionNode]]:
    """Functions with their names, methods included, functions inside functions not."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try)):
            yield from _functions(child, prefix)


class _Operators:
    """The operators over one function."""

    def __init__(
        self, path: str, text: str, name: str, node: _FunctionNode, rng: random.Random
    ) -> None:
        self.path = path
        self.text = text
        self.name = name
        self.node = node
        self.rng = rng

        self.line_starts = [0]
        """Where each line begins, in characters; last, where the text ends."""
        start = 0
        for line in text.split("\n"):
            start += len(line) + 1
            self.line_starts.append(start)
        self.line_starts[-1] -= 1  # the last line has no line end

        # Mistaken for each other are the parameters, not the object itself.
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        names = {parameter.arg for parameter in parameters}
        self.parameters = sorted(names - {"self", "cls"})

    def bugs(self) -> Iterator[Bug]:
        """Every change of the function, in the order of the tree."""
        arguments = self.node.args
        for default in [*arguments.defaults, *arguments.kw_defaults]:
            if isinstance(default, ast.Constant):
                yield from self._of_constant(default, "wrong default")

        # A change of the docstring is not a bug.
        body = self.node.body
        if ast.get_docstring(self.node, clean=False) is not None:
            body = body[1:]

        for statement in body:
            for node in ast.walk(statement):
                yield from self._of_expression(node)
                yield from self._of_statement(node)

    # ------------------------------------------------------------ places and changes

    def _position(self, line: int, column: int) -> int:
        """Characters before a place; the tree counts columns in bytes."""
        begin = self.line_starts[line - 1]
        raw = self.text[begin : self.line_starts[line]].encode()
        return begin + len(raw[:column].decode("utf-8", "ignore"))

    def _start(self, node: ast.expr | ast.stmt) -> int:
        return self._position(node.lineno, node.col_offset)

    def _end(self, node: ast.expr | ast.stmt) -> int:
        return self._position(node.end_lineno or 0, node.end_col_offset or 0)

    def _source(self, node: ast.expr) -> str:
        return self.text[self._start(node) : self._end(node)]

    def _change(self, operator: str, start: int, end: int, text: str) -> Iterator[Bug]:
        if self.text[start:end] != text:
            yield Bug(operator, self.path, start, end, text, self.name)

    def _replace(self, operator: str, node: ast.expr | ast.stmt, text: str) -> Iterator[Bug]:
        yield from self._change(operator, self._start(node), self._end(node), text)

    def _between(
        self, operator: str, left: ast.expr, right: ast.expr, old: str, new: str
    ) -> Iterator[Bug]:
        """Replace the sign that stands between two operands."""
        begin = self._end(left)
        between = self.text[begin : self._start(right)]
        if between.count(old) == 1:
            at = begin + between.find(old)
            yield from self._change(operator, at, at + len(old), new)

    # ------------------------------------------------------------ expressions

    def _of_expression(self, node: ast.AST) -> Iterator[Bug]:
        """Changes of one node, if it is an expression that an operator is for.

        The classes are those of the tree; no node is of two.
        """
        match node:
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp() | ast.BinOp():
                yield from self._of_operation(node)
            case ast.Call():
                yield from self._of_call(node)
            case ast.Constant():
                yield from self._of_constant(node, "changed constant")
            case ast.Name(ctx=ast.Load()):
                yield from self._of_name(node)
            case ast.IfExp():
                yield from self._of_condition(node)
            case ast.Slice(lower=ast.expr() as lower, upper=None, step=None):
                # `items[1:]` for `items[1 + 1:]`: one element too few
                source = self._source(lower)
                yield from self._replace("slice", lower, f"{source} + 1")

    def _of_condition(self, node: ast.IfExp) -> Iterator[Bug]:
        body = self._source(node.body)
        test = self._source(node.test)
        orelse = self._source(node.orelse)
        yield from self._replace("swapped branches", node, f"{orelse} if {test} else {body}")

    def _of_operation(self, node: ast.expr) -> Iterator[Bug]:
        """Another sign between two operands, or none before one.

        The sign itself has no place in the tree: it is looked for between the operands.
        """
        match node:
            case ast.Compare(left=left, ops=[comparison], comparators=[right]):
                old, others = _COMPARISONS[type(comparison)]
                new = self.rng.choice(others)
                yield from self._between("comparison", left, right, old, new)

            # `a and b and c` is left alone: which of its signs changed would not be evident.
            case ast.BoolOp(op=ast.And(), values=[left, right]):
                yield from self._between("boolean", left, right, "and", "or")
            case ast.BoolOp(op=ast.Or(), values=[left, right]):
                yield from self._between("boolean", left, right, "or", "and")

            case ast.UnaryOp(op=ast.Not(), operand=operand):
                positive = self._source(operand)
                yield from self._replace("boolean", node, positive)

            case ast.BinOp(left=left, op=operation, right=right):
                if type(operation) in _ARITHMETIC:
                    old, new = _ARITHMETIC[type(operation)]
                    yield from self._between("arithmetic", left, right, old, new)

    def _of_constant(self, node: ast.Constant, operator: str) -> Iterator[Bug]:
        value = node.value
        if value is True or value is False:
            yield from self._replace(operator, node, repr(not value))
        elif isinstance(value, int):
            yield from self._of_integer(node, value, operator)
        elif isinstance(value, str):
            yield from self._of_text(node, value, operator)

    def _of_integer(self, node: ast.Constant, value: int, operator: str) -> Iterator[Bug]:
        if self._source(node) != str(value):
            return  # not written in plain decimal digits
        if operator == "changed constant":
            operator = "off by one"
        step = self.rng.choice((-1, 1, 1))
        yield from self._replace(operator, node, str(value + step))

    def _of_text(self, node: ast.Constant, value: str, operator: str) -> Iterator[Bug]:
        """A short, plain text that is written without a prefix."""
        if not 0 < len(value) <= _LONGEST_CHANGED_TEXT:
            return
        if not value.isascii() or not value.isprintable():
            return

        quote = self._source(node)[:1]
        if quote not in "'\"":
            return

        # A letter is lost, or a separator is another.
        if len(value) > 1:
            text = value[:-1]
        else:
            text = self.rng.choice(["", " ", "_"])
        yield from self._replace(operator, node, repr(text))

    def _of_name(self, node: ast.Name) -> Iterator[Bug]:
        if node.id in self.parameters and len(self.parameters) > 1:
            others = [name for name in self.parameters if name != node.id]
            yield from self._replace("wrong variable", node, self.rng.choice(others))

    def _of_call(self, node: ast.Call) -> Iterator[Bug]:
        yield from self._swapped_arguments(node)
        yield from self._forgotten_argument(node)

        name = called_name(node.func)
        if name in _NEIGHBOURS:
            end = self._end(node.func)
            yield from self._change("wrong function", end - len(name), end, _NEIGHBOURS[name])

    def _swapped_arguments(self, node: ast.Call) -> Iterator[Bug]:
        """The first two, where neither is unpacked."""
        pair = node.args[:2]
        if len(pair) < 2 or any(isinstance(argument, ast.Starred) for argument in pair):
            return
        first, second = pair
        between = self.text[self._end(first) : self._start(second)]
        swapped = self._source(second) + between + self._source(first)
        yield from self._change("swapped arguments", self._start(first), self._end(second), swapped)

    def _forgotten_argument(self, node: ast.Call) -> Iterator[Bug]:
        """The last keyword, where something stands before it."""
        if not node.args or not node.keywords or not node.keywords[-1].arg:
            return
        last = node.keywords[-1]
        before = node.args[-1] if len(node.keywords) == 1 else node.keywords[-2].value
        yield from self._change("forgotten argument", self._end(before), self._end(last.value), "")

    # ------------------------------------------------------------ statements

    def _of_statement(self, node: ast.AST) -> Iterator[Bug]:
        """Changes of one node, if it is a statement that an operator is for."""
        match node:
            case ast.If(test=ast.Constant() | ast.UnaryOp()):
                pass  # other operators make the opposite of a constant and of a `not`
            case ast.While(test=ast.Constant() | ast.UnaryOp()):
                pass
            case ast.If(test=test) | ast.While(test=test):
                source = self._source(test)
                yield from self._replace("boolean", test, f"not ({source})")

        # Beside the change of its condition, a branch may be missing.
        match node:
            case ast.If(orelse=[], body=[*_, ast.Return() | ast.Raise() | ast.Continue()]):
                yield from self._drop("missing branch", node)
            case (
                ast.AugAssign()
                | ast.Expr(value=ast.Call())
                | ast.Assign(targets=[ast.Subscript() | ast.Attribute()])
            ):
                yield from self._drop("dropped statement", node)
            case ast.Break():
                yield from self._replace("loop", node, "continue")
            case ast.Continue():
                yield from self._replace("loop", node, "break")

    def _drop(self, operator: str, node: ast.stmt) -> Iterator[Bug]:
        """Remove whole lines; a body that would be empty keeps a `pass`."""
        begin = self.line_starts[node.lineno - 1]
        end = self.line_starts[node.end_lineno or 0]

        # An `elif`, or a line that holds more than this, stays.
        before = self.text[begin : self._start(node)]
        after = self.text[self._end(node) : end]
        if before.strip() or after.strip():
            return

        # What does not compile without it was all of a body.
        without = self.text[:begin] + self.text[end:]
        if compiles(without):
            yield from self._change(operator, begin, end, "")
        else:
            yield from self._replace(operator, node, "pass")


def called_name(function: ast.expr) -> str:
    """The name of what is called, without what stands before a dot; empty where it has none."""
    if isinstance(function, ast.Attribute):
        return function.attr
    if isinstance(function, ast.Name):
        return function.id
    return ""
