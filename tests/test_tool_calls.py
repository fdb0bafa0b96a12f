"""Calls in text and in rows: read as meant, or refused; never emptied, never run together."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.chats import call, row, says

from linn.chat import render as chat
from linn.chat.request import render_row, request_of
from linn.chat.tool_calls import ARGUMENT_KEYS
from linn.data.conversations import conversation
from linn.data.rows import BadRow
from linn.errors import UserError
from linn.offline.grade import reply_from
from linn.play.rollout import reply_of
from linn.types import ToolCall

TOOL = {
    "name": "f",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
}
OPEN = "<tool_call>\n<function=f>\n"
END = "</function>\n</tool_call>"


def calls_of(text: str, *tools: Mapping[str, Any]) -> list[Any]:
    """Arguments of every call; the text of a call that is refused."""
    return [one.arguments for one in chat.parse(text, False, tools).tool_calls]


# ---------------------------------------------------------------- JSON


@pytest.mark.parametrize("key", ARGUMENT_KEYS)
def test_arguments_are_read_under_every_name_they_have(key: str) -> None:
    given = {"a": "x", "b": 1}
    for value in (given, json.dumps(given)):
        for fields in (
            {"name": "f", key: value},
            {"type": "function", "id": "1", "function": {"name": "f", key: value}},
            {"name": "f", key: value, "arguments": None if key != "arguments" else value},
        ):
            text = f"<tool_call>\n{json.dumps(fields)}\n</tool_call>"
            assert calls_of(text) == [given]
            turns = [says("user", "q"), {"role": "assistant", "tool_calls": [fields]}]
            request = request_of(row([*turns, says("tool", "ok")]))
            assert request.messages[1].tool_calls[0].arguments == given
            (trained,) = conversation({"messages": turns, "tools": [TOOL]}).messages[-1].tool_calls
            assert trained.arguments == given


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "f", "a": "x"},
        {"name": "f", "payload": {"a": "x"}},
        {"name": "f", "arguments": {}, "parameters": {"a": "x"}},
        {"name": "f", "arguments": {"a": "x"}, "input": {"a": "y"}},
        {"name": "f", "arguments": ["x"]},
        {"name": "f", "arguments": "x"},
    ],
)
def test_a_call_that_could_lose_its_arguments_is_refused(fields: dict[str, Any]) -> None:
    (refused,) = calls_of(f"<tool_call>\n{json.dumps(fields)}\n</tool_call>")
    assert isinstance(refused, str) and refused
    turns = [says("user", "q"), {"role": "assistant", "tool_calls": [fields]}]
    with pytest.raises(BadRow) as caught:
        conversation({"messages": turns, "tools": [TOOL]})
    assert caught.value.reason == "unreadable call"
    if "arguments" not in fields or len(fields) > 2:
        with pytest.raises(UserError, match="arguments"):
            render_row(row([*turns, says("tool", "ok")]))


def test_json_ends_where_json_says() -> None:
    marked = 'a </tool_call> b </think> <tool_call> </parameter> " {'
    one = json.dumps({"name": "f", "arguments": {"a": marked}})
    two = json.dumps({"name": "f", "args": {"a": "plain"}})
    for first, second in ((one, two), (two, one)):
        text = f"<tool_call>\n{first}\n</tool_call>\n<tool_call>\n{second}\n</tool_call>"
        texts = [json.loads(part) for part in (first, second)]
        expected = [part.get("arguments") or part["args"] for part in texts]
        assert calls_of(text) == expected
        assert calls_of(f"thought\n</think>\n{text}") == expected
        assert calls_of(f"<think>\n<tool_call>{two}</tool_call>\n</think>\n{text}") == expected


# ---------------------------------------------------------------- XML


@pytest.mark.parametrize(
    ("inside", "arguments"),
    [
        ("<parameter=a>\nx\n<parameter=b>\n4\n</parameter>\n", {"a": "x", "b": 4}),
        ("<parameter=a>\nx\n</parameter>\n<parameter=b>\n4\n", {"a": "x", "b": 4}),
        ("<parameter=b>\n4\n<parameter=a>\nx\n", {"a": "x", "b": 4}),
        ("<parameter=a>x<parameter=b>4</parameter>", {"a": "x", "b": 4}),
        ("<parameter=a>x</parameter><parameter=b>4", {"a": "x", "b": 4}),
        ("<parameter=a>\nas in <parameter=x>.\n</parameter>\n", {"a": "as in <parameter=x>."}),
        ("<parameter=a>\nas in <parameter=b>.\n</parameter>\n", {"a": "as in <parameter=b>."}),
        ("<parameter=a>\n</think>\n</parameter>\n", {"a": "</think>"}),
        ("<parameter=a>\nx\n</tool_call>\ny\n</parameter>\n", {"a": "x\n</tool_call>\ny"}),
        ("<parameter=a>\nend </function></tool_call> it\n</parameter>\n", None),
        ("<parameter=a>\nx\n</param>\n<parameter=b>\n4\n</parameter>\n", None),
        ("<parameter=a>\nx\n</a>\n", None),
        ("<parameter=a>\nx\n<parameter=b>\n4\n</parameter>\n</parameter>\n", None),
        ("<parameter=a>\nx\n<parameter=a>\ny\n</parameter>\n", None),
        ("<parameter=a>\nx\n</parameter>\n<parameter=a>\ny\n</parameter>\n", None),
        ("<parameter=a>\nx\n<parameter=c>\ny\n</parameter>\n", None),
        ("<parameter=a>\nx\n</parameter>\nand more\n", None),
    ],
)
def test_a_value_ends_at_the_next_tag_or_the_call_is_refused(
    inside: str, arguments: dict[str, Any] | None
) -> None:
    (read,) = calls_of(OPEN + inside + END, TOOL)
    if arguments is None:
        assert isinstance(read, str), "no wrong value comes out"
    else:
        assert read == arguments


def test_a_call_without_an_end_does_not_swallow_the_next() -> None:
    whole = OPEN + "<parameter=a>\ny\n</parameter>\n" + END
    as_json = '<tool_call>\n{"name": "f", "arguments": {"a": "y"}}\n</tool_call>'
    for inside in (
        "<parameter=a>\nx\n",
        "<parameter=a>\nx\n</tool_call>\n",
        "<parameter=a>\nx\n</parameter>\n</tool_call>\n",
        "<parameter=a\n</tool_call>\n",
    ):
        for following in (whole, as_json):
            *broken, last = calls_of(OPEN + inside + following)
            assert last == {"a": "y"}
            assert all(isinstance(text, str) for text in broken)


MARKS = [
    *"<>\n a{",
    "<tool_call>",
    "</tool_call>",
    "<function=f>",
    "</function>",
    "<parameter=a>",
    "<parameter=b>",
    "</parameter>",
    "</think>",
    "<think>",
    '{"name": "f", "arguments": {"a": "</think>"}}',
    OPEN + "<parameter=a>\n1\n</parameter>\n" + END,
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(MARKS), max_size=12), st.booleans())
def test_a_text_is_read_offline_as_in_a_rollout(parts: list[str], thinking: bool) -> None:
    text = "".join(parts)
    # A thought that the prompt opens and nobody closes is all thought in a rollout; offline, the
    # text shows its own marks.
    opening = "<think>\n" if thinking else "<think></think>"
    online = reply_of([chat.parse(text, thinking, [TOOL])])
    offline = reply_from({"row": 0, "text": opening + text}, [TOOL])
    assert online.text == offline.text
    assert online.messages[0].tool_calls == offline.messages[0].tool_calls


HOSTILE = [
    OPEN + "<parameter=a>\n" + "</parameter> x <parameter=b> \n" * 30_000,
    '<tool_call>{"' * 70_000,
    '<tool_call>{"a":["</tool_call><tool_call>{' * 20_000,
    OPEN + "<parameter=a>" + "</function> " * 60_000,
    (OPEN + "<parameter=a></parameter>" + END + "</parameter>") * 10_000,
    '<tool_call>{"name":"f"}</tool_call>' * 20_000,
    OPEN + "<parameter=a>\n" + "\n</think>" * 80_000,
]


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_marks_without_end_take_linear_time(case: int) -> None:
    start = time.process_time()
    chat.parse(HOSTILE[case], False, [TOOL])
    assert time.process_time() - start < 10


# ---------------------------------------------------------------- nulls


def test_nulls_that_a_table_filled_in_are_dropped_and_a_required_one_refused() -> None:
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "string", "enum": None, "default": None},
            "city": None,
            "n": {"type": ["integer", "null"], "default": None},
            "o": {"type": "object", "properties": {"x": {"type": "integer"}, "y": None}},
        },
        "required": ["a"],
        "additionalProperties": None,
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": schema, "strict": None}}
    arguments = {"a": "x", "city": None, "n": None, "o": {"x": 1, "y": None}, "z": None}
    history = [says("user", "q"), says("assistant", None, tool_calls=[call("f", **arguments)])]
    request = request_of(row([*history, says("tool", "ok")], [tool]))
    assert request.messages[1].tool_calls == (
        ToolCall("f", {"a": "x", "n": None, "o": {"x": 1}}, "c1"),
    )
    shown = chat.render(request.messages, request.tools)
    assert "<name>city</name>" not in shown and "<enum>null" not in shown
    assert shown.count("<default>None</default>") == 1, "of n, which null is a value of"
    assert conversation({"messages": history, "tools": [tool]}).messages[1] == request.messages[1]

    for empty in ({"a": None}, json.dumps({"a": None})):
        history[1]["tool_calls"][0]["function"]["arguments"] = empty
        with pytest.raises(BadRow, match="'f' lacks a"):
            conversation({"messages": history, "tools": [tool]})


@pytest.mark.parametrize("key", ["tools", "tool_defs", "functions"])
def test_definitions_are_read_wherever_a_row_keeps_them(key: str) -> None:
    turns = [says("user", "q")]
    shown = render_row(row(turns, [TOOL]))
    assert render_row({"messages": turns, key: [TOOL]}) == shown
    assert render_row({"responses_create_params": {"input": turns}, key: json.dumps([TOOL])}) == (
        shown
    )
    with pytest.raises(UserError, match="define other functions"):
        render_row({"messages": turns, "tools": [{"name": "g"}], "tool_definitions": [TOOL]})


def test_a_system_text_beside_the_turns_is_shown_and_trained() -> None:
    turns = [says("user", "q"), says("assistant", "a")]
    for key in ("system", "system_prompt", "instructions"):
        assert conversation({"messages": turns, key: "S"}).messages[0].content == "S"
        assert "S<|im_end|>" in render_row({"messages": turns[:1], key: "S"})
    own = [says("system", "S"), *turns]
    assert len(conversation({"messages": own, "system": "S"}).messages) == 3
    with pytest.raises(BadRow, match="another system text"):
        conversation({"messages": own, "system": "T"})


def test_a_call_of_the_older_kind_is_a_call() -> None:
    old = says("assistant", None, function_call={"name": "f", "arguments": '{"a": "x"}'})
    turns = [says("user", "q"), old]
    assert conversation({"messages": turns, "tools": [TOOL]}).messages[1].tool_calls == (
        ToolCall("f", {"a": "x"}),
    )
    assert "<function=f>" in render_row(row([*turns, says("function", "ok")], [TOOL]))


def test_xml_values_are_trained_as_they_are_written() -> None:
    schema = {"properties": {"b": {"type": "boolean"}, "o": {"type": "object"}}}
    text = OPEN + '<parameter=b>\ntrue\n</parameter>\n<parameter=o>\n{"x":1}\n</parameter>\n' + END
    tool = {"name": "f", "parameters": schema}
    read = conversation({"messages": [says("user", "q"), says("assistant", text)], "tools": [tool]})
    (_, _), (trained, _), _ = chat.spans(read.messages, read.tools)
    assert trained.strip().startswith(text)
    assert calls_of(text, tool) == [{"b": True, "o": {"x": 1}}], "a grader sees values"


def test_a_mode_that_denies_the_thought_is_refused() -> None:
    turns = [says("user", "q"), says("assistant", "<think>t</think>a")]
    for mode in (None, True, "true"):
        options = {"chat_template_kwargs": {"enable_thinking": mode}}
        assert conversation({"messages": turns, **options}).thinking
    for mode in (False, "False"):
        with pytest.raises(BadRow, match="enable_thinking is false"):
            conversation({"messages": turns, "chat_template_kwargs": {"enable_thinking": mode}})
    with pytest.raises(BadRow, match="allowed: true or false"):
        conversation({"messages": turns, "chat_template_kwargs": {"enable_thinking": 0}})


def test_turns_may_be_the_json_text_of_turns() -> None:
    turns = [says("user", "q")]
    assert render_row({"messages": json.dumps(turns)}) == render_row({"messages": turns})
    assert "[so]" in render_row({"messages": "[so]"})
