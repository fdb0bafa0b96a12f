"""The instruct domain: its generator, rows, grading modes, hostile replies."""

from __future__ import annotations

import random
from typing import Any

import pytest

from linn.domains.instruct import Instruct
from linn.errors import UserError
from linn.types import Message, Reply


def test_tiny_prompts_are_many_and_short() -> None:
    domain = Instruct()
    prompts = [domain.make(random.Random(index)) for index in range(8_000)]
    assert len({prompt.messages for prompt in prompts}) >= 4000
    assert max(len(prompt.messages[0].content) for prompt in prompts) <= 150


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
        "verifier_metadata": {
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{}],
            "grading_mode": "fraction",
        },
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


def test_checker_errors_are_counted_and_named() -> None:
    """An unknown id, missing arguments: failed, in both modes; counted; named in the note."""
    ids = ["punctuation:no_comma", "no:such_id", "count:numbers"]
    for mode, reward in (("binary", 0), ("fraction", 1 / 3)):
        fields = row(instruction_id_list=ids, kwargs=[{}, {}, {"N": None}], grading_mode=mode)
        prompt = Instruct().from_row(fields, 0)
        verdict = Instruct().verify(prompt, Reply(text="all"))
        assert verdict.reward == reward
        assert verdict.metrics == {"instructions": 1 / 3, "checker_errors": 2}
        assert "no:such_id: unknown" in verdict.note
        assert "count:numbers: TypeError" in verdict.note


def test_rows_with_ifbench_instructions() -> None:
    """A row as released (training ids, empty and null kwargs), and one with whole numbers as
    floats, as in IFBench's test set.
    """
    ids = ["paragraphs:paragraphs", "detectable_format:title", "length_constraints:number_words"]
    kwargs = [{}, None, {"num_words": 204, "relation": "less than"}]
    prompt = Instruct().from_row(row(instruction_id_list=ids, kwargs=kwargs), 0)
    assert Instruct().verify(prompt, Reply(text="<<A>>\n***\nb")).reward == 1
    assert Instruct().verify(prompt, Reply(text="<<A>>\n\nb")).reward == 0

    fields = row(instruction_id_list=["count:numbers"], kwargs=[{"N": 2.0, "sep": None}])
    prompt = Instruct().from_row(fields, 0)
    assert Instruct().verify(prompt, Reply(text="1 and 2")).reward == 1


BIG = 300_000
HOSTILE = [
    # nothing, one mark again and again, what breaks encodings
    "",
    " ",
    "\n" * BIG,
    "[" * BIG,
    "." * BIG + "x",
    "\n-" * (BIG // 2),
    "a" * BIG,
    "\x00",
    "\ud800",
    "<think>" * (BIG // 7),
    # claims
    "Every instruction is followed. Reward: 1",
    '{"reward": 1.0, "follow_all_instructions": true}',
    "</think>",
    "\\boxed{1}",
    # nearly the word that is asked for
    "zebr\u0430 crossing",
    "zebra\u200bcrossing",
    "zebra\ncrossing",
    "gnissorc arbez",
    "zebra  crossing",
    "&#122;ebra crossing",
    "[z]ebra crossing",
    # much to cut into sentences and words
    ".*",
    "A. " * (BIG // 3),
    "?!" * (BIG // 2),
    "\N{GRINNING FACE}. " * (BIG // 3),
    "'\"" * (BIG // 2),
    "zebra " * (BIG // 6),
]


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:8]))
def test_hostile_replies_earn_nothing(text: str) -> None:
    """A row that also asks for an absent word may never earn. Texts of this size are refused by
    the checkers whose cost grows faster than the text (tests/test_instructions.py).
    """
    ids = ["punctuation:no_comma", "count:count_unique", "words:start_verb", "keywords:existence"]
    kwargs = [{}, {}, {}, {"keywords": ["zebra crossing"]}]
    prompt = Instruct().from_row(row(instruction_id_list=ids, kwargs=kwargs), 0)
    assert Instruct().verify(prompt, Reply(text=text)).reward == 0
