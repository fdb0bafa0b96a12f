"""Graders of benchmarks: function calls (BFCL), two turns with a judge (MT-Bench)."""

import asyncio
import json
from dataclasses import replace

import pytest
from support.codec import END, Letters
from support.scripted import Scripted

from linn.errors import UserError
from linn.evals.evaluate import judged_alone
from linn.evals.graders.calls import Calls, definition
from linn.evals.graders.two_turns import TwoTurns
from linn.judges.model import JudgeAnswer
from linn.judges.panel import Judges
from linn.play.rollout import Job, play, reply_of
from linn.types import Message, Sampling, ToolCall

FUNCTION = {
    "name": "geo.area",
    "description": "Area.",
    "parameters": {
        "type": "dict",
        "properties": {
            "base": {"type": "integer"},
            "height": {"type": "float"},
            "unit": {"type": "string", "default": "cm"},
            "tags": {"type": "array", "items": {"type": "string"}},
            "options": {"type": "dict"},
            "flag": {"type": "boolean"},
        },
        "required": ["base", "height"],
    },
}
ALLOWED = {
    "base": [10],
    "height": [5.0, 5.5],
    "unit": ["square cm", ""],
    "tags": [["a b", "c"], ""],
    "options": [{"mode": ["fast", ""], "n": [1]}, ""],
    "flag": [True, ""],
}


def verdict(calls, expected=({"geo.area": ALLOWED},)):
    row = {
        "question": [[{"role": "user", "content": "Area?"}]],
        "function": [FUNCTION],
        "ground_truth": list(expected),
    }
    grader = Calls()
    made = tuple(ToolCall(name, arguments) for name, arguments in calls)
    reply = reply_of([Message("assistant", "", None, made)])
    return grader.verify(grader.from_row(row, 0), reply)


RIGHT = {"base": 10, "height": 5.0}


@pytest.mark.parametrize(
    "arguments",
    [
        RIGHT,
        {**RIGHT, "height": 5},
        {**RIGHT, "height": 5.5, "unit": "Square-CM"},
        {**RIGHT, "tags": ["AB", "C"], "flag": True},
        {**RIGHT, "options": {"n": 1}},
        {**RIGHT, "options": {"mode": "FAST", "n": 1}},
    ],
)
def test_a_call_with_allowed_values_is_right(arguments):
    assert verdict([("geo.area", arguments)]).reward == 1
    assert verdict([("geo_area", arguments)]).reward == 1


@pytest.mark.parametrize(
    "calls, says",
    [
        ([], "0 calls, 1 expected"),
        ([("geo.area", RIGHT), ("geo.area", RIGHT)], "2 calls, 1 expected"),
        ([("geo.volume", RIGHT)], "not geo.area"),
        ([("geo.area", {"base": 10})], "height is missing"),
        ([("geo.area", {**RIGHT, "depth": 1})], "is no argument"),
        ([("geo.area", {**RIGHT, "base": 11})], "base is"),
        ([("geo.area", {**RIGHT, "base": "10"})], "base is"),
        ([("geo.area", {**RIGHT, "base": True})], "base is"),
        ([("geo.area", {**RIGHT, "base": 10.0})], "base is"),
        ([("geo.area", {**RIGHT, "unit": "m"})], "unit is"),
        ([("geo.area", {**RIGHT, "tags": ["c", "a b"]})], "tags is"),
        ([("geo.area", {**RIGHT, "tags": "a b"})], "tags is"),
        ([("geo.area", {**RIGHT, "options": {"mode": "fast"}})], "options is"),
        ([("geo.area", {**RIGHT, "options": {"n": 1, "x": 2}})], "options is"),
        ([("geo.area", {**RIGHT, "flag": False})], "flag is"),
        ([("geo.area", {**RIGHT, "flag": 1})], "flag is"),
        ([("geo.area", {**RIGHT, "unit": None})], "unit is"),
        ([("geo.area", {**RIGHT, "options": []})], "options is"),
        ([("geo.area", '{"base": 10')], "not readable"),
        ([("geo.area" * 10**5, RIGHT)], "not geo.area"),
        ([("", {})], "not geo.area"),
    ],
)
def test_a_wrong_call_says_why(calls, says):
    found = verdict(calls)
    assert found.reward == 0 and says in found.note and len(found.note) < 300


def test_several_calls_come_in_any_order_and_none_where_none_fits():
    two = (
        {"geo.area": {"base": [1], "height": [2.0]}},
        {"geo.area": {"base": [3], "height": [4.0]}},
    )
    one, other = {"base": 1, "height": 2}, {"base": 3, "height": 4}
    assert verdict([("geo.area", other), ("geo.area", one)], two).reward == 1
    assert verdict([("geo.area", one), ("geo.area", one)], two).reward == 0
    assert verdict([], ()).reward == 1 and verdict([("geo.area", RIGHT)], ()).reward == 0


def test_definitions_have_json_schemas_own_words():
    properties = definition(FUNCTION)["function"]["parameters"]["properties"]
    assert [properties[key]["type"] for key in ("base", "height", "tags", "options")] == [
        "integer", "number", "array", "object",
    ]  # fmt: skip


@pytest.mark.parametrize("row", [{}, {"question": [], "function": []}, {"question": "x"}])
def test_a_row_without_its_parts_is_refused(row):
    with pytest.raises(UserError, match="row 3: "):
        Calls().from_row(row, 3)


# ---------------------------------------------------------------- two turns


PROMPTS = [
    {"name": "single-v1", "system_prompt": "S", "prompt_template": "Rate {answer} to {question}."},
    {
        "name": "single-v1-multi-turn",
        "system_prompt": "",
        "prompt_template": "{question_1}|{answer_1}|{question_2}|{answer_2}",
    },
    {
        "name": "single-math-v1",
        "system_prompt": "",
        "prompt_template": "{ref_answer_1} {answer} {unknown}",
    },
    {
        "name": "single-math-v1-multi-turn",
        "system_prompt": "",
        "prompt_template": "{ref_answer_2} {answer_2}",
    },
]


class Rater:
    """A judge that says what it is told, and remembers what it was asked."""

    retries = 0

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []

    async def answer(self, conversations, seeds):
        self.asked += [[turn.content for turn in each] for each in conversations]
        return [JudgeAnswer(self.answers.pop(0)) for _ in conversations]


def two_turns(tmp_path, monkeypatch, judge, row, replies=("first", "second")):
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(each) + "\n" for each in PROMPTS))
    monkeypatch.setenv("LINN_PACKAGES", str(tmp_path))
    from linn.evals.graders import two_turns as module

    module.judge_prompts.cache_clear()
    grader = TwoTurns(judged=True, prompts_file="p.jsonl")
    prompt = replace(grader.from_row(row, 0), thinking=False)
    said = list(replies)
    sampler = Scripted(Letters(), lambda text, seed: said.pop(0) + END)
    domains = {grader.name: grader}
    jobs = [Job(prompt, 0, Sampling(50), 1)]
    rollouts = asyncio.run(play(jobs, domains, sampler, Letters()))
    judges = Judges({grader.name: judge})
    (judged,) = asyncio.run(judged_alone(rollouts, domains, judges, 0))
    return judged


ROW = {"question_id": 1, "category": "writing", "turns": ["Q1", "Q2"]}


def test_both_answers_are_rated_and_the_mean_counts(tmp_path, monkeypatch):
    judge = Rater("Good. Rating: [[8]]", "[[5.5]]")
    rollout = two_turns(tmp_path, monkeypatch, judge, ROW)
    assert rollout.verdict.reward == pytest.approx((8 + 5.5) / 20)
    assert judge.asked == [["S", "Rate first to Q1."], ["Q1|first|Q2|second"]]
    assert [m.role for m in rollout.reply.messages] == ["assistant", "user", "assistant"]


def test_mathematics_is_rated_beside_its_reference(tmp_path, monkeypatch):
    judge = Rater("[[1]]", "[[10]]")
    row = {**ROW, "category": "math", "choices": [{"turns": ["R1", "R2"]}]}
    rollout = two_turns(tmp_path, monkeypatch, judge, row)
    assert judge.asked == [["R1 first {unknown}"], ["R2 second"]]
    assert rollout.verdict.reward == pytest.approx(0.55)


@pytest.mark.parametrize("answer", ["no rating", "[[11]]", "[[0]]", ""])
def test_a_rating_that_cannot_be_read_decides_nothing(tmp_path, monkeypatch, answer):
    rollout = two_turns(tmp_path, monkeypatch, Rater(answer, "[[5]]"), ROW)
    assert rollout.verdict.undecided


def test_a_turn_without_an_answer_has_the_lowest_score(tmp_path, monkeypatch):
    rollout = two_turns(tmp_path, monkeypatch, Rater("[[9]]"), ROW, ("first", " "))
    assert rollout.verdict.reward == pytest.approx((9 + 1) / 20)
