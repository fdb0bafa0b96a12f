"""Published layouts: told by their fields, read by a domain or as demonstrations, shown alike."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linn.chat import render as chat
from linn.data.conversations import conversation
from linn.data.layouts import layout_of
from linn.data.rows import BadRow, write_rows
from linn.domains.base import Domain
from linn.domains.load import load, reader
from linn.errors import UserError
from linn.offline.describe import describe
from linn.offline.shown import Shown
from linn.types import Message, Reply

HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def half(x):\n    """The half.\n    >>> half(4)\n    2\n    """\n',
    "entry_point": "half",
    "canonical_solution": "    return x / 2\n",
    "test": "def check(candidate):\n    assert candidate(4) == 2\n    assert candidate(5) == 2.5\n",
}
MMLU = {"question": "Which is a fruit?", "choices": ["stone", "pear", "wind"], "answer": 1}
ARC = {
    "id": "Mercury_1",
    "question": "Which is a fruit?",
    "choices": {"text": ["stone", "pear"], "label": ["1", "2"]},
    "answerKey": "2",
}
DPO = {"prompt": "Name a fruit.", "chosen": "Pear.", "rejected": "Stone."}
TURNS = [{"role": "user", "content": "Name a fruit."}]

ROWS: list[tuple[str, str, dict[str, Any], str, str]] = [
    # layout, domain, row, a right reply, a wrong one
    ("HumanEval", "code", HUMAN_EVAL, "```python\ndef half(x):\n    return x / 2\n```", "no"),
    (
        "GSM8K",
        "math",
        {"question": "6 times 7?", "answer": "6*7=<<6*7=42>>42\n#### 1,042"},
        "\\boxed{1042}",
        "\\boxed{42}",
    ),
    (
        "MATH",
        "math",
        {"problem": "Half?", "level": "Level 1", "solution": "So $\\boxed{\\frac{1}{2}}$."},
        "\\boxed{1/2}",
        "\\boxed{2}",
    ),
    ("question and answer", "math", {"problem": "6+1?", "answer": 7}, "\\boxed{7}", "\\boxed{8}"),
    (
        "question and answer",
        "math",
        {"ID": "2024-I-1", "Problem": "6+1?", "Solution": "Add.", "Answer": 7},
        "\\boxed{7}",
        "\\boxed{8}",
    ),
    (
        "verl",
        "math",
        {"data_source": "d", "prompt": TURNS, "reward_model": {"ground_truth": "7"}},
        "\\boxed{7}",
        "\\boxed{8}",
    ),
    (
        "NeMo-Gym, by its agent",
        "math",
        {
            "agent_ref": {"name": "aime25_ns_tools_simple_agent"},
            "expected_answer": "7",
            "responses_create_params": {
                "input": TURNS,
                "tools": [{"type": "function", "name": "stateful_python_code_exec"}],
            },
        },
        "\\boxed{7}",
        "\\boxed{8}",
    ),
    ("multiple choice", "mcqa", MMLU, "\\boxed{B}", "\\boxed{A}"),
    ("multiple choice", "mcqa", {**MMLU, "answer": "pear"}, "\\boxed{B}", "\\boxed{A}"),
    ("multiple choice", "mcqa", {**MMLU, "answer": "B"}, "\\boxed{B}", "\\boxed{C}"),
    ("multiple choice", "mcqa", ARC, "\\boxed{B}", "\\boxed{A}"),
    (
        "multiple choice",
        "mcqa",
        {"question": "q", "options": ["x", "y"], "answer": "B", "answer_index": 1},
        "\\boxed{B}",
        "\\boxed{A}",
    ),
    (
        "IFEval and IFBench",
        "instruct",
        {
            "key": 1,
            "prompt": "Say hi.",
            "instruction_id_list": ["punctuation:no_comma"],
            "kwargs": [{"num_words": None}],
        },
        "hi",
        "hi, hi",
    ),
]


@functools.cache
def domain_of(name: str) -> Domain:
    return reader(name)


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(ROWS)))
def test_a_published_row_is_read_by_its_domain_and_graded(case: int, tmp_path: Path) -> None:
    layout, name, row, right, wrong = ROWS[case]
    assert layout_of(row).name == layout and layout_of(row).domain == name
    write_rows(tmp_path / "rows.jsonl", [row])
    domain = load(name, {"rows": tmp_path / "rows.jsonl"})
    try:
        prompts = [p for split in ("train", "validation", "test") for p in domain.prompts(split)]  # type: ignore[arg-type]
        (prompt,) = prompts
        assert domain.verify(prompt, Reply(right)).reward == 1.0
        assert domain.verify(prompt, Reply(wrong)).reward < 1.0
    finally:
        domain.close()
    told = describe(tmp_path / "rows.jsonl", None, None, lambda *_: None).record()
    assert told["layouts"] == {layout: 1} and told["use"] == {f"domains.{name}.rows": 1}


EVERY_KEY = sorted({key for _, _, row, _, _ in ROWS for key in row} | {"messages", "conversations"})


@given(st.integers(0, len(ROWS) - 1), st.sets(st.sampled_from(EVERY_KEY)), st.booleans())
def test_a_prompt_is_what_render_shows_nulls_of_other_rows_or_not(
    case: int, others: set[str], thinking: bool
) -> None:
    layout, name, row, _, _ = ROWS[case]
    row = {**dict.fromkeys(others), **row, "chat_template_kwargs": {"enable_thinking": thinking}}
    assert layout_of(row).name == layout
    present = {key: value for key, value in row.items() if value is not None}
    prompt = domain_of(name).from_row(present, 0)
    text = chat.render(prompt.messages, prompt.tools, prompt.thinking)
    assert prompt.thinking == thinking
    shown = Shown()
    try:
        if "agent_ref" not in row:  # its interpreter's definition is shown, and told by linn data
            assert shown.text(row, 0) == text
        assert Shown(name).text(row, 0) == text
    finally:
        shown.close()


def test_what_is_asked_says_what_form_it_wants_once() -> None:
    math = domain_of("math")
    for row in ({"question": "6+1?", "answer": "7"}, {"problem": "6+1? \\boxed{}", "answer": "7"}):
        (message,) = math.from_row(row, 0).messages
        assert message.content.count("\\boxed") == 1
    (message,) = domain_of("mcqa").from_row(ARC, 0).messages
    assert message.content.startswith("Which is a fruit?\nA: stone\nB: pear\n")


@pytest.mark.parametrize(
    ("name", "row", "field"),
    [
        ("math", {"problem": "p", "solution": "prose"}, "solution"),
        ("math", {"question": "q", "answer": None}, "answer"),
        ("math", {"answer": "7"}, "question is missing"),
        ("mcqa", {**MMLU, "answer": 3}, "answer is 3"),
        ("mcqa", {**MMLU, "answer": "plum"}, "answer is 'plum'"),
        ("mcqa", {**MMLU, "answer": True}, "answer is True"),
        ("mcqa", {**MMLU, "choices": "pear"}, "choices is str"),
        ("mcqa", {**MMLU, "choices": [1, 2]}, "choices holds int"),
        ("genrm", {**DPO, "chosen": ""}, "chosen is ''"),
        ("genrm", {"chosen": "a", "rejected": "b"}, "prompt is missing"),
        ("preference", {**DPO, "rejected": [*TURNS]}, "rejected is"),
    ],
)
def test_a_published_row_that_is_wrong_is_named_by_its_field(
    name: str, row: dict[str, Any], field: str
) -> None:
    with pytest.raises(UserError, match=field):
        domain_of(name).from_row(row, 0)


def test_pairs_are_taken_by_both_domains_of_preferences() -> None:
    whole = [*TURNS, {"role": "assistant", "content": "Pear."}]
    other = [*TURNS, {"role": "assistant", "content": "Stone."}]
    for row in (
        DPO,
        {"chosen": whole, "rejected": other},
        {**DPO, "chosen": whole, "rejected": other},
    ):
        assert layout_of(row).domain == "preference"
        prompt = domain_of("preference").from_row(row, 0)
        assert prompt.messages == (Message("user", "Name a fruit."),)
        assert prompt.hidden.reference == "Pear."  # type: ignore[attr-defined]
        judged = domain_of("genrm").from_row(row, 0)
        shown = {turn.role: turn.content for turn in judged.messages}
        better = "response_1" if judged.hidden.ranking < 3.5 else "response_2"  # type: ignore[attr-defined]
        assert shown[better] == "Pear."
    places = set()
    for i in range(20):
        row = {**DPO, "chosen": f"Pear {i}."}
        places.add(domain_of("genrm").from_row(row, 0).hidden.ranking)  # type: ignore[attr-defined]
    assert places == {2.0, 5.0}, "the better answer is shown in either place"


# ---------------------------------------------------------------- demonstrations

ASKED = Message("user", "Name a fruit.")
SAID = Message("assistant", "Pear.")
DEMONSTRATIONS: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": [*TURNS, {"role": "assistant", "content": "Pear."}]}),
    ("messages", {"messages": json.dumps([*TURNS, {"role": "assistant", "content": "Pear."}])}),
    (
        "ShareGPT",
        {
            "conversations": [
                {"from": "human", "value": ASKED.content},
                {"from": "gpt", "value": "Pear."},
            ]
        },
    ),
    ("ShareGPT", {"conversations": [*TURNS, {"role": "assistant", "content": "Pear."}]}),
    ("Alpaca", {"instruction": "Name a fruit.", "input": "", "output": "Pear."}),
    ("prompt and completion", {"prompt": "Name a fruit.", "completion": "Pear."}),
    (
        "prompt and completion",
        {"prompt": TURNS, "completion": [{"role": "assistant", "content": "Pear."}]},
    ),
    ("prompt and completion", {"prompt": "Name a fruit.", "response": "Pear."}),
]


@pytest.mark.parametrize(("layout", "row"), DEMONSTRATIONS)
def test_demonstrations_train_the_same_whatever_their_layout(
    layout: str, row: dict[str, Any], tmp_path: Path
) -> None:
    for nulls in ({}, {"system": None, "tools": None, "responses_create_params": None}):
        assert layout_of({**row, **nulls}).name == layout and layout_of(row).sft
        assert conversation({**row, **nulls}).messages == (ASKED, SAID)
    write_rows(tmp_path / "rows.jsonl", [row])
    told = describe(tmp_path / "rows.jsonl", None, None, lambda *_: None).record()
    assert told["use"] == {"data: of an sft stage": 1} and told["good"] == 1


def test_calls_and_results_of_sharegpt() -> None:
    tool = {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}
    turns = [
        {"from": "system", "value": "S"},
        {"from": "human", "value": "q"},
        {"from": "function_call", "value": json.dumps({"name": "f", "arguments": {"a": "x"}})},
        {"from": "observation", "value": "12"},
        {"from": "gpt", "value": "twelve"},
    ]
    row = {"conversations": turns, "tools": json.dumps([tool])}
    read = conversation(row)
    assert [m.role for m in read.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert read.messages[2].tool_calls[0].arguments == {"a": "x"}
    turns[1]["from"] = "narrator"
    with pytest.raises(BadRow, match=r"conversations\[1\].from is 'narrator'"):
        conversation(row)


def test_what_a_row_loses_is_told(tmp_path: Path) -> None:
    rows = [
        {
            "responses_create_params": {"input": TURNS, "temperature": 0.7, "tool_choice": "auto"},
            "expected_answer": "7",
            "question": "q",
        },
        {
            "messages": [
                {"role": "user", "content": "q", "name": "Ann"},
                {"role": "assistant", "content": "a"},
            ]
        },
        {
            "messages": [*TURNS, {"role": "assistant", "content": "a"}],
            "tools": [{"name": "f", "parameters": {"properties": {"city": None}}}],
        },
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    told = describe(tmp_path / "rows.jsonl", None, None, lambda *_: None)
    assert told.unused == {
        "responses_create_params.temperature": 1,
        "responses_create_params.tool_choice": 1,
        "name of a turn": 1,
        "filled-in nulls": 1,
    }
