"""The results for a person: one table of at most 80 columns."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def show(results: dict[str, Any], console: Console) -> None:
    """Print it. CPU seconds: what other programs do at the same time hardly changes them."""
    table = Table(box=None, pad_edge=False, title="tokens per CPU second, one thread")
    table.add_column("work")
    table.add_column("peer")
    for column in ("linn", "peer", "ratio", "(range)", "wall", "MB"):
        table.add_column(column, justify="right")
    notes = []
    for name, result in results.items():
        for peer, found in result["peers"].items():
            if "skipped" in found:
                table.add_row(name, peer, "", "–")
                notes.append(f"{name}, {peer}: {found['skipped']}")
                continue
            table.add_row(name, peer, *_cells(found))
    console.print(table)
    for note in notes:
        console.print(note)


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
