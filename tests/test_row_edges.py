"""Rows a little beside their layout: read as meant, or refused by name; nothing is dropped."""

from __future__ import annotations

import json
from typing import Any

import pytest
from support.chats import row, says

from linn.chat.request import render_row, request_of
from linn.data.conversations import conversation
from linn.data.layouts import layout_of
from linn.data.rows import BadRow
from linn.data.unused import unused
from linn.domains.load import reader
from linn.errors import UserError

ASKS = [says("user", "q")]
TALK = [*ASKS, says("assistant", "a")]


# ---------------------------------------------------------------- the mode


@pytest.mark.parametrize(
    "mode",
    [
        {"enable_thinking": False},
        {"chat_template_kwargs": {"enable_thinking": "false"}},
        {"chat_template_kwargs": '{"enable_thinking": false}'},
        {"chat_template_kwargs": {"thinking": False}},
        {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
    ],
)
def test_a_mode_is_read_wherever_a_row_says_it(mode: dict[str, Any]) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": ASKS, **mode},
        {"responses_create_params": {"input": ASKS, **mode}},
        {"responses_create_params": {"input": ASKS}, **mode},
        {"responses_create_params": {"input": ASKS, "metadata": mode}},
    ]
    for each in rows:
        assert request_of(each).thinking is False
        assert render_row(each).endswith("<think></think>")
        assert not unused(each)
    thought = [*ASKS, says("assistant", "<think>t</think>a")]
    with pytest.raises(BadRow, match="enable_thinking is false"):
        conversation({"messages": thought, **mode})


def test_two_modes_are_refused_and_the_nearer_place_wins() -> None:
    for both in (
        {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"enable_thinking": True, "thinking": False}},
    ):
        with pytest.raises(UserError, match="both true and false"):
            request_of({"messages": ASKS, **both})
    far = {"input": ASKS, "enable_thinking": True}
    assert not request_of({"responses_create_params": far, "enable_thinking": False}).thinking
    with pytest.raises(UserError, match="allowed: true or false"):
        request_of({"messages": ASKS, "enable_thinking": "maybe"})


# ---------------------------------------------------------------- what is not text


@pytest.mark.parametrize("key", ["images", "videos", "audios"])
def test_images_beside_the_text_are_refused_as_those_within_it(key: str) -> None:
    for each in (
        {"messages": TALK, key: ["x.png"]},
        {"messages": [{**ASKS[0], key: ["x.png"]}, TALK[1]]},
    ):
        with pytest.raises(BadRow, match=f"{key}: the protocol knows text only"):
            conversation(each)
        asks = {**each, "messages": each["messages"][:1]}
        for read in (request_of, render_row):
            with pytest.raises(UserError, match=f"{key}: the protocol knows text only"):
                read(asks)  # type: ignore[operator]
    assert conversation({"messages": TALK, key: []}).messages


def test_the_empty_text_that_a_table_gives_an_image_is_none() -> None:
    for kind in ("image", "input_image", "image_url", "input_audio", "file"):
        parts = [{"type": "text", "text": "see"}, {"type": kind, "text": ""}]
        with pytest.raises(UserError, match="holds no text"):
            request_of({"messages": [says("user", parts)]})


def test_a_prompt_without_any_text_is_refused() -> None:
    for content in ("", "  ", []):
        with pytest.raises(UserError, match="holds no text"):
            request_of(row([says("user", content)]))


# ---------------------------------------------------------------- turns of others


def test_turns_are_read_from_the_json_text_of_every_field() -> None:
    for key in ("messages", "prompt", "context"):
        assert request_of({key: json.dumps(ASKS)}).messages == request_of({key: ASKS}).messages
    listed = request_of({"responses_create_params": {"input": json.dumps(ASKS)}})
    assert listed.messages == request_of({"prompt": ASKS}).messages
    for text in ("[1, 2]", '[{"x": 1}]', "[so]"):
        assert request_of({"prompt": text}).messages[0].content == text


@pytest.mark.parametrize("field", ["conversations", "conversation", "messages"])
@pytest.mark.parametrize("who", ["from", "role"])
@pytest.mark.parametrize("what", ["value", "content"])
def test_sharegpts_turns_are_read_under_both_words(field: str, who: str, what: str) -> None:
    talk = [("system", "S"), ("human", "q"), ("gpt", "a")]
    turns = [{who: speaker, what: text} for speaker, text in talk]
    if (field, who, what) == ("messages", "role", "content"):
        with pytest.raises(BadRow, match="role is 'human'"):
            conversation({field: turns})
        return
    read = conversation({field: turns})
    assert [(turn.role, turn.content) for turn in read.messages] == [
        ("system", "S"),
        ("user", "q"),
        ("assistant", "a"),
    ]
    assert layout_of({field: turns}).sft
    for odd in ("nobody", ["human"], None, {}):
        with pytest.raises(BadRow, match=r"\[0\]"):
            conversation({field: [{who: odd, what: "q"}]})


@pytest.mark.parametrize(
    ("calls", "result"), [("function_call", "observation"), ("tool_call", "tool_response")]
)
def test_sharegpts_calls_and_results_are_turns(calls: str, result: str) -> None:
    tool = {"name": "f", "parameters": json.dumps({"properties": {"a": {"type": "integer"}}})}
    turns = [
        {"from": "human", "value": "q"},
        {"from": calls, "value": json.dumps({"name": "f", "arguments": {"a": 1}})},
        {"from": result, "value": "ok"},
        {"from": "gpt", "value": "done"},
    ]
    read = conversation({"conversations": turns, "tools": json.dumps([tool])})
    assert [turn.role for turn in read.messages] == ["user", "assistant", "tool", "assistant"]
    assert read.messages[1].tool_calls[0].arguments == {"a": 1}


def test_an_alpaca_rows_history_comes_before_its_question() -> None:
    last = {"instruction": "i", "input": "", "output": "o"}
    read = conversation({**last, "history": [["q", "a"], ["r", "b"]]})
    assert [turn.content for turn in read.messages] == ["q", "a", "r", "b", "i", "o"]
    assert len(conversation({**last, "history": []}).messages) == 2
    with pytest.raises(BadRow, match=r"history\[0\]: expected a question and its answer"):
        conversation({**last, "history": ["q", "a"]})


@pytest.mark.parametrize("key", ["weight", "train", "loss"])
def test_a_turn_that_is_not_to_be_trained_is_not_trained(key: str) -> None:
    for value in (0, 0.0, False):
        with pytest.raises(BadRow, match=rf"messages\[1\].{key} is"):
            conversation({"messages": [*ASKS, {**TALK[1], key: value}]})
    for value in (1, True, None):
        assert conversation({"messages": [{**ASKS[0], key: 0}, {**TALK[1], key: value}]})


@pytest.mark.parametrize(
    "tool", [{"type": "web_search"}, {"name": 5}, {"type": "function", "function": "f"}]
)
def test_a_definition_without_a_name_is_refused(tool: dict[str, Any]) -> None:
    for read in (request_of, render_row):
        with pytest.raises(UserError, match=r"tools\[0\]: a definition without a name"):
            read({"messages": ASKS, "tools": [tool]})  # type: ignore[operator]


def test_the_places_of_a_conversation_that_are_not_read_are_told() -> None:
    assert unused({"messages": ASKS, "prompt": "p", "context": ASKS}) == ["prompt", "context"]
    assert unused({"prompt": "p", "context": ASKS}) == ["context"]
    assert unused({"context": ASKS}) == []


# ---------------------------------------------------------------- published layouts


def asked(domain: str, row: dict[str, Any]) -> str:
    """What a domain's prompt says first; the layout names the same domain."""
    assert layout_of(row).domain == domain
    return reader(domain).from_row(row, 0).messages[0].content


def test_options_may_be_columns_and_the_answer_must_be_one_of_them() -> None:
    columns = {"question": "q", "A": "x", "B": "y", "answer": "B"}
    listed = {"question": "q", "choices": ["x", "y"], "answer": "B"}
    assert asked("mcqa", columns) == asked("mcqa", listed)
    for bad in (
        {**listed, "answer": "C"},
        {**columns, "answer": "C"},
        {"question": "q", "answer": "A"},
        {"question": "q", "choices": [], "answer": "A"},
    ):
        with pytest.raises(UserError, match="answer is '.'; allowed: a letter"):
            reader("mcqa").from_row(bad, 0)
    with pytest.raises(UserError, match="answer means B, but answer_index means A"):
        reader("mcqa").from_row({**listed, "answer_index": 0}, 0)
    assert reader("mcqa").from_row({**listed, "answer_index": 1}, 0)
    # A row that writes its own prompt may name only some of its options.
    own = row(ASKS) | {"options": [{"A": "x"}], "expected_answer": "C"}
    assert reader("mcqa").from_row(own, 0)


def test_a_pair_may_keep_its_conversation_three_times_but_not_another_prompt() -> None:
    chosen, rejected = TALK, [*ASKS, says("assistant", "b")]
    pair = {"prompt": "q", "messages": chosen, "chosen": chosen, "rejected": rejected}
    for prompt in ("q", ASKS, chosen, None):
        read = reader("preference").from_row({**pair, "prompt": prompt}, 0)
        assert [turn.content for turn in read.messages] == ["q"]
        assert reader("genrm").from_row({**pair, "prompt": prompt}, 0).messages[0].content == "q"
    for prompt in ("other", [says("user", "other")]):
        with pytest.raises(UserError, match="prompt is another than the turns that chosen answers"):
            reader("preference").from_row({**pair, "prompt": prompt}, 0)


def test_rulers_rows_ask_by_their_input() -> None:
    assert asked("longctx", {"index": 0, "input": "where?", "outputs": ["here"]}) == "where?"
