"""Bugs put into Python source: one small change of one place, everything else kept character for character."""

from __future__ import annotations

import ast
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_COMPARE = {
    ast.Lt: ("<=", ">"), ast.LtE: ("<", ">="), ast.Gt: (">=", "<"), ast.GtE: (">", "<="), ast.Eq: ("!=",), ast.NotEq: ("==",), ast.In: ("not in",),
    ast.NotIn: ("in",), ast.Is: ("is not",), ast.IsNot: ("is",),
}  # fmt: skip
_COMPARE_TEXT = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.In: "in", ast.NotIn: "not in", ast.Is: "is",
    ast.IsNot: "is not",
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "+"),
    ast.FloorDiv: ("//", "*"),
    ast.Mod: ("%", "//"),
}
_NEIGHBOURS = {
    "min": "max", "max": "min", "any": "all", "all": "any", "append": "extend", "extend": "append", "lstrip": "rstrip", "rstrip": "lstrip", "strip": "lstrip",
    "startswith": "endswith", "endswith": "startswith", "upper": "lower", "lower": "upper", "find": "rfind", "rfind": "find", "split": "rsplit",
    "keys": "values", "values": "keys", "popleft": "pop", "appendleft": "append", "union": "intersection", "intersection": "union", "floor": "ceil",
    "ceil": "floor", "bisect_left": "bisect_right", "bisect_right": "bisect_left", "update": "setdefault", "partition": "rpartition",
}  # fmt: skip


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
    for bug in sorted(bugs, key=lambda b: b.start, reverse=True):
        changed[bug.path] = changed[bug.path][: bug.start] + bug.text + changed[bug.path][bug.end :]
    return changed


def overlap(one: Bug, other: Bug) -> bool:
    """Whether two changes touch the same text or the same function."""
    return one.path == other.path and (
        one.function == other.function or (one.start < other.end and other.start < one.end)
    )


def candidates(path: str, text: str, rng: random.Random) -> list[Bug]:
    """Every bug that the operators find in a file, in random order; whether the file then still compiles is not asked."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return []
    found = [
        bug
        for function, node in _functions(tree, "")
        for bug in _Search(path, text, function, node, rng).bugs()
    ]
    rng.shuffle(found)
    return found


def compiles(text: str) -> bool:
    """Whether a module's text is one."""
    try:
        compile(text, "<bug>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError):
        return False
    return True


def _functions(
    node: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, (ast.If, ast.Try)):
            yield from _functions(child, prefix)


class _Search:
    """The operators over one function."""

    def __init__(
        self,
        path: str,
        text: str,
        name: str,
        node: ast.FunctionDef | ast.AsyncFunctionDef,
        rng: random.Random,
    ) -> None:
        self.path, self.text, self.name, self.node, self.rng = path, text, name, node, rng
        self.lines = [0]
        for line in text.split("\n"):
            self.lines.append(self.lines[-1] + len(line) + 1)
        self.lines[-1] -= 1
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.locals = sorted({a.arg for a in arguments} - {"self", "cls"})

    def bugs(self) -> Iterator[Bug]:
        parts = (
            self.node.body[1:]
            if ast.get_docstring(self.node, clean=False) is not None
            else self.node.body
        )
        for default in [
            *self.node.args.defaults,
            *(d for d in self.node.args.kw_defaults if d is not None),
        ]:
            if isinstance(default, ast.Constant):
                yield from self._constant(default, "wrong default")
        for part in parts:
            for node in ast.walk(part):
                yield from self._expressions(node)
                yield from self._statements(node)

    def _at(self, line: int, column: int) -> int:
        """Characters before a position; the tree counts columns in bytes."""
        begin = self.lines[line - 1]
        raw = self.text[begin : self.lines[line]].encode()
        return begin + len(raw[:column].decode("utf-8", "ignore"))

    def _span(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        return self._at(node.lineno, node.col_offset), self._at(
            node.end_lineno or 0, node.end_col_offset or 0
        )

    def _source(self, node: ast.expr) -> str:
        start, end = self._span(node)
        return self.text[start:end]

    def _bug(self, operator: str, start: int, end: int, text: str) -> Iterator[Bug]:
        if self.text[start:end] != text:
            yield Bug(operator, self.path, start, end, text, self.name)

    def _replace(self, operator: str, node: ast.expr | ast.stmt, text: str) -> Iterator[Bug]:
        yield from self._bug(operator, *self._span(node), text)

    def _between(
        self, operator: str, left: ast.expr, right: ast.expr, old: str, new: str
    ) -> Iterator[Bug]:
        """Replace the operator that stands between two operands."""
        begin, end = self._span(left)[1], self._span(right)[0]
        at = self.text[begin:end].find(old)
        if at >= 0 and self.text[begin:end].count(old) == 1:
            yield from self._bug(operator, begin + at, begin + at + len(old), new)

    def _constant(self, node: ast.Constant, operator: str) -> Iterator[Bug]:
        value = node.value
        if value is True or value is False:
            yield from self._replace(operator, node, repr(not value))
        elif isinstance(value, int) and self._source(node) == str(value):
            yield from self._replace(
                "off by one" if operator == "changed constant" else operator,
                node,
                str(value + self.rng.choice((-1, 1, 1))),
            )
        elif (
            isinstance(value, str)
            and 0 < len(value) <= 3
            and self._source(node)[:1] in "'\""
            and value.isascii()
            and value.isprintable()
        ):
            yield from self._replace(
                operator,
                node,
                repr(value[:-1] if len(value) > 1 else self.rng.choice(["", " ", "_"])),
            )

    def _expressions(self, node: ast.AST) -> Iterator[Bug]:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _COMPARE:
            kind = type(node.ops[0])
            yield from self._between(
                "comparison",
                node.left,
                node.comparators[0],
                _COMPARE_TEXT[kind],
                self.rng.choice(_COMPARE[kind]),
            )
        elif isinstance(node, ast.BoolOp) and len(node.values) == 2:
            old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            yield from self._between("boolean", node.values[0], node.values[1], old, new)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield from self._replace("boolean", node, self._source(node.operand))
        elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
            yield from self._between(
                "arithmetic", node.left, node.right, *_ARITHMETIC[type(node.op)]
            )
        elif isinstance(node, ast.Call):
            yield from self._call(node)
        elif isinstance(node, ast.Constant):
            yield from self._constant(node, "changed constant")
        elif (
            isinstance(node, ast.Name)
            and isinstance(node.ctx, ast.Load)
            and node.id in self.locals
            and len(self.locals) > 1
        ):
            other = self.rng.choice([name for name in self.locals if name != node.id])
            yield from self._replace("wrong variable", node, other)
        elif isinstance(node, ast.IfExp):
            body, orelse = self._source(node.body), self._source(node.orelse)
            yield from self._replace(
                "swapped branches", node, f"{orelse} if {self._source(node.test)} else {body}"
            )
        elif (
            isinstance(node, ast.Slice)
            and node.lower is not None
            and node.upper is None
            and node.step is None
        ):
            yield from self._replace("slice", node.lower, f"{self._source(node.lower)} + 1")

    def _call(self, node: ast.Call) -> Iterator[Bug]:
        plain = [a for a in node.args if not isinstance(a, ast.Starred)]
        if len(plain) >= 2 and plain[:2] == node.args[:2]:
            begin, end = self._span(plain[0])[0], self._span(plain[1])[1]
            middle = self.text[self._span(plain[0])[1] : self._span(plain[1])[0]]
            yield from self._bug(
                "swapped arguments",
                begin,
                end,
                self._source(plain[1]) + middle + self._source(plain[0]),
            )
        if node.keywords and node.keywords[-1].arg and node.args:
            begin = self._span(
                node.args[-1] if len(node.keywords) == 1 else node.keywords[-2].value
            )[1]
            yield from self._bug(
                "forgotten argument", begin, self._span(node.keywords[-1].value)[1], ""
            )
        named = (
            node.func.attr
            if isinstance(node.func, ast.Attribute)
            else node.func.id
            if isinstance(node.func, ast.Name)
            else ""
        )
        if named in _NEIGHBOURS:
            end = self._span(node.func)[1]
            yield from self._bug("wrong function", end - len(named), end, _NEIGHBOURS[named])

    def _statements(self, node: ast.AST) -> Iterator[Bug]:
        if isinstance(node, (ast.If, ast.While)) and not isinstance(
            node.test, (ast.Constant, ast.UnaryOp)
        ):
            yield from self._replace("boolean", node.test, f"not ({self._source(node.test)})")
        if (
            isinstance(node, ast.If)
            and not node.orelse
            and isinstance(node.body[-1], (ast.Return, ast.Raise, ast.Continue))
        ):
            yield from self._drop("missing branch", node)
        elif (
            isinstance(node, ast.AugAssign)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Call))
            or (
                isinstance(node, ast.Assign)
                and len(node.targets) == 1
                and isinstance(node.targets[0], (ast.Subscript, ast.Attribute))
            )
        ):
            yield from self._drop("dropped statement", node)
        elif isinstance(node, (ast.Break, ast.Continue)):
            yield from self._replace(
                "loop", node, "continue" if isinstance(node, ast.Break) else "break"
            )

    def _drop(self, operator: str, node: ast.stmt) -> Iterator[Bug]:
        """Remove whole lines; a body that would be empty keeps a `pass`."""
        begin, end = self.lines[node.lineno - 1], self.lines[node.end_lineno or 0]
        if (
            self.text[begin : self._span(node)[0]].strip()
            or self.text[self._span(node)[1] : end].strip()
        ):
            return  # an `elif`, or a line that holds more than this
        if compiles(self.text[:begin] + self.text[end:]):
            yield from self._bug(operator, begin, end, "")
        else:
            yield from self._replace(operator, node, "pass")
