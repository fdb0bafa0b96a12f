"""Every instruction's checker: following and violating replies, near misses, broken arguments,
hostile replies.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

import pytest

from linn.domains.instruct.checkers import (
    CHECKERS,
    follows,
    ifbench_custom,
    ifbench_test,
    ifbench_train,
    ifeval,
)
from linn.domains.instruct.checkers import text as checkers_text
from linn.errors import InfrastructureError
from tests.support.instruction_makers import CASES, MAKERS

ARGUMENTS = {id_: kwargs for id_, kwargs, _, _ in CASES}
"""Arguments of one case per id."""


@pytest.mark.slow
@pytest.mark.parametrize(("id_", "kwargs", "good", "bad"), CASES)
def test_the_references_reading_accepts_and_refuses(
    id_: str, kwargs: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert follows(id_, kwargs, text, reference=True) == (True, "", False), text
    for text in bad:
        outcome = follows(id_, kwargs, text, reference=True)
        assert not outcome.followed and not outcome.error, text


def test_all_112_instructions_are_there_with_cases_and_an_empty_reply_follows_none() -> None:
    assert len(ifeval.CHECKERS) == 25 and len(ifbench_train.CHECKERS) == 29
    assert len(ifbench_test.CHECKERS) + len(ifbench_custom.CHECKERS) == 58
    assert len(CHECKERS) == 112
    assert ARGUMENTS.keys() == CHECKERS.keys()
    for id_, kwargs in ARGUMENTS.items():
        for empty in ("", " \n"):
            assert not follows(id_, kwargs, empty).followed, id_


def test_broken_arguments_fail_and_are_errors() -> None:
    """Unknown, missing and ill-typed arguments give no reward, no exception, and a note."""
    assert follows("no:such_id", {}, "text") == (False, "no:such_id: unknown instruction", True)
    for id_, kwargs, problem in (
        ("punctuation:no_comma", {"extra": 1}, "extra"),
        ("length_constraints:number_words", {"num_words": 1}, "relation"),
        ("length_constraints:number_words", {"num_words": 1, "relation": "exactly"}, "less than"),
        (
            "length_constraints:number_words",
            {"num_words": "1", "relation": "at least"},
            "num_words",
        ),
        ("length_constraints:number_words", {"num_words": -1, "relation": "at least"}, "num_words"),
        ("count:numbers", {"N": 0.5}, "whole number"),
        ("count:numbers", {"N": float("nan")}, "N"),
        ("count:numbers", {"N": float("inf")}, "N"),
        ("count:numbers", {"N": True}, "N"),
        ("ratio:stop_words", {"percentage": "5"}, "a number"),
        ("keywords:existence", {"keywords": "sea"}, "list of words"),
        ("keywords:existence", {"keywords": []}, "list of words"),
        ("keywords:word_once", {"keyword": ["sea", "land"]}, "a text"),
        ("keywords:word_once", {"keyword": " "}, "a text"),
        ("keywords:keyword_specific_position", {"keyword": "a", "n": 0, "m": 1}, "count from 1"),
        ("sentence:keyword", {"word": "a", "N": 0}, "count from 1"),
        ("count:words_japanese", {"N": 0}, "count:words_japanese"),
        ("format:list", {}, "sep"),
    ):
        outcome = follows(id_, kwargs, "(a text a 1")
        assert not outcome.followed and outcome.error, (id_, kwargs)
        assert problem in outcome.note, (id_, kwargs)
    assert follows("punctuation:no_comma", {"extra": None}, "text").followed, "nulls are dropped"
    assert follows("punctuation:no_comma", None, "text").followed


@pytest.mark.parametrize("id_", sorted(CHECKERS))
def test_arguments_of_any_kind_never_raise(id_: str) -> None:
    rng = random.Random(id_)
    kwargs = next(kwargs for case, kwargs, _, _ in CASES if case == id_)
    odd: list[Any] = [
        None,
        True,
        -1,
        0,
        3,
        2.5,
        1e308,
        float("nan"),
        "",
        "x",
        "(",
        "a" * 2000,
        [],
        ["x"],
        [1],
        ["x", "y"],
        {},
        {"a": 1},
        10**30,
    ]
    for _ in range(40):
        changed = dict(kwargs)
        for name in kwargs:
            if rng.random() < 0.7:
                changed[name] = rng.choice(odd)
        follows(id_, changed, rng.choice(["text", "A text. Two!", "1", "* a\n- b"]))


def test_sentences_as_ifbench_cuts_them() -> None:
    for text, expected in {
        "": [],
        "a": ["a"],
        "Hi! Who? Me.": ["Hi!", "Who?", "Me."],
        "What?!": ["What?", "!"],
        "Mr. Lee, e.g. Bob, paid 3.50. Done": ["Mr. Lee, e.g. Bob, paid 3.50.", "Done"],
        "wait... what": ["wait...", "what"],
        'He said "go." So': ['He said "go".', "So"],
        "In the U.S. He went to Acme Inc. It is at site.com": [
            "In the U.S.",
            "He went to Acme Inc",
            "It is at site.com",
        ],
        "Plan B. works": ["Plan B. works"],
        "Plan\u00a0B. works": ["Plan B. works"],
        "a\ue000b. \ue001c": ["ab.", "c"],
    }.items():
        assert list(checkers_text.sentences(text)) == expected


@pytest.mark.parametrize(
    ("module", "id_"),
    [
        ("nltk.tokenize.punkt", "length_constraints:number_sentences"),
        ("punkt", "length_constraints:number_sentences"),
        ("nltk.tokenize", "keywords:start_end"),
        ("textblob.en.taggers", "words:start_verb"),
        ("syllapy", "words:odd_even_syllables"),
        ("emoji", "format:emoji"),
    ],
)
def test_a_missing_library_is_no_reward_but_an_error(
    monkeypatch: pytest.MonkeyPatch, module: str, id_: str
) -> None:
    for value in vars(checkers_text).values():  # another test may have loaded the library
        if hasattr(value, "cache_clear"):
            value.cache_clear()
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InfrastructureError, match=r"linn\[domains\]"):
        follows(id_, ARGUMENTS[id_], "We go on. And so.")


@pytest.mark.parametrize("id_", sorted(CHECKERS))
def test_a_following_reply_broken_in_the_named_respect_fails(id_: str) -> None:
    rng = random.Random(id_)
    for _ in range(12):
        kwargs, good, bad = MAKERS[id_](rng)
        assert follows(id_, kwargs, good, reference=True).followed, (kwargs, good)
        assert not follows(id_, kwargs, bad, reference=True).followed, (kwargs, bad)


def test_language_without_its_package_is_no_reward_but_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
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
        "change_case:english_lowercase",
        {},
        "this is a nice old house and many friendly people live there with their children.",
    )[0]
    undecidable = ("language:response_language", {"language": "de"}, "123 456")
    assert not follows(*undecidable)[0]
    assert follows(*undecidable, reference=True)[0], "it counts as followed in the reference"


# ---------------------------------------------------------------- hostile replies

BIG = 30_000
UNITS = (
    "\n",
    " ",
    "\t",
    "[",
    "<",
    "*",
    "-",
    "a",
    '"',
    "'",
    "{",
    "@",
    "\ufdfa",
    "İ",
    "\n-",
    "p.",
    "*a",
    "A,",
    "a'",
    "a ",
    "a\n",
    "! ",
    "([",
    "ひ ",
    "a-",
    "A. ",
    "a.b",
    " \n*",
    "<i>",
    "Mr.",
    "mr. ",
    "*** ",
    "U.S. He ",
    "Section 1",
    "Question 1",
    "Zimbabwe\n",
    "1796-01-01,",
    "bald eagle ",
    "we all go ",
    "<think>",
    '"a",',
    "cat ",
    ".",
    "the dog. ",
    "a b ",
    "\ud800 ",
)
LONGEST = 99_000
"""Just what is still cut into tokens."""
LONGEST_UNITS = ("A. ", "! ")
HOSTILE = [
    *(unit * (BIG // len(unit)) for unit in UNITS if unit not in LONGEST_UNITS),
    "." * BIG + "x",
    "<<" + "x" * BIG,
    "Question " + "1" * BIG,
    "\n" * BIG + "Question 1",
    "we " + "all go " * (BIG // 7),
    'ProductID,Category,Brand,Price,Stock\n1,"' + "!" * BIG,
    "ID,Country,City,Year,Count\n" + "x" * BIG,
    *(
        pytest.param(unit * (LONGEST // len(unit)), marks=pytest.mark.long)
        for unit in LONGEST_UNITS
    ),
    "\x00",
    "\ud800",
    "```json\n",
]
HANG = 8
"""CPU-seconds. A linear checker takes well under one; a quadratic one, or a pattern that tries
every way, takes many on such a text."""


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: f"{text[:8]!r}x{len(text)}")
def test_hostile_replies_raise_nothing_and_end(text: str) -> None:
    """The only errors refuse what is too long."""
    for id_, kwargs in ARGUMENTS.items():
        start = time.process_time()
        outcome = follows(id_, kwargs, text)
        assert time.process_time() - start < HANG, id_
        assert not outcome.error or "too long" in outcome.note, outcome


@pytest.mark.slow
@pytest.mark.parametrize(
    "keyword",
    [
        "(a+)+$",
        "(a|aa)+b",
        "a*a*a*b",
        "(.*)(.*)x",
        "a{1,900}b{1,900}",
        "(a?){20}",
        "a" * 5000,
        ".*.?.?.?.?x",
        "[a]*.?.?b",
        r"(a*)\1b",
        "(?P<q>a*)(?P=q)b",
        "(a|a)" * 8 + "b",
        "(a|a)" * 20 + "b",
        "(?#[)a*a*a*b(?#])",
        "(?x)a#[\n*a*a*b]",
        "a?" * 8 + "b",
        ".{5000}b",
    ],
)
def test_hostile_keywords_end(keyword: str) -> None:
    for id_, kwargs in (
        ("keywords:existence", {"keywords": [keyword]}),
        ("keywords:word_once", {"keyword": keyword}),
    ):
        start = time.process_time()
        assert not follows(id_, kwargs, "a" * 1_000_000 + "!", reference=True).followed
        assert time.process_time() - start < HANG


def test_keywords_are_patterns_where_the_reference_is_asked_for() -> None:
    for keyword, text in (
        ("colou?r", "Color"),
        ("cats|dogs", "DOGS"),
        ("word(s)", "words"),
        ("{name}{id}", "{Name}{ID}"),
        ("a.c", "abc"),
        ("so+n", "soon"),
    ):
        reply = "x" * 9000 + text + " end"
        asked = {"keyword": keyword}
        assert follows("keywords:word_once", asked, reply, reference=True).followed, keyword
        # By itself a keyword is a word: only the one that stands there as written is found.
        is_written = keyword.lower() in text.lower()
        assert follows("keywords:word_once", asked, reply).followed == is_written, keyword
    reply = "x" * 900_000 + "cats"
    asked = {"keyword": "cats|dogs"}
    assert follows("keywords:word_once", asked, reply, reference=True).followed
    assert follows("keywords:existence", {"keywords": ["(a"]}, "a", reference=True).error
