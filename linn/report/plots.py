"""Curves and bars as small inline SVG.

Written by hand, not by a plotting library, because a picture here is one or two paths. A page holds
some two hundred of them. They must stretch from 400 to 1600 px, follow the reader's light or dark
theme through the page's own style sheet, and stay near a kilobyte each. A plotting library's SVG
carries fonts and fixed colours of its own: tens of kilobytes per picture. Words and axis labels are
HTML around the picture, so they never shrink with it; strokes keep their width (`vector-effect` in
the style sheet).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 300.0, 100.0
"""The picture's own units; the page stretches it."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """One polyline."""

    points: Points
    """(x, y), x ascending."""
    style: str = "line"
    """CSS class: `line`, `thin a`, `thick b`, `dash` …"""


@dataclass(frozen=True)
class Plot:
    """A titled picture with the words around it."""

    title: str
    """What is drawn."""
    lines: tuple[Line, ...]
    """Drawn in this order."""
    note: str = ""
    """One short remark beside the title, such as the last value."""
    x_label: str = "step"
    """What runs to the right."""
    x: tuple[float, float] = (0.0, 1.0)
    """Ends of the axis."""
    y: tuple[float, float] = (0.0, 1.0)
    """Ends of the axis."""
    paths: tuple[tuple[str, str], ...] = field(default=())
    """(CSS class, SVG path data), computed by `plot`."""


def plot(
    title: str,
    lines: Sequence[Line],
    note: str = "",
    x_label: str = "step",
    y: tuple[float, float] | None = None,
) -> Plot | None:
    """Scale the lines into one picture; `y` fixes the axis. None where there is no point at all."""
    drawn = tuple(Line(thin_out(line.points), line.style) for line in lines if line.points)
    if not drawn:
        return None
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    x_ends = _ends(xs)
    y_ends = y or _ends(ys)

    return Plot(
        title=title,
        lines=drawn,
        note=note,
        x_label=x_label,
        x=(min(xs), max(xs)),
        y=y_ends,
        paths=tuple((line.style, _path(line.points, x_ends, y_ends)) for line in drawn),
    )


def thin_out(points: Points, most: int = 160) -> Points:
    """At most about `most` points.

    The lowest and the highest of each bucket survive, so no spike is lost.
    """
    if len(points) <= most:
        return points
    # Two points survive of each bucket.
    size = math.ceil(2 * len(points) / most)
    survivors: list[tuple[float, float]] = []
    for first in range(0, len(points), size):
        bucket = range(first, min(first + size, len(points)))
        lowest = min(bucket, key=lambda i: points[i][1])
        highest = max(bucket, key=lambda i: points[i][1])
        survivors += [points[i] for i in sorted({lowest, highest})]

    return survivors


def _ends(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    if low < high:
        return low, high
    # A constant is drawn in the middle; its size decides how far the ends are.
    room = abs(low) * 0.5 or 0.5
    return low - room, high + room


def _path(points: Points, x: tuple[float, float], y: tuple[float, float]) -> str:
    def place(point: tuple[float, float]) -> str:
        right = (point[0] - x[0]) / (x[1] - x[0])
        up = (point[1] - y[0]) / (y[1] - y[0])
        # A fixed axis may be shorter than the values: what lies outside is drawn at its end.
        up = min(1.0, max(0.0, up))
        return f"{right * WIDTH:.1f} {HEIGHT * (1 - up):.1f}"

    # A single point becomes a line of no length, which round caps show as a dot.
    if len(points) == 1:
        return f"M{place(points[0])}h0"
    return "M" + "L".join(place(point) for point in points)
