"""Two stages of one recipe over several seeds: by optimiser steps and by CPU-seconds.

Every seed is a whole run of its own (base, SFT and RL seeds all change); the arms branch from the same checkpoint of that run.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linn import files
from linn import ledger as ledgers
from linn.errors import UserError, nearest
from linn.recipe import load as recipes
from linn.recipe.schema import DistillConfig, Recipe
from linn.run.run import Run
from linn.types import Score


def compare_arms(
    path: Path, out: Path | None, arms: Sequence[str], seeds: Sequence[int], changes: Sequence[str]
) -> Path:
    """Run the recipe once a seed (resumable) and write `compare.json`; gives back the folder of all seeds."""
    first = recipes.load(path, changes)
    names = [s.name for s in first.stages]
    for arm in arms:
        if arm not in names:
            raise UserError(f"{path}: no stage {arm!r} to compare{nearest(arm, names)}")
    if len({first.parent(arm) for arm in arms}) > 1:
        raise UserError(f"{path}: the arms {', '.join(arms)} do not start from the same stage")
    unmeasured = [
        s.name for s in first.stages if s.name in {*arms, first.parent(arms[0])} and not s.evaluate
    ]
    if first.parent(arms[0]) == "base" and not first.evaluate.start:
        unmeasured.append("base")
    if unmeasured:
        raise UserError(
            f"{path}: {', '.join(unmeasured)} must be measured to compare: take evaluate: false away (of base: set evaluate.start)"
        )
    folder = out or Path("runs") / first.name
    found: dict[str, Any] = {
        "name": first.name,
        "x": "steps",
        "seeds": list(seeds),
        "arms": {arm: [] for arm in arms},
        "teachers": [],
    }
    for seed in seeds:
        recipe = recipes.load(path, [*changes, f"seed={seed}", f"model=tiny-{seed}"])
        run = Run(recipe, folder / f"seed-{seed}")
        run.go()
        _collect(found, recipe, run, arms, seed)
    found["teacher_mean"] = (
        statistics.fmean(entry["value"] for entry in found["teachers"])
        if found["teachers"]
        else None
    )
    files.write_json(folder / "compare.json", found)
    return folder


def _collect(
    found: dict[str, Any], recipe: Recipe, run: Run, arms: Sequence[str], seed: int
) -> None:
    rows = [r for r in run.ledger.read() if r.split == "test" and r.metric == "accuracy"]
    for arm in arms:
        stage = next(s for s in recipe.stages if s.name == arm)
        domains = list(recipe.weights_of(stage))
        cpu = _cpu_by_step(run.stage_folder(arm) / "metrics.jsonl")
        start = _point([r for r in rows if r.stage == recipe.parent(arm) and r.domain in domains])
        found["arms"][arm].append({"seed": seed, "step": 0, "cpu_s": 0.0, **start})
        for step in sorted({r.step for r in rows if r.stage == arm}):
            point = _point(
                [r for r in rows if r.stage == arm and r.step == step and r.domain in domains]
            )
            found["arms"][arm].append(
                {"seed": seed, "step": step, "cpu_s": round(cpu[step], 1), **point}
            )
        if isinstance(stage, DistillConfig):
            taught = _taught(run, arm)
            best = [
                r
                for d in domains
                for r in rows
                if r.domain == d and r.stage == taught[d] and r.step == _last(recipe, taught[d])
            ]
            found["teachers"].append({"seed": seed, **_point(best), "chosen": taught})


def _taught(run: Run, arm: str) -> dict[str, str]:
    entries = json.loads((run.folder / "run.json").read_text())["stages"]
    return dict(next(e for e in entries if e["name"] == arm)["teachers"])


def _last(recipe: Recipe, stage: str) -> int:
    return 0 if stage == "base" else next(s.steps for s in recipe.stages if s.name == stage)


def _point(rows: Sequence[Score]) -> dict[str, Any]:
    """The mean over domains with its interval, and each domain's value."""
    mean = ledgers.mean([ledgers.Interval(r.value, r.low, r.high) for r in rows])
    assert mean is not None, "a compared stage was not measured"
    return {
        "value": mean.value,
        "low": mean.low,
        "high": mean.high,
        "n": sum(r.n for r in rows),
        "per_domain": {r.domain: r.value for r in rows},
    }


def _cpu_by_step(path: Path) -> dict[int, float]:
    """CPU-seconds spent in the stage's steps up to and with each (measurements left out)."""
    total, by_step = 0.0, {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        total += row["cpu_s"]
        by_step[row["step"]] = total
    return by_step


def table_of(folder: Path) -> str:
    """Mean over the seeds at every measured step, both arms side by side, with CPU-seconds and the step that reaches the teachers."""
    found = json.loads((folder / "compare.json").read_text())
    arms: dict[str, list[dict[str, Any]]] = found["arms"]
    lines = ["step   " + "   ".join(f"{arm:>12} [range over seeds]   CPU-s" for arm in arms)]
    for step in sorted({p["step"] for points in arms.values() for p in points}):
        cells = []
        for points in arms.values():
            here = [p for p in points if p["step"] == step]
            if not here:
                cells.append(" " * 41)
                continue
            values = [p["value"] for p in here]
            spread = f"[{min(values):.1%}, {max(values):.1%}]"
            cells.append(
                f"{statistics.fmean(values):>12.1%} {spread:<18} {statistics.fmean(p['cpu_s'] for p in here):>9.0f}"
            )
        lines.append(f"{step:>4}   " + "   ".join(cells))
    if found["teacher_mean"] is not None:
        lines.append(
            f"teachers' mean on the same prompts: {found['teacher_mean']:.1%} over seeds {', '.join(map(str, found['seeds']))}"
        )
        lines += [_reached(arm, points, found) for arm, points in arms.items()]
    return "\n".join(lines)


def _reached(arm: str, points: Sequence[dict[str, Any]], found: dict[str, Any]) -> str:
    """At which measured step an arm first came within the interval of the teachers' mean, a seed."""
    said = []
    for teacher in found["teachers"]:
        mine = [p for p in points if p["seed"] == teacher["seed"] and p["value"] >= teacher["low"]]
        said.append(
            f"seed {teacher['seed']} "
            + (f"step {mine[0]['step']} ({mine[0]['cpu_s']:.0f} CPU-s)" if mine else "never")
        )
    return f"{arm} comes within the teachers' interval: " + ", ".join(said)
