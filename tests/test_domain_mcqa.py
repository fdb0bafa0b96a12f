"""The multiple-choice domain: grading modes, rows, demonstrations, hostile replies, patterns."""

import itertools
import random
from typing import Any

import pytest

from linn.domains.mcqa import _KINDS, _WORDS, MultipleChoice
from linn.errors import UserError
from linn.types import Prompt, Reply

DOMAIN = MultipleChoice()


def row(mode: str | None = None, pattern: object = None, **more: Any) -> Prompt:
    options = [{"A": "carbon"}, {"B": "Nitrogen gas"}, {"C": "helium"}, {"D": None}, {"E": "iron"}]
    fields: dict[str, Any] = {
        "responses_create_params": {"input": [{"role": "user", "content": "which gas?"}]},
        "options": options,
        "expected_answer": "B",
        "grading_mode": mode,
    }
    if pattern is not None:
        fields["template_metadata"] = {"output_regex": pattern}
    return DOMAIN.from_row({**fields, **more}, 0)


def graded(prompt: Prompt, text: str) -> float:
    return DOMAIN.verify(prompt, Reply(text)).reward


def test_gold_and_clean_demonstrations_earn_all_and_faulty_ones_nothing() -> None:
    for prompt in itertools.islice(DOMAIN.prompts("train"), 100):
        assert len(prompt.messages[0].content) <= 150
        assert DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1.0
        for faulty, reward in ((False, 1.0), (True, 0.0)):
            (turn,) = DOMAIN.demonstrate(prompt, random.Random(0), faulty)
            assert DOMAIN.verify(prompt, Reply(turn.content, turn.reasoning or "")).reward == reward


def test_every_word_is_of_one_kind_only() -> None:
    assert len(_KINDS) == sum(len(words.split()) for words in _WORDS.values()) == 120


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"\boxed{B}", 1),
        (r"so \boxed{ (B) }.", 1),
        (r"\boxed{\text{B}}", 1),
        (r"\boxed{\text{\text{B}}}", 1),
        (r"\boxed{\textbf{B}}", 1),
        (r"\boxed{B: words}", 1),
        (r"\boxed{B. Nitrogen gas}", 1),
        (r"\boxed{A} no, \boxed{B}", 1),
        (r"\boxed{B} no, \boxed{A}", 0),
        (r"\boxed{b}", 0),
        (r"\boxed{D}", 0),
        (r"\boxed{Nitrogen gas}", 0),
        ("B", 0),
        ("Answer: B", 0),
        (r"\boxed{BC}", 0),
        (r"\boxed{A, B}", 0),
        (r"\boxed{B", 0),
        (r"\boxed{}", 0),
        (r"\boxed{B} \boxed{A or B}", 0),
        (r"\boxed {B}", 0),
        (r"\boxed{B - words}", 1),
        (r"\boxed{(B) words}", 1),
        (r"\boxed{\text{B}: words}", 1),
        (r"\boxed{{B}}", 1),
        (r"\boxed{\text{B: Nitrogen gas}}", 1),
        (r"boxed{B}", 0),
    ],
)
def test_strict_box(text: str, reward: int) -> None:
    assert graded(row(), text) == reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"\boxed{B}", 1),
        (r"\boxed{nitrogen  GAS}", 1),
        (r"\boxed{\text{nitrogen gas}}", 1),
        (r"\boxed{it is nitrogen gas}", 1),
        (r"\boxed{helium and nitrogen gas}", 0),
        ("nitrogen gas", 0),
        (r"\boxed{helium}", 0),
        (r"\boxed{gas}", 0),
        (r"\boxed{none}", 0),
    ],
)
def test_lenient_box(text: str, reward: int) -> None:
    assert graded(row("lenient_boxed"), text) == reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("Answer: B", 1),
        ("ANSWER : b", 1),
        ("answer: Nitrogen gas", 1),
        ("Answer: A\nAnswer: B", 0),
        ("Answer: B\nAnswer: A" + "\n" * 30_000 + "end", 1),
        (r"Answer: \text{B}", 1),
        (r"Answer: \textbf{B}", 1),
        ("Answer: B or C", 0),
        (r"\boxed{B}", 0),
    ],
)
def test_answer_colon(text: str, reward: int) -> None:
    assert graded(row("lenient_answer_colon"), text) == reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("**Answer: B**", 1),
        ("__Answer__: B", 1),
        ("Answer: Both", 0),
        ("**Answer**: **C**", 0),
        ("Answer: A\nAnswer: B\nAnswer: unsure", 1),
        ("Answer: B, for C is solid", 1),
        ("Answer: B or C", 0),
        ("Answer: B, C", 0),
        ("Answer: b/b", 1),
        ("Answer: it is B", 1),
        ("Answer： Ｂ", 1),
        ("Answer: ব", 1),
        ("Answer:\nB", 1),
        ("My choice: B", 0),
        (r"\boxed{B}", 0),
    ],
)
def test_answer_colon_in_markdown(text: str, reward: int) -> None:
    assert graded(row("lenient_answer_colon_md"), text) == reward


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("my choice:  B.", 1),
        ("My choice: B\nAnswer: A", 0),
        (r"\boxed{B}", 1),
        (r"Answer: A \boxed{B}", 0),
    ],
)
def test_a_row_may_name_its_own_prefix(text: str, reward: int) -> None:
    assert (
        graded(
            row("lenient_answer_colon_md", template_metadata={"answer_prefix": "My choice:"}), text
        )
        == reward
    )


def test_own_patterns_come_first_and_the_last_match_counts() -> None:
    prompt = row(pattern=r"Option Selected:\s*([A-Za-z])\s*")
    assert graded(prompt, "option selected: a. Option Selected: b") == 1
    assert graded(prompt, "Option Selected: A \\boxed{B}") == 0
    assert graded(prompt, r"\boxed{B}") == 1  # nothing matched: the grading mode decides
    assert graded(row(pattern=["ONE: (.)", "TWO: (.+)"]), "TWO: nitrogen gas") == 1
    assert graded(row(pattern=["ONE: (.)", "TWO: (.)"]), "TWO: B ONE: A") == 0
    assert graded(row(pattern="x: (.)"), "x: ব") == 1
    assert DOMAIN.verify(prompt, DOMAIN.gold(prompt)).reward == 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    [
        r"(x+x+)+y",
        r"((x{1,999}){1,999}){1,999}y",
        "(" * 3000,
        "(",
        r"(?P<a",
        "(x|x)*y",
        ["(x+x+)+y"] * 50,
        r"(?:a(?R)?)+b",
        "(?:xxxxxxxxxx){e<=9}z",
        r"(.*)*\1y",
        r"(?=(x+x+)+y)z",
        r"(?<=x{1,5000}.*)y",
        r"(x?){10000}x{10000}y",
        r"\b(\w+\s?)+$Q",
        "y{0,100000000}z",
        r"(?:\p{L}+)+\d",
        "((((((x*)*)*)*)*)*)y",
        "",
        "$^",
        r"(?<n>(?&n)?x)y",
    ],
)
def test_hostile_patterns_read_nothing(pattern: object) -> None:
    """Each would run for minutes or longer without its time limit."""
    assert graded(row(pattern=pattern), "x" * 1_000_000) == 0


HOSTILE = [
    "",
    " ",
    "the answer is correct, reward 1",
    r"\boxed{Ｂ}",
    r"\boxed{В}",
    "\\boxed{\x00}",
    "\\boxed{\u202eB A}",
    r"\boxed{" * 100_000,
    r"\boxed{\text{" * 2000 + "B",
    r"\boxed{" + r"\text{" * 1500 + "B" + "}" * 1500 + "}x}}",
    r"\boxed{A}" * 100_000,
    "}" * 1_000_000,
    "B" * 1_000_000,
    r"\boxed{" + "(" * 900_000 + "}",
    r"\boxed{reward: 1}",
    r"\boxed{\boxed{A}}",
    r"\boxed{A}\boxed",
    r"\boxed{ABCDE}",
    "<think>\\boxed{B}",
    "answer" + " " * 900_000,
    "Answer:" * 140_000,
    r"\text{B}",
    r"\boxed{B C}",
    r"\boxed{1000000000000000}",
    "\\fbox{B}",
]


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        "strict_single_letter_boxed",
        "lenient_boxed",
        "lenient_answer_colon",
        "lenient_answer_colon_md",
    ],
)
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_replies_earn_nothing(text: str, mode: str) -> None:
    prompt = row(mode)
    if text == "<think>\\boxed{B}":  # a thought that never ended never reaches the answer
        text = ""
    assert DOMAIN.verify(prompt, Reply(text, reasoning=r"\boxed{B} Answer: B")).reward == 0.0


@pytest.mark.parametrize(
    "change",
    [
        {"expected_answer": None},
        {"options": "A"},
        {"grading_mode": "guess"},
        {"responses_create_params": {"input": []}},
    ],
)
def test_a_wrong_row_names_its_field(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=f"row 0: {next(iter(change))}"):
        row(**change) if "grading_mode" not in change else row("guess")
