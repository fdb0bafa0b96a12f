"""Multiple choice: the letter that linn and nemo-gym's `mcqa` server read out of random answers, in
all grading modes and by own patterns.

    python -m bench.agreement.mcqa --reference FOLDER [--cases 20000] [--seed 0]

FOLDER: see `reference.py`. 0.4.0 takes the first box, releases from 0.5.0 the last; linn does as
these.
"""

from __future__ import annotations

import asyncio
import random
import string
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from bench.agreement.reference import Body, Tally, arguments, load, message, report, server
from linn.domains.mcqa import MultipleChoice
from linn.types import Reply

_MODES = (
    "strict_single_letter_boxed",
    "lenient_boxed",
    "lenient_answer_colon",
    "lenient_answer_colon_md",
)
_WORDS = (
    "carbon",
    "Nitrogen gas",
    "helium",
    "E. coli",
    "nitrogen",
    "B cells",
    "3",
    "a",
    "the sum of A and B",
    "\\frac{1}{2}",
)
_PATTERNS = (
    r"Option Selected:\s*([A-Za-z])\s*",
    r"(?:final answer is)\s*:?\s*\(?([A-J])\)?",
    r"<ans>(.*?)</ans>",
    r"choice ([A-J])|pick ([A-J])",
    r"\b[A-J]\b",
    r"Answer\s*:\s*(.)",
    "(",
    r"الإجابة:\s*(.)",
)
_FRAMES = (
    "\\boxed{%s}",
    "\\boxed{ %s }",
    "\\boxed{\\text{%s}}",
    "\\boxed{\\text{\\text{%s}}}",
    "\\boxed{\\textbf{%s}}",
    "\\boxed{(%s)}",
    "\\boxed {%s}",
    "\\boxed{{%s}}",
    "Answer: %s",
    "**Answer: %s**",
    "__Answer__: %s",
    "ANSWER : %s",
    "Answer:\n%s",
    "Answer: \\text{%s}",
    "The answer: **%s**.",
    "Answer: (%s)",
    "Answer： %s",
    "Option Selected: %s",
    "the final answer is: (%s)",
    "<ans>%s</ans>",
    "choice %s",
    "I pick %s",
    "الإجابة: %s",
    "%s",
    "(%s)",
    "\\boxed{%s",
    "$\\boxed{%s}$",
)
_AROUND = ("", "\n", " so ", "Let me think. ", " no, ", "\n\n", "{", "}", " or ", "<think>")


def _row(rng: random.Random) -> dict[str, Any]:
    letters = "ABCDEFGHIJ"[: rng.choice((2, 4, 4, 5, 10))]
    options = []
    for number, letter in enumerate(letters):
        words = rng.choice(_WORDS)
        if rng.random() < 0.7:
            words += f" {number}"
        options.append({letter: words})
    row: dict[str, Any] = {
        "options": options,
        "expected_answer": "A",
        "grading_mode": rng.choice(_MODES),
    }
    if rng.random() < 0.3:
        patterns = rng.sample(_PATTERNS, rng.randint(1, 3))
        one = rng.random() < 0.5
        row["template_metadata"] = {"output_regex": patterns[0] if one else patterns}
        if rng.random() < 0.3:
            row["template_metadata"]["answer_prefix"] = rng.choice(("My choice:", "الإجابة:"))
    return row


def _answer(rng: random.Random, options: list[dict[str, str]]) -> str:
    pairs = [pair for option in options for pair in option.items()]

    def answer() -> str:
        letter, words = rng.choice(pairs)
        forms = (
            letter,
            letter,
            letter,
            letter.lower(),
            words,
            f"{letter}: {words}",
            f"{letter}. {words}",
            f"{letter}) {words}",
            f"({letter}) {words}",
        )
        more = (
            f"{letter} - {words}",
            f"{letter}, {rng.choice(pairs)[0]}",
            f"{letter} because {words}",
            f"it is {words}",
            "Z",
            "",
            "أ",
            "Ｂ",
            "**" + letter + "**",
        )
        return rng.choice(forms if rng.random() < 0.7 else more)

    frames = [*_FRAMES, "My choice: %s"]
    text = ""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        text += rng.choice(_AROUND) + rng.choice(frames) % answer()
    return text + rng.choice(_AROUND)


def _ours(domain: MultipleChoice, row: Mapping[str, Any], text: str) -> str | None:
    """The letter that linn reads: the one it would reward."""
    question = {"input": [{"role": "user", "content": "?"}]}
    for letter in string.ascii_uppercase:
        asking = {**row, "responses_create_params": question, "expected_answer": letter}
        if domain.verify(domain.from_row(asking, 0), Reply(text)).reward:
            return letter
    return None


def _theirs(grader: Any, row: Mapping[str, Any], text: str) -> str | None:
    """The letter that the reference reads, or `raises`."""
    body = Body(**{"template_metadata": None, **row}, response=message(text))
    try:
        return asyncio.run(grader.verify(body)).extracted_answer
    except AttributeError:  # a pattern of several groups
        return "raises"


def main() -> int:
    folder, cases, rng = arguments(__doc__, 20_000)
    module = load(folder, "mcqa")
    grader = server(module, "MCQAResourcesServer", grading_mode=None)
    domain = MultipleChoice(reference=True)
    is_0_4_0 = hasattr(module, "BOXED_CONTENT_PATTERN")

    tallies = {mode: Tally(f"mcqa, {mode}") for mode in _MODES}
    tallies["pattern"] = Tally("mcqa, output_regex")
    for _ in range(cases):
        row = _row(rng)
        text = _answer(rng, row["options"])
        read = partial(_theirs, grader, row)
        ours, theirs = _ours(domain, row, text), read(text)
        kind = "pattern" if "template_metadata" in row else row["grading_mode"]
        why = partial(_why, read, row, text, ours, theirs, is_0_4_0)
        tallies[kind].add(ours, theirs, why, (row, text))
    return report(folder, list(tallies.values()))


def _why(
    read: Callable[[str], str | None],
    row: Mapping[str, Any],
    text: str,
    ours: str | None,
    theirs: str | None,
    is_0_4_0: bool,
) -> str | None:
    if theirs == "raises":
        return "the reference raises: a pattern of several groups"
    return _older(read, row, text, ours) if is_0_4_0 else None


def _older(
    read: Callable[[str], str | None], row: Mapping[str, Any], text: str, ours: str | None
) -> str | None:
    """Why 0.4.0 reads another letter than its successors do."""
    if row["grading_mode"] == "lenient_answer_colon_md":
        if "answer_prefix" in row.get("template_metadata", {}):
            return "0.4.0: knows no answer_prefix"
        if "answer" in text.lower():
            return "0.4.0: the first Answer: counts, and only a letter right behind it"
        return None
    if "boxed" not in row["grading_mode"] or "\\boxed{" not in text:
        return None
    if read(text[text.rfind("\\boxed{") :]) == ours:
        return "0.4.0: the first box that holds a letter counts, not the last of all"
    return "0.4.0: a box is read up to its first brace, and only a letter alone in it"


if __name__ == "__main__":
    sys.exit(main())
