"""The reader of rows: every layout, every field, and what is trained is what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from support.chats import HISTORY, WEATHER, call, row, says

from linn.chat import render as chat
from linn.chat.request import Request, render_row, request_of
from linn.chat.turns import to_messages
from linn.errors import UserError
from linn.types import Message, ToolCall


def test_arguments_may_be_json_text() -> None:
    text = json.loads(json.dumps(HISTORY))
    for message in text:
        for one in message.get("tool_calls", ()):
            one["function"]["arguments"] = json.dumps(one["function"]["arguments"])
    assert render_row(row(text, [WEATHER])) == render_row(row(HISTORY, [WEATHER]))


def test_responses_items_are_the_turns_they_stand_for() -> None:
    items = [
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Hi "},
                {"type": "input_text", "text": "you"},
            ],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "I think"}],
            "encrypted_content": None,
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Wait."}],
        },
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": '{"a": 1}'},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": ""},
        {"type": "function_call_output", "call_id": "1", "output": "one"},
        {
            "type": "function_call_output",
            "call_id": "2",
            "output": [{"type": "output_text", "text": "two"}],
        },
        {"type": "function_call", "call_id": "3", "name": "h", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "3", "output": "three"},
    ]
    messages = [
        says("user", "Hi you"),
        says(
            "assistant",
            "Wait.",
            reasoning_content="I think",
            tool_calls=[call("f", a=1), call("g")],
        ),
        says("tool", "one"),
        says("tool", "two"),
        says("assistant", "", tool_calls=[call("h")]),
        says("tool", "three"),
    ]
    assert render_row(row(items)) == render_row(row(messages))
    read = to_messages(items)
    assert read[1] == Message(
        "assistant", "Wait.", "I think", (ToolCall("f", {"a": 1}, "1"), ToolCall("g", {}, "2"))
    )
    assert read[3] == Message("tool", "two", tool_call_id="2")
    assert chat.render(read) == render_row(row(items))


def test_a_thought_opens_a_new_turn_after_an_answer() -> None:
    thought = {
        "type": "reasoning",
        "content": [{"type": "reasoning_text", "text": "T"}],
        "summary": [],
    }
    more = {"type": "reasoning", "summary": [{"type": "summary_text", "text": "U"}]}
    items = [
        says("user", "Hi"),
        says("assistant", "A"),
        thought,
        more,
        {"type": "function_call", "name": "f", "arguments": {"a": 1}},
    ]
    turns = [
        says("user", "Hi"),
        says("assistant", "A"),
        says("assistant", None, reasoning_content="T\nU", tool_calls=[call("f", a=1)]),
    ]
    assert render_row(row(items)) == render_row(row(turns))


def test_where_rows_keep_their_options() -> None:
    hi = [says("user", "Hi")]
    off = chat.render([Message("user", "Hi")], thinking=False)
    assert (
        render_row(
            {
                "responses_create_params": {"input": "Hi"},
                "chat_template_kwargs": {"enable_thinking": False},
            }
        )
        == off
    )
    assert (
        render_row(
            {
                "responses_create_params": {
                    "input": hi,
                    "chat_template_kwargs": {"enable_thinking": None},
                }
            }
        )
        != off
    ), "a null that a table filled in"
    for mode, text in (
        (False, off),
        ("False", off),
        ("true", chat.render([Message("user", "Hi")])),
    ):
        assert render_row(row(hi, enable_thinking=mode)) == text
    metadata = {"chat_template_kwargs": '{"enable_thinking": false}'}
    assert (
        render_row({"responses_create_params": {"input": hi, "metadata": metadata, "tools": None}})
        == off
    )
    assert (
        render_row(
            {
                "responses_create_params": {"input": hi, "metadata": metadata},
                "chat_template_kwargs": {"enable_thinking": True},
            }
        )
        != off
    )
    assert render_row({"messages": hi, "tools": [], "add_generation_prompt": False}) == chat.render(
        [Message("user", "Hi")], generation_prompt=False
    )
    told = {"responses_create_params": {"input": hi, "instructions": "S"}}
    assert render_row(told) == chat.render([Message("system", "S"), Message("user", "Hi")])
    empty = "<|im_start|>system\n<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert render_row({"responses_create_params": {"input": []}}) == chat.render([]) == empty


WRONG: list[tuple[Mapping[str, Any], str]] = [
    ({"responses_create_params": 5}, "responses_create_params: expected an object, found 5"),
    (
        {"responses_create_params": {"input": {"role": "user"}}},
        "input: expected text or a list of messages",
    ),
    ({"responses_create_params": {"input": ["x"]}}, r"input\[0\]: expected an object"),
    (
        {"responses_create_params": {"input": [{"type": "file_search"}]}},
        r"input\[0\]: no role, and type 'file_search' is unknown",
    ),
    (
        {"responses_create_params": {"input": [says("user", [{"type": "input_image"}])]}},
        "'input_image' holds no text",
    ),
    (
        {"responses_create_params": {"input": [says("assistant", "", tool_calls="f")]}},
        r"input\[0\]\.tool_calls: expected a list",
    ),
    (
        {"responses_create_params": {"input": "x", "tools": ["f"]}},
        r"tools\[0\]: expected a function definition, found 'f'",
    ),
    (
        {"responses_create_params": {"input": "x"}, "chat_template_kwargs": "no"},
        "chat_template_kwargs: expected an object",
    ),
]


@pytest.mark.parametrize(("wrong", "says_so"), WRONG)
def test_a_wrong_row_is_named_by_its_field(wrong: Mapping[str, Any], says_so: str) -> None:
    with pytest.raises(UserError, match=says_so):
        render_row(wrong)


def test_rows_written_in_the_style_of_the_sft_data_become_messages() -> None:
    rows = [
        says("developer", "S"),
        says("user", "U"),
        says(
            "assistant",
            "<think>\nT\n</think>\nA\n"
            '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>',
        ),
    ]
    assert to_messages(rows) == (
        Message("system", "S"),
        Message("user", "U"),
        Message("assistant", "A", "T", (ToolCall("f", {"a": 1}),)),
    )


# ---------------------------------------------------------------- what is trained


def test_what_a_row_says_reaches_the_request() -> None:
    params = {
        "instructions": "Be brief.",
        "input": [
            says("developer", "D"),
            says("user", "Weather?"),
            says("assistant", None, reasoning_content="hm", tool_calls=[call("weather", town="R")]),
            {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        ],
        "tools": [WEATHER],
        "metadata": {"chat_template_kwargs": {"enable_thinking": False}},
    }
    request = request_of({"responses_create_params": params})
    assert request == Request(
        messages=(
            Message("system", "Be brief."),
            Message("system", "D"),
            Message("user", "Weather?"),
            Message("assistant", "", "hm", (ToolCall("weather", {"town": "R"}, "c1"),)),
            Message("tool", "sunny", tool_call_id="c1"),
        ),
        tools=(WEATHER,),
        thinking=False,
    )


def test_the_mode_is_the_rows_own_or_the_callers() -> None:
    silent = row([says("user", "Hi")])
    assert request_of(silent).thinking and not request_of(silent, thinking=False).thinking
    for mode in (True, False):
        told = row([says("user", "Hi")], enable_thinking=mode)
        assert request_of(told, thinking=not mode).thinking is mode


def test_a_thought_inside_content_is_trained_as_it_stands() -> None:
    history = [
        says("user", "Hi"),
        says("assistant", "<think>X</think>\nA"),
        says("user", "And?"),
        says("assistant", "<think>Y</think>B\n<tool_call>{}</tool_call>"),
        says("tool", "T"),
    ]
    request = request_of(row(history))
    assert chat.render(request.messages) == render_row(row(history))


def test_places_of_a_conversation_in_their_order() -> None:
    hi = (Message("user", "Hi"),)
    turns = [says("user", "Hi")]
    other = [says("user", "other")]
    for places in (
        {"responses_create_params": {"input": turns}, "messages": other, "prompt": "other"},
        {"responses_create_params": {"input": []}, "messages": turns, "prompt": "other"},
        {"prompt": "Hi", "context": other},
        {"context": turns},
    ):
        assert request_of(places).messages == hi
        assert render_row(places) == chat.render(hi)


UNTRAINABLE: list[tuple[Mapping[str, Any], str]] = [
    ({}, "responses_create_params.input is missing or empty"),
    ({"problem": "1+1"}, "responses_create_params.input is missing or empty"),
    ({"responses_create_params": {"input": []}}, "input is missing or empty"),
    (row([says("user", "a"), says("assistant", "b")]), "ends with an assistant turn"),
    ({"messages": [says("assistant", "b")]}, "^messages ends with an assistant turn"),
    (row([says("bot", "a")]), r"input\[0\].role is 'bot'; allowed: system, user, assistant"),
    (row([says("user", None)]), r"input\[0\].content is NoneType; allowed: text or a list"),
    (row([says("user", 5)]), r"input\[0\].content is int; allowed"),
    (
        {"responses_create_params": {"input": [says("user", 5)], "instructions": "S"}},
        r"input\[0\].content is int",
    ),
    (
        {"responses_create_params": {"input": "x", "instructions": ["S"]}},
        "instructions: expected text",
    ),
    (row("x", add_generation_prompt=False), "add_generation_prompt is false"),
    (row(HISTORY, truncate_history_thinking=False), "truncate_history_thinking is false"),
]


@pytest.mark.parametrize(("wrong", "message"), UNTRAINABLE)
def test_what_cannot_be_trained_as_it_is_shown_is_refused(
    wrong: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        request_of(wrong)


def test_kept_thoughts_are_fine_where_no_thought_is_cut() -> None:
    kept = row([says("user", "Hi")], truncate_history_thinking=False)
    assert request_of(kept).messages == (Message("user", "Hi"),)
