"""Math: which answers equal the expected one, by linn (`grading_mode: any`) and by nemo-gym's
`math_with_judge` server without its judge.

    python -m bench.agreement.math --reference FOLDER [--cases 3000] [--seed 0]

FOLDER: see `reference.py`. Both use the installed `math-verify`; compared is all that stands around
it.
"""

from __future__ import annotations

import random
import sys

from bench.agreement.reference import Tally, arguments, load, report
from linn.domains.math import Math
from linn.types import Reply

_ANSWERS = (
    "7",
    "-3",
    "0.5",
    "\\frac{1}{2}",
    "1/2",
    "\\dfrac{3}{6}",
    "50\\%",
    "1,000",
    "1000",
    "10^3",
    "\\sqrt{2}",
    "2\\sqrt{3}",
    "\\sqrt{12}",
    "\\pi",
    "3.14159",
    "2\\pi r",
    "x+1",
    "1+x",
    "(x+1)^2",
    "x^2+2x+1",
    "x=5",
    "5",
    "x = 5, y = 2",
    "(1,2)",
    "(1, 2)",
    "[0,1)",
    "\\{1,2\\}",
    "\\{2,1\\}",
    "1,2",
    "1 and 2",
    "\\infty",
    "e^{i\\pi}",
    "-1",
    "\\text{yes}",
    "yes",
    "B",
    "\\text{(B)}",
    "12\\text{ cm}",
    "12",
    "12 \\text{ minutes}",
    "90^\\circ",
    "90",
    "\\log_2 8",
    "3",
    "\\begin{pmatrix}1\\\\2\\end{pmatrix}",
    "2x-3y=4",
    "x \\le 3",
    "x<3",
    "1.50",
    "\\$15",
    "15",
    "2^{10}",
    "1024",
    "0.333",
    "\\frac{1}{3}",
    "0.\\overline{3}",
    "\\binom{5}{2}",
    "10",
    "5!",
    "120",
    "1\\frac{1}{2}",
    "1.5",
)
_WRITTEN = (
    "\\boxed{%s}",
    "The answer is $\\boxed{%s}$.",
    "$%s$",
    "So \\boxed{%s} holds.",
    "\\[ \\boxed{ %s } \\]",
    "Final answer: %s",
    "the answer is %s.",
    "%s",
    "$$%s$$",
    "\\boxed{7} no, \\boxed{%s}",
    "\\boxed{%s} or \\boxed{8}",
    "\\boxed{x = %s}",
    "\\boxed{\\text{%s}}",
    "\\boxed {%s}",
    "\\fbox{%s}",
    "\\(%s\\)",
    "\\boxed{%s",
    "",
    "\\boxed{}",
    "**%s**",
    "The final answer is 15. \\boxed{%s}",
    "\\boxed{15} so the final answer is $%s$. I hope it is correct.",
    "Final answer: $15$ \\boxed{%s}",
    "\\boxed{%s}, x = 15",
    "answer is 15 \\boxed{%s}",
    "Answer: \\boxed{%s}. Answer: 15",
    "\\boxed{%s} ANSWER: $15$",
    "\\boxed{%s} is wrong, it is $15$",
    "\\boxed{%s}\n\nfinal answer is \\(15\\).",
)


def main() -> int:
    folder, cases, rng = arguments(__doc__, 3_000)
    module = load(folder, "math_with_judge")
    latex, plain = module.LatexExtractionConfig(), module.ExprExtractionConfig()
    metric = module.math_metric(
        gold_extraction_target=(latex,), pred_extraction_target=(plain, latex)
    )
    domain = Math(rows="rows", reference=True)
    tally = Tally("math")
    for index in range(cases):
        expected, text = _case(rng)
        prompt = domain.from_row({"question": "?", "expected_answer": expected}, index)
        ours = domain.verify(prompt, Reply(text)).reward
        theirs, *_ = module._run_math_verify(metric, expected, text)
        tally.add(ours, theirs, case=(expected, text))
    domain.close()
    return report(folder, [tally])


def _case(rng: random.Random) -> tuple[str, str]:
    expected = rng.choice(_ANSWERS)
    near = _ANSWERS.index(expected) + rng.randint(-2, 2)
    # often the expected answer, else one that stands near it in the list, else any
    if rng.random() < 0.4:
        answer = expected
    elif rng.random() < 0.6:
        answer = _ANSWERS[near % len(_ANSWERS)]
    else:
        answer = rng.choice(_ANSWERS)
    frame = rng.choice(("%s", "%s", "$%s$", "\\(%s\\)"))
    return frame.replace("%s", expected), rng.choice(_WRITTEN).replace("%s", answer)


if __name__ == "__main__":
    sys.exit(main())
