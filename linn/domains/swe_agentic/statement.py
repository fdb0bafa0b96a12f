"""The description of a repair task: what goes wrong, by examples from the tests that fail."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from linn.domains.swe_agentic import strip_tests
from linn.domains.swe_agentic.bugs import Bug
from linn.domains.swe_agentic.run_tests import ComputedValue, Report
from linn.domains.swe_agentic.strip_tests import Site, StrippedTests
from linn.domains.swe_agentic.suite import Suite

_LONGEST_SNIPPET = 900
_LONGEST_VALUE = 400
_LONGEST_ERROR = 200


def statement(
    suite: Suite, report: Report, failing: Sequence[str], bugs: Sequence[Bug], difficulty: str
) -> str:
    """What goes wrong, by one example per bug; no test is named.

    `report`: of the run in which the tests `failing` failed. Empty where too few examples can be
    shown.
    """
    # Tests with few values first: their examples are short.
    examples: list[str] = []
    for test in sorted(failing, key=lambda test: (len(suite.values[test]), test)):
        example = _example(suite, report, test)
        if example and example not in examples:
            examples.append(example)
        if len(examples) == len(bugs):
            break
    if len(examples) < len(bugs):
        return ""

    name = suite.source.name
    lines = [f"{name} {suite.source.version} does not behave as it should.", ""]
    for example in examples:
        lines += [example, ""]
    if difficulty == "easy":
        lines.append(f"The mistake is in `{bugs[0].function}` ({bugs[0].path}).")
    elif difficulty == "hard":
        lines.append("There is more than one mistake.")
    lines.append(
        f"Find the cause in the sources of {name} and repair it,"
        " so that this and all similar uses are right. Tests need not be changed."
    )
    return "\n".join(lines)


def _example(suite: Suite, report: Report, test: str) -> str:
    """A snippet, what it gives and what it should give.

    It is of the first wrong value of a test; empty where that cannot be shown.
    """
    module = suite.module(test)
    first: dict[tuple[int, int], ComputedValue] = {}
    for value in report.values.get(test, ()):
        first.setdefault((value.site, value.row), value)

    for number, row in suite.values[test]:
        site = module.sites[number]
        computed = first.get((number, row))
        if computed is not None and computed.right:
            continue
        if site.before is None:  # within another statement: what led to it is not known
            continue

        snippet = _snippet(site, module)
        expected = repr(site.values[row])
        if snippet is None or len(expected) > _LONGEST_VALUE:
            return ""
        result = _result(report, test, computed)
        if not result:
            return ""

        # Without statements before it, the expression stands alone.
        subject = f"`{snippet.expression}`"
        if snippet.statements:
            subject = f"After\n\n{snippet.statements}\n\nthe expression {subject}"
        return f"{subject} {result}\n\nbut should give\n\n    {expected}"
    return ""


def _result(report: Report, test: str, computed: ComputedValue | None) -> str:
    """What an expression gives, or how the test failed before it; empty where neither is known."""
    if computed is None:
        error = report.why.get(test, "")
        if report.outcomes.get(test) == "passed" or not error:
            return ""
        return f"fails with `{error[:_LONGEST_ERROR]}`"

    if not computed.sendable:
        return ""
    value = repr(computed.value)
    if len(value) > _LONGEST_VALUE:
        return ""
    return f"gives\n\n    {value}"


@dataclass(frozen=True)
class _Snippet:
    """Code that a reader can run."""

    statements: str
    """The statements before, indented; may be empty."""
    expression: str
    """The expression, on one line."""


def _snippet(site: Site, module: StrippedTests) -> _Snippet | None:
    """The code of a site, None where it needs more than itself or is too long."""
    before = [node for node in site.before or () if not _is_send(node)]
    needed = _needed(before, site.computed)

    # A value that depends on the test's parameters cannot be had without the test.
    names = _names((*needed, site.computed))
    function = module.tests[site.test]
    assert isinstance(function, ast.FunctionDef)
    if any(argument.arg in names for argument in function.args.args):
        return None

    lines: list[str] = []
    for node in needed:
        lines += ast.unparse(node).split("\n")
    statements = "\n".join(f"    {line}" for line in lines)
    # What an assertion further in was replaced by is nothing that a reader can run.
    if strip_tests.SEND in statements or len(statements) > _LONGEST_SNIPPET:
        return None

    expression = " ".join(ast.unparse(site.computed).split())
    if len(expression) > _LONGEST_VALUE:
        return None
    return _Snippet(statements, expression)


def _names(nodes: Sequence[ast.AST]) -> set[str]:
    """The names in some code."""
    inner = [part for node in nodes for part in ast.walk(node)]
    return {part.id for part in inner if isinstance(part, ast.Name)}


def _is_send(node: ast.stmt) -> bool:
    """Whether a statement is what an assertion was replaced by."""
    match node:
        case ast.Expr(value=ast.Call(func=ast.Name(id=strip_tests.SEND))):
            return True
    return False


def _needed(before: Sequence[ast.stmt], expression: ast.expr) -> list[ast.stmt]:
    """Those statements that may bear on an expression: all but assertions and plain text."""
    if not _names([expression]):
        return []
    return [node for node in before if not _is_idle(node)]


def _is_idle(node: ast.stmt) -> bool:
    match node:
        case ast.Assert() | ast.Expr(value=ast.Constant()):
            return True
    return False
