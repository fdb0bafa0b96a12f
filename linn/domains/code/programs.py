"""The program in an answer, and the helper functions in a task's text."""

from __future__ import annotations

import ast
import warnings
from typing import Literal, TypeGuard

from linn.domains.common.fences import Block, blocks
from linn.errors import UserError

Language = Literal["python", "cpp"]

_PYTHON_MARKS = ("python", "py", "python3", "py3")
_CPP_MARKS = (
    "cpp",
    "c++",
    "cc",
    "cxx",
    "c++11",
    "c++14",
    "c++17",
    "c++20",
    "cpp17",
    "cpp20",
)
LANGUAGES: dict[str, Language] = {
    **dict.fromkeys(_PYTHON_MARKS, "python"),
    **dict.fromkeys(_CPP_MARKS, "cpp"),
}
"""Names of a language in a fence's mark or in a row, in lower case."""


def program_of(text: str, language: str = "python") -> tuple[Language, str]:
    """The language and the text of the program that an answer gives.

    It is the last fenced block marked as `language` (`any`: as either), else the last unmarked one,
    else the whole of an answer without fences.
    """
    default: Language = "cpp" if language == "cpp" else "python"
    fenced = list(blocks(text, is_whole=_is_whole))
    if not fenced:
        return default, text

    marked: list[tuple[Language, str]] = []
    unmarked: list[tuple[Language, str]] = []
    for block in fenced:
        mark = _first_word(block)
        if not mark:
            unmarked.append((default, block.text))
            continue

        # Blocks of other languages show inputs, outputs or commands.
        own = LANGUAGES.get(mark)
        if own is not None and language in (own, "any"):
            marked.append((own, block.text))

    # Blocks in other languages alone: the answer holds no program.
    candidates = marked or unmarked or [(default, "")]
    return candidates[-1]


def _is_whole(block: Block) -> bool:
    """Whether a block can be all of a program: Python must parse, if it is marked as Python."""
    return _first_word(block) not in _PYTHON_MARKS or _parsed(block.text) is not None


def _first_word(block: Block) -> str:
    """The first word of a block's mark in lower case; empty where it has none."""
    words = block.mark.lower().split()
    return words[0] if words else ""


# ---------------------------------------------------------------- a check's own helpers


def check_text(test: str, entry_point: str, task: str, where: str) -> str:
    """A row's test text, with its own copy of the helper functions of the task's text.

    These are the functions that the text gives whole and the test calls: the test must not call
    the program's version of them. UserError where the test defines no function `check`.
    """
    tree = _parsed(test)
    if tree is None or not _defines_check(tree):
        raise UserError(
            f"{where}: verifier_metadata.test must be Python "
            "that defines a function check(candidate)"
        )
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}

    # The task's code stands in fenced blocks, or the whole text is code as in HumanEval.
    for text in [*(block.text for block in blocks(task)), task]:
        code = _parsed(text)
        if code is None:
            continue
        helpers = [part for part in code.body if _is_helper(part, entry_point)]
        if any(helper.name in names for helper in helpers):
            # Helpers may call each other and what the task imports.
            parts = [*_imports(code), *helpers]
            return "\n".join([test, *map(ast.unparse, parts)])
    return test


def _imports(code: ast.Module) -> list[ast.stmt]:
    return [part for part in code.body if isinstance(part, ast.Import | ast.ImportFrom)]


def _defines_check(tree: ast.Module) -> bool:
    return any(isinstance(part, ast.FunctionDef) and part.name == "check" for part in tree.body)


def _is_helper(part: ast.stmt, entry_point: str) -> TypeGuard[ast.FunctionDef]:
    """Whether a statement defines a function with a body that is not the one to be written."""
    return (
        isinstance(part, ast.FunctionDef)
        and part.name != entry_point
        and not all(map(_is_empty, part.body))
    )


def _is_empty(part: ast.stmt) -> bool:
    """Whether a statement does nothing: `pass`, a docstring, an ellipsis."""
    if isinstance(part, ast.Pass):
        return True
    return isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)


def _parsed(text: str) -> ast.Module | None:
    """The syntax tree of Python text; None where it does not parse."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the texts
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
