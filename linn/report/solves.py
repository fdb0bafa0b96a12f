"""The page of a solve: score against tokens, and what every task got for what it spent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linn import files
from linn.errors import UserError
from linn.report.numbers import format_percent
from linn.report.page import template
from linn.report.plots import Line, Plot, plot

_SHOWN = 2_000
"""Characters of an answer on the page."""
_MOST_TASKS = 500


def build_solve(folder: Path) -> Path:
    """Write `report.html` beside the results of a solve; gives its path.

    The same results give the same bytes. UserError where the folder holds none.
    """
    # Any of these files may be of a solve that is still under way.
    points = _read(folder / "curve.json")
    settings = next(files.json_objects(folder / "record.jsonl"), {}).get("settings", {})
    results = list(files.json_objects(folder / "results.jsonl"))
    contest = _read(folder / "contest.json") if (folder / "contest.json").is_file() else None
    page = template("solve.html.jinja").render(
        name=f"{settings.get('strategy', 'solve')} · {settings.get('model', '')}",
        summary=_summary(points, results),
        plots=_plots(points),
        settings=[(key, json.dumps(value)) for key, value in settings.items()],
        results=[_shown(row) for row in results[:_MOST_TASKS]],
        left_out=max(0, len(results) - _MOST_TASKS),
        contest=contest,
    )
    path = folder / "report.html"
    files.write_text(path, page)
    return path


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(f"{path}: no results there; give a folder made by linn solve") from None


def _summary(points: Sequence[dict[str, Any]], results: Sequence[dict[str, Any]]) -> str:
    """The last score, and what it took."""
    if not points:
        return "No task was solved."
    last = points[-1]
    tokens = sum(row["tokens"] for row in results)
    calls = sum(row["calls"] for row in results)
    interval = f"{format_percent(last['low'])} to {format_percent(last['high'])}"
    return (
        f"Score {format_percent(last['score'])} ({interval}) of {last['n']} tasks, for "
        f"{tokens:,} sampled tokens in {calls:,} rollouts."
    )


def _plots(points: Sequence[dict[str, Any]]) -> list[Plot]:
    """The curve with its interval."""

    def line(key: str, style: str) -> Line:
        return Line([(point["tokens"], point[key]) for point in points], style)

    lines = [line("low", "thin"), line("high", "thin"), line("score", "line")]
    note = format_percent(points[-1]["score"]) if points else ""
    drawn = plot("Score, with its 95 % interval", lines, note, "tokens a task", y=(0.0, 1.0))
    return [] if drawn is None else [drawn]


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A task as the page shows it."""
    answer = str(row.get("answer", ""))
    known = ("task", "score", "highest", "tokens", "read", "calls", "answer", "budget_ended")
    counts = {
        key: value
        for key, value in row.items()
        if key not in known and isinstance(value, int | float)
    }
    cut = answer[:_SHOWN]
    return {
        **{key: row[key] for key in known},
        "answer": cut if len(cut) == len(answer) else f"{cut}\n[{len(answer) - _SHOWN:,} more]",
        "counts": ", ".join(f"{key} {value:g}" for key, value in counts.items()),
        "submissions": [
            (one.get("subtask", ""), one.get("round", one.get("generated", "")), one["verdict"])
            for one in row.get("submissions", [])
        ],
    }
