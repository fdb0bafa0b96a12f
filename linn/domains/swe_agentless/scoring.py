"""A judge model's score of a repair: what it is asked, and how its answer is read (paper §4.7)."""

from __future__ import annotations

from collections.abc import Mapping

from linn.domains.common import diffs as patches
from linn.judges.pairwise import read_score
from linn.judges.text import FENCES, Question, fenced, shown
from linn.types import Message


def question(
    issue: str, before: Mapping[str, str], after: Mapping[str, str], gold: str, reply: int
) -> Question:
    """Does this diff repair the issue? The judge sees issue, code as it was, diff, and the known patch if there is one; no reasoning."""
    touched = {path: before[path] for path in before if before[path] != after.get(path)}
    code = "\n\n".join(f"### {path}\n{text}" for path, text in touched.items())
    parts = [
        ("issue", issue),
        ("code", code),
        ("diff", patches.diff(before, after)),
        *([("known_repair", gold)] if gold else []),
    ]
    text = (
        f"Judge whether a diff repairs what an issue describes, without breaking what worked. {FENCES}"
        f"{' known_repair is one repair that is right; others may be right too.' if gold else ''}\n\n"
        f"{fenced([(name, shown(said)) for name, said in parts])}\n\n"
        "Think first. End your answer with one JSON object: score, from 0 (does not repair it) to 1 (surely repairs it), e.g. "
        '{"score": 0.3}.'
    )
    return Question((Message("user", text),), lambda answer: score_of(answer) is not None, (reply,))


def score_of(answer: str) -> float | None:
    """`score` of the last JSON object in a judge's answer that holds one; None where there is none or it is not in [0, 1]."""
    return read_score(answer, 0.0, 1.0)
