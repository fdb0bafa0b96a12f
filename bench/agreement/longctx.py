"""Long context: which label of a judge's answer counts, by linn and by nemo-gym's
`equivalence_llm_judge` server.

    python -m bench.agreement.longctx --reference FOLDER [--cases 5000] [--seed 0]

FOLDER: see `reference.py`. 0.4.0 takes the first label, releases from 0.5.0 the last; linn does as
these.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from functools import partial
from typing import Any

from bench.agreement.reference import Body, Tally, arguments, load, message, report, server
from linn.judges.equivalence import DIFFERENT, EQUAL, read_equivalence

_PARTS = (
    EQUAL,
    DIFFERENT,
    "[[A=B]",
    "[A!=B]]",
    "[[A = B]]",
    "[[B=A]]",
    " so ",
    "\n",
    "the answers agree",
    "[[",
    "]]",
    "[[a=b]]",
    "A!=B",
    "[[[A=B]]]",
    "",
)


def _theirs(module: Any) -> Any:
    """A judge's text -> whether the server takes it for `equal`."""
    if hasattr(module, "_parse_judge_verdict"):
        return lambda text: module._parse_judge_verdict(text, EQUAL, DIFFERENT)[0] == EQUAL
    # The server's judge is a stand-in that answers with `response`.
    response = message("")

    async def answer(*_: Any, **__: Any) -> Body:
        return response

    module.get_response_json = answer
    module.NeMoGymResponse = Body(model_validate=lambda value: value)
    config = {
        "judge_equal_label": EQUAL,
        "judge_not_equal_label": DIFFERENT,
        "judge_system_message": None,
        "judge_endpoint_max_concurrency": None,
        "judge_prompt_template_fpath": os.devnull,
        "judge_model_server": Body(name="judge"),
    }
    grader = server(
        module,
        "LLMJudgeResourcesServer",
        judge_responses_create_params=Body(model_copy=lambda deep: Body()),
        **config,
    )
    grader.server_client = Body(post=answer)

    def equal(text: str) -> bool:
        response.output = message(text).output
        evaluation = grader._generate_judge_evaluation(
            question="", expected_answer="", generated_answer=""
        )
        return bool(asyncio.run(evaluation)[0])

    return equal


def _judged(rng: random.Random) -> str:
    return "".join(rng.choice(_PARTS) for _ in range(rng.randint(1, 6)))


def _why(text: str) -> str | None:
    if EQUAL in text and DIFFERENT in text:
        return "0.4.0: the first label counts, not the last"
    return None


def main() -> int:
    folder, cases, rng = arguments(__doc__, 5_000)
    theirs = _theirs(load(folder, "equivalence_llm_judge"))
    tally = Tally("longctx, labels")
    for _ in range(cases):
        text = _judged(rng)
        why = partial(_why, text)
        tally.add(read_equivalence(text) is True, theirs(text), why, text)
    return report(folder, [tally])


if __name__ == "__main__":
    sys.exit(main())
