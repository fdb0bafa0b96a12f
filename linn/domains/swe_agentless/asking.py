"""What the model reads: issue and files for a repair or a test, issue and tree for localisation."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from linn.domains.swe_agentless.written_tests import LIBRARY

_CHARS_A_TOKEN = 3
"""Characters of code that are counted as a token; without a tokenizer at hand the count is on the safe side."""
_OUTLINED = 60

REPAIR = (
    "Repair it by edits. Write them between <solution> and </solution>, each in a fenced block of its own that holds, line by line: `### ` "
    "and the file's path, `<<<<<<< SEARCH`, some whole lines of the file as they are, `=======`, the lines to put in their place, "
    "`>>>>>>> REPLACE`. The lines searched for must be found in the file exactly once; what is no edit does not belong into a block."
)
TEST = (
    "Write a test that shows the problem: it must fail on these files and pass once they are repaired. Write it between <solution> and "
    "</solution>, in one fenced Python block of functions named test_… without arguments, which call functions of the files' modules with "
    f"plain data and compare by assert. Nothing else may be imported but {', '.join(LIBRARY)}."
)


def localise(top: int) -> str:
    """What is asked where files are to be named."""
    return (
        f"Which files have to change? Name at most {top}, the likeliest first, between <solution> and </solution>: one a line, the path "
        "alone or `path::function`."
    )


def with_files(
    issue: str, files: Mapping[str, str], order: Sequence[str], tokens: int, task: str
) -> tuple[str, dict[str, str]]:
    """(text, files shown): whole files in this order while they fit into so many tokens; those left out are named."""
    shown: dict[str, str] = {}
    left = tokens * _CHARS_A_TOKEN
    for path in order:
        if len(files[path]) <= left:
            shown[path] = files[path]
            left -= len(files[path])
    parts = [f"### {path}\n{_fenced(path, text)}" for path, text in shown.items()]
    missing = [path for path in order if path not in shown]
    note = f"\n\nLeft out, too long: {', '.join(missing)}." if missing else ""
    return f"An issue of a code base:\n\n{issue}\n\nFiles:\n\n" + "\n\n".join(
        parts
    ) + f"{note}\n\n{task}", shown


def with_tree(issue: str, files: Mapping[str, str], tokens: int, task: str) -> str:
    """Issue and tree; of Python files also the names of their functions and classes while they fit."""
    left = tokens * _CHARS_A_TOKEN
    lines = []
    for path in sorted(files):
        names = outline(files[path]) if path.endswith(".py") else ()
        line = f"{path}: {', '.join(names)}" if names else path
        left -= len(line)
        lines.append(line if left > 0 else path)
    return (
        f"An issue of a code base:\n\n{issue}\n\nIts files:\n\n" + "\n".join(lines) + f"\n\n{task}"
    )


def outline(text: str) -> list[str]:
    """Names of a Python file's functions, classes and methods, in order; empty where it does not parse."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    found = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(node.name)
        if isinstance(node, ast.ClassDef):
            found += [
                f"{node.name}.{part.name}"
                for part in node.body
                if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef)
            ]
    return found[:_OUTLINED]


def _fenced(path: str, text: str) -> str:
    """A file between fences longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{'python' if path.endswith('.py') else ''}\n{text}\n{fence}"
