"""What a person must hear about a model that does not write as its template expects."""

from __future__ import annotations

from collections.abc import Sequence

from linn.chat.template import Template
from linn.types import Rollout

MOST = 0.5
"""A share of replies above which the line is said."""


def unclosed_share(rollouts: Sequence[Rollout]) -> float:
    """Share of rollouts whose last thought never ended."""
    return sum(rollout.unclosed for rollout in rollouts) / max(1, len(rollouts))


def rewritten_share(rollouts: Sequence[Rollout]) -> float:
    """Share of rollouts that hold more of their history than the template would write."""
    return sum(rollout.rewritten for rollout in rollouts) / max(1, len(rollouts))


def warnings(rollouts: Sequence[Rollout], template: Template) -> list[str]:
    """A line for each thing that makes rewards or transcripts other than they seem."""
    lines = []
    asked = [rollout for rollout in rollouts if rollout.prompt.thinking or rollout.unclosed]
    share = unclosed_share(asked)
    if share > MOST:
        domains = ", ".join(sorted({r.prompt.domain for r in asked if r.unclosed}))
        lines.append(
            f"⚑ {share:.0%} of {len(asked)} replies never closed their thought "
            f"({template.thought_end}), so they have no answer ({domains}): the model does not "
            "write such thoughts, or max_tokens is too small; domains.NAME.thinking: false asks "
            f"for none, and template: {_other(template)} is the other template"
        )
    kept = rewritten_share(rollouts)
    if kept > 0:
        lines.append(
            f"{kept:.0%} of {len(rollouts)} conversations hold earlier turns otherwise than the "
            "chat template would write them once a turn follows (thoughts cut, marks changed); "
            "what the model saw is kept and trained"
        )
    return lines


def _other(template: Template) -> str:
    return "nemotron" if template.name == "own" else "own"
