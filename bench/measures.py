"""How the code reads, as numbers: `python -m bench.measures [--check] [FOLDER …]`.

Prints lines, functions, syntax nodes per line, comments, conditional expressions and the longest
function and file. `--check` exits with 1 where a bound below does not hold; `make check` runs it.
The bounds follow from a reading of five model code bases beside this one (CONTRIBUTING.md).
"""

from __future__ import annotations

import argparse
import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

LONG = 12
"""Functions of at least this many lines count for the density."""
WIDTH = 100
"""Characters of the longest line."""
MARKS = ("type:", "fmt:", "noqa", "pragma", "!")
"""Comments that begin so speak to tools, not to people."""


@dataclass
class Measures:
    """What was counted over all files."""

    lines: int = 0
    """Lines of every file, blank ones included."""
    comments: int = 0
    """`#` comments for people."""
    functions: list[tuple[int, str]] = field(default_factory=list)
    """(lines, place) per function."""
    files: list[tuple[int, str]] = field(default_factory=list)
    """(lines, path) per file."""
    densities: list[tuple[float, str]] = field(default_factory=list)
    """(syntax nodes per line, place) per function of `LONG` lines or more."""
    conditionals: int = 0
    """Conditional expressions (`a if b else c`)."""
    nested: list[str] = field(default_factory=list)
    """Places of conditional expressions inside another one."""
    wide: list[str] = field(default_factory=list)
    """Places of lines above 100 characters."""

    @property
    def density(self) -> float:
        """Median of `densities`; 0 where no function is that long."""
        return statistics.median([value for value, _ in self.densities] or [0.0])

    @property
    def comments_per_1000(self) -> float:
        """Comments per 1,000 lines."""
        return 1000 * self.comments / self.lines


def measure(folders: list[Path]) -> Measures:
    """Measures of every Python file below the folders."""
    measures = Measures()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            _add_file(measures, path)
    return measures


def _add_file(measures: Measures, path: Path) -> None:
    text = path.read_text()
    lines = text.splitlines()
    measures.lines += len(lines)
    measures.files.append((len(lines), str(path)))
    measures.comments += sum(1 for _ in comments_of(text))
    measures.wide += [f"{path}:{i}" for i, line in enumerate(lines, 1) if len(line) > WIDTH]

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.IfExp):
            measures.conditionals += 1
            if _holds_another(node):
                measures.nested.append(f"{path}:{node.lineno}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _add_function(measures, node, path)


def _holds_another(node: ast.IfExp) -> bool:
    parts = (part for part in ast.walk(node) if part is not node)
    return any(isinstance(part, ast.IfExp) for part in parts)


def _add_function(
    measures: Measures, node: ast.FunctionDef | ast.AsyncFunctionDef, path: Path
) -> None:
    place = f"{path}:{node.lineno} {node.name}"
    assert node.end_lineno is not None, place
    length = node.end_lineno - node.lineno + 1
    measures.functions.append((length, place))
    if length >= LONG:
        nodes = sum(1 for _ in ast.walk(node))
        measures.densities.append((nodes / length, place))


def comments_of(text: str) -> Iterator[str]:
    """The comments of a file that speak to people."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            words = token.string.lstrip("#").strip()
            if words and not words.startswith(MARKS):
                yield words


def faults(measures: Measures) -> list[str]:
    """What lies outside the bounds, a sentence each."""
    sentences = []
    if measures.density > 8.0:
        sentences.append(f"{measures.density:.1f} syntax nodes per line, at most 8")
    if measures.comments_per_1000 < 24:
        comments = f"{measures.comments_per_1000:.0f} comments per 1,000 lines"
        sentences.append(f"{comments}, at least 24")
    for lines, place in measures.functions:
        if lines >= 80:
            sentences.append(f"{place}: {lines} lines, under 80")
    for lines, path in measures.files:
        if lines >= 500:
            sentences.append(f"{path}: {lines} lines, under 500")
    for place in measures.nested:
        sentences.append(f"{place}: a conditional expression inside another")
    for place in measures.wide:
        sentences.append(f"{place}: more than {WIDTH} characters")
    return sentences


def show(measures: Measures) -> None:
    """Print the measures."""
    lengths = sorted(length for length, _ in measures.functions)
    p50, p90 = (lengths[int(len(lengths) * share)] for share in (0.5, 0.9))
    conditionals = 1000 * measures.conditionals / measures.lines
    longest_function = "{1} ({0} lines)".format(*max(measures.functions))
    longest_file = "{1} ({0} lines)".format(*max(measures.files))
    densest = "{1} ({0:.1f})".format(*max(measures.densities))
    rows = {
        "lines / functions": f"{measures.lines:,} / {len(lengths):,}",
        "lines per function p50 / p90 / max": f"{p50} / {p90} / {lengths[-1]}",
        f"syntax nodes per line, functions of {LONG}+ lines, median": f"{measures.density:.1f}",
        "comments per 1,000 lines": f"{measures.comments_per_1000:.0f}",
        "conditional expressions per 1,000 lines": f"{conditionals:.0f}",
        "conditional expressions inside another": str(len(measures.nested)),
        f"lines above {WIDTH} characters": str(len(measures.wide)),
        "longest function": longest_function,
        "longest file": longest_file,
        "densest function": densest,
    }
    for name, value in rows.items():
        print(f"{name:<58} {value}")


def main() -> int:
    """Print the measures; with `--check`, 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("linn")])
    parser.add_argument("--check", action="store_true", help="exit 1 where a bound does not hold")
    options = parser.parse_args()
    measures = measure(options.folders)
    show(measures)
    outside = faults(measures) if options.check else []
    for sentence in outside:
        print(f"outside its bound: {sentence}", file=sys.stderr)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
