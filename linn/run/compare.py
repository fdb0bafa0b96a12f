"""Two stages of one recipe over several seeds: by optimiser steps and by CPU-seconds.

Every seed is a whole run of its own (base, SFT and RL seeds all change); the arms branch from the
same checkpoint of that run.
"""

from __future__ import annotations

import io
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from linn import files
from linn import ledger as ledgers
from linn.errors import UserError, nearest
from linn.recipe import load as recipes
from linn.recipe.schema import Recipe
from linn.recipe.stages import DistillConfig
from linn.run.run import Run
from linn.types import Score

WIDTH = 80
"""Columns of the printed table."""


def compare_arms(
    path: Path, out: Path | None, arms: Sequence[str], seeds: Sequence[int], changes: Sequence[str]
) -> Path:
    """Run the recipe once per seed (resumable) and write `compare.json`.

    Returns the folder of all seeds.
    """
    recipe = recipes.load(path, changes)
    _check_arms(path, recipe, arms)
    folder = out or Path("runs") / recipe.name

    points: dict[str, list[dict[str, Any]]] = {arm: [] for arm in arms}
    teachers: list[dict[str, Any]] = []

    # A run that is done is left alone, so a comparison that was stopped goes on where it stands.
    for seed in seeds:
        of_seed = recipes.load(path, [*changes, f"seed={seed}", f"model=tiny-{seed}"])
        run = Run(of_seed, folder / f"seed-{seed}")
        run.go()
        branches = [_Arm(run, arm, seed) for arm in arms]
        rows: list[Score] = []
        for branch in branches:
            taught, chosen = branch.teachers()
            if taught:
                teachers.append({"seed": seed, **_point(taught), "chosen": chosen})
                rows = rows or taught
        for branch in branches:
            points[branch.name] += branch.points(rows)

    teacher_mean = None
    if teachers:
        teacher_mean = statistics.fmean(entry["value"] for entry in teachers)
    content = {
        "name": recipe.name,
        "x": "steps",
        "seeds": list(seeds),
        "arms": points,
        "teachers": teachers,
        "teacher_mean": teacher_mean,
    }
    files.write_json(folder / "compare.json", content)
    return folder


def _check_arms(path: Path, recipe: Recipe, arms: Sequence[str]) -> None:
    """Refuse arms that cannot be compared, before anything runs."""
    names = [stage.name for stage in recipe.stages]
    for arm in arms:
        if arm not in names:
            raise UserError(f"{path}: no stage {arm!r} to compare{nearest(arm, names)}")

    parents = {recipe.parent(arm) for arm in arms}
    if len(parents) > 1:
        raise UserError(f"{path}: the arms {', '.join(arms)} do not start from the same stage")

    (parent,) = parents
    needed = {*arms, parent}
    unmeasured = []
    for stage in recipe.stages:
        if stage.name in needed and not stage.evaluate:
            unmeasured.append(stage.name)
    if parent == "base" and not recipe.evaluate.start:
        unmeasured.append("base")
    if unmeasured:
        raise UserError(
            f"{path}: {', '.join(unmeasured)} must be measured to compare: "
            "take evaluate: false away (of base: set evaluate.start)"
        )


@dataclass(frozen=True)
class _Arm:
    """One arm of one seed's run, finished."""

    run: Run
    name: str
    seed: int

    def points(self, teachers: Sequence[Score]) -> list[dict[str, Any]]:
        """Where it started, and every step at which it was evaluated.

        Each with its lead over the teachers of the same run, if there are any.
        """
        recipe = self.run.recipe
        domains = recipe.weights_of(recipe.stage(self.name))
        rows = [row for row in self._rows() if row.domain in domains]

        # Step 0 is the parent's checkpoint: it has cost this arm nothing.
        parent = recipe.parent(self.name)
        start = [row for row in rows if row.stage == parent]
        points = [self._at(0, 0.0, start, teachers)]

        folder = self.run.folder.stage_folder(self.name)
        cpu = _cpu_by_step(folder / "metrics.jsonl")
        rows_by_step: dict[int, list[Score]] = defaultdict(list)
        for row in rows:
            if row.stage == self.name:
                rows_by_step[row.step].append(row)
        for step in sorted(rows_by_step):
            points.append(self._at(step, cpu[step], rows_by_step[step], teachers))
        return points

    def teachers(self) -> tuple[list[Score], dict[str, str]]:
        """The test rows of a distillation's teachers, and who they are; empty for another arm."""
        recipe = self.run.recipe
        stage = recipe.stage(self.name)
        if not isinstance(stage, DistillConfig):
            return [], {}

        # Without a step, a teacher is the checkpoint that its stage ended with.
        places = self.run.folder.teachers_of(self.name)
        rows = []
        for domain in recipe.weights_of(stage):
            row = ledgers.row_at(self._rows(), places[domain], domain, "test", "accuracy")
            if row is not None:
                rows.append(row)
        return rows, places

    def _at(
        self, step: int, cpu_s: float, rows: Sequence[Score], teachers: Sequence[Score]
    ) -> dict[str, Any]:
        point = {"seed": self.seed, "step": step, "cpu_s": round(cpu_s, 1), **_point(rows)}
        if lead := self._lead(rows, teachers):
            point["lead"] = lead
        return point

    def _lead(self, rows: Sequence[Score], teachers: Sequence[Score]) -> dict[str, Any]:
        """The mean over domains of this point minus the teacher; empty without teachers."""
        top = {row.domain: row for row in teachers}
        rewards = self.run.folder.rewards()
        leads = [
            ledgers.compared(top[row.domain], row, rewards) for row in rows if row.domain in top
        ]
        lead = ledgers.mean(leads)
        if lead is None:
            return {}
        paired = all(one.paired for one in leads)
        return {"value": lead.value, "low": lead.low, "high": lead.high, "paired": paired}

    def _rows(self) -> list[Score]:
        rows = self.run.folder.ledger.read()
        return [row for row in rows if row.split == "test" and row.metric == "accuracy"]


def _point(rows: Sequence[Score]) -> dict[str, Any]:
    """The mean over domains with its interval, and each domain's value."""
    intervals = []
    for row in rows:
        intervals.append(ledgers.Interval(row.value, row.low, row.high))

    # `_check_arms` has seen to it that every compared stage is evaluated.
    mean = ledgers.mean(intervals)
    assert mean is not None, "a compared stage was not measured"
    return {
        "value": mean.value,
        "low": mean.low,
        "high": mean.high,
        "n": sum(row.n for row in rows),
        "per_domain": {row.domain: row.value for row in rows},
    }


def _cpu_by_step(path: Path) -> dict[int, float]:
    """CPU-seconds spent in the stage's steps up to and with each (evaluations left out)."""
    total = 0.0
    by_step = {}
    for line in path.read_text().splitlines():
        row = json.loads(line)
        total += row["cpu_s"]
        by_step[row["step"]] = total
    return by_step


# ---------------------------------------------------------------- for a terminal


def table_of(folder: Path) -> str:
    """Mean over the seeds at every evaluated step, the arms side by side, with CPU-seconds.

    Below it, the step at which each arm reaches the teachers.
    """
    text = (folder / "compare.json").read_text()
    content = json.loads(text)
    arms: dict[str, list[dict[str, Any]]] = content["arms"]
    seeds = ", ".join(map(str, content["seeds"]))
    lines = [f"mean and range over seeds {seeds}", *_lines_of(_table_of_arms(arms))]

    mean = content["teacher_mean"]
    if mean is not None:
        lines.append(f"teachers' mean on the same prompts: {mean:.1%} over seeds {seeds}")
        for arm, points in arms.items():
            # Points of linn 0.1 do not tell it.
            if points and all("lead" in point for point in points):
                lines.append(_reached(arm, points))
    return "\n".join(lines)


def _table_of_arms(arms: Mapping[str, Sequence[dict[str, Any]]]) -> Table:
    """Steps down, three columns per arm."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("step", justify="right")
    for arm in arms:
        for column in (arm, "range", "CPU-s"):
            table.add_column(column, justify="right")

    # Arms may be evaluated at different steps; where one was not, its cells stay empty.
    steps = {point["step"] for points in arms.values() for point in points}
    for step in sorted(steps):
        cells = [str(step)]
        for points in arms.values():
            cells += _cells([point for point in points if point["step"] == step])
        table.add_row(*cells)
    return table


def _lines_of(table: Table) -> list[str]:
    """The table as text of `WIDTH` columns, wherever it is printed."""
    text = io.StringIO()
    Console(file=text, width=WIDTH, highlight=False).print(table)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def _cells(points: Sequence[dict[str, Any]]) -> tuple[str, str, str]:
    """Mean, range and CPU-seconds over the seeds of one arm at one step."""
    if not points:
        return ("", "", "")
    # Few seeds: their range says more than an interval would.
    values = [point["value"] for point in points]
    seconds = statistics.fmean(point["cpu_s"] for point in points)
    return (
        f"{statistics.fmean(values):.1%}",
        f"{min(values):.1%} to {max(values):.1%}",
        f"{seconds:.0f}",
    )


def _reached(arm: str, points: Sequence[dict[str, Any]]) -> str:
    """At which evaluated step an arm was first not below its seed's teachers.

    That is, where the 95 % interval of the paired difference first holds 0 or lies above it. With
    fewer prompts that comes sooner: it is where a gap could no longer be seen.
    """
    when = {point["seed"]: "never" for point in points}
    paired = True
    for point in points:
        lead = point["lead"]
        paired = paired and lead["paired"]
        # Points come in the order of their steps: the first that is there is the earliest.
        if lead["high"] >= 0 and when[point["seed"]] == "never":
            when[point["seed"]] = f"step {point['step']} ({point['cpu_s']:.0f} CPU-s)"
    parts = ", ".join(f"seed {seed} {place}" for seed, place in when.items())
    how = "prompt by prompt" if paired else "not all prompt by prompt"
    return f"{arm} is no longer below the teachers ({how}): {parts}"
