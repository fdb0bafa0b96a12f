"""Long context, tiny: gold and demonstrations against the grader, growth, rows, hostile replies."""

import itertools
import random
import re

import pytest

from linn.domains.longctx import LongContext
from linn.errors import UserError
from linn.types import Reply

DOMAIN = LongContext()
ROW = {
    "responses_create_params": {"input": [{"role": "user", "content": "a long text … who?"}]},
    "expected_answer": ["Anna Smith", "Smith"],
}

HOSTILE = [
    "",
    " ",
    "the answer is correct, reward 1",
    "７",
    "٧",
    "7 or 8",
    "7 8",
    "box red 7",
    "07",
    "7.0",
    "-7",
    "seven",
    "\\boxed{7}",
    "7\x00",
    "\u202e7",
    "7\u200b",
    "{{{7",
    "7" * 1_000_000,
    "." * 1_000_000,
    "7 " * 500_000,
    "not 7",
    "7?",
    "⑦",
    "𝟕",
    "0x7",
]


def test_gold_and_clean_demonstrations_earn_all_and_faulty_ones_nothing() -> None:
    for prompt in itertools.islice(DOMAIN.prompts("train"), 100):
        assert len(prompt.messages[0].content) <= 150
        assert DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1.0
        for faulty, reward in ((False, 1.0), (True, 0.0)):
            (turn,) = DOMAIN.demonstrate(prompt, random.Random(0), faulty)
            assert DOMAIN.verify(prompt, Reply(turn.content, turn.reasoning or "")).reward == reward


@pytest.mark.parametrize("lines", [2, 9, 10, 100, 3000])
def test_it_grows_and_the_needle_stands_once(lines: int) -> None:
    prompt = LongContext(lines=lines).make(random.Random(1))
    *listing, question = prompt.messages[0].content.splitlines()
    assert len(listing) == lines
    key = re.fullmatch(r"which number is in box (.+)\?", question)
    assert key is not None
    found = [
        line.rsplit(" ", 1)[1] for line in listing if line.rsplit(" ", 1)[0] == f"box {key[1]}"
    ]
    assert found == list(prompt.hidden.answers)
    assert len({line.rsplit(" ", 1)[1] for line in listing}) == lines


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_replies_earn_nothing(text: str) -> None:
    prompt = next(p for p in DOMAIN.prompts("train") if p.hidden.answers == ("7",))
    assert DOMAIN.verify(prompt, Reply(text, reasoning="7")).reward == 0.0


def test_rows_accept_any_of_their_answers_after_normalisation() -> None:
    prompt = DOMAIN.from_row(ROW, 0)
    rewards = [
        DOMAIN.verify(prompt, Reply(t)).reward
        for t in ("Smith", " anna  SMITH.", "**Anna Smith**", "Anna", "Smith and Anna")
    ]
    assert rewards == [1.0, 1.0, 1.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "change",
    [{"expected_answer": None}, {"expected_answer": [""]}, {"responses_create_params": {}}],
)
def test_a_wrong_row_names_its_field(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match=f"row 3: {next(iter(change))}"):
        DOMAIN.from_row({**ROW, **change}, 3)


def test_too_few_lines_are_refused() -> None:
    with pytest.raises(UserError, match="lines is 1"):
        LongContext(lines=1)


@pytest.mark.parametrize(
    ("subset", "text", "reward"),
    [
        ("vt", "abc and DEF.", 1),
        ("vt", "abc", 0.5),
        ("vt", "", 0),
        ("qa_1", "it is abc", 1),
        ("qa_2", "none", 0),
        ("vt", "abc def " * 1000, 0),
    ],
)
def test_rulers_own_rows_are_graded_by_the_outputs_that_are_there(subset, text, reward):
    prompt = DOMAIN.from_row(
        {**ROW, "expected_answer": None, "outputs": ["ABC", "def"], "subset": subset, "length": 9},
        0,
    )
    assert (
        DOMAIN.verify(prompt, Reply(text)).reward == reward
        and DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1
    )
    with pytest.raises(UserError, match="outputs is"):
        DOMAIN.from_row({**ROW, "expected_answer": None, "outputs": ["a", 3]}, 0)
