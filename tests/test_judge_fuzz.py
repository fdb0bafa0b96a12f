"""Fuzzing: rows of the judged domains and what judges may answer; nothing crashes."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.verdicts import answered

from linn.domains.genrm import GenRM
from linn.domains.longctx import LongContext, final_line
from linn.domains.preference import Preference
from linn.errors import UserError
from linn.judges.equivalence import equivalence_question, read_equivalence
from linn.judges.pairwise import read_comparison, score_in
from linn.judges.text import answer_of, fenced, inert, shown
from linn.types import Reply

pytestmark = pytest.mark.slow

VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"]), "content": st.text(max_size=30)}
)
KEYS = [
    "prompt",
    "context",
    "responses_create_params",
    "expected_answer",
    "question",
    "reference",
    "principle",
    "response1",
    "response2",
    "score_1",
    "score_2",
    "overall_preference",
    "id",
    "uuid",
]
ROW = st.builds(
    lambda good, odd: {**good, **odd},
    st.fixed_dictionaries(
        {
            "context": st.lists(TURN, min_size=1, max_size=3),
            "expected_answer": st.text(min_size=1, max_size=9),
            "response1": st.text(max_size=9),
            "response2": st.text(max_size=9),
            "overall_preference": st.integers(-3, 3),
        }
    ),
    st.dictionaries(st.sampled_from(KEYS), VALUE, max_size=2),
)
TEXT = st.text(max_size=60) | st.lists(
    st.sampled_from(
        [
            "{",
            "}",
            '"score_1"',
            ":",
            "5",
            ",",
            '"score_2"',
            '"ranking"',
            '"score"',
            "1e999",
            "NaN",
            "[[A=B]]",
            "[[A!=B]]",
            "</think>",
            "<think>",
            "\\boxed{",
            "<|im_end|>",
            "</response_1>",
            "\n",
            "-",
            "9" * 30,
        ]
    ),
    max_size=25,
).map("".join)
FIGURE = st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=3)


@given(ROW, TEXT, TEXT)
def test_rows_are_read_or_refused_by_name_and_replies_are_graded(row, reply, answer):
    for domain in (
        GenRM(),
        Preference(judged=True),
        LongContext(judged=True, swap=True, partial=0.5),
    ):
        try:
            prompt = domain.from_row(row, 7)
        except UserError as error:
            assert "row 7" in str(error)
            continue
        replies = [Reply(reply), Reply("other"), Reply("")]
        for group in (replies, replies[:1]):
            questions = domain.questions(prompt, group)
            assert all(q.read(answer) is None for q in questions if len(q.messages) == 1)
            given = [answer] * len(questions)
            verdicts = domain.judge(prompt, group, answered(questions, given))
            assert verdicts is None or len(verdicts) == len(group)
        assert 0.0 <= domain.verify(prompt, replies[0]).reward <= 1.0


@given(TEXT, TEXT)
def test_whatever_a_judge_says_is_read_or_not(one, two):
    said = read_comparison(one)
    assert said is None or (
        min(said.score_1, said.score_2) >= 1
        and max(said.score_1, said.score_2) <= 5
        and 1 <= said.ranking <= 6
    )
    assert (score := score_in(one)) is None or 1 <= score <= 5
    assert read_equivalence(one) in (None, True, False)
    assert "<|im_end|>" not in inert(one) and inert(inert(one)) == inert(one)
    assert (
        answer_of(one) in one
        and final_line(one).strip() == final_line(one)
        and shown(one) == one.strip()
    )
    made = fenced([("a", one), ("b", two)])
    key = made[3:11]
    assert made.count(f"\n</a {key}>\n\n<b {key}>\n") == 1
    (message,) = equivalence_question("who?", one, two, (0,)).messages
    assert message.content.count("[[A=B]]") == message.content.count("[[A!=B]]") == 1


@given(FIGURE, FIGURE, FIGURE)
def test_verdicts_of_any_figures(first, second, ranking):
    text = json.dumps({"score_1": first, "score_2": second, "ranking": ranking})
    said = read_comparison(text)
    fine = all(
        isinstance(f, int | float) and not isinstance(f, bool) for f in (first, second, ranking)
    )
    assert (said is not None) == (
        fine and 1 <= first <= 5 and 1 <= second <= 5 and 1 <= ranking <= 6
    )
