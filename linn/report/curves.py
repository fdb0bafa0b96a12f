"""Which curves of its metrics a stage shows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from linn.report.files import Row, number
from linn.report.numbers import format_tick
from linn.report.plots import Line, Plot, plot

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Plots that belong together."""

    title: str
    """What they have in common; empty for the stage's main curves."""
    plots: tuple[Plot, ...]
    """In reading order."""


def curves(rows: Sequence[Row]) -> list[Panel]:
    """The panels of one stage: the main curves, reward by domain, teacher gap by domain."""
    main = [
        _curve("Reward", rows, "reward"),
        _curve("Loss", rows, "loss"),
        _curve("Length, tokens", rows, "length"),
        _curve("Entropy, nats", rows, "entropy"),
        _kept_groups(rows),
        _curve("Mismatch, max and (thin) mean", rows, "mismatch_max", "mismatch_mean"),
        _curve("Gradient norm", rows, "grad_norm"),
    ]
    if any(number(row, "truncated") for row in rows):
        main.append(_curve("Truncated", rows, "truncated"))
    main.append(_curve("Learning rate", rows, "lr"))
    panels = [Panel("", tuple(drawn for drawn in main if drawn is not None))]
    reward = _by_domain("Reward by domain", rows, "reward/")
    # Of a single domain the curve is the main one again.
    if len(reward.plots) > 1:
        panels.append(reward)
    panels.append(_by_domain("Teacher gap by domain", rows, "teacher_gap/"))

    return [panel for panel in panels if panel.plots]


def series(rows: Sequence[Row], value: Callable[[Row], float | None], axis: str = "step") -> Points:
    """(axis, value) of the rows that have both, in the order of the axis."""
    pairs = [(number(row, axis), value(row)) for row in rows]
    return sorted((x, y) for x, y in pairs if x is not None and y is not None)


def _curve(title: str, rows: Sequence[Row], key: str, thin: str = "") -> Plot | None:
    points = series(rows, functools.partial(number, key=key))
    lines = [Line(points)]
    if thin:
        lines.insert(0, Line(series(rows, functools.partial(number, key=thin)), "thin"))
    return plot(title, lines, _last(points))


def _kept_groups(rows: Sequence[Row]) -> Plot | None:
    """The share of groups that dynamic filtering kept, of all that were sampled."""

    def share(row: Row) -> float | None:
        kept, groups = number(row, "kept_groups"), number(row, "groups")
        return kept / groups if kept is not None and groups else None

    points = series(rows, share)
    return plot("Groups kept, of those sampled", [Line(points)], _last(points), y=(0.0, 1.0))


def _by_domain(title: str, rows: Sequence[Row], prefix: str) -> Panel:
    """One plot per domain, all on the same scale."""
    keys = {key for row in rows for key in row if key.startswith(prefix)}
    names = sorted(key.removeprefix(prefix) for key in keys)
    points_of = {name: series(rows, functools.partial(number, key=prefix + name)) for name in names}
    values = [y for points in points_of.values() for _, y in points]
    scale = None
    if values and min(values) < max(values):
        scale = min(values), max(values)
    plots = []
    for name, points in points_of.items():
        drawn = plot(name, [Line(points)], _last(points), y=scale)
        if drawn is not None:
            plots.append(drawn)

    return Panel(title, tuple(plots))


def _last(points: Points) -> str:
    """The last value in words; empty where there is none."""
    return format_tick(points[-1][1]) if points else ""
