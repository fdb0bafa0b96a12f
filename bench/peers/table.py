"""The results for a person: one table of at most 80 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

EXACT = 1e-4
"""Above this a peer's log-probs are not those of the same work."""


def show(results: dict[str, Any], console: Console) -> None:
    """Print it. CPU seconds: what other programs do at the same time hardly changes them."""
    table = Table(box=None, pad_edge=False, title="tokens per CPU second, on one thread")
    table.add_column("work and peer")
    for column in ("linn", "peer", "ratio", "(range)", "wall", "MB, both"):
        table.add_column(column, justify="right")
    notes = []
    for name, result in results.items():
        table.add_row(name)
        for peer, found in result["peers"].items():
            if "skipped" in found:
                notes.append(f"{name}, {peer}: {found['skipped']}")
                continue
            table.add_row(f"  {peer}", *_cells(found))
            # The setting that was compared is part of the figure.
            notes += [f"{name}, {peer}: {line}" for line in _remarks(found)]
    console.print(table)
    for note in notes:
        console.print(note)


def _remarks(found: dict[str, Any]) -> list[str]:
    """What a reader must know of a peer's figures."""
    lines = []
    if found["setting"]:
        settings = ", ".join(f"{key} {value}" for key, value in found["setting"].items())
        lines.append(f"its best setting: {settings}")
    off_by = found["peer"]["turns"][0].get("log-probs off by", 0.0)
    if off_by > EXACT:
        lines.append(f"NOT the same work, its log-probs are off by {off_by:.1e}")
    return lines


def _cells(found: dict[str, Any]) -> list[str]:
    cpu, wall = found["ratio"]["cpu"], found["ratio"]["wall"]
    speeds = [found[side]["tokens per cpu second"] for side in ("linn", "peer")]
    peaks = [found[side]["peak bytes"] for side in ("linn", "peer")]
    memory = "/".join("?" if peak is None else f"{peak / 1e6:.0f}" for peak in peaks)
    return [
        *(f"{speed:,.0f}" for speed in speeds),
        f"{cpu['median']:.2f}",
        f"({cpu['low']:.2f}-{cpu['high']:.2f})",
        f"{wall['median']:.2f}",
        memory,
    ]
