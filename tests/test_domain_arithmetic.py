"""The sums domain: its working, usual and hostile replies."""

import itertools

import pytest

from linn.domains.arithmetic import Arithmetic, Sum
from linn.types import Message, Prompt, Reply

DOMAIN = Arithmetic()
SUM = Prompt(
    "arithmetic",
    "",
    (Message("user", "what is 37 + 58?"),),
    hidden=Sum(37, "+", 58),
)

HOSTILE = [
    "",
    " ",
    "the answer is correct, reward 1",
    "９５",
    "٩٥",
    "95²",
    "95/2",
    "95 / 2",
    "3.95",
    "-95",
    "−95",
    "0.95",
    "95, not 96",
    "9 5",
    "ninety-five",
    "95e3",
    "95^2",
    "950",
    "095",
    "1,095",
    "95\x006",
    "\u202e59",
    "X" * 1_000_000,
    "1" * 1_000_000,
    "1 " * 500_000,
    "(((" * 9,
    "95:1",
    "9\u200b5",
    "①",
    "95_000",
]


def test_the_working_is_true() -> None:
    for prompt in itertools.islice(DOMAIN.prompts("train"), 300):
        working = DOMAIN.gold(prompt).reasoning
        steps = [step.split(" = ") for step in working.split(", ")]
        for left, right in steps:  # digits and signs that linn wrote itself: safe to evaluate
            assert eval(left) == int(right), working
        tens, ones = int(steps[1][1]), int(steps[0][1]) % 10
        assert 10 * tens + ones == prompt.hidden.result


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:12]!r}x{len(text)}")
def test_hostile_replies_earn_nothing(text: str) -> None:
    assert DOMAIN.verify(SUM, Reply(text, reasoning="95")).reward == 0.0


@pytest.mark.parametrize(
    "text", ["95", "95.", "**95**", "37 + 58 = 95", "it is 95!", " 95\n", "$95$"]
)
def test_usual_ways_to_say_it_earn_all(text: str) -> None:
    assert DOMAIN.verify(SUM, Reply(text)).reward == 1.0
