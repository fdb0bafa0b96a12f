"""The paragraph at the top of the page, in computed words.

What was gained, what was lost, and what distillation gave back.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum
from typing import NamedTuple

from linn.ledger import latest
from linn.report.files import RunFiles, StageFiles
from linn.report.numbers import count_of, format_percent, format_score
from linn.report.tables import Cell, Recovery, Table, recovery

NAMED = 3
"""Losses that are named; of more, the sentence says that there are."""


def summary(
    run: RunFiles,
    table: Table,
    given: Sequence[tuple[StageFiles, Recovery]],
) -> list[str]:
    """Sentences, in order."""
    if run.compare and not run.stages:
        return ["A comparison of several runs; each has a report of its own in its seed's folder."]
    if not table.rows:
        return ["Nothing has been measured on the test split yet."]
    sentences = [*_course(run), *_moves(run, table)]
    for stage, found in given:
        sentences.append(given_back(stage, found))
    sentences += _failures(table)

    return sentences


def _course(run: RunFiles) -> list[str]:
    """From the first measured stage to the last, over the domains both have."""
    scores = latest(run.scores, "test", "accuracy")
    measured = {stage for stage, _ in scores}
    stages = [name for name in run.parents if name in measured]
    first, last = stages[0], stages[-1]
    shared = [d for stage, d in scores if stage == first and (last, d) in scores]
    if first == last or not shared:
        return [f"Only {first} has been measured so far."]
    before = fsum(scores[first, domain].value for domain in shared) / len(shared)
    after = fsum(scores[last, domain].value for domain in shared) / len(shared)
    verb = "stayed"

    if after > before:
        verb = "rose"
    elif after < before:
        verb = "fell"

    domains = count_of(len(shared), "domain")

    return [
        f"From {first} to {last}, the mean test score over {domains} {verb} "
        f"from {format_score(before)} to {format_score(after)}."
    ]


def recoveries(run: RunFiles) -> list[tuple[StageFiles, Recovery]]:
    """What every distillation gave back, of those that were measured."""
    found = []
    for stage in run.stages:
        if not stage.teachers or not stage.parent:
            continue
        own = recovery(run.scores, stage.parent, stage.name, stage.teachers, rewards=run.rewards)
        if own is not None:
            found.append((stage, own))
    return found


class _Move(NamedTuple):
    """A measured change."""

    stage: str
    cell: Cell
    by: float


def _moves(run: RunFiles, table: Table) -> list[str]:
    """How many changes stand out in the table, and the largest losses by name."""
    moves = []
    for stage, cell in table.cells:
        if cell.change is not None:
            moves.append(_Move(stage, cell, cell.change.by.value))

    gains = [move for move in moves if move.cell.gained]
    losses = [move for move in moves if move.cell.lost]
    sentences = []
    if gains:
        sentences.append(_gain_sentence(gains, len(moves)))
    if losses:
        sentences.append(_loss_sentence(losses, _lineage(run, table.rows[-1][0])))
    elif moves:
        sentences.append("No stage's loss stands out in the table.")

    return sentences


def _gain_sentence(gains: list[_Move], measured: int) -> str:
    largest = max(gains, key=lambda move: move.by)
    were = "is a gain that stands" if len(gains) == 1 else "are gains that stand"
    return (
        f"Of {measured} measured changes {len(gains)} {were} out, the largest "
        f"{largest.cell.score.domain} in {largest.stage}, by {format_score(largest.by)}."
    )


def _loss_sentence(losses: list[_Move], lineage: set[str]) -> str:
    # First what the last stage inherits: a loss on a side branch may never matter.
    ordered = sorted(losses, key=lambda move: (move.stage not in lineage, move.by))
    named = ", ".join(
        f"{move.stage} cost {move.cell.score.domain} {format_score(-move.by)}"
        for move in ordered[:NAMED]
    )
    aside = sum(move.stage not in lineage for move in losses)
    were = "is a loss" if len(losses) == 1 else "are losses"
    stand = "stands" if len(losses) == 1 else "stand"
    branch = f" ({aside} on side branches)" if aside else ""
    end = ", …" if len(losses) > NAMED else "."

    return f"{len(losses)} {were} that {stand} out{branch}: {named}{end}"


def _lineage(run: RunFiles, stage: str) -> set[str]:
    """The stage and everything it came from."""
    lineage: set[str] = set()
    ancestor: str | None = stage
    while ancestor is not None and ancestor not in lineage:
        lineage.add(ancestor)
        ancestor = run.parents.get(ancestor)
    return lineage


def given_back(stage: StageFiles, found: Recovery) -> str:
    """The share of the gap to the teachers, pooled over every taught domain."""
    pooled = found.pooled
    domains = count_of(len(found.domains), "taught domain")
    if pooled.share is None:
        return (
            f"{stage.name} had no gap to its teachers that can be told from 0 over {domains} "
            f"({format_score(pooled.gap.value)}, 95 % interval {format_score(pooled.gap.low)} to "
            f"{format_score(pooled.gap.high)}), so there is no share to give."
        )
    low, high = format_percent(pooled.share.low), format_percent(pooled.share.high)
    return (
        f"{stage.name} closed {format_percent(pooled.share.value)} of the gap to its teachers, "
        f"pooled over {domains} (95 % interval {low} to {high})."
    )


def _failures(table: Table) -> list[str]:
    """What failed is no wrong answer, and no secret."""
    if not table.failed:
        return []
    prompts = sum(score.failed for _, score in table.failed)
    names = ", ".join(sorted({score.domain for _, score in table.failed}))
    return [f"{count_of(prompts, 'test prompt')} of {names} left the scores: rollouts failed."]


def greedy_moves(run: RunFiles, table: Table) -> list[str]:
    """The largest loss and the largest gain in the greedy table, if it marks any.

    What sampling hides: a domain may fall to nothing at temperature 0 alone.
    """
    values = {
        (stage, cell.score.domain): cell.score.value
        for stage, cells in table.rows
        for cell in cells
        if cell is not None
    }
    moves = []
    for stage, cells in table.rows:
        for cell in cells:
            if cell is None or not (cell.lost or cell.gained):
                continue
            domain, after = cell.score.domain, cell.score.value
            before = values.get((run.parents[stage] or "", domain))
            if before is not None:
                ends = f"from {format_score(before)} to {format_score(after)}"
                moves.append((after - before, f"{domain} in {stage}, {ends}"))
    if not moves:
        return []

    loss, gain = min(moves), max(moves)
    parts = []
    if loss[0] < 0:
        parts.append(f"the largest loss is {loss[1]}")
    if gain[0] > 0:
        parts.append(f"the largest gain is {gain[1]}")
    where = "At temperature 0"
    if table.unmeasured:
        measured = len(table.rows) - len(table.unmeasured)
        where += f", measured after {measured} of {len(table.rows)} stages,"
    return [f"{where} {'; '.join(parts)}."]
