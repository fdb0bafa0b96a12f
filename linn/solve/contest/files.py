"""Files of problem folders that others made: texts, programs, statements."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linn.errors import UserError
from linn.solve.contest.problem import Source

_STATEMENTS = (".md", ".txt", ".tex", ".html")
_PROGRAMS = (".cpp", ".cc", ".py")
_MOST = 1e9
"""Of seconds, MiB and points: what is above is a mistake, or infinite."""


def text_of(path: Path) -> str:
    """A text; UserError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None


def json_of(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds; UserError where it holds anything else."""
    try:
        value = json.loads(text_of(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from None
    return dict_at(str(path), value)


def dict_at(where: str, value: Any) -> dict[str, Any]:
    """The keys and values that stand somewhere; UserError where something else does."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected keys and values, found {type(value).__name__}")
    return value


def list_at(where: str, value: Any) -> list[Any]:
    """The list that stands somewhere; UserError where something else does."""
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list, found {type(value).__name__}")
    return value


def above_0(where: str, value: Any) -> float:
    """A limit; UserError where it is no number that a program could run with."""
    return _number(where, value, "a number above 0", least=math.ulp(0))


def points_at(where: str, value: Any) -> float:
    """Points of a subtask or a test; UserError where they are none. Texts of numbers count."""
    try:
        return _number(
            where, float(value) if isinstance(value, str) else value, "points, 0 or more"
        )
    except ValueError:
        raise UserError(f"{where} is {value!r}; allowed: points, 0 or more") from None


def _number(where: str, value: Any, allowed: str, least: float = 0) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN is below nothing and above nothing.
    if not is_number or not least <= value <= _MOST:
        raise UserError(f"{where} is {value!r}; allowed: {allowed}")
    return float(value)


def source_of(path: Path) -> Source:
    """A program in a file; its language by the file's ending."""
    return Source("python" if path.suffix == ".py" else "cpp", text_of(path))


def first_program(folder: Path, names: Sequence[str]) -> Source | None:
    """The first program of these names that a folder holds, in C++ or Python."""
    for name in names:
        for ending in _PROGRAMS:
            path = folder / f"{name}{ending}"
            if path.is_file():
                return source_of(path)
    return None


def statement_in(folders: Sequence[Path], where: Path) -> str:
    """The first statement that can be read as text; UserError where there is none.

    A PDF cannot be: its text, or a translation, goes beside it.
    """
    for folder in folders:
        if not folder.is_dir():
            continue
        files = [path for path in sorted(folder.iterdir()) if path.suffix in _STATEMENTS]
        # English before others; an index before its parts.
        files.sort(key=lambda path: (not _is_english(path), path.stem not in ("index", "problem")))
        if files:
            return text_of(files[0])
    looked = ", ".join(str(folder.relative_to(where)) or "." for folder in folders)
    raise UserError(
        f"{where}: no statement as text (.md, .txt, .tex, .html) in {looked}; "
        "a PDF cannot be read: put its text beside it as statement.md"
    )


def _is_english(path: Path) -> bool:
    return "en" in path.stem.lower().replace("-", "_").split("_") or "english" in path.stem.lower()


def includes_in(folders: Sequence[Path]) -> dict[str, str]:
    """Headers by name, such as testlib.h, of these folders."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(folder.glob("*.h")) if folder.is_dir() else ():
            found.setdefault(path.name, text_of(path))
    return found


def check_file_name(where: str, name: str) -> None:
    """Refuse a name that would lead out of the folder where a program runs."""
    if "/" in name or "\\" in name or name in (".", ".."):
        raise UserError(f"{where} is {name!r}; allowed: a plain file name, or empty")


def answer_of(path: Path, is_needed: bool = True) -> str:
    """The judges' own output. UserError where it is absent and what compares outputs needs it."""
    if path.is_file():
        return text_of(path)
    if is_needed:
        raise UserError(
            f"{path}: is not there; make the answers with the problem's own main solution first"
        )
    return ""


def check_tests(where: Path, count: int) -> None:
    """Refuse a folder without tests, which its own generators make: linn does not run those."""
    if not count:
        raise UserError(
            f"{where}: it holds no tests; make them with the problem's own generators first"
        )
