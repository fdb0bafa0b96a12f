"""The instruct domain: every IFEval checker, the tiny generator, hostile replies."""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import pytest

from linn.domains.instruct import Instruct
from linn.domains.instructions import CHECKERS, follows
from linn.errors import InfrastructureError, UserError
from linn.types import Message, Prompt, Reply

CASES: list[tuple[str, dict[str, Any], list[str], list[str]]] = [
    ("keywords:existence", {"keywords": ["Sea", "sand"]}, ["seas of SAND"], ["sea", "sad"]),
    ("keywords:existence", {"keywords": ["C++"]}, ["I use c++"], ["I use Java"]),
    ("keywords:frequency", {"keyword": " day ", "frequency": 2, "relation": "at least"}, ["Day, today"], ["day"]),
    ("keywords:frequency", {"keyword": "day", "frequency": 2, "relation": "less than"}, ["day", "no"], ["day day"]),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, ["concatenate"], ["a CAT."]),
    ("keywords:letter_frequency", {"letter": "E", "let_frequency": 2, "let_relation": "at least"}, ["Eve"], ["e"]),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": "less than"}, ["a"], ["# a"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, ["One. Two."], ["One, two"]),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "less than"}, ["Mr. Lee paid 3.50."], ["A. man! No?"]),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, ["a\n***\nb", "***a***b***"], ["a", "a******b", "a\n\nb"]),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, ["it's so"], ["so it"]),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Crash"},
        ["a\n\n'crash, b", "a\n\ncrash's"],
        ["a\n\nb crash", "a\n\ncrash\n\nc", "a\n\n"],
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, ["[a] [b]", "[] [[x]"], ["[a]", "[a\n] [b]"]),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, ["bye\np.s. x", "P. S. x"], ["PS x"]),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, ["P.P.S x", "p. p. s"], ["P.S. x"]),
    (
        "detectable_format:number_bullet_lists",
        {"num_bullets": 2},
        ["* a\n* b", "- a\n  - b", "* a\n-b", "*\n* a\n- c"],
        ["* a", "* a\n** b\n", "* a\n* b\n* c"],
    ),
    ("detectable_format:constrained_response", {}, ["Well: My answer is no."], ["my answer is no."]),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, ["*a* and *b*", "*a* **b**"], ["*a*", "** ** * *"]),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        ["SECTION 1 a SECTION 2 b"],
        ["Section 1 Section 2"],
    ),
    ("detectable_format:json_format", {}, ['```json\n{"a": 1}\n```', "[1]"], ["{a: 1}", 'Here: {"a": 1}']),
    ("detectable_format:title", {}, ["<<a>> x", "x <<y> z>>"], ["<<>>", "< <a>>", "<<a\n>>", "<<< >>>"]),
    ("combination:two_responses", {}, ["a\n******\nb", "******a******b******"], ["a******a", "a", "a******b******c"]),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say hi."}, [" say HI. hi"], ["hi. Say hi."]),
    ("startend:end_checker", {"end_phrase": "The end."}, ["so. the END.", '"the end."\n'], ["The end. ok"]),
    ("startend:quotation", {}, [' "a" '], ['"', '"a', "'a'"]),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        ["NO WAY, man", "I CAN"],
        ["No way", "NO-GO"],
    ),
    ("punctuation:no_comma", {}, ["a; b"], ["a, b"]),
]


@pytest.mark.parametrize(("id_", "kwargs", "good", "bad"), CASES)
def test_checker_accepts_and_refuses(id_: str, kwargs: dict[str, Any], good: list[str], bad: list[str]) -> None:
    for text in good:
        assert follows(id_, kwargs, text)[0], text
    for text in bad:
        assert not follows(id_, kwargs, text)[0], text


def test_all_25_instructions_are_there_and_an_empty_reply_follows_none() -> None:
    assert len(CHECKERS) == 25
    kwargs = {id_: kwargs for id_, kwargs, _, _ in CASES}
    assert not any(follows(id_, kwargs.get(id_, {}), empty)[0] for id_ in CHECKERS for empty in ("", " \n"))


def test_broken_arguments_fail_instead_of_raising() -> None:
    assert not follows("no:such_id", {}, "text")[0]
    assert not follows("punctuation:no_comma", {"extra": 1}, "text")[0], "an argument that the checker does not know"
    assert follows("punctuation:no_comma", {"extra": None}, "text")[0], "nulls are dropped"
    assert follows("punctuation:no_comma", None, "text")[0]
    assert not follows("length_constraints:number_words", {"num_words": 1}, "text")[0], "relation is missing"
    assert not follows("length_constraints:number_words", {"num_words": 1, "relation": "exactly"}, "text")[0]
    assert not follows("length_constraints:number_words", {"num_words": "1", "relation": "at least"}, "text")[0]
    assert not follows("keywords:existence", {"keywords": ["(a"]}, "(a")[0], "a keyword is a regular expression"


def test_sentences() -> None:
    texts = ("", "a", "a.", "A. Lee came.", "Hi! Who? Me.", "e.g. this one.", "wait... what", 'He left. "Go." So', "1.5 is it.")
    assert [sentences(text) for text in texts] == [0, 1, 1, 1, 3, 1, 1, 3, 1]


def test_language_without_its_package_is_no_reward_but_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    for id_, kwargs, text in (
        ("language:response_language", {"language": "de"}, "ein Haus am See"),
        ("change_case:english_lowercase", {}, "a house"),
        ("change_case:english_capital", {}, "A HOUSE"),
    ):
        with pytest.raises(InfrastructureError, match=r"linn\[domains\]"):
            follows(id_, kwargs, text)
    assert not follows("change_case:english_lowercase", {}, "A House")[0], "the case alone decides"


def test_language_with_its_package() -> None:
    pytest.importorskip("langdetect")
    german = "das ist ein schönes altes haus, und darin wohnen viele nette leute mit ihren kindern."
    assert follows("language:response_language", {"language": "de"}, german)[0]
    assert not follows("language:response_language", {"language": "en"}, german)[0]
    assert not follows("change_case:english_lowercase", {}, german)[0]
    assert follows(
        "change_case:english_lowercase", {}, "this is a nice old house and many friendly people live there with their children."
    )[0]
    assert follows("language:response_language", {"language": "de"}, "123 456")[0], "undecidable counts as followed, as in the reference"


# ---------------------------------------------------------------- the domain


def graded(domain: Instruct, prompt: Prompt, faulty: bool) -> float:
    (message,) = domain.demonstrate(prompt, random.Random(1), faulty)
    return domain.verify(prompt, Reply(text=message.content, reasoning=message.reasoning or "", messages=(message,))).reward


def test_clean_demonstrations_earn_1_and_faulty_ones_0() -> None:
    domain = Instruct()
    for index in range(1500):
        prompt = domain.make(random.Random(index))
        assert graded(domain, prompt, faulty=False) == 1, prompt
        assert graded(domain, prompt, faulty=True) == 0, prompt
        assert domain.verify(prompt, domain.gold(prompt)).reward == 1
        assert len(prompt.messages[0].content) <= 150


def test_tiny_prompts_are_many_and_reproducible() -> None:
    domain = Instruct()
    assert len({domain.make(random.Random(index)).messages for index in range(20_000)}) >= 6000
    tests = [prompt for prompt, _ in zip(domain.prompts("test"), range(450), strict=False)]
    assert len({prompt.id for prompt in tests}) == 450
    assert tests[:20] == [prompt for prompt, _ in zip(domain.prompts("test", seed=9), range(20), strict=False)]


def row(**fields: Any) -> dict[str, Any]:
    base = {
        "id": 7,
        "instruction_id_list": ["punctuation:no_comma", "startend:quotation"],
        "kwargs": [None, {"x": None}],
        "prompt": "Say a.",
    }
    return base | fields


def test_rows_binary_and_fraction() -> None:
    domain = Instruct()
    half = Reply(text="no quotes")
    prompt = domain.from_row(row(), 0)
    assert prompt.id == "7" and prompt.messages == (Message("user", "Say a."),) and prompt.thinking
    assert domain.verify(prompt, half).reward == 0
    assert domain.verify(prompt, Reply(text='"all"')).reward == 1
    verdict = domain.verify(domain.from_row(row(grading_mode="fraction"), 0), half)
    assert verdict.reward == 0.5 and "quotation" in verdict.note
    nested = {
        "prompt": "p",
        "verifier_metadata": {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}], "grading_mode": "fraction"},
    }
    assert domain.verify(domain.from_row(nested, 0), half).reward == 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"instruction_id_list": None}, "instruction_id_list"),
        ({"kwargs": [None]}, "kwargs"),
        ({"kwargs": "x"}, "kwargs"),
        ({"grading_mode": "soft"}, "grading_mode"),
        ({"prompt": None}, "responses_create_params.input"),
        ({"responses_create_params": {"input": [{"role": "robot", "content": ""}]}}, "role"),
        ({"responses_create_params": {"input": [{"role": "user", "content": 5}]}}, "content"),
    ],
)
def test_wrong_rows_name_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=f"row 3.*{named}"):
        Instruct().from_row(row(**fields), 3)


BIG = 1_000_000
HOSTILE = [
    "",
    " ",
    "\n" * BIG,
    " " * BIG,
    "[" * BIG,
    "<" * BIG,
    "*" * BIG,
    "." * BIG + "x",
    "-" * BIG,
    "\n-" * (BIG // 2),
    "a" * BIG,
    "mr. " * (BIG // 4),
    "p." * (BIG // 2),
    '"' * BIG,
    "{" * BIG,
    "<<" + "x" * BIG,
    "[a" * (BIG // 2),
    "*a" * (BIG // 2),
    "\x00",
    "\ud800",
    "```json\n",
    "A," * (BIG // 2),
    "Section 1" * (BIG // 9),
    "a'" * (BIG // 2),
    "@" * BIG,
    "I'" * (BIG // 2),
    " \n*" * (BIG // 3),
    "<think>" * (BIG // 7),
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:8]))
def test_hostile_replies_earn_nothing_fast(text: str) -> None:
    """Each checker on 1 MB within a second; a row that also asks for an absent word may never earn."""
    domain = Instruct()
    absent = ("keywords:existence", {"keywords": ["zebra crossing"]})
    for id_, kwargs, _, _ in CASES:
        prompt = domain.from_row(row(instruction_id_list=[id_, absent[0]], kwargs=[kwargs, absent[1]]), 0)
        start = time.process_time()
        assert domain.verify(prompt, Reply(text=text)).reward == 0
        assert time.process_time() - start < 1, id_


@pytest.mark.parametrize("keyword", ["(a+)+$", "(a|aa)+b", "a*a*a*b", "(.*)(.*)x", "a{1,900}b{1,900}", "(a?){20}", "a" * 5000])
def test_hostile_keywords_end_soon(keyword: str) -> None:
    start = time.process_time()
    assert not follows("keywords:existence", {"keywords": [keyword]}, "a" * BIG + "!")[0] or keyword == "(.*)(.*)x"
    assert time.process_time() - start < 1
