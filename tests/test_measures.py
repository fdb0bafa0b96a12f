"""bench/measures.py counts a made-up file rightly, and `--check` fails where a bound is broken."""

import subprocess
import sys
from pathlib import Path

import pytest

from bench.measures import measure

ROOT = Path(__file__).parent.parent
ASSIGNMENT = 4
"""Syntax nodes of `a = 1`: the statement, the name, that it is stored to, the number."""


def function(name: str, lines: int) -> str:
    """A function of that many lines, all but the first an assignment."""
    return f"def {name}():\n" + "    a = 1\n" * (lines - 1)


def file_with(folder: Path, *parts: str) -> Path:
    """The folder, with one file that holds the parts."""
    (folder / "one.py").write_text("\n".join(parts))
    return folder


GOOD = ("# a reason\n" + function("f", 12),)
"""Within every bound."""
DENSE = "def g():\n" + "    a = f(1, 2, 3, 4, 5, 6, 7, 8)\n" * 12
"""Twelve lines of 13 nodes: with `GOOD`, a median above 8."""


def test_lines_functions_and_files_are_counted(tmp_path: Path) -> None:
    measures = measure([file_with(tmp_path, function("short", 3), function("longer", 12))])
    path = tmp_path / "one.py"
    assert measures.lines == 3 + 1 + 12
    assert measures.files == [(16, str(path))]
    assert measures.functions == [(3, f"{path}:1 short"), (12, f"{path}:5 longer")]


def test_density_is_of_functions_of_12_lines_and_more(tmp_path: Path) -> None:
    folder = file_with(tmp_path, function("short", 11), function("longer", 12))
    own_nodes = 2  # the function and its arguments
    assert measure([folder]).density == (11 * ASSIGNMENT + own_nodes) / 12


def test_comments_count_where_they_speak_to_people(tmp_path: Path) -> None:
    folder = file_with(
        tmp_path,
        "# a comment",
        "x = 1  # another",
        "y = 2  # type: ignore",
        "z = 3  # noqa: E741",
        "#",
        "text = '# not a comment'",
    )
    measures = measure([folder])
    assert measures.comments == 2
    assert measures.comments_per_1000 == pytest.approx(1000 * 2 / 6)


def test_conditionals_inside_another_are_found_at_any_depth(tmp_path: Path) -> None:
    folder = file_with(
        tmp_path,
        "one = 1 if a else 2",
        "chain = 1 if a else 2 if b else 3",
        "inside = f(1 if a else 2) if b else 3",
        "side = (1 if a else 2) + (1 if b else 2)",
    )
    measures = measure([folder])
    assert measures.conditionals == 1 + 2 + 2 + 2
    assert measures.nested == [f"{tmp_path / 'one.py'}:{line}" for line in (2, 3)]


def test_a_line_of_100_characters_is_not_too_wide(tmp_path: Path) -> None:
    folder = file_with(tmp_path, "#" * 100, "#" * 101)
    assert measure([folder]).wide == [f"{tmp_path / 'one.py'}:2"]


def check(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.measures", "--check", str(folder)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_check_passes_within_the_bounds(tmp_path: Path) -> None:
    result = check(file_with(tmp_path, *GOOD))
    assert (result.returncode, result.stderr) == (0, "")
    assert "syntax nodes per line" in result.stdout


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        ("x = 1 if a else 2 if b else 3", "a conditional expression inside another"),
        ("#" * 101, "more than 100 characters"),
        (function("g", 80), "80 lines, under 80"),
        ("x = 1\n" * 500, "lines, under 500"),
        ("x = 1\n" * 100, "comments per 1,000 lines, at least 24"),
        (DENSE, "syntax nodes per line, at most 8"),
    ],
)
def test_check_fails_where_a_bound_is_broken(tmp_path: Path, part: str, problem: str) -> None:
    result = check(file_with(tmp_path, *GOOD, part))
    assert result.returncode == 1 and problem in result.stderr, result.stderr
