"""Tests that a model wrote: they must fail on the files as they are and pass after the gold patch, for what the code does alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping

from linn.sandbox import Sandbox
from linn.types import Verdict

_BLOCK = re.compile(r"^```(?:python|py)?[ \t]*\n(.*?)\n```[ \t]*$", re.DOTALL | re.MULTILINE)
_LONGEST = 60_000
_DISGUISES = 3
LIBRARY = (
    "collections",
    "copy",
    "datetime",
    "decimal",
    "fractions",
    "functools",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "typing",
)
"""Modules of the standard library that a test may import: nothing that reads files, clocks, chance or other objects' insides."""
_BUILTINS = frozenset(
    "open exec eval compile __import__ globals locals vars dir getattr setattr delattr input breakpoint exit quit help id hash memoryview "
    "object type super classmethod staticmethod property print __builtins__ __loader__ __spec__ __file__ __doc__ __name__".split()
)


class BadTest(ValueError):
    """An answer that holds no test; the text says why."""


def read(answer: str) -> str:
    """The one fenced Python block between the last `<solution>` and the `</solution>` after it; raises BadTest.

    A test calls the files' functions and compares: one that could look at their text, at a clock or at chance is refused.
    """
    start = answer.rfind("<solution>")
    end = answer.find("</solution>", start)
    if start < 0 or end < 0:
        raise BadTest("no <solution> … </solution>")
    if end - start > _LONGEST:
        raise BadTest("the test is too long")
    blocks = _BLOCK.findall(answer[start:end].replace("\r\n", "\n"))
    if len(blocks) != 1:
        raise BadTest(f"{len(blocks)} fenced blocks, not one")
    try:
        tree = ast.parse(blocks[0])
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTest(f"the test is no Python: {error}") from None
    for node in ast.walk(tree):
        if said := _refused(node):
            raise BadTest(f"a test may not use {said[:100]}")
    return str(blocks[0])


def _refused(node: ast.AST) -> str:
    """What a node uses that a test may not; empty where there is nothing. Modules are checked when they are imported: see `imports`."""
    if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
        return node.attr
    if isinstance(node, ast.Name) and node.id in _BUILTINS:
        return node.id
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ".", *(a.name for a in node.names)]
        )
        return next(
            (
                name
                for name in names
                if name.rpartition(".")[2].startswith("_") or name in (".", "*")
            ),
            "",
        )
    return ""


def imports(test: str) -> set[str]:
    """The modules that a test imports, by full name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def judge(
    sandbox: Sandbox, test: str, before: Mapping[str, str], after: Mapping[str, str]
) -> Verdict:
    """1 when the test passes on every disguise of the repaired files and fails on every disguise of the files as they are.

    It may import the files' modules and `LIBRARY`, no others.
    Disguises do the same by other text and byte code, so a test that recognises the files rather than what they do is found out, and one
    that leaves it to chance passes once in 64 times at most.
    """
    own = {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in after
        if path.endswith(".py")
    }
    if strange := sorted(imports(test) - own - set(LIBRARY)):
        return Verdict(0.0, f"a test may not import {strange[0]}"[:200], {"passes_after": 0.0})
    for number in range(_DISGUISES):
        outcome = sandbox.check_files(
            {path: disguised(text, path, number) for path, text in after.items()}, test
        )
        if outcome.status != "ok":
            return Verdict(
                0.0, f"it fails on the repaired files: {outcome.error}"[:200], {"passes_after": 0.0}
            )
    for number in range(_DISGUISES):
        outcome = sandbox.check_files(
            {path: disguised(text, path, number) for path, text in before.items()}, test
        )
        if outcome.status == "ok":
            return Verdict(0.0, "it passes on the files as they are", {"passes_after": 1.0})
    return Verdict(1.0, "it fails before the repair and passes after it", {"passes_after": 1.0})


def disguised(text: str, path: str, number: int) -> str:
    """A Python file that does the same, written otherwise (0: as it is); other files and files that do not parse stay."""
    if number == 0 or not path.endswith(".py"):
        return text
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            at = 1 if ast.get_docstring(node, clean=False) is not None else 0
            node.body.insert(at, ast.parse(f"_linn_{number} = {number}").body[0])
    try:
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    except RecursionError:
        return text
