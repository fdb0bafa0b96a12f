"""The sums domain: demonstrations and gold against its grader, hostile replies."""

import itertools
import random
import time

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


def test_gold_and_clean_demonstrations_earn_all_and_faulty_ones_nothing() -> None:
    for prompt in itertools.islice(DOMAIN.prompts("train"), 1000):
        assert DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1.0
        for faulty, reward in ((False, 1.0), (True, 0.0)):
            (turn,) = DOMAIN.demonstrate(prompt, random.Random(0), faulty)
            assert (
                DOMAIN.verify(prompt, Reply(turn.content, turn.reasoning or "")).reward == reward
            ), (prompt, turn)


def test_the_working_is_true() -> None:
    for prompt in itertools.islice(DOMAIN.prompts("train"), 300):
        working = DOMAIN.gold(prompt).reasoning
        steps = [step.split(" = ") for step in working.split(", ")]
        assert all(eval(left) == int(right) for left, right in steps), (
            working
        )  # our own text, digits and signs only
        tens, ones = int(steps[1][1]), int(steps[0][1]) % 10
        assert 10 * tens + ones == prompt.hidden.result


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_replies_earn_nothing_in_time(text: str) -> None:
    start = time.process_time()
    assert DOMAIN.verify(SUM, Reply(text, reasoning="95")).reward == 0.0
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "text", ["95", "95.", "**95**", "37 + 58 = 95", "it is 95!", " 95\n", "$95$"]
)
def test_usual_ways_to_say_it_earn_all(text: str) -> None:
    assert DOMAIN.verify(SUM, Reply(text)).reward == 1.0


def test_splits_hold_enough_prompts_and_do_not_overlap() -> None:
    test = {p.messages for p in itertools.islice(DOMAIN.prompts("test"), 450)}
    validation = {p.messages for p in itertools.islice(DOMAIN.prompts("validation"), 450)}
    assert len(test) == len(validation) == 450
    assert not test & validation
