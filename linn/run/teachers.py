"""Who teaches each domain in a distillation stage: named by the recipe, or the ledger's best."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from linn.errors import UserError
from linn.ledger import Choice, RewardsOf, no_rewards, place_of, teacher_of
from linn.recipe.stages import DistillConfig
from linn.types import Score


@dataclass(frozen=True)
class Candidates:
    """The checkpoints that may teach."""

    earlier: Sequence[str]
    """`base` and the stages before the distillation."""
    line: Sequence[str]
    """The stage that the student starts from, then that stage's own start, and so on."""
    last_step: Callable[[str], int]
    """The step a stage ended with."""
    is_there: Callable[[str, int], bool]
    """Whether the checkpoint of a stage at a step is on disk."""


def choose_teachers(
    config: DistillConfig,
    domains: Sequence[str],
    candidates: Candidates,
    rows: Sequence[Score],
    rewards: RewardsOf = no_rewards,
) -> tuple[dict[str, str], list[str]]:
    """The teaching checkpoint of every domain, and a line for each choice that needs a reason.

    A checkpoint is written `sft`, or `sft:40` where it was kept within a stage. `rows`: the
    ledger's. Raises UserError where a teacher is not there, or nothing was evaluated to choose by.
    """
    words = dict.fromkeys(domains, "best")
    if isinstance(config.teachers, dict):
        words = {domain: config.teachers[domain] for domain in domains}

    teachers: dict[str, str] = {}
    notes = []
    missing = []
    for domain in domains:
        if words[domain] != "best":
            teachers[domain] = _named(config, domain, words[domain], candidates)
            continue
        choice = teacher_of(rows, domain, candidates.line, _fits(candidates), rewards)
        if choice is None:
            missing.append(domain)
            continue
        teachers[domain] = _place(choice.row, candidates)
        if choice.row != choice.top:
            notes.append(_reason(domain, choice, candidates))

    if missing:
        raise UserError(
            f"stage {config.name}: the ledger has no validation score for {', '.join(missing)}; "
            "evaluate an earlier stage"
        )
    return teachers, notes


def _fits(candidates: Candidates) -> Callable[[Score], bool]:
    def fits(row: Score) -> bool:
        return row.stage in candidates.earlier and candidates.is_there(row.stage, row.step)

    return fits


def _named(config: DistillConfig, domain: str, place: str, candidates: Candidates) -> str:
    """A checkpoint that the recipe names: it need not be evaluated, but it must be there."""
    stage, _, step = place.partition(":")
    number = int(step) if step else candidates.last_step(stage)
    if not candidates.is_there(stage, number):
        what = f"at step {number} is not kept; keep it" if step else "is not there yet; run it"
        raise UserError(f"stage {config.name}: teacher {stage} of {domain} {what} first")
    return stage if number == candidates.last_step(stage) else place


def _place(row: Score, candidates: Candidates) -> str:
    return place_of(row, candidates.last_step(row.stage))


def _reason(domain: str, choice: Choice, candidates: Candidates) -> str:
    """Why a checkpoint teaches that is not the highest."""
    row, top = choice.row, choice.top
    own = f"{_place(row, candidates)} ({row.value:.1%})"
    highest = f"{_place(top, candidates)} ({top.value:.1%})"
    if choice.why == "tie":
        return f"{domain}: {own} teaches: it ties with {highest} and is of the student's own line"
    return (
        f"{domain}: {own}, the student's own start, teaches: not even {highest} is ahead of it by "
        "more than a standard error"
    )
