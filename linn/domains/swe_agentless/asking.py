"""What the model reads: issue and files for a repair or a test, issue and tree for localisation."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence

from linn.domains.swe_agentless.written_tests import LIBRARY

_CHARS_PER_TOKEN = 3
"""Characters of code that count as a token: on the safe side, since no tokenizer is at hand."""
_OUTLINED = 60
"""Names of one file that a tree shows."""

REPAIR = (
    "Repair it by edits. Write them between <solution> and </solution>, each in a fenced block of "
    "its own that holds, line by line: `### ` and the file's path, `<<<<<<< SEARCH`, some whole "
    "lines of the file as they are, `=======`, the lines to put in their place, "
    "`>>>>>>> REPLACE`. The lines searched for must be found in the file exactly once; what is no "
    "edit does not belong into a block."
)
TEST = (
    "Write a test that shows the problem: it must fail on these files and pass once they are "
    "repaired. Write it between <solution> and </solution>, in one fenced Python block of "
    "functions named test_… without arguments, which call functions of the files' modules with "
    f"plain data and compare by assert. Nothing else may be imported but {', '.join(LIBRARY)}."
)


def localise(top: int) -> str:
    """The request where files are to be named."""
    return (
        f"Which files have to change? Name at most {top}, the likeliest first, between <solution> "
        "and </solution>: one a line, the path alone or `path::function`."
    )


def with_files(
    issue: str, files: Mapping[str, str], order: Sequence[str], tokens: int, request: str
) -> tuple[str, dict[str, str]]:
    """(text, files shown): whole files in this order while they fit into so many tokens.

    The text names those that are left out.
    """
    shown: dict[str, str] = {}
    left_out = []
    room = tokens * _CHARS_PER_TOKEN
    for path in order:
        size = len(files[path])
        # A smaller file may still fit after one that does not.
        if size > room:
            left_out.append(path)
            continue
        shown[path] = files[path]
        room -= size

    blocks = [f"### {path}\n{_fenced(path, text)}" for path, text in shown.items()]
    listing = "\n\n".join(blocks)
    note = ""
    if left_out:
        note = f"\n\nLeft out, too long: {', '.join(left_out)}."
    text = f"An issue of a code base:\n\n{issue}\n\nFiles:\n\n{listing}{note}\n\n{request}"
    return text, shown


def with_tree(issue: str, files: Mapping[str, str], tokens: int, request: str) -> str:
    """Issue and tree; of Python files also their functions and classes while they fit."""
    room = tokens * _CHARS_PER_TOKEN
    lines = []
    for path in sorted(files):
        line = path
        names = outline(files[path]) if path.endswith(".py") else []
        if names:
            line = f"{path}: {', '.join(names)}"

        # Every path is named, whatever the room: it may be the answer.
        room -= len(line)
        lines.append(line if room > 0 else path)

    tree = "\n".join(lines)
    return f"An issue of a code base:\n\n{issue}\n\nIts files:\n\n{tree}\n\n{request}"


def outline(text: str) -> list[str]:
    """Names of a Python file's functions, classes and methods, in order.

    Empty where it does not parse.
    """
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names = []
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.ClassDef):
            names += [node.name, *_methods(node)]
    return names[:_OUTLINED]


def _methods(node: ast.ClassDef) -> list[str]:
    """The methods of a class as `Class.name`."""
    names = []
    for part in node.body:
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            names.append(f"{node.name}.{part.name}")
    return names


def _fenced(path: str, text: str) -> str:
    """A file between fences longer than any in it."""
    fence = "```"
    while fence in text:
        fence += "`"
    mark = "python" if path.endswith(".py") else ""
    return f"{fence}{mark}\n{text}\n{fence}"
