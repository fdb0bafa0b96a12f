"""Lean proofs: the text that is compiled for a reply, by linn and by nemo-gym's `math_formal_lean`
server.

    python -m bench.agreement.proof --reference FOLDER [--cases 2000] [--seed 0]

FOLDER: see `reference.py`. Compared without comments and line ends, since linn compiles no
comments: proofs that linn refuses to compile (`sorry`, axioms, options, …) and the replies of the
example files, among them multi-turn ones. No Lean is needed.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from bench.agreement.reference import (
    Tally,
    arguments,
    examples,
    load,
    question_of,
    replies_of,
    report,
)
from linn.domains.proof.lean_text import bare, code_of, core, proof_of

_BODIES = (
    "omega",
    "  norm_num",
    "by\n  simp",
    "by simp",
    "intro h\nexact h",
    "nlinarith [sq_nonneg (a - b)] -- done",
    "/- why -/\nlinarith",
    "sorry",
    "exact?",
    "have h : 1 + 1 = 2 := by\n  norm_num\nlinarith",
    "  constructor\n  · simp\n  · ring",
    "native_decide",
    "",
)


_FRAMES = (
    "```lean4\n%s\n```",
    "```lean\n%s\n```",
    "I try.\n```lean4\nsorry\n```\nBetter:\n```lean4\n%s\n```",
    "```\n%s\n```",
    "%s",
)


def _replies(
    folder: Path, rng: random.Random, cases: int
) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """(row, reply, where from): recorded ones, then bodies and whole statements for the statements
    of miniF2F.
    """
    rows = examples(folder, "math_formal_lean", "example")
    rows += examples(folder, "math_formal_lean", "minif2f_test")
    rows_by_question = {question_of(row): row for row in reversed(rows)}  # the first of each
    for name in ("example_rollouts", "multi_turn_success_examples", "multi_turn_full_example"):
        for rollout in examples(folder, "math_formal_lean", name):
            if row := rows_by_question.get(question_of(rollout)):
                turns = replies_of(rollout)["messages"]
                yield row, "".join(turn["content"] for turn in turns), "recorded"

    for _ in range(cases if rows else 0):
        row, body = rng.choice(rows), rng.choice(_BODIES)
        statement = row["formal_statement"].replace("sorry", "").rstrip()
        forms = (
            body,
            f"{statement}\n  {body}",
            f"{row['header']}{statement}\n  {body}",
            f"{statement.replace('theorem', 'lemma', 1)} {body}",
        )
        code = rng.choice(forms)
        yield row, rng.choice(_FRAMES).replace("%s", code), "made"


def _ours(row: Mapping[str, Any], text: str) -> tuple[str, str]:
    """(what linn compiles, "") or ("", why it doesn't)."""
    statement = row["formal_statement"]
    proof, refusal = proof_of(code_of(text), row["header"], statement)
    if refusal:
        return "", refusal
    return f"{row['header']}{core(statement)} :={proof}", ""


def _plain(text: str) -> str:
    return " ".join(bare(text).split())


def _why(theirs: str, refusal: str) -> str | None:
    if refusal:
        return "refused: sorry" if "sorry" in theirs else f"refused: {refusal}"
    if " by by" in _plain(theirs):
        return "a bare body that begins with by: the reference writes by twice"
    return None


def main() -> int:
    folder, cases, rng = arguments(__doc__, 2_000)
    module = load(folder, "math_formal_lean", "proof_utils")
    tallies = {kind: Tally(f"proof, {kind} replies") for kind in ("recorded", "made")}
    for row, text, kind in _replies(folder, rng, cases):
        ours, refusal = _ours(row, text)
        theirs = module.build_lean4_proof(text, row, module.ProofBuildConfig())
        why = partial(_why, theirs, refusal)
        tallies[kind].add(_plain(ours), _plain(theirs), why, (text, ours, theirs))
    return report(folder, list(tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
