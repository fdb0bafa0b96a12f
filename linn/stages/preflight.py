"""Before MOPD starts: is every teacher fit to teach this student?

Refuses what would train on nonsense; warns of what merely wastes time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from linn.errors import UserError
from linn.ledger import Difference, RewardsOf, compared, no_rewards, row_at
from linn.recipe.stages import DistillConfig
from linn.types import Score


def preflight(
    config: DistillConfig,
    student: tuple[str, Path],
    teachers: Mapping[str, tuple[str, Path]],
    rows: Sequence[Score],
    rewards: RewardsOf = no_rewards,
) -> list[str]:
    """Warnings, one line each; raises UserError where a teacher cannot serve.

    student: (stage, folder); teachers: domain -> (checkpoint, folder), a checkpoint being `sft` or
    `sft:40`; rows: the ledger's; rewards: what is behind them.
    """
    for domain, teacher in teachers.items():
        _check_tokenizer(config, domain, student, teacher)

    # Teachers are chosen on validation, so their fitness is read there too.
    warnings = []
    for domain, (place, _) in teachers.items():
        before = row_at(rows, student[0], domain, "validation", "accuracy")
        after = row_at(rows, place, domain, "validation", "accuracy")

        if place == student[0]:
            warnings.append(
                f"{domain}: the student's own start teaches: an anchor, nothing to gain"
            )
        elif before is None or after is None:
            warnings.append(f"{domain}: teacher {place} or student {student[0]} was never measured")
        elif (by := compared(before, after, rewards)).low <= 0:
            warnings.append(_weakness(config, domain, place, by))
    return warnings


def _check_tokenizer(
    config: DistillConfig, domain: str, student: tuple[str, Path], teacher: tuple[str, Path]
) -> None:
    """The tokenizer must be the same bytes.

    Template and stops are the run's, whatever the folders say: a teacher reads the student's own
    tokens.
    """
    if _digest(student[1] / "tokenizer.json") != _digest(teacher[1] / "tokenizer.json"):
        raise UserError(
            f"stage {config.name}: teacher {teacher[0]} of {domain} has another tokenizer.json "
            f"than the student {student[0]}; distillation compares token by token: "
            "take a teacher with the same tokenizer"
        )


def _weakness(config: DistillConfig, domain: str, place: str, by: Difference) -> str:
    """The warning of a teacher that is not better; UserError where the recipe forbids one."""
    warning = (
        f"{domain}: teacher {place} cannot be told from the student on validation "
        f"({by.value:+.1%} [{by.low:+.1%}, {by.high:+.1%}])"
    )
    if not config.allow_weak_teachers:
        raise UserError(
            f"stage {config.name}: {warning}; name another teacher, leave the domain out, "
            "or set allow_weak_teachers: true"
        )
    return warning


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
