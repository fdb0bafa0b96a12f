"""The files an answer names, against those that the gold patch changes."""

from __future__ import annotations

from collections.abc import Sequence

from linn.domains.common.edits import BadEdit, check_path
from linn.types import Verdict

_LONGEST = 20_000


def named(answer: str, top: int) -> list[tuple[str, str]]:
    """(path, function or empty) of the lines between the last `<solution>` and the `</solution>` after it, up to `top` different files."""
    start = answer.rfind("<solution>")
    end = answer.find("</solution>", start)
    if start < 0 or end < 0 or end - start > _LONGEST:
        return []
    found: dict[tuple[str, str], None] = {}
    for line in answer[start + len("<solution>") : end].split("\n"):
        path, _, function = line.strip().strip("`").partition("::")
        try:
            check_path(path)
        except BadEdit:
            continue
        if path not in {seen for seen, _ in found} and len({seen for seen, _ in found}) == top:
            break
        found[path, function.strip()] = None
    return list(found)


def judge(answer: str, golden: Sequence[str], top: int, functions: Sequence[str] = ()) -> Verdict:
    """1 when every golden file is among the first `top` named, else 0. `functions` (`path::name`) that were named are a metric."""
    found = named(answer, top)
    if not found:
        return Verdict(
            0.0, "no file is named between <solution> and </solution>", {"files_found": 0.0}
        )
    paths = {path for path, _ in found}
    hit = sum(path in paths for path in golden)
    metrics = {"files_found": hit / len(golden)}
    if functions:
        metrics["functions_found"] = sum(
            f"{path}::{name}" in functions for path, name in found if name
        ) / len(functions)
    missing = [path for path in golden if path not in paths]
    return Verdict(
        float(not missing),
        f"not named: {', '.join(missing)}"[:200] if missing else "every file is named",
        metrics,
    )
