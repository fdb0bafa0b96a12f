"""What provers, verifiers and judges of proofs read, and how their answers are read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from linn.domains.common.boxes import flat_boxes
from linn.judges.marks import keyed_question
from linn.judges.text import FENCES, Question, fenced

SCORES = (0.0, 0.5, 1.0)
"""The scores of a proof."""
LONGEST_ANALYSIS = 20_000
"""Characters of a verifier's or a judge's answer; of a longer one, only the end is read."""

_LONGEST_PROOF = 40_000
_LONGEST_SCORE = 20
_AFTER = 40
"""Characters that may follow the boxed score: a score quoted in passing does not count."""
_SCORE = re.compile(r"0|1|0?\.5|0\.50?|[01]\.0")
_SOLUTION = re.compile(r"^[ \t]*## Solution[ \t]*$", re.MULTILINE)
_SELF = re.compile(r"^[ \t]*## Self Evaluation[ \t]*$", re.MULTILINE)

_SCALE = """\
1: complete, every step justified, nothing wrong.
0.5: the whole argument is right, but small steps are missing or carry small slips.
0: it does not prove what was asked: a wrong step that matters, a gap in substance, a circle, \
or an answer without a proof."""
PROVE = f"""\
Solve the problem below with a full and rigorous proof. If it asks for an answer, prove that the \
answer is right.

Write the proof under the heading `## Solution`. Then, under the heading `## Self Evaluation`, \
check your own proof without mercy and end with its score in \\boxed{{{{}}}}, on this scale:
{_SCALE}

<problem>
{{problem}}
</problem>"""
"""What a prover reads of a problem in words."""
VERIFY = """\
Judge whether the proof solves the problem. Go through it step by step, say where it is wrong or \
incomplete, and end with its score in \\boxed{{}}, on this scale:
{scale}
{known}{fences}

{texts}"""
"""What a verifier reads."""
_JUDGE_PROOF = """\
Judge whether the proof solves the problem. Go through it step by step, say where it is wrong or \
incomplete, and give its score on this scale:
{scale}
{known}"""
"""What a judge of proofs is to do."""
_JUDGE_ANALYSIS = """\
Below are a problem, a proof, and someone's analysis of the proof. Judge the analysis, not the \
proof: are the faults that it names really there, and does its score follow from them? Its own \
score is 1 if it is sound, 0.5 if it is partly so, 0 if not.
{known}"""
"""What a judge of analyses is to do."""
_KNOWN = {
    "reference": "reference is one right solution; others may be as good.",
    "guidelines": "guidelines tell what to look for; they go before the scale.",
    "expert": "expert is an analysis by an expert.",
}
"""What a judge is told of the texts that it alone sees."""


def verifiers_text(problem: str, proof: str) -> str:
    """What a verifier reads of a problem in words; neither text can close the marks around it."""
    texts = fenced([("problem", problem), ("proof", proof)])
    return VERIFY.format(scale=_SCALE, known="", fences=FENCES, texts=texts)


def proof_question(reply: int, **texts: str) -> Question:
    """What a judge of proofs is asked: `problem`, `proof`, and what else is known of them.

    `reply`: which sibling wrote the proof. Empty texts are left out.
    """
    return _judges_question(_JUDGE_PROOF, reply, texts)


def analysis_question(reply: int, **texts: str) -> Question:
    """What a judge of analyses is asked: `problem`, `proof`, `expert` and `analysis`."""
    return _judges_question(_JUDGE_ANALYSIS, reply, texts)


def _judges_question(template: str, reply: int, texts: Mapping[str, str]) -> Question:
    filled = [(name, text) for name, text in texts.items() if text]
    known = "".join(f"{_KNOWN[name]}\n" for name, _ in filled if name in _KNOWN)
    task = template.format(scale=_SCALE, known=known).rstrip("\n")
    form = "the score alone: 0, 0.5 or 1."
    return keyed_question(task, filled, form, score_in, (reply,))


def formal_text(header: str, statement: str) -> str:
    """What a prover reads of a statement in Lean."""
    return (
        f"Complete this Lean 4 code:\n\n```lean4\n{header}{statement.rstrip()}\n```\n\n"
        "Plan the proof first. Then give it in one last ```lean4 block: the statement word for "
        "word, then its proof. No lemmas, options or commands besides."
    )


def derivation_text(problem: str) -> str:
    """What a prover reads of an equation."""
    return f"{problem} ## Solution: one replacement a step. ## Self Evaluation: box 0, 0.5 or 1."


def rating_text(problem: str, proof: str) -> str:
    """What a verifier reads of an equation and its derivation."""
    return f"{problem} proof: {proof}. rate it: box 0, 0.5 or 1."


# ---------------------------------------------------------------- answers


def score_in(verdict: str) -> float | None:
    """The 0, 0.5 or 1 that a judge's verdict is, boxed or not; None where it is none."""
    boxes = flat_boxes(verdict, spaced=True, longest=_LONGEST_SCORE)
    if len(boxes) == 1 and verdict == verdict[boxes[0].start : boxes[0].end]:
        verdict = boxes[0].inner
    score = verdict.strip()
    return float(score) if _SCORE.fullmatch(score) else None


def score_of(text: str) -> float | None:
    """The boxed 0, 0.5 or 1 that ends a text; None where it ends otherwise."""
    end = text[-LONGEST_ANALYSIS:].rstrip()
    boxes = flat_boxes(end, spaced=True, longest=_LONGEST_SCORE)
    if not boxes or len(end) - boxes[-1].end > _AFTER:
        return None
    score = boxes[-1].inner.strip()
    return float(score) if _SCORE.fullmatch(score) else None


class ProofParts(NamedTuple):
    """A prover's answer, taken apart."""

    proof: str
    """The text under `## Solution`, or all that stands before the self-evaluation."""
    own_score: float | None
    """The prover's score of its own proof; None where it was not asked for."""
    fault: str
    """Why the answer is badly formed; empty where it is not."""


def parts_of(text: str, rated: bool) -> ProofParts:
    """The parts of a prover's answer; `rated`: a self-evaluation was asked for."""
    before, *after = _SELF.split(text, maxsplit=1)
    own_score = score_of(after[0]) if after else None

    heading = _SOLUTION.search(before)
    proof = before[heading.end() :] if heading else before
    proof = proof.strip()

    if rated and own_score is None:
        fault = "no `## Self Evaluation` that ends in a boxed 0, 0.5 or 1"
    elif not proof:
        fault = "there is no proof"
    elif len(proof) > _LONGEST_PROOF:
        fault = f"the proof is longer than {_LONGEST_PROOF} characters"
    else:
        fault = ""
    return ProofParts(proof, own_score if rated else None, fault)


def reply_of(proof: str, score: float) -> str:
    """A prover's answer: a proof and its own score of it."""
    return f"## Solution\n{proof}\n## Self Evaluation\n\\boxed{{{score:g}}}"
