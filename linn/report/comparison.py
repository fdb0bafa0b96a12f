"""Distillation against GRPO: the plots and the table of `linn compare`."""

from __future__ import annotations

import functools
from collections import defaultdict
from dataclasses import dataclass
from statistics import median

from linn.report.curves import Points, series
from linn.report.files import Row, number
from linn.report.numbers import format_tick
from linn.report.plots import Line, Plot, plot

AXES = {"step": "steps", "cpu_s": "CPU-seconds"}
"""Key of a point -> what runs to the right."""


@dataclass(frozen=True)
class Arm:
    """One method of the comparison."""

    name: str
    """mopd, grpo, …"""
    mark: str
    """Its CSS class."""
    seeds: int
    """Runs of it."""
    by_step: Points
    """Median over the seeds that reached the step."""
    by_cpu: Points
    """The same medians over the median CPU-seconds spent at that step."""
    final: str
    """The last median in words, with the seeds' range."""
    per_domain: dict[str, float]
    """Median at the last step each seed reached."""


@dataclass(frozen=True)
class Comparison:
    """The two plots and the table under them."""

    plots: tuple[Plot, ...]
    """By step, by CPU-seconds."""
    arms: tuple[Arm, ...]
    """The methods."""
    teacher: str
    """The teachers' mean; empty where unknown."""
    domains: tuple[str, ...]
    """Rows of the table."""


def comparison(data: Row) -> Comparison | None:
    """Read compare.json; None where it holds no point."""
    by_name = data.get("arms")
    arms: list[Arm] = []
    thin: dict[str, list[Line]] = {axis: [] for axis in AXES}

    for name, rows in (by_name if isinstance(by_name, dict) else {}).items():
        seeds = _by_seed(rows)
        if not seeds:
            continue
        # Four classes of the style sheet; a fifth arm takes the first again.
        mark = "abcd"[len(arms) % 4]
        for axis, lines in thin.items():
            for rows_of_seed in seeds.values():
                points = series(rows_of_seed, functools.partial(number, key="value"), axis)
                lines.append(Line(points, f"thin {mark}"))

        arms.append(_arm(str(name), mark, seeds))

    if not arms:
        return None
    teacher = number(data, "teacher_mean")
    plots = [_plot(axis, arms, thin[axis], teacher) for axis in AXES]
    domains = dict.fromkeys(domain for arm in arms for domain in arm.per_domain)

    return Comparison(
        plots=tuple(drawn for drawn in plots if drawn is not None),
        arms=tuple(arms),
        teacher="" if teacher is None else format_tick(teacher),
        domains=tuple(domains),
    )


def _plot(axis: str, arms: list[Arm], thin: list[Line], teacher: float | None) -> Plot | None:
    """The arms' medians over their seeds, thin, and over the teachers' mean, dashed."""
    # Thick lines come last, so that they are drawn over the thin ones.
    thick = []
    for arm in arms:
        points = arm.by_step if axis == "step" else arm.by_cpu
        thick.append(Line(points, f"thick {arm.mark}"))
    lines = [*thin, *thick]
    xs = [x for line in lines for x, _ in line.points]
    if teacher is not None and xs:
        lines.insert(0, Line([(min(xs), teacher), (max(xs), teacher)], "dash"))
    return plot(f"Mean score by {AXES[axis]}", lines, x_label=AXES[axis])


def _by_seed(rows: object) -> dict[str, list[Row]]:
    """The points of each seed in order of steps."""
    seeds: dict[str, list[Row]] = defaultdict(list)
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        if number(row, "step") is None or number(row, "value") is None:
            continue
        seeds[str(row.get("seed", 0))].append(row)
    return {seed: sorted(points, key=_step) for seed, points in seeds.items()}


def _arm(name: str, mark: str, seeds: dict[str, list[Row]]) -> Arm:
    rows_at: dict[float, list[Row]] = defaultdict(list)
    for rows in seeds.values():
        for row in rows:
            rows_at[_step(row)].append(row)

    by_step, by_cpu = [], []
    # Seeds may have been measured at different steps: each step has its own median.
    for step in sorted(rows_at):
        value = median(_value(row) for row in rows_at[step])
        by_step.append((step, value))
        seconds = [number(row, "cpu_s") for row in rows_at[step]]
        spent = [cpu for cpu in seconds if cpu is not None]
        if spent:
            by_cpu.append((median(spent), value))

    # A seed that is behind counts with where it stands.
    last_rows = [rows[-1] for rows in seeds.values()]
    values = [_value(row) for row in last_rows]
    final = f"{format_tick(median(values))} after {format_tick(max(rows_at))} steps"

    if len(seeds) > 1:
        lowest, highest = format_tick(min(values)), format_tick(max(values))
        final += f", {lowest} to {highest} over {len(seeds)} seeds"

    return Arm(
        name=name,
        mark=mark,
        seeds=len(seeds),
        by_step=by_step,
        by_cpu=sorted(by_cpu),
        final=final,
        per_domain=_per_domain(last_rows),
    )


def _per_domain(rows: list[Row]) -> dict[str, float]:
    """The median of each domain's score over rows that have it."""
    scores: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        table = row.get("per_domain")
        if not isinstance(table, dict):
            continue
        for domain in table:
            score = number(table, domain)
            if score is not None:
                scores[str(domain)].append(score)

    return {domain: median(values) for domain, values in scores.items()}


def _step(row: Row) -> float:
    return number(row, "step") or 0.0


def _value(row: Row) -> float:
    return number(row, "value") or 0.0
