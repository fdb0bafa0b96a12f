"""The ledger and the recovery as tables for a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from linn.ledger import regressions
from linn.report.files import Run, read_run
from linn.report.tables import BEST, GAIN, LOSS, TEACHER, Cell, recovery_table, table


def print_tables(folder: Path) -> None:
    """Print the cascade table (test split, sampled and greedy), what stages cost, and what each distillation gave back."""
    run = read_run(folder)
    console = Console()
    for metric, meaning in (("accuracy", "sampled as trained"), ("greedy", "greedy")):
        _cascade(console, run, metric, meaning)
    _losses(console, run)
    for stage in run.stages:
        if stage.teachers and stage.parent:
            _recovery(console, run, stage.name, stage.parent, stage.teachers)


def _cascade(console: Console, run: Run, metric: str, meaning: str) -> None:
    shown = table(run.scores, run.parents, metric=metric, teachers=run.taught)
    if not shown.rows:
        return
    cells = [cell for _, row in shown.rows for cell in row if cell is not None]
    ns = sorted({cell.score.n for cell in cells})
    widest = max(
        max(cell.score.high - cell.score.value, cell.score.value - cell.score.low) for cell in cells
    )
    title = f"{run.about.get('name', 'run')}: test split, {meaning}, in %; n {'–'.join(map(str, dict.fromkeys((ns[0], ns[-1]))))} a cell, 95 % intervals at most ±{100 * widest:.0f}"
    console.print(title, style="bold", highlight=False)
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 0))
    grid.add_column("stage", no_wrap=True)
    for domain in shown.domains:
        grid.add_column(domain.replace("_", " "), justify="right", overflow="fold", max_width=6)
    for stage, row in shown.rows:
        grid.add_row(stage, *(_short(cell) for cell in row))
    console.print(grid)
    console.print(
        f"{TEACHER} teacher  {BEST} best  {GAIN}{LOSS} gained or lost beyond the interval against the stage it started from",
        style="dim",
    )


def _short(cell: Cell | None) -> str:
    if cell is None:
        return ""
    mark = LOSS if cell.lost else GAIN if cell.gained else ""
    return f"{100 * cell.score.value:.0f}{cell.star}{mark}"


def _losses(console: Console, run: Run) -> None:
    for change in regressions(run.scores, run.parents):
        before, after = change.before, change.after
        console.print(
            f"{LOSS} {change.stage} cost {change.domain} {before.value:.1%} → {after.value:.1%} "
            f"({change.by.value:+.1%} [{change.by.low:+.1%}, {change.by.high:+.1%}], n {after.n})",
            highlight=False,
        )


def _recovery(console: Console, run: Run, name: str, parent: str, teachers: dict[str, str]) -> None:
    for metric in ("accuracy", "greedy"):
        lines, total = recovery_table(run.scores, parent, name, teachers, metric=metric)
        if not lines:
            continue
        title = f"{name}: recovery, (after − start)/(teacher − start), test split, {metric}"
        console.print(title, style="bold", highlight=False)
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
        for column in (
            "domain",
            "teacher",
            "start",
            "after",
            "teacher's",
            "recovery",
            "95 % interval",
        ):
            grid.add_column(column, justify="left" if column in ("domain", "teacher") else "right")
        for line in lines:
            share = line.share
            shown = (
                ("–", "–")
                if share is None
                else (f"{share.value:.0%}", f"[{share.low:.0%}, {share.high:.0%}]")
            )
            grid.add_row(
                line.domain,
                line.teacher.stage,
                *(f"{s.value:.1%}" for s in (line.start, line.after, line.teacher)),
                *shown,
            )
        console.print(grid)
        if total is not None:
            console.print(
                f"– nothing was lost; mean recovery of what was lost: {total.value:.0%} [{total.low:.0%}, {total.high:.0%}]",
                highlight=False,
            )
