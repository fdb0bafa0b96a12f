"""Tests that a model wrote: they must fail on the files as they are and pass after the gold patch.

They must do so for what the code does alone.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Mapping

from linn.domains.common.fences import FenceRule, blocks
from linn.domains.swe_agentless.solution import last_solution
from linn.sandbox import Outcome, Sandbox
from linn.types import Verdict, seed_of

_FENCE = FenceRule(
    opening=re.compile(r"(?P<ticks>```)(?:python|py)?[ \t]*"),
    closing=re.compile(r"(?P<ticks>```)[ \t]*"),
    least=1,
)
_LONGEST = 60_000 - len("<solution>")
"""Characters of a solution."""
_DISGUISES = 4
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
"""Modules of the standard library that a test may import.

None of them is for files, clocks, chance or other objects' insides. What they themselves import
could be: the test runs where no file can be opened, and the files' text is on no disk.
"""
_BUILTINS = frozenset(
    "open exec eval compile __import__ globals locals vars dir getattr setattr delattr input "
    "breakpoint exit quit help id hash memoryview object type super classmethod staticmethod "
    "property print __builtins__ __loader__ __spec__ __file__ __doc__ __name__".split()
)
"""Names that a test may not use."""


class BadTest(ValueError):
    """An answer that holds no test; the text says why."""


# ---------------------------------------------------------------- reading


def read(answer: str) -> str:
    """The one fenced Python block of the answer's last solution; raises BadTest.

    A test calls the files' functions and compares: one that could look at their text, at a clock or
    at chance is refused.
    """
    solution = last_solution(answer)
    if solution is None:
        raise BadTest("no <solution> … </solution>")
    if len(solution) > _LONGEST:
        raise BadTest("the test is too long")

    # A fence begins a line of its own, so that of the mark itself cannot open a block.
    _, _, text = solution.replace("\r\n", "\n").partition("\n")
    fenced = list(blocks(text, _FENCE))
    if len(fenced) != 1:
        raise BadTest(f"{len(fenced)} fenced blocks, not one")
    test = "\n".join(fenced[0].lines)

    try:
        tree = ast.parse(test)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadTest(f"the test is no Python: {error}") from None
    for node in ast.walk(tree):
        name = _forbidden_name(node)
        if name:
            raise BadTest(f"a test may not use {name[:100]}")
    return test


def _forbidden_name(node: ast.AST) -> str:
    """What a node uses that a test may not; empty where there is nothing.

    Whole modules are checked when the test is graded: see `imports`.
    """
    match node:
        case ast.Attribute(attr=name):
            return name if name.startswith("_") else ""
        case ast.Name(id=name):
            return name if name in _BUILTINS else ""
        case ast.Import():
            return _forbidden_import([alias.name for alias in node.names])
        case ast.ImportFrom():
            names = [alias.name for alias in node.names]
            return _forbidden_import([node.module or ".", *names])
        case _:
            return ""


def _forbidden_import(names: list[str]) -> str:
    """The first of these names that is private, relative or a star."""
    for name in names:
        if name in (".", "*") or name.rpartition(".")[2].startswith("_"):
            return name
    return ""


def imports(test: str) -> set[str]:
    """The modules that a test imports, by full name."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(test)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module or "")
    return modules


# ---------------------------------------------------------------- grading


def grade(
    sandbox: Sandbox, test: str, before: Mapping[str, str], after: Mapping[str, str]
) -> Verdict:
    """1 when the test passes on every disguise of the repaired files and fails on the others'.

    It may import the files' modules and `LIBRARY`, no others. Disguises do the same by other text
    and byte code. So a test that recognises the files rather than what they do is found out. The
    runs come in an order that nobody can tell beforehand: a test that goes by chance passes once in
    256 times, one that goes by a clock or another count of the machine once in 70 at most.
    """
    strange = sorted(imports(test) - _modules(after) - set(LIBRARY))
    if strange:
        return Verdict(0.0, f"a test may not import {strange[0]}"[:200], {"passes_after": 0.0})

    passes_before = False
    for is_repaired, number in _order_of_runs(test, after):
        # One pass on the faulty files decides; what is left to tell is whether it passes after.
        if passes_before and not is_repaired:
            continue
        outcome = _run(sandbox, test, after if is_repaired else before, number)
        if is_repaired and outcome.status != "ok":
            note = f"it fails on the repaired files: {outcome.error}"
            return Verdict(0.0, note[:200], {"passes_after": 0.0})
        if not is_repaired and outcome.status == "ok":
            passes_before = True

    if passes_before:
        return Verdict(0.0, "it passes on the files as they are", {"passes_after": 1.0})
    return Verdict(1.0, "it fails before the repair and passes after it", {"passes_after": 1.0})


def _order_of_runs(test: str, after: Mapping[str, str]) -> list[tuple[bool, int]]:
    """(whether on the repaired files, disguise) of each run, as test and files alone decide."""
    runs = [(is_repaired, number) for is_repaired in (True, False) for number in range(_DISGUISES)]
    seed = seed_of("order of runs", test, ascii(sorted(after.items())))
    random.Random(seed).shuffle(runs)
    return runs


def _modules(files: Mapping[str, str]) -> set[str]:
    """The full names of the files' Python modules."""
    names = set()
    for path in files:
        if path.endswith(".py"):
            stem = path.removesuffix(".py").removesuffix("/__init__")
            names.add(stem.replace("/", "."))
    return names


def _run(sandbox: Sandbox, test: str, files: Mapping[str, str], number: int) -> Outcome:
    """Run a test on the files under one of their disguises."""
    worn = {path: disguised(text, path, number) for path, text in files.items()}
    return sandbox.check_files(worn, test, LIBRARY)


def disguised(text: str, path: str, number: int) -> str:
    """A Python file that does the same, written otherwise (0: as it is).

    Other files, and files that do not parse, stay.
    """
    if number == 0 or not path.endswith(".py"):
        return text
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return text

    # A statement without effect changes the byte code of every function.
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            has_docstring = ast.get_docstring(node, clean=False) is not None
            statement = ast.parse(f"_linn_{number} = {number}").body[0]
            node.body.insert(int(has_docstring), statement)

    # Unparsing changes the text: comments and layout go.
    try:
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    except RecursionError:
        return text
