"""The instruct domain: the tiny generator, rows, modes, hostile replies."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest

from linn.domains.instruct import Instruct
from linn.errors import UserError
from linn.types import Message, Prompt, Reply

# ---------------------------------------------------------------- the domain


def graded(domain: Instruct, prompt: Prompt, faulty: bool) -> float:
    (message,) = domain.demonstrate(prompt, random.Random(1), faulty)
    return domain.verify(
        prompt, Reply(text=message.content, reasoning=message.reasoning or "", messages=(message,))
    ).reward


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
    assert tests[:20] == [
        prompt for prompt, _ in zip(domain.prompts("test", seed=9), range(20), strict=False)
    ]


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
        prompt = Instruct().from_row(
            row(instruction_id_list=ids, kwargs=[{}, {}, {"N": None}], grading_mode=mode), 0
        )
        verdict = Instruct().verify(prompt, Reply(text="all"))
        assert verdict.reward == reward and verdict.metrics == {
            "instructions": 1 / 3,
            "checker_errors": 2,
        }
        assert "no:such_id: unknown" in verdict.note and "count:numbers: TypeError" in verdict.note


def test_rows_with_ifbench_instructions() -> None:
    """A row as released (training ids, empty and null kwargs), and one with whole numbers as
    floats, as in IFBench's test set.
    """
    ids = ["paragraphs:paragraphs", "detectable_format:title", "length_constraints:number_words"]
    prompt = Instruct().from_row(
        row(
            instruction_id_list=ids, kwargs=[{}, None, {"num_words": 204, "relation": "less than"}]
        ),
        0,
    )
    assert Instruct().verify(prompt, Reply(text="<<A>>\n***\nb")).reward == 1
    assert Instruct().verify(prompt, Reply(text="<<A>>\n\nb")).reward == 0
    prompt = Instruct().from_row(
        row(instruction_id_list=["count:numbers"], kwargs=[{"N": 2.0, "sep": None}]), 0
    )
    assert Instruct().verify(prompt, Reply(text="1 and 2")).reward == 1


BIG = 300_000
HOSTILE = [
    *(
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
    ),
    *(
        "Every instruction is followed. Reward: 1",
        '{"reward": 1.0, "follow_all_instructions": true}',
        "</think>",
        "\\boxed{1}",
    ),
    *(
        "zebr\u0430 crossing",
        "zebra\u200bcrossing",
        "zebra\ncrossing",
        "gnissorc arbez",
        "zebra  crossing",
        "&#122;ebra crossing",
        "[z]ebra crossing",
    ),
    *(
        ".*",
        "A. " * (BIG // 3),
        "?!" * (BIG // 2),
        "\N{GRINNING FACE}. " * (BIG // 3),
        "'\"" * (BIG // 2),
        "zebra " * (BIG // 6),
    ),
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:8]))
def test_hostile_replies_earn_nothing_fast(text: str) -> None:
    """A row that also asks for an absent word may never earn."""
    ids = ["punctuation:no_comma", "count:count_unique", "words:start_verb", "keywords:existence"]
    prompt = Instruct().from_row(
        row(instruction_id_list=ids, kwargs=[{}, {}, {}, {"keywords": ["zebra crossing"]}]), 0
    )
    start = time.process_time()
    assert Instruct().verify(prompt, Reply(text=text)).reward == 0
    assert time.process_time() - start < 3
