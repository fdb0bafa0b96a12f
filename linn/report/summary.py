"""The paragraph at the top of the page: what was gained, what was lost, what distillation gave back, in computed words."""

from __future__ import annotations

from collections.abc import Sequence
from math import fsum

from linn.ledger import Interval, latest
from linn.report.files import Run, StageFiles
from linn.report.tables import Recovery, Table, short


def summary(
    run: Run, table: Table, given_back: Sequence[tuple[StageFiles, list[Recovery], Interval | None]]
) -> list[str]:
    """Sentences, in order."""
    if run.compare and not run.stages:
        return ["A comparison of several runs; each has a report of its own in its seed's folder."]
    if not table.rows:
        return ["Nothing has been measured on the test split yet."]
    return [
        *_course(run),
        *_moves(run, table),
        *(sentence for entry in given_back for sentence in _given_back(*entry)),
    ]


def _course(run: Run) -> list[str]:
    """From the first measured stage to the last, over the domains both have."""
    found = latest(run.scores, "test", "accuracy")
    stages = [name for name in run.parents if any(stage == name for stage, _ in found)]
    first, last = stages[0], stages[-1]
    shared = [domain for stage, domain in found if stage == first and (last, domain) in found]
    if first == last or not shared:
        return [f"Only {first} has been measured so far."]
    before = fsum(found[first, domain].value for domain in shared) / len(shared)
    after = fsum(found[last, domain].value for domain in shared) / len(shared)
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    over = _count(len(shared), "domain")
    return [
        f"From {first} to {last}, the mean test score over {over} {verb} from {short(before)} to {short(after)}."
    ]


def _moves(run: Run, table: Table) -> list[str]:
    """How many cells moved beyond their interval; the largest losses by name, those on the way to the last stage first."""
    line = _lineage(run, table.rows[-1][0])
    cells = [
        (stage, cell, cell.change.value)
        for stage, cells in table.rows
        for cell in cells
        if cell is not None and cell.change is not None
    ]
    gained = [entry for entry in cells if entry[1].gained]
    lost = sorted(
        (entry for entry in cells if entry[1].lost),
        key=lambda entry: (entry[0] not in line, entry[2]),
    )
    sentences = []
    if gained:
        stage, cell, by = max(gained, key=lambda entry: entry[2])
        were = "was a gain" if len(gained) == 1 else "were gains"
        most = f"the largest {cell.score.domain} in {stage}, by {short(by)}"
        sentences.append(
            f"Of {len(cells)} measured changes {len(gained)} {were} beyond the interval, {most}."
        )
    if lost:
        aside = sum(stage not in line for stage, _, _ in lost)
        named = ", ".join(
            f"{stage} cost {cell.score.domain} {short(-by)}" for stage, cell, by in lost[:3]
        )
        were, more = (
            "was a loss" if len(lost) == 1 else "were losses",
            ", …" if len(lost) > 3 else ".",
        )
        branch = f" ({aside} on side branches)" if aside else ""
        sentences.append(f"{len(lost)} {were} beyond the interval{branch}: {named}{more}")
    elif cells:
        sentences.append("No stage cost a domain more than the interval.")
    return sentences


def _lineage(run: Run, stage: str) -> set[str]:
    """The stage and everything it came from."""
    found: set[str] = set()
    at: str | None = stage
    while at is not None and at not in found:
        found.add(at)
        at = run.parents.get(at)
    return found


def _given_back(stage: StageFiles, lines: list[Recovery], total: Interval | None) -> list[str]:
    if not lines:
        return []
    behind = sum(line.share is not None for line in lines)
    if total is None:
        return [
            f"{stage.name} had nothing to recover: no teacher was beyond the interval of {stage.parent}."
        ]
    return [
        f"{stage.name} began below its teacher in {behind} of {_count(len(lines), 'domain')} and on average gave back "
        f"{percent(total.value)} of the gap (95 % interval {percent(total.low)} to {percent(total.high)})."
    ]


def percent(value: float) -> str:
    """A share for people, with a true minus sign."""
    return f"{round(value * 100) + 0:d} %".replace("-", "−")


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'' if n == 1 else 's'}"
