"""A judge model's score of a repair: its question, and how its answer is read (paper §4.7)."""

from __future__ import annotations

from collections.abc import Mapping

from linn.domains.common import diffs
from linn.judges.marks import keyed_question
from linn.judges.pairwise import score_in
from linn.judges.text import Question, shown
from linn.types import Verdict


def question(
    issue: str, before: Mapping[str, str], after: Mapping[str, str], gold: str, reply: int
) -> Question:
    """Does this diff repair the issue?

    The judge sees the issue, the code as it was, the diff, and the known patch if there is one; no
    reasoning. `reply`: which of the siblings made the diff.
    """
    touched = {path: text for path, text in before.items() if text != after.get(path)}
    code = "\n\n".join(f"### {path}\n{text}" for path, text in touched.items())
    parts = [
        ("issue", issue),
        ("code", code),
        ("diff", diffs.diff(before, after)),
    ]
    note = ""
    if gold:
        parts.append(("known_repair", gold))
        note = " known_repair is one repair that is right; others may be right too."

    task = (
        f"Judge whether a diff repairs what an issue describes, without breaking what worked.{note}"
    )
    form = (
        "one JSON object, with score from 0 (does not repair it) to 1 (surely repairs it), "
        'e.g. {"score": 0.3}.'
    )
    return keyed_question(
        task, [(name, shown(text)) for name, text in parts], form, repair_score, (reply,)
    )


def verdict_of(score: float | None) -> Verdict:
    """The verdict of a judge's score; where nobody could read one, nothing is decided."""
    if score is None:
        metrics = {"applied": 1.0, "unreliable": 1.0}
        return Verdict(0.0, "the judge gave no score", metrics, undecided=True)
    return Verdict(score, f"the judge's score: {score:g}", {"applied": 1.0})


def repair_score(verdict: str) -> float | None:
    """`score` of a verdict that is one JSON object, in [0, 1]; None where there is none."""
    return score_in(verdict, 0.0, 1.0)
