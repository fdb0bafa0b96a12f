"""Before MOPD starts: is every teacher fit to teach this student? (design §4)

Refuses what would train on nonsense; warns of what merely wastes time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from linn.errors import UserError
from linn.ledger import difference, latest
from linn.recipe.schema import DistillConfig
from linn.types import Score

_SAME = ("tokenizer.json", "chat_template.jinja", "tokenizer_config.json")


def preflight(
    keys: DistillConfig,
    student: tuple[str, Path],
    teachers: Mapping[str, tuple[str, Path]],
    rows: Iterable[Score],
) -> list[str]:
    """Warnings, one line each; raises UserError where a teacher cannot serve.

    student: (stage, folder); teachers: domain -> (stage, folder). Tokenizer, end-of-turn token and chat template must be the same bytes.
    """
    warnings: list[str] = []
    for domain, (stage, folder) in teachers.items():
        for name in _SAME:
            if _digest(student[1] / name) != _digest(folder / name):
                raise UserError(
                    f"stage {keys.name}: teacher {stage} of {domain} has another {name} than the student {student[0]}; "
                    "distillation compares token by token: take a teacher with the same tokenizer, end-of-turn token and template"
                )
    scores = latest(rows, "validation", "accuracy")
    for domain, (stage, _) in teachers.items():
        before, after = scores.get((student[0], domain)), scores.get((stage, domain))
        if stage == student[0]:
            warnings.append(
                f"{domain}: the student's own start teaches: an anchor, nothing to gain"
            )
        elif before is None or after is None:
            warnings.append(f"{domain}: teacher {stage} or student {student[0]} was never measured")
        elif difference(before, after).low <= 0:
            text = f"{domain}: teacher {stage} ({after.value:.1%}) is not beyond the student's interval ({before.value:.1%})"
            if not keys.allow_weak_teachers:
                raise UserError(
                    f"stage {keys.name}: {text}; name another teacher, leave the domain out, or set allow_weak_teachers: true"
                )
            warnings.append(text)
    return warnings


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"
