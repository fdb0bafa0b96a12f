"""Who teaches each domain in a distillation stage: named by the recipe, or the ledger's best."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from linn.errors import UserError
from linn.ledger import teachers as best_stages
from linn.recipe.stages import DistillConfig
from linn.types import Score


def choose_teachers(
    config: DistillConfig,
    domains: Sequence[str],
    earlier: Sequence[str],
    is_done: Callable[[str], bool],
    rows: Sequence[Score],
) -> dict[str, str]:
    """The teaching stage of every domain.

    `earlier`: `base` and the stages before this one; `rows`: the ledger's. Raises UserError where a
    teacher is not there, or nothing was evaluated to choose by.
    """
    words = dict.fromkeys(domains, "best")
    if isinstance(config.teachers, dict):
        words = {domain: config.teachers[domain] for domain in domains}

    candidates = [stage for stage in earlier if stage == "base" or is_done(stage)]
    undecided = [domain for domain in domains if words[domain] == "best"]
    best = best_stages(rows, undecided, candidates)
    if missing := [domain for domain in undecided if domain not in best]:
        raise UserError(
            f"stage {config.name}: the ledger has no validation score for {', '.join(missing)}; "
            "evaluate an earlier stage"
        )

    # A stage named by the recipe need not be evaluated, but it must be there.
    teachers = {domain: best.get(domain, words[domain]) for domain in domains}
    for domain, stage in teachers.items():
        if stage != "base" and not is_done(stage):
            raise UserError(
                f"stage {config.name}: teacher {stage} of {domain} is not there yet; run it first"
            )
    return teachers
