"""Which curves a stage shows, and distillation against GRPO."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from linn.report.files import Row, number
from linn.report.plots import Line, Plot, plot, tick

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Plots that belong together."""

    title: str
    """What they have in common; empty for the stage's main curves."""
    plots: tuple[Plot, ...]
    """In reading order."""


def curves(rows: Sequence[Row]) -> list[Panel]:
    """The panels of one stage's metrics: the main ones, reward by domain, teacher gap by domain."""
    main = [
        _curve("Reward", rows, "reward"),
        _curve("Loss", rows, "loss"),
        _curve("Length, tokens", rows, "length"),
        _curve("Entropy, nats", rows, "entropy"),
        _kept(rows),
        _curve("Mismatch, max and (thin) mean", rows, "mismatch_max", "mismatch_mean"),
        _curve("Gradient norm", rows, "grad_norm"),
        _curve("Truncated", rows, "truncated")
        if any(number(row, "truncated") for row in rows)
        else None,
        _curve("Learning rate", rows, "lr"),
    ]
    panels = [Panel("", tuple(each for each in main if each is not None))]
    panels += [
        _by_domain("Reward by domain", rows, "reward/"),
        _by_domain("Teacher gap by domain", rows, "teacher_gap/"),
    ]
    alone = len(panels[1].plots) < 2
    return [panel for panel in panels if panel.plots and not (alone and panel is panels[1])]


def _series(
    rows: Sequence[Row], value: Callable[[Row], float | None], axis: str = "step"
) -> Points:
    pairs = [(number(row, axis), value(row)) for row in rows]
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def _curve(title: str, rows: Sequence[Row], key: str, thin: str = "") -> Plot | None:
    points = _series(rows, lambda row: number(row, key))
    lines = [Line(points)]
    if thin:
        lines.insert(0, Line(_series(rows, lambda row: number(row, thin)), "thin"))
    return plot(title, lines, tick(points[-1][1]) if points else "")


def _kept(rows: Sequence[Row]) -> Plot | None:
    """The share of groups that dynamic filtering kept, of all that were sampled."""

    def share(row: Row) -> float | None:
        kept, groups = number(row, "kept_groups"), number(row, "groups")
        return kept / groups if kept is not None and groups else None

    points = _series(rows, share)
    return plot(
        "Groups kept, of those sampled",
        [Line(points)],
        tick(points[-1][1]) if points else "",
        y=(0.0, 1.0),
    )


def _by_domain(title: str, rows: Sequence[Row], prefix: str) -> Panel:
    """One plot a domain, all on the same scale."""
    names = sorted(
        {key.removeprefix(prefix) for row in rows for key in row if key.startswith(prefix)}
    )
    series = {name: _series(rows, functools.partial(number, key=prefix + name)) for name in names}
    values = [y for points in series.values() for _, y in points]
    if not values or min(values) == max(values):
        scale = None
    else:
        scale = min(values), max(values)
    plots = [
        plot(name, [Line(points)], tick(points[-1][1]) if points else "", y=scale)
        for name, points in series.items()
    ]
    return Panel(title, tuple(each for each in plots if each is not None))


# ---------------------------------------------------------------- MOPD against GRPO


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
    listed = data.get("arms")
    arms: list[Arm] = []
    thin: dict[str, list[Line]] = {"step": [], "cpu_s": []}
    for name, rows in (listed if isinstance(listed, dict) else {}).items():
        seeds = _by_seed(rows)
        if not seeds:
            continue
        mark = "abcd"[len(arms) % 4]
        for points in seeds.values():
            for axis in thin:
                thin[axis].append(
                    Line(_series(points, lambda row: number(row, "value"), axis), f"thin {mark}")
                )
        arms.append(_arm(str(name), mark, seeds))
    if not arms:
        return None
    teacher = number(data, "teacher_mean")
    plots = []
    for axis, label in (("step", "steps"), ("cpu_s", "CPU-seconds")):
        thick = [
            Line(arm.by_step if axis == "step" else arm.by_cpu, f"thick {arm.mark}") for arm in arms
        ]
        xs = [x for line in [*thin[axis], *thick] for x, _ in line.points]
        dashed = (
            [Line([(min(xs), teacher), (max(xs), teacher)], "dash")]
            if teacher is not None and xs
            else []
        )
        plots.append(plot(f"Mean score by {label}", [*dashed, *thin[axis], *thick], x_label=label))
    domains = tuple(dict.fromkeys(domain for arm in arms for domain in arm.per_domain))
    return Comparison(
        tuple(each for each in plots if each is not None),
        tuple(arms),
        "" if teacher is None else tick(teacher),
        domains,
    )


def _by_seed(rows: object) -> dict[str, list[Row]]:
    """The points of each seed in order of steps."""
    seeds: dict[str, list[Row]] = {}
    for row in rows if isinstance(rows, list) else []:
        if (
            isinstance(row, dict)
            and number(row, "step") is not None
            and number(row, "value") is not None
        ):
            seeds.setdefault(str(row.get("seed", 0)), []).append(row)
    return {
        seed: sorted(points, key=lambda row: number(row, "step") or 0.0)
        for seed, points in seeds.items()
    }


def _arm(name: str, mark: str, seeds: dict[str, list[Row]]) -> Arm:
    at: dict[float, list[Row]] = {}
    for points in seeds.values():
        for row in points:
            at.setdefault(number(row, "step") or 0.0, []).append(row)
    by_step, by_cpu = [], []
    for step in sorted(at):
        value = median(number(row, "value") or 0.0 for row in at[step])
        spent = [cpu for row in at[step] if (cpu := number(row, "cpu_s")) is not None]
        by_step.append((step, value))
        if spent:
            by_cpu.append((median(spent), value))
    lasts = [points[-1] for points in seeds.values()]
    values = [number(row, "value") or 0.0 for row in lasts]
    final = f"{tick(median(values))} after {tick(max(at))} steps"
    if len(seeds) > 1:
        final += f", {tick(min(values))} to {tick(max(values))} over {len(seeds)} seeds"
    tables = [row["per_domain"] for row in lasts if isinstance(row.get("per_domain"), dict)]
    domains = dict.fromkeys(str(domain) for table in tables for domain in table)
    scores = {
        domain: [got for table in tables if (got := number(table, domain)) is not None]
        for domain in domains
    }
    return Arm(
        name,
        mark,
        len(seeds),
        by_step,
        sorted(by_cpu),
        final,
        {domain: median(found) for domain, found in scores.items() if found},
    )
