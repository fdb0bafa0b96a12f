"""Preference: pairs, group rewards and the reading of verdicts, by linn and by nemo-gym's
`genrm_compare` server.

    python -m bench.agreement.preference --reference FOLDER [--cases 5000] [--seed 0]

FOLDER: see `reference.py`. Rewards are compared up to 1e-9: ties, means, length terms, bonuses with
random weights.
"""

from __future__ import annotations

import json
import logging
import random
import sys
from collections.abc import Mapping
from typing import Any

from bench.agreement.reference import Tally, arguments, load, report
from linn.judges.pairwise import (
    Comparison,
    Shaping,
    base_rewards,
    group_rewards,
    pairs_of,
    read_comparison,
)

_FRAMES = (
    "%s",
    "```json\n%s\n```",
    "I think so.\n\n%s",
    "%s\nThat is all.",
    "first {not json} then %s",
    "```\n%s\n```",
    '{"note": {"a": 1}} %s',
    "{%s",
)
_ODD = (None, "4", "four", True, 0, 9, -1, 2.5, float("nan"), 1e400, [], {})


def _group(rng: random.Random) -> tuple[list[str], list[str]]:
    count = rng.randint(2, 16)
    texts = []
    for _ in range(2 * count):
        indent = " " * rng.randint(0, 2)
        words = "x" * rng.choice((0, 1, 5, 5, rng.randint(0, 200)))
        texts.append(indent + words + "\n" * rng.randint(0, 1))
    return texts[:count], texts[count:]


def _rewards(rng: random.Random, module: Any, tally: Tally) -> None:
    thoughts, answers = _group(rng)
    kind = rng.choice(("all", "circular"))
    pairs = pairs_of(len(answers), kind, "given")  # type: ignore[arg-type]
    theirs_pairs = module.generate_comparison_pairs(
        {"all": "all_pairs"}.get(kind, kind), len(answers)
    )
    comparisons = [
        Comparison(rng.randint(1, 5), rng.randint(1, 5), rng.choice((1, 2, 3, 3.5, 4, 5, 6)))
        for _ in pairs
    ]
    weights = [rng.choice((0.0, 0.5, 0.3, 1.0)) for _ in range(4)]
    top = rng.choice((0.2, 0.2, 0.1, 0.5, 1.0))
    base = base_rewards(len(answers), pairs, comparisons)
    ours = group_rewards(base, thoughts, answers, Shaping(*weights, top))

    output = [
        {
            "output": [
                {"type": "reasoning", "summary": [{"text": thought}]},
                {"type": "message", "content": [{"type": "output_text", "text": text}]},
            ]
        }
        for thought, text in zip(thoughts, answers, strict=True)
    ]
    theirs, *_ = module.aggregate_scores(
        [(s.score_1, s.score_2, s.ranking) for s in comparisons],
        [(i, j, 0) for i, j in theirs_pairs],
        output,
        "simple_tiebreaker",
        3.0,
        weights[2],
        weights[3],
        top,
        weights[0],
        weights[1],
    )
    near = [b if abs(a - b) < 1e-9 else a for a, b in zip(ours, theirs, strict=True)]
    tally.add((pairs, near), (theirs_pairs, theirs), case=(thoughts, answers, comparisons, weights))


def _verdict(rng: random.Random, odd: bool) -> dict[str, Any]:
    verdict: dict[str, Any] = {
        "score_1": rng.randint(1, 5),
        "score_2": rng.randint(1, 5),
        "ranking": rng.randint(1, 6),
    }
    if odd:
        key = rng.choice(list(verdict))
        verdict[key] = rng.choice(_ODD)
        if rng.random() < 0.3:
            del verdict[key]
    if rng.random() < 0.1:
        return {"rubric": [verdict], "overall": verdict}
    return verdict


def _reading(rng: random.Random, module: Any, tally: Tally, odd: bool) -> None:
    verdicts = [_verdict(rng, odd and rng.random() < 0.6) for _ in range(rng.choice((1, 1, 2)))]
    frames = _FRAMES if odd else _FRAMES[:7]
    separator = rng.choice((" ", "\n", " then "))
    parts = [rng.choice(frames).replace("%s", json.dumps(verdict)) for verdict in verdicts]
    text = separator.join(parts)

    comparison = read_comparison(text)
    ours = None
    if comparison is not None:
        ours = (comparison.score_1, comparison.score_2, comparison.ranking)
    try:
        theirs = module.parse_genrm_output(text, 3.0, 3.5, raise_on_fail=True)
    except module.GenRMOutputParseError:
        theirs = None
    tally.add(ours, theirs, lambda: _why(text, ours, theirs, verdicts), text)


def _has_numbers(verdict: Mapping[str, Any]) -> bool:
    fields = [verdict.get(key) for key in ("score_1", "score_2", "ranking")]
    return all(isinstance(field, int | float) and not isinstance(field, bool) for field in fields)


def _is_in_range(verdict: Mapping[str, Any]) -> bool:
    scores_fit = all(1 <= verdict[key] <= 5 for key in ("score_1", "score_2"))
    return scores_fit and 1 <= verdict["ranking"] <= 6


def _why(text: str, ours: Any, theirs: Any, verdicts: list[Mapping[str, Any]]) -> str | None:
    inner = [verdict.get("overall", verdict) for verdict in verdicts]
    if theirs is not None and not all(map(_has_numbers, inner)):
        return (
            "a field is missing or no number: linn asks again, the reference fills it in or "
            "reads its text"
        )
    if theirs is not None and not all(map(_is_in_range, inner)):
        return "a number is out of range: linn asks again, the reference takes it"
    if "```json" in text and len(verdicts) > 1:
        return "two verdicts: linn takes the last, the reference the first in a block marked json"
    if "{{" in text and theirs is None:
        return "a brace too many: linn reads the object within, the reference asks again"
    return None


def main() -> int:
    folder, cases, rng = arguments(__doc__, 5_000)
    module = load(folder, "genrm_compare", "utils")
    logging.disable()
    rewards = Tally("preference, group rewards")
    formed = Tally("preference, well-formed verdicts")
    odd = Tally("preference, odd verdicts")
    for _ in range(cases):
        _rewards(rng, module, rewards)
        _reading(rng, module, formed, odd=False)
        _reading(rng, module, odd, odd=True)
    return report(folder, [rewards, formed, odd])


if __name__ == "__main__":
    sys.exit(main())
