"""Numbers for people: scores, shares and axis labels, with a true minus sign."""

from __future__ import annotations


def format_score(value: float) -> str:
    """Two decimals; never `-0.00`."""
    return f"{round(value, 2) + 0.0:.2f}".replace("-", "−")


def format_percent(value: float) -> str:
    """A share in whole percent."""
    return f"{round(value * 100) + 0:d} %".replace("-", "−")


def format_tick(value: float) -> str:
    """Three significant digits, for an axis."""
    size = abs(value)
    if size and (size < 1e-3 or size >= 1e6):
        label = f"{value:.1e}"
    elif size >= 1000 or value == int(value):
        label = f"{value:,.0f}"
    else:
        label = f"{value:.3g}"
    return label.replace("-", "−")


def format_range(values: list[int], separator: str = "–") -> str:
    """`300` where all agree, else the lowest and the highest."""
    ends = dict.fromkeys((min(values), max(values)))
    return separator.join(f"{value:,}" for value in ends)


def count_of(count: int, noun: str) -> str:
    """`1 domain`, `2 domains`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
