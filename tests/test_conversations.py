"""SFT rows: what is trained is what the row says; a malformed row has its reason and field."""

from __future__ import annotations

import json
from typing import Any

import pytest

from linn.chat import render as chat
from linn.data.conversations import conversation
from linn.data.definitions import of_text
from linn.data.rows import BadRow

WEATHER = {
    "name": "weather",
    "description": "d",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "day": {}},
        "required": ["city"],
    },
}
WRAPPED = {"type": "function", "function": WEATHER}
XML = (
    "<tool_call>\n<function=weather>\n"
    "<parameter=city>\nOslo\n</parameter>\n"
    "</function>\n</tool_call>"
)
JSON = '<tool_call>{"name": "weather", "arguments": {"city": "Oslo"}}</tool_call>'
FIELD = {
    "id": "c1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Oslo"}'},
}


def turn(role: str, content: Any = "text", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def row(*turns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"messages": [turn("system", ""), turn("user", "hi"), *turns], **more}


def test_reasoning_stands_inline() -> None:
    found = conversation(row(turn("assistant", "<think>\nwell\n</think>\nyes"), domain="chat"))
    assert (
        found.messages[-1].content == "yes"
        and found.messages[-1].reasoning == "well"
        and found.thinking
        and found.domain == "chat"
    )
    bare = conversation(row(turn("assistant", "yes")))
    assert not bare.thinking and bare.messages[-1].reasoning is None
    assert conversation(row(turn("assistant", "well</think>yes"))).messages[-1].reasoning == "well"
    assert (
        conversation(row(turn("assistant", "yes", reasoning_content="well"))).messages[-1].reasoning
        == "well"
    )


@pytest.mark.parametrize(
    "tools", [[WEATHER], [WRAPPED], json.dumps([WRAPPED]), [json.dumps(WRAPPED)]]
)
@pytest.mark.parametrize(
    "said",
    [
        turn("assistant", f"<think>look</think>Let me see.\n{XML}"),
        turn("assistant", f"<think>look</think>Let me see.\n{JSON}"),
        turn("assistant", "<think>look</think>Let me see.", tool_calls=[FIELD]),
    ],
)
def test_every_way_to_write_a_call_trains_the_same_text(tools: Any, said: dict[str, Any]) -> None:
    found = conversation(
        row(said, turn("tool", "12 C"), turn("assistant", "<think>so</think>12 C"), tools=tools)
    )
    assert found.messages[2].content == "Let me see." and found.messages[2].tool_calls[
        0
    ].arguments == {"city": "Oslo"}
    assert len(found.tools) == 1
    trained = [text for text, flag in chat.spans(found.messages, found.tools) if flag]
    assert XML in trained[0] and "so\n</think>\n12 C" in trained[1]


def answered(role: str, *results: str, calls: int = 2) -> tuple[str, list[str]]:
    """(the whole text, its trained pieces) of a row whose results stand in turns of `role`."""
    found = conversation(
        row(
            turn("assistant", f"<think>look</think>{JSON * calls}"),
            *(turn(role, r) for r in results),
            turn("assistant", "<think>so</think>12 C"),
            tools=[WEATHER],
        )
    )
    spans = chat.spans(found.messages, found.tools)
    return "".join(text for text, _ in spans), [text for text, flag in spans if flag]


def test_results_written_as_user_turns_are_results_and_the_calls_before_them_are_trained() -> None:
    wanted, trained = answered("tool", "12 C", "8 C")
    assert len(trained) == 2 and trained[0].startswith("look\n</think>")
    one, two = "<tool_response>\n12 C\n</tool_response>", "<tool_response>\n8 C\n</tool_response>"
    for role, results in (
        ("user", [one, two]),
        ("user", [f"{one}\n{two}"]),
        ("user", [f"\n{one}{two}\n"]),
        ("tool", [one, two]),
        ("user", [one + two]),
    ):
        assert answered(role, *results) == (wanted, trained)
    with pytest.raises(BadRow, match=r"messages\[3\]: a tool turn answers no call"):
        answered("user", one + two, calls=1)
    for spoken in (
        f"{one} and more",
        "<tool_response>12 C",
        "<tool_response>a</tool_response>b</tool_response>",
    ):
        assert spoken in answered("user", spoken)[0] and len(answered("user", spoken)[1]) == 1, (
            "a person speaks"
        )
    plain = conversation(
        {
            "messages": [
                turn("user", "hi"),
                turn("assistant", "yes"),
                turn("user", one),
                turn("assistant", "ok"),
            ]
        }
    )
    assert [m.role for m in plain.messages] == ["user", "assistant", "user", "assistant"], (
        "nothing was called"
    )


PROTOCOL = chat.render([], [WRAPPED], generation_prompt=False)
IN_SYSTEM = [
    PROTOCOL.removeprefix("<|im_start|>system\n").removesuffix("<|im_end|>\n"),
    f"Tools:\n<tools>\n{json.dumps(WRAPPED)}\n</tools>",
    f"<AVAILABLE_TOOLS>{json.dumps([WEATHER])}</AVAILABLE_TOOLS> {{ and a brace",
]


@pytest.mark.parametrize("system", IN_SYSTEM)
def test_definitions_in_the_system_text_count(system: str) -> None:
    turns = [
        turn("system", system),
        turn("user", "hi"),
        turn("assistant", XML),
        turn("tool", "12"),
        turn("assistant", "12"),
    ]
    assert conversation({"messages": turns}).tools == ()
    assert list(of_text(system)) == [("weather", {"city": False})]
    turns[2] = turn("assistant", XML.replace("city", "day"))
    with pytest.raises(BadRow, match=r"messages\[2\].content: call 1: 'weather' lacks city"):
        conversation({"messages": turns})


def test_definitions_in_hostile_system_text_take_no_time() -> None:
    for text in (
        "{" * 300_000,
        '{"a":' * 100_000,
        '{"a":[' * 100_000,
        "<function>" * 100_000,
        '{"' * 200_000,
        "<name>" * 100_000,
    ):
        assert list(of_text(text)) == []


BAD = [
    ("last turn not the assistant's", "messages[3].role", row(turn("assistant"), turn("user"))),
    ("last turn not the assistant's", "messages[1].role", row()),
    ("no messages", "messages", {}),
    ("no messages", "messages", {"messages": []}),
    ("no messages", "messages", {"messages": "not JSON"}),
    (
        "last turn not the assistant's",
        "messages[0].role",
        {"conversations": [{"from": "human", "value": "x"}]},
    ),
    ("unknown role", "conversations[0].from", {"conversations": [{"from": "me", "value": "x"}]}),
    ("not a chat turn", "messages[0]", {"messages": ["hi"]}),
    ("not a chat turn", "messages", row(turn("assistant", type="function_call", name="x"))),
    ("unknown role", "messages[2].role", row(turn("bot"))),
    ("unknown role", "messages[2].role", row(turn("assistant") | {"role": ["assistant"]})),
    ("no content", "messages[2].content", row(turn("assistant", None))),
    ("no content", "messages[2].content", row({"role": "assistant"})),
    ("no content", "messages[2].content", row(turn("assistant", 7))),
    ("no content", "messages[2].content", row(turn("assistant", " "))),
    ("no content", "messages[2].content", row(turn("assistant", "<think>x</think>"))),
    ("no content", "messages[2].content", row(turn("assistant", [{"type": "image_url"}]))),
    ("no content", "messages[2].content", row(turn("user", " "), turn("assistant"))),
    ("thought without an end", "messages[2].content", row(turn("assistant", "<think>on and on"))),
    (
        "text before the thought",
        "messages[2].content",
        row(turn("assistant", "Sure. <think>x</think>y")),
    ),
    (
        "two thoughts",
        "messages[2].reasoning_content",
        row(turn("assistant", "<think>x</think>y", reasoning_content="z")),
    ),
    ("unreadable reasoning", "messages[2].reasoning", row(turn("assistant", reasoning=["x"]))),
    (
        "control token in the text",
        "messages[2].content",
        row(turn("assistant", "done<|im_end|>\n")),
    ),
    (
        "control token in the text",
        "messages[2].content",
        row(turn("user", "<|im_start|>system"), turn("assistant")),
    ),
    ("call without tool definitions", "messages[2].content", row(turn("assistant", XML))),
    (
        "call without tool definitions",
        "messages[2].tool_calls[0]",
        row(turn("assistant", None, tool_calls=[FIELD])),
    ),
    (
        "undefined function called",
        "messages[2].content",
        row(turn("assistant", XML.replace("weather", "clima")), tools=[WEATHER]),
    ),
    (
        "undefined function called",
        "messages[2].tool_calls[1]",
        row(turn("assistant", None, tool_calls=[FIELD, {"name": "x"}]), tools=[WEATHER]),
    ),
    (
        "missing required argument",
        "messages[2].content",
        row(turn("assistant", JSON.replace("city", "day")), tools=[WEATHER]),
    ),
    (
        "missing required argument",
        "messages[2].tool_calls[0]",
        row(turn("assistant", "", tool_calls=[{"function": {"name": "weather"}}]), tools=[WEATHER]),
    ),
    (
        "prose after a call",
        "messages[2].content",
        row(turn("assistant", XML + "\nThere you go."), tools=[WEATHER]),
    ),
    (
        "prose after a call",
        "messages[2].content",
        row(turn("assistant", JSON + " ok"), tools=[WEATHER]),
    ),
    (
        "prose after a call",
        "messages[2].content",
        row(turn("assistant", f"{XML}\nand then\n{XML}"), tools=[WEATHER]),
    ),
    (
        "unreadable call",
        "messages[2].content",
        row(turn("assistant", "<tool_call>{broken</tool_call>"), tools=[WEATHER]),
    ),
    (
        "unreadable call",
        "messages[2].content",
        row(
            turn("assistant", "<tool_call>\n<function=weather>\n<parameter=city>Oslo"),
            tools=[WEATHER],
        ),
    ),
    (
        "unreadable call",
        "messages[2].tool_calls[0]",
        row(
            turn("assistant", "", tool_calls=[{"name": "weather", "arguments": "{oops"}]),
            tools=[WEATHER],
        ),
    ),
    (
        "unreadable call",
        "messages[2].tool_calls",
        row(turn("assistant", "", tool_calls={"name": "weather"}), tools=[WEATHER]),
    ),
    (
        "unreadable call",
        "messages[2].tool_calls[0].function.name",
        row(turn("assistant", "", tool_calls=[{"function": {}}]), tools=[WEATHER]),
    ),
    (
        "unreadable call",
        "messages[2]",
        row(
            turn(
                "assistant", JSON, tool_calls=[{"name": "weather", "arguments": {"city": "Rome"}}]
            ),
            tools=[WEATHER],
        ),
    ),
    (
        "call by another than the assistant",
        "messages[2].tool_calls",
        row(turn("user", "x", tool_calls=[FIELD]), turn("assistant"), tools=[WEATHER]),
    ),
    (
        "tool turn without a call",
        "messages[2]",
        row(turn("tool"), turn("assistant"), tools=[WEATHER]),
    ),
    (
        "tool turn without a call",
        "messages[4]",
        row(turn("assistant", XML), turn("tool"), turn("tool"), turn("assistant"), tools=[WEATHER]),
    ),
    (
        "tool turn without a call",
        "messages[3].tool_call_id",
        row(
            turn("assistant", "", tool_calls=[FIELD]),
            turn("tool", tool_call_id="c9"),
            turn("assistant"),
            tools=[WEATHER],
        ),
    ),
    ("unreadable tools", "tools", row(turn("assistant"), tools={"weather": 1})),
    ("unreadable tools", "tools", row(turn("assistant"), tools="weather")),
    (
        "unreadable tools",
        "tools[0]",
        row(turn("assistant"), tools=[{"function": {"description": "x"}}]),
    ),
    ("unreadable tools", "tools[1]", row(turn("assistant"), tools=[WEATHER, "x"])),
    (
        "unreadable tools",
        "tools[0].parameters",
        row(turn("assistant"), tools=[{"name": "x", "parameters": ["city"]}]),
    ),
]


@pytest.mark.parametrize(
    ("reason", "field", "bad"), BAD, ids=[f"{i}-{reason}" for i, (reason, _, _) in enumerate(BAD)]
)
def test_a_malformed_row_has_its_reason_and_field(
    reason: str, field: str, bad: dict[str, Any]
) -> None:
    with pytest.raises(BadRow) as caught:
        conversation(bad)
    assert caught.value.reason == reason
    assert str(caught.value).startswith(field) and "\n" not in str(caught.value)


def test_what_is_odd_but_whole_is_taken() -> None:
    parallel = row(
        turn("assistant", f"{XML}\n{XML}"),
        turn("tool", "1"),
        turn("tool", ""),
        turn("assistant", "done"),
        tools=[WEATHER],
    )
    assert len(conversation(parallel).messages[2].tool_calls) == 2
    both = row(
        turn("assistant", JSON, tool_calls=[FIELD]),
        turn("tool", "1", tool_call_id="c1"),
        turn("assistant", "done"),
        tools=[WEATHER],
    )
    assert len(conversation(both).messages[2].tool_calls) == 1
    assert conversation(row(turn("assistant", XML), tools=[WEATHER])).messages[-1].tool_calls
    assert (
        conversation(
            row(turn("assistant", [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]))
        )
        .messages[-1]
        .content
        == "ab"
    )
    assert (
        conversation({"messages": json.dumps([turn("user"), turn("assistant")])})
        .messages[-1]
        .content
        == "text"
    )
    assert conversation(row(turn("assistant", "a")) | {"tools": "", "extra": [1]}).tools == ()
