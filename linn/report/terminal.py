"""The ledger and the recovery as tables for a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from linn import terminal
from linn.ledger import regressions
from linn.report.files import RunFiles, read_run
from linn.report.numbers import format_range
from linn.report.tables import BEST, GAIN, LOSS, TEACHER, Cell, Recovery, recovery_table, table


def print_tables(folder: Path) -> None:
    """Print the cascade table, what stages cost, and what each distillation gave back.

    All of the test split; the cascade and the recovery sampled and greedy.
    """
    run = read_run(folder)
    console = terminal.console()
    for trouble in run.troubles:
        console.print(f"⚠ {trouble}", markup=False, highlight=False, soft_wrap=True)
    for metric, meaning in (("accuracy", "sampled as trained"), ("greedy", "greedy")):
        _cascade(console, run, metric, meaning)
    _losses(console, run)
    for change in run.changes:
        console.print(f"changed: {change}", markup=False, highlight=False, soft_wrap=True)
    for stage in run.stages:
        if stage.teachers and stage.parent:
            _recovery(console, run, stage.name, stage.parent, stage.teachers)


def _cascade(
    console: Console,
    run: RunFiles,
    metric: str,
    meaning: str,
) -> None:
    cascade = table(
        run.scores,
        run.parents,
        metric=metric,
        teachers=run.taught,
    )
    if not cascade.rows:
        return
    cells = [cell for _, row in cascade.rows for cell in row if cell is not None]
    counts = format_range([cell.score.n for cell in cells])
    widest = max(_half_width(cell) for cell in cells)
    title = (
        f"{run.about.get('name', 'run')}: test split, {meaning}, in %; "
        f"n {counts} a cell, 95 % intervals at most ±{100 * widest:.0f}"
    )
    console.print(title, style="bold", highlight=False)
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 0))
    grid.add_column("stage", no_wrap=True)

    for domain in cascade.domains:
        # A folded name keeps eleven domains within 80 columns.
        grid.add_column(
            domain.replace("_", " "),
            justify="right",
            overflow="fold",
            max_width=6,
        )

    for stage, row in cascade.rows:
        grid.add_row(stage, *(_cell_text(cell) for cell in row))
    console.print(grid)
    legend = (
        f"{TEACHER} teacher  {BEST} best  {GAIN}{LOSS} gained or lost beyond the interval "
        "against the stage it started from"
    )
    console.print(legend, style="dim")


def _half_width(cell: Cell) -> float:
    score = cell.score
    return max(score.high - score.value, score.value - score.low)


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return ""
    mark = ""
    if cell.lost:
        mark = LOSS
    elif cell.gained:
        mark = GAIN
    return f"{100 * cell.score.value:.0f}{cell.star}{mark}"


def _losses(console: Console, run: RunFiles) -> None:
    for change in regressions(run.scores, run.parents):
        before, after, by = change.before, change.after, change.by
        console.print(
            f"{LOSS} {change.stage} cost {change.domain} {before.value:.1%} → {after.value:.1%} "
            f"({by.value:+.1%} [{by.low:+.1%}, {by.high:+.1%}], n {after.n})",
            highlight=False,
        )


_RECOVERY_COLUMNS = {
    "domain": "left",
    "teacher": "left",
    "start": "right",
    "after": "right",
    "teacher's": "right",
    "recovery": "right",
    "95 % interval": "right",
}
"""Heading -> alignment."""


def _recovery(
    console: Console, run: RunFiles, name: str, parent: str, teachers: dict[str, str]
) -> None:
    for metric in ("accuracy", "greedy"):
        lines, total = recovery_table(run.scores, parent, name, teachers, metric=metric)
        if not lines:
            continue
        title = f"{name}: recovery, (after − start)/(teacher − start), test split, {metric}"
        console.print(title, style="bold", highlight=False)
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
        for heading, side in _RECOVERY_COLUMNS.items():
            grid.add_column(heading, justify="left" if side == "left" else "right")
        for line in lines:
            grid.add_row(*_recovery_row(line))
        console.print(grid)
        if total is not None:
            console.print(
                "– nothing was lost; mean recovery of what was lost: "
                f"{total.value:.0%} [{total.low:.0%}, {total.high:.0%}]",
                highlight=False,
            )


def _recovery_row(line: Recovery) -> list[str]:
    scores = [f"{score.value:.1%}" for score in (line.start, line.after, line.teacher)]
    share, interval = "–", "–"
    if line.share is not None:
        share = f"{line.share.value:.0%}"
        interval = f"[{line.share.low:.0%}, {line.share.high:.0%}]"
    return [line.domain, line.teacher.stage, *scores, share, interval]
