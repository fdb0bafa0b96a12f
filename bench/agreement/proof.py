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
from pathlib import Path
from typing import Any

from bench.agreement.reference import Tally, arguments, asked, examples, load, replies_of, report
from linn.domains.proof import lean_text as lean

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


def _replies(
    folder: Path, rng: random.Random, cases: int
) -> Iterator[tuple[Mapping[str, Any], str, str]]:
    """(row, reply, where from): recorded ones, then bodies and whole statements for the statements
    of miniF2F.
    """
    rows = [
        row
        for name in ("example", "minif2f_test")
        for row in examples(folder, "math_formal_lean", name)
    ]
    for name in ("example_rollouts", "multi_turn_success_examples", "multi_turn_full_example"):
        for rollout in examples(folder, "math_formal_lean", name):
            for row in [row for row in rows if asked(row) == asked(rollout)][:1]:
                yield (
                    row,
                    "".join(turn["content"] for turn in replies_of(rollout)["messages"]),
                    "recorded",
                )
    for _ in range(cases if rows else 0):
        row, body = rng.choice(rows), rng.choice(_BODIES)
        whole = row["formal_statement"].replace("sorry", "").rstrip()
        said = rng.choice(
            (
                body,
                f"{whole}\n  {body}",
                f"{row['header']}{whole}\n  {body}",
                f"{whole.replace('theorem', 'lemma', 1)} {body}",
            )
        )
        frame = rng.choice(
            (
                "```lean4\n%s\n```",
                "```lean\n%s\n```",
                "I try.\n```lean4\nsorry\n```\nBetter:\n```lean4\n%s\n```",
                "```\n%s\n```",
                "%s",
            )
        )
        yield row, frame.replace("%s", said), "made"


def _ours(row: Mapping[str, Any], text: str) -> tuple[str, str]:
    """(what linn compiles, "") or ("", why it doesn't)."""
    proof, why = lean.proof_of(lean.code_of(text), row["header"], row["formal_statement"])
    return (
        ("", why) if why else (f"{row['header']}{lean.core(row['formal_statement'])} :={proof}", "")
    )


def _plain(text: str) -> str:
    return " ".join(lean.bare(text).split())


def main() -> int:
    folder, cases, rng = arguments(__doc__, 2_000)
    module = load(folder, "math_formal_lean", "proof_utils")
    tallies = {kind: Tally(f"proof, {kind} replies") for kind in ("recorded", "made")}
    for row, text, kind in _replies(folder, rng, cases):
        ours, refused = _ours(row, text)
        theirs = module.build_lean4_proof(text, row, module.ProofBuildConfig())

        def why(ours: str = ours, theirs: str = theirs, refused: str = refused) -> str | None:
            if not refused:
                return (
                    "a bare body that begins with by: the reference writes by twice"
                    if " by by" in _plain(theirs)
                    else None
                )
            return f"refused: {refused}" if "sorry" not in theirs else "refused: sorry"

        tallies[kind].add(_plain(ours), _plain(theirs), why, (text, ours, theirs))
    return report(folder, list(tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
