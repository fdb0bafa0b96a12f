"""How often BM25 finds the file that an issue is about: recall@k over installed packages.

    python -m bench.speed.retrieval [--issues 400] [--top 5] [--packages networkx rich jinja2 …]

The issue of a function is the prose of its docstring, without the function's name (`prose`), or
that prose after a line that names the function as a traceback would (`named`). The docstrings of
the sampled functions are taken out of the files, so that none can be found by itself.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import math
import random
import re
from dataclasses import dataclass
from pathlib import Path

from linn.domains.swe_agentless.retrieve import Index

PACKAGES = (
    "networkx",
    "rich",
    "jinja2",
    "pydantic",
    "click",
    "jsonschema",
    "httpx",
    "hypothesis",
    "nltk",
    "pytest",
    "matplotlib",
    "markdown_it",
)


LARGEST = 400_000
"""Bytes of a file; larger ones are tables."""


@dataclass(frozen=True)
class Documented:
    """A function or method with a docstring."""

    path: str
    name: str
    prose: str
    """First paragraph of the docstring, in one line."""
    docstring: str
    """The docstring as it stands in the file."""


def files_of(package: str) -> dict[str, str]:
    """The Python files of an installed package by path, its tests left out; empty where it is not
    installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.origin:
        return {}
    root = Path(spec.origin).parent
    if package == "pytest":
        root = root.parent / "_pytest"

    files = {}
    for path in sorted(root.rglob("*.py")):
        place = path.relative_to(root)
        is_test = bool({"tests", "testing", "test"} & set(place.parts))
        if not is_test and path.stat().st_size < LARGEST:
            files[f"{package}/{place}"] = path.read_text("utf-8", "replace")
    return files


def functions(path: str, text: str) -> list[Documented]:
    """The public functions and methods of a file with at least eight words of prose."""
    functions = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        prose = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
        if len(prose.split()) < 8 or node.name.startswith("_"):
            continue
        if docstring := ast.get_source_segment(text, node.body[0]):
            functions.append(Documented(path, node.name, prose, docstring))
    return functions


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / n
    scale = 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / scale
    return middle - half, middle + half


def issues_of(function: Documented) -> dict[str, str]:
    """Both kinds of issue about a function."""
    prose = re.sub(rf"\b{re.escape(function.name)}\b", "it", function.prose)
    named = f"{function.name} does not do what it should.\n{function.prose}"
    return {"prose": prose, "named": named}


def search(
    files: dict[str, str], count: int, top: int, rng: random.Random
) -> dict[str, list[bool]]:
    """Per kind of issue, whether each issue's file was among the first `top`."""
    documented = [one for path, text in files.items() for one in functions(path, text)]
    chosen = rng.sample(documented, min(len(documented), count))
    # An issue must not find its own docstring.
    stripped = dict(files)
    for function in chosen:
        text = stripped[function.path]
        stripped[function.path] = text.replace(function.docstring, '""""""', 1)

    index = Index(stripped)
    hits: dict[str, list[bool]] = {"prose": [], "named": []}
    for function in chosen:
        for kind, issue in issues_of(function).items():
            hits[kind].append(function.path in index.ranked(issue)[:top])
    return hits


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issues", type=int, default=400)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--packages", nargs="*", default=PACKAGES)
    return parser.parse_args()


def main() -> None:
    """Print recall@k with its interval for both kinds of issue, per package and over all."""
    options = parse_options()
    sources = {package: files_of(package) for package in options.packages}
    sources = {name: files for name, files in sources.items() if len(files) > 4 * options.top}
    rng = random.Random(0)
    count = options.issues // len(sources)
    hits = {package: search(files, count, options.top, rng) for package, files in sources.items()}

    files = {package: len(files) for package, files in sources.items()}
    for kind in ("prose", "named"):
        together: list[bool] = []
        for package in sources:
            together += hits[package][kind]
            show(kind, package, files[package], hits[package][kind], options.top)
        show(kind, "all", sum(files.values()), together, options.top)


def show(kind: str, package: str, files: int, hits: list[bool], top: int) -> None:
    low, high = interval(sum(hits), len(hits))
    recall = f"recall@{top} {sum(hits) / len(hits):.3f} [{low:.3f}, {high:.3f}]"
    print(f"{kind:6} {package:12} {files:5} files  n {len(hits):4}  {recall}")


if __name__ == "__main__":
    main()
