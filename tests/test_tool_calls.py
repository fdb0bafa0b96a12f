"""Calls in text and in rows: read as meant, or refused; never emptied, never run together."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.chats import call, row, says

from linn.chat import render as chat
from linn.chat.calls import bare, by_name, channels, deepseek, in_lists, kimi
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
        {"name": "f", "arguments": {}, "a": "x"},
        {"name": "f", "arguments": '{"a": "x", "a": "y"}'},
        {"name": "f", "arguments": '{"a": 1e999}'},
        {"name": "f", "function": "g", "arguments": {"a": "x"}},
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
        with pytest.raises(UserError, match="arguments|two names"):
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


@pytest.mark.parametrize("value", ['{"a": "x", "a": "y"}', '{"b": 1e999}', '{"b": NaN}'])
def test_what_json_cannot_say_once_is_no_value(value: str) -> None:
    assert calls_of(f'<tool_call>{{"name": "f", "arguments": {value}}}</tool_call>') == []
    typed = {"name": "f", "parameters": {"properties": {"o": {"type": "object"}}}}
    assert calls_of(f"{OPEN}<parameter=o>\n{value}\n</parameter>\n{END}", typed) == [{"o": value}]


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


@given(st.lists(st.sampled_from(MARKS), max_size=12), st.booleans())
@example(["</think>", "\n"], False)
@example(["<think>", "</think>", "\n"], False)
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


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_marks_without_end_take_linear_time(case: int) -> None:
    start = time.process_time()
    chat.parse(HOSTILE[case], False, [TOOL])
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        ({"$ref": "#/$defs/Count"}, "3", 3),
        ({"$ref": "#/definitions/Point"}, '{"x": 1}', {"x": 1}),
        ({"anyOf": [{"$ref": "#/$defs/Count"}, {"type": "null"}]}, "null", None),
        ({"allOf": [{"$ref": "#/$defs/Count"}, {"minimum": 1}]}, "3", 3),
        ({"$ref": "#/$defs/Loop"}, "3", "3"),
        ({"$ref": "#/$defs/Nowhere"}, "3", "3"),
        ({"enum": [1, 2, 3]}, "2", 2),
        ({"enum": ["1", "2"]}, "2", "2"),
        ({"enum": [True, None]}, "true", True),
        ({"const": 5}, "5", 5),
        ({"type": "integer", "nullable": True}, "null", None),
        ({"type": "dict"}, '{"x": 1}', {"x": 1}),
        ({"type": "float"}, "1.5", 1.5),
        ({"type": "INTEGER"}, "3", 3),
        ({"type": "list"}, "[1]", [1]),
        ({"type": "str"}, "1", "1"),
    ],
)
def test_values_have_the_types_that_a_schema_names_in_any_way(
    schema: dict[str, Any], text: str, value: Any
) -> None:
    parameters = {
        "properties": {"v": schema},
        "$defs": {"Count": {"type": "integer"}, "Loop": {"$ref": "#/$defs/Loop"}},
        "definitions": {"Point": {"type": "object", "properties": {"x": {"type": "integer"}}}},
    }
    written = f"{OPEN}<parameter=v>\n{text}\n</parameter>\n{END}"
    for tool in (
        {"name": "f", "parameters": parameters},
        {"type": "function", "function": {"name": "f", "parameters": parameters}},
    ):
        assert calls_of(written, tool) == [{"v": value}]
        offline = reply_from({"text": written}, [tool]).messages[0].tool_calls
        assert offline == (ToolCall("f", {"v": value}),)


# ---------------------------------------------------------------- families' own marks


@pytest.mark.parametrize("key", ARGUMENT_KEYS)
def test_families_calls_keep_their_arguments_under_every_name(key: str) -> None:
    for value in ({"a": "x"}, '{"a": "x"}'):
        one = json.dumps({"name": "f", key: value})
        assert in_lists(f"[TOOL_CALLS] [{one}]") == ("", (ToolCall("f", {"a": "x"}),))
        assert bare(one, [TOOL]) == ("", (ToolCall("f", {"a": "x"}),))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "f", "a": "x"},
        {"name": "f", "arguments": {"a": "x"}, "parameters": {"a": "y"}},
        {"name": "f", "arguments": '{"a": "x"} and more'},
        {"name": "f", "arguments": '{"a": NaN}'},
        {"name": "f", "arguments": []},
    ],
)
def test_families_calls_that_could_lose_their_arguments_are_refused(fields: dict[str, Any]) -> None:
    beside, (read,) = in_lists(f"[TOOL_CALLS] [{json.dumps(fields)}] more")
    assert beside == "more" and read.name == "f"
    assert isinstance(read.arguments, str) and read.arguments
    for body in ('{"a": "x"} and more', '{"a": NaN}', '{"a": 1, "a": 2}', '{"a": ', ""):
        text = f"<|channel|>commentary to=functions.f<|message|>{body}<|call|>"
        assert channels(text)[2] == (ToolCall("f", body),)


def test_a_call_that_cannot_be_read_does_not_leave_without_a_word() -> None:
    good, bad = '{"a": "x"}', '{"a": '
    marks = {
        by_name: ("[TOOL_CALLS]{}[ARGS]", ""),
        deepseek: ("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{}\n```json\n", "\n```"),
        kimi: (
            "<|tool_call_begin|>functions.{}:0<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
    }
    for reader, (opening, closing) in marks.items():
        first = opening.format("f") + good + closing
        second = opening.format("g") + bad
        beside, calls = reader(f"So: {first}{second}")
        assert [call.name for call in calls] == ["f", "g"]
        assert calls[0].arguments == {"a": "x"} and calls[1].arguments == bad.strip()
        assert beside == "So:"
        assert reader(first)[0] == "", "the closing marks are no answer"
        assert reader(first + "\nand more")[0] == "and more"


def test_an_answer_in_json_is_no_call() -> None:
    for answer in ('{"name": "Bob", "type": "cat"}', '{"name": "Bob"}'):
        assert bare(answer, [TOOL]) == (answer, ())


def test_a_call_to_a_tool_of_another_kind_is_no_answer() -> None:
    text = '<|channel|>commentary to=browser.search<|message|>{"q": "x"}<|call|>'
    assert channels(text) == (None, "", (ToolCall("browser.search", {"q": "x"}),))


# ---------------------------------------------------------------- nulls


def test_nulls_of_parts_that_a_schema_refers_to_are_its_own() -> None:
    part = {"type": "object", "properties": {"n": {"$ref": "#/$defs/Maybe"}}}
    schema = {
        "properties": {
            "o": {"anyOf": [{"$ref": "#/$defs/Part"}, {"type": "null"}]},
            "l": {"type": "array", "items": {"$ref": "#/$defs/Part"}},
        },
        "$defs": {"Part": part, "Maybe": {"type": ["integer", "null"]}},
    }
    tool = {"name": "f", "parameters": schema}
    written = {"o": {"n": None, "z": None}, "l": [{"n": None, "z": None}]}
    turns = [says("user", "q"), says("assistant", None, tool_calls=[call("f", **written)])]
    (trained,) = conversation({"messages": turns, "tools": [tool]}).messages[1].tool_calls
    assert trained.arguments == {"o": {"n": None}, "l": [{"n": None}]}


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


@pytest.mark.parametrize("key", ["parameters", "input_schema", "inputSchema"])
def test_a_schema_is_read_wherever_a_definition_keeps_it(key: str) -> None:
    turns = [says("user", "q")]
    shown = render_row(row(turns, [TOOL]))
    for schema in (TOOL["parameters"], json.dumps(TOOL["parameters"])):
        tool = {"name": "f", key: schema}
        assert render_row(row(turns, [tool])) == shown
        assert render_row(row(turns, [{"type": "function", "function": tool}])) == shown
    for bad in ("no schema", ["a"]):
        with pytest.raises(UserError, match=r"tools\[0\].parameters: expected an object"):
            render_row(row(turns, [{"name": "f", key: bad}]))


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
