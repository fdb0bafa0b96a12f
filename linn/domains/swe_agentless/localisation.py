"""The files an answer names, against those that the gold patch changes."""

from __future__ import annotations

from collections.abc import Sequence

from linn.domains.common.edits import BadEdit, check_path
from linn.domains.swe_agentless.solution import last_solution
from linn.types import Verdict

_LONGEST = 20_000 - len("<solution>")
"""Characters of a solution."""


def named(answer: str, top: int) -> list[tuple[str, str]]:
    """(path, function or empty) of each line of the solution, up to `top` different files.

    Lines that are not a path are passed over.
    """
    solution = last_solution(answer)
    if solution is None or len(solution) > _LONGEST:
        return []
    names: dict[tuple[str, str], None] = {}
    paths: set[str] = set()
    for line in solution.split("\n"):
        path, _, function = line.strip().strip("`").partition("::")
        try:
            check_path(path)
        except BadEdit:
            continue

        # A file that was named before may be named again, for another function.
        if path not in paths and len(paths) == top:
            break
        paths.add(path)
        names[path, function.strip()] = None
    return list(names)


def grade(answer: str, golden: Sequence[str], top: int, functions: Sequence[str] = ()) -> Verdict:
    """1 when every golden file is among the first `top` named, else 0.

    A metric is the share of `functions` (`path::name`) that were named.
    """
    names = named(answer, top)
    if not names:
        note = "no file is named between <solution> and </solution>"
        return Verdict(0.0, note, {"files_found": 0.0})

    paths = {path for path, _ in names}
    missing = [path for path in golden if path not in paths]
    metrics = {"files_found": (len(golden) - len(missing)) / len(golden)}
    if functions:
        full_names = [f"{path}::{name}" for path, name in names if name]
        hits = sum(name in functions for name in full_names)
        metrics["functions_found"] = hits / len(functions)

    # The functions named are a metric alone, not part of the reward.
    if missing:
        return Verdict(0.0, f"not named: {', '.join(missing)}"[:200], metrics)
    return Verdict(1.0, "every file is named", metrics)
