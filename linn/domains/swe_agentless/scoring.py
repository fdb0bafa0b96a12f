"""A judge model's score of a repair: its question, and how its answer is read (paper §4.7)."""

from __future__ import annotations

from collections.abc import Mapping

from linn.domains.common import diffs
from linn.judges.pairwise import read_score
from linn.judges.text import FENCES, Question, fenced, shown
from linn.types import Message, Verdict


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

    texts = fenced([(name, shown(text)) for name, text in parts])
    prompt = (
        "Judge whether a diff repairs what an issue describes, without breaking what worked. "
        f"{FENCES}{note}\n\n"
        f"{texts}\n\n"
        "Think first. End your answer with one JSON object: score, from 0 (does not repair it) "
        'to 1 (surely repairs it), e.g. {"score": 0.3}.'
    )
    return Question(
        (Message("user", prompt),), lambda answer: score_of(answer) is not None, (reply,)
    )


def verdict_of(answer: str) -> Verdict:
    """The verdict of a judge's answer; one that nobody could read decides nothing."""
    score = score_of(answer)
    if score is None:
        metrics = {"applied": 1.0, "unreliable": 1.0}
        return Verdict(0.0, "the judge gave no score", metrics, undecided=True)
    return Verdict(score, f"the judge's score: {score:g}", {"applied": 1.0})


def score_of(answer: str) -> float | None:
    """`score` of the last JSON object in a judge's answer that holds one.

    None where there is none, or it is not in [0, 1].
    """
    return read_score(answer, 0.0, 1.0)
