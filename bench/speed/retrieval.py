"""How often BM25 finds the file an issue is about: recall@k over installed packages, issues made of
docstrings or of a failing call.

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


def files_of(package: str) -> dict[str, str]:
    """The Python files of an installed package by path, its tests left out; empty where it is not
    installed.
    """
    found = importlib.util.find_spec(package)
    if found is None or not found.origin:
        return {}
    root = Path(found.origin).parent
    root = root.parent / "_pytest" if package == "pytest" else root
    paths = [
        path
        for path in sorted(root.rglob("*.py"))
        if not {"tests", "testing", "test"} & set(path.relative_to(root).parts)
    ]
    return {
        f"{package}/{path.relative_to(root)}": path.read_text("utf-8", "replace")
        for path in paths
        if path.stat().st_size < 400_000
    }


def functions(text: str) -> list[tuple[str, str, str]]:
    """(name, prose of the docstring, the docstring as it stands in the file) of a file's documented
    functions and methods.
    """
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and (
            doc := ast.get_docstring(node)
        ):
            prose = " ".join(doc.split("\n\n")[0].split())
            raw = ast.get_source_segment(text, node.body[0])
            if raw and len(prose.split()) >= 8 and not node.name.startswith("_"):
                found.append((node.name, prose, raw))
    return found


def interval(hits: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    z, share = 1.96, hits / n
    middle, half = (
        (share + z * z / (2 * n)) / (1 + z * z / n),
        z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n),
    )
    return middle - half, middle + half


def main() -> None:
    """Print recall@k with its interval for both kinds of issue, over all packages and by package."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--issues", type=int, default=400)
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--packages", nargs="*", default=PACKAGES)
    options = parser.parse_args()
    sources = {
        package: files
        for package in options.packages
        if len(files := files_of(package)) > 4 * options.top
    }
    rng, results = (
        random.Random(0),
        {"prose": dict[str, list[bool]](), "named": dict[str, list[bool]]()},
    )
    for package, files in sources.items():
        known = [(path, *one) for path, text in files.items() for one in functions(text)]
        chosen = rng.sample(known, min(len(known), options.issues // len(sources)))
        without = dict(files)
        for path, _, _, raw in chosen:
            without[path] = without[path].replace(raw, '""""""', 1)
        index = Index(without)
        for path, name, prose, _ in chosen:
            hidden = re.sub(rf"\b{re.escape(name)}\b", "it", prose)
            for kind, issue in (
                ("prose", hidden),
                ("named", f"{name} does not do what it should.\n{prose}"),
            ):
                results[kind].setdefault(package, []).append(
                    path in index.ranked(issue)[: options.top]
                )
    for kind, found in results.items():
        found["all"] = [hit for hits in found.values() for hit in hits]
        for package, hits in found.items():
            low, high = interval(sum(hits), len(hits))
            count = len(sources[package]) if package in sources else sum(map(len, sources.values()))
            said = f"recall@{options.top} {sum(hits) / len(hits):.3f} [{low:.3f}, {high:.3f}]"
            print(f"{kind:6} {package:12} {count:5} files  n {len(hits):4}  {said}")


if __name__ == "__main__":
    main()
