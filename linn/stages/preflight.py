"""Before MOPD starts: is every teacher fit to teach this student?

Refuses what would train on nonsense; warns of what merely wastes time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from linn.errors import UserError
from linn.ledger import difference, latest
from linn.recipe.stages import DistillConfig
from linn.types import Score


def preflight(
    config: DistillConfig,
    student: tuple[str, Path],
    teachers: Mapping[str, tuple[str, Path]],
    rows: Iterable[Score],
) -> list[str]:
    """Warnings, one line each; raises UserError where a teacher cannot serve.

    student: (stage, folder); teachers: domain -> (stage, folder); rows: the ledger's.
    """
    for domain, teacher in teachers.items():
        _check_tokenizer(config, domain, student, teacher)

    # Teachers are chosen on validation, so their fitness is read there too.
    scores = latest(rows, "validation", "accuracy")
    warnings = []
    for domain, (stage, _) in teachers.items():
        before = scores.get((student[0], domain))
        after = scores.get((stage, domain))

        if stage == student[0]:
            warnings.append(
                f"{domain}: the student's own start teaches: an anchor, nothing to gain"
            )
        elif before is None or after is None:
            warnings.append(f"{domain}: teacher {stage} or student {student[0]} was never measured")
        elif difference(before, after).low <= 0:
            warnings.append(_weakness(config, domain, before, after))
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


def _weakness(config: DistillConfig, domain: str, before: Score, after: Score) -> str:
    """The warning of a teacher that is not better; UserError where the recipe forbids one."""
    warning = (
        f"{domain}: teacher {after.stage} ({after.value:.1%}) is not beyond the student's interval "
        f"({before.value:.1%})"
    )
    if not config.allow_weak_teachers:
        raise UserError(
            f"stage {config.name}: {warning}; name another teacher, leave the domain out, "
            "or set allow_weak_teachers: true"
        )
    return warning


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
