"""The ledger and the recovery as tables for a terminal of 80 columns."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from linn import terminal
from linn.ledger import GapShare, Interval, RewardsOf, Taught, loss_line
from linn.report.files import RunFiles, StageFiles, read_run
from linn.report.numbers import count_of, format_range
from linn.report.tables import (
    BEST,
    GAIN,
    LOSS,
    TEACHER,
    Cell,
    Table,
    benchmarks,
    places_without,
    recovery,
    table,
)


def print_tables(folder: Path) -> None:
    """Print the cascade table, what stages cost, and what each distillation gave back.

    All of the test split; the cascade and the recovery sampled and greedy.
    """
    run = read_run(folder)
    console = terminal.console()
    for trouble in run.troubles:
        console.print(f"⚠ {trouble}", markup=False, highlight=False, soft_wrap=True)
    rewards = run.rewards
    cascades = []
    for metric, meaning in (("accuracy", "sampled"), ("greedy", "greedy"), *benchmarks(run.scores)):
        cascade = table(
            run.scores, run.parents, metric=metric, teachers=run.taught, rewards=rewards
        )
        if cascade.rows:
            cascades.append((meaning, cascade))
            _cascade(console, run, cascade, meaning)
    if cascades:
        console.print(LEGEND, style="dim")
    for meaning, cascade in cascades:
        _below(console, cascade, meaning)
    for change in run.changes:
        console.print(f"changed: {change}", markup=False, highlight=False, soft_wrap=True)
    for stage in run.stages:
        if stage.teachers and stage.parent:
            _recovery(console, run, stage, stage.parent, rewards)


LEGEND = (
    f"{TEACHER} teacher  {BEST} best on validation  {GAIN}{LOSS} gained or lost against the stage "
    "it started from; of a run's flags at most one in twenty is false"
)

_COLUMN = 6
"""Width of a cell with its marks, and of a name that is folded."""
_WHOLE_NAMES = 78
"""Width up to which a table shows its names whole."""


def _cascade(console: Console, run: RunFiles, cascade: Table, meaning: str) -> None:
    cells = [cell for _, cell in cascade.cells]
    counts = format_range([cell.score.n for cell in cells])
    widest = max(_half_width(cell) for cell in cells)
    title = (
        f"{run.about.get('name', 'run')}: test split, {meaning}, in %; "
        f"n {counts} a cell, 95 % intervals at most ±{100 * widest:.0f}"
    )
    console.print(title, style="bold", highlight=False)
    grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 0))
    grid.add_column("stage", no_wrap=True)

    # Names are folded where they would not fit whole: eleven domains stand within 80 columns.
    names = [domain.replace("_", " ") for domain in cascade.domains]
    stages = max(len(stage) for stage, _ in cascade.rows)
    fits = stages + sum(max(len(name), _COLUMN) + 2 for name in names) <= _WHOLE_NAMES
    for name in names:
        grid.add_column(
            name,
            justify="right",
            overflow="fold",
            min_width=len(name) + 2 if fits else None,
            max_width=None if fits else _COLUMN,
        )

    for stage, row in cascade.rows:
        grid.add_row(stage, *(_cell_text(cell) for cell in row))
    console.print(grid)


def _half_width(cell: Cell) -> float:
    score = cell.score
    return max(score.high - score.value, score.value - score.low)


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    mark = ""
    if cell.lost:
        mark = LOSS
    elif cell.gained:
        mark = GAIN
    return f"{100 * cell.score.value:.0f}{cell.star}{mark}"


def _below(console: Console, cascade: Table, meaning: str) -> None:
    """What a table's cells have no room for: its losses, what failed, how it was compared."""
    if cascade.unmeasured:
        stages = ", ".join(cascade.unmeasured)
        console.print(f"– not measured at temperature 0: {stages}", highlight=False)
    losses = [change for change in cascade.changes if change.lost]
    if losses:
        console.print(f"losses, {meaning}, prompt by prompt:", style="bold", highlight=False)
    for change in losses:
        console.print(f"{LOSS} {loss_line(change)}", highlight=False)
    for stage, score in cascade.failed:
        console.print(
            f"{meaning}: {stage} left out {score.failed} of {score.n + score.failed} prompts of "
            f"{score.domain}: rollouts failed",
            highlight=False,
        )
    if not all(change.by.paired for change in cascade.changes):
        console.print(f"{meaning}: {cascade.method}", highlight=False)


_RECOVERY_COLUMNS = {
    "domain": "left",
    "teacher": "left",
    "start": "right",
    "after": "right",
    "teacher's": "right",
    "of the gap [95 %]": "right",
}
"""Heading -> alignment."""


def _recovery(
    console: Console, run: RunFiles, stage: StageFiles, parent: str, rewards: RewardsOf
) -> None:
    for metric in ("accuracy", "greedy"):
        found = recovery(
            run.scores, parent, stage.name, stage.teachers, metric=metric, rewards=rewards
        )
        if found is None:
            _not_told(console, run, stage, parent, metric)
            continue
        title = f"{stage.name}: of the gap to the teacher, test split, {metric}"
        console.print(title, style="bold", highlight=False)
        grid = Grid(box=box.SIMPLE_HEAD, padding=(0, 1))
        for heading, side in _RECOVERY_COLUMNS.items():
            grid.add_column(heading, justify="left" if side == "left" else "right")
        for taught, share in found.domains:
            grid.add_row(*_recovery_row(taught, share))
        console.print(grid)
        console.print(_pooled_line(found.pooled, len(found.domains)), highlight=False)
        if not found.paired:
            console.print("not all of it prompt by prompt: their rewards are not at hand")


def _not_told(console: Console, run: RunFiles, stage: StageFiles, parent: str, metric: str) -> None:
    """Why a run with scores of a metric has no recovery by it."""
    if not any(row.metric == metric for row in run.scores):
        return
    missing = places_without(run.scores, parent, stage.name, stage.teachers, metric=metric)
    if missing:
        text = f"{stage.name}, {metric}: no share of the gap, since not all of it was measured so:"
        console.print(f"{text} {', '.join(missing)}", highlight=False)


def _pooled_line(pooled: GapShare, count: int) -> str:
    domains = count_of(count, "taught domain")
    if pooled.share is None:
        gap = pooled.gap
        return (
            f"– pooled over {domains}, the gap to the teachers cannot be told from 0: "
            f"{gap.value:+.1%} [{gap.low:+.1%}, {gap.high:+.1%}]"
        )
    return f"– pooled over {domains}: {_percent(pooled.share)} of the gap to the teachers"


def _percent(share: Interval) -> str:
    return f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"


def _recovery_row(taught: Taught, own: GapShare) -> list[str]:
    rows = (taught.start, taught.after, taught.top)
    scores = [f"{score.value:.1%}" for score in rows]
    share = "own start" if taught.is_anchor else "no gap"
    if own.share is not None:
        share = _percent(own.share)
    return [taught.domain, taught.teacher, *scores, share]
