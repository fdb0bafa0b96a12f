"""What a strategy hands back for one task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Result:
    """The answer of a strategy to one task, and what it earned."""

    answer: str
    """The reply, the submitted program or the proof; empty where there is none."""
    score: float
    """The grader's reward, the contest's points, or the verifications' mean."""
    counts: Mapping[str, float] = field(default_factory=dict)
    """Named numbers of the strategy: votes, rounds, submissions."""
    table: Mapping[str, Any] = field(default_factory=dict)
    """What else a person may want to read: submissions with their verdicts, ranks."""
