"""The chat protocol: equal to the published template, reversible, unmoved by hostile replies."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from support.chats import BARE, FLAT, HISTORY, WEATHER, call, filled_out, row, says
from tokenizers import Tokenizer, models

from linn.chat import render as chat
from linn.chat.codec import Codec
from linn.chat.request import render_row
from linn.errors import UserError
from linn.types import Message, ToolCall

# (messages, tools, options, first hex digits of the SHA-256 of what the published template renders)
PUBLISHED: list[tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any], str]] = [
    ([says("user", "Hi")], [], {}, "5ede607edaf6e602"),
    ([says("user", "Hi")], [], {"enable_thinking": False}, "80bddea55d4c0a27"),
    ([says("system", "S"), says("user", "Hi")], [WEATHER, FLAT, BARE], {}, "4253bdb773fed842"),
    ([says("user", "Hi")], [FLAT], {"enable_thinking": False}, "37978ff305462a75"),
    (HISTORY, [WEATHER], {}, "921989e6f50ca90c"),
    (HISTORY, [WEATHER], {"truncate_history_thinking": False}, "c7064bf3c80e2bad"),
    ([*HISTORY, says("user", "Thanks")], [], {}, "c50da98f309473bb"),
    (
        [*HISTORY, says("user", "Thanks")],
        [],
        {"truncate_history_thinking": False, "add_generation_prompt": False},
        "de8b8706cf460f10",
    ),
    (
        [
            says("tool", "first"),
            says("assistant", "</think>a"),
            says("user", None),
            says("assistant", "<think>open"),
        ],
        [],
        {},
        "ee9e00f8194c0aba",
    ),
    (
        [
            says("assistant", "a</think>b<think>c", tool_calls=[call("f")]),
            says("user", 5),
            says("assistant", ""),
        ],
        [],
        {},
        "eb2abe909340ee24",
    ),
    (
        [
            says("assistant", "b<think>c", tool_calls=[call("f")]),
            says("system", "D"),
            says("user", "u"),
            says("system", "late"),
        ],
        [],
        {},
        "b095f13f55381c0c",
    ),
    (
        [
            says("user", "<|im_end|>\u2028 \xa0"),
            says("assistant", "\x1c x \xa0"),
            says("assistant", 7),
            says("assistant", True),
        ],
        [],
        {},
        "16e83f02cdb0d7fa",
    ),
]


@pytest.mark.parametrize("case", range(len(PUBLISHED)))
def test_rows_render_as_the_published_template_has_it(case: int) -> None:
    messages, tools, options, digest = PUBLISHED[case]
    text = TEMPLATE.render(messages=messages, tools=tools, **{**DEFAULTS, **options})
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest, text
    messages, tools = filled_out(messages, tools)
    text = TEMPLATE.render(messages=messages, tools=tools, **{**DEFAULTS, **options})
    assert render_row(row(messages, tools, **options)) == text


def test_a_rendering_written_out() -> None:
    assert render_row(row(HISTORY[:9], ())) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think></think>\nAnswer<|im_end|>\n"
        "<|im_start|>user\nAnd now?<|im_end|>\n"
        "<|im_start|>assistant\n<think></think>\n  It is<|im_end|>\n"
        "<|im_start|>user\nWeather?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\nI call\n</think>\n"
        "<tool_call>\n<function=weather>\n"
        "<parameter=town>\nRome\n</parameter>\n"
        "<parameter=days>\n3\n</parameter>\n"
        '<parameter=where>\n{"a": [1, "é"]}\n</parameter>\n'
        "</function>\n</tool_call>\n<|im_end|>\n"
        "<|im_start|>user\n<tool_response>\nsunny\n</tool_response>\n"
        "<tool_response>\nwarm\n</tool_response>\n<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n"
    )
    assert chat.render([Message("user", "Hi")], [FLAT], thinking=False).startswith(
        "<|im_start|>system\n# Tools\n\nYou have access to the following functions:\n\n"
        "<tools>\n<function>\n<name>now</name>\n<description>None</description>\n"
        "<parameters>\n<required>[]</required>\n</parameters>\n</function>\n</tools>\n\n"
        "If you choose"
    )


# ---------------------------------------------------------------- our own Jinja


def template() -> Any:
    jinja = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    jinja.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return jinja.from_string(chat.TEMPLATE.read_text(encoding="utf-8"))


TEMPLATE = template()
DEFAULTS = {"add_generation_prompt": True}

pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<think>\n",
        "\n</think>\n",
        "\n",
        " ",
        "\xa0",
        "hello",
        "é",
        "<|im_end|>",
        "{",
        "5",
        "<b>&\"'",
    ]
)
texts = st.lists(pieces, max_size=4).map("".join)
keys = st.sampled_from(["a", "name", "type", "description", "enum", "required", "title", "b c"])
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=5,
)
schemas = st.fixed_dictionaries(
    {"properties": st.dictionaries(keys, values, max_size=3)},
    optional={"required": values, "type": values, "$defs": values},
)
objects = st.none() | st.dictionaries(keys, values, max_size=3)
functions = st.fixed_dictionaries(
    {"name": texts.filter(bool)},
    optional={"description": texts | st.none(), "parameters": schemas | objects, "strict": values},
)
tool_lists = st.lists(
    functions | functions.map(lambda f: {"type": "function", "function": f}), max_size=2
)
wanted = st.fixed_dictionaries(
    {"name": texts.filter(bool)}, optional={"arguments": st.dictionaries(keys, values, max_size=2)}
)
turns = st.one_of(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "system", "tool"]), "content": texts}),
    st.fixed_dictionaries(
        {"role": st.just("assistant"), "content": texts | st.none()},
        optional={
            "reasoning_content": texts | st.none(),
            "tool_calls": st.lists(wanted.map(lambda f: {"function": f}), max_size=2),
        },
    ),
)


@pytest.mark.slow
@given(
    st.lists(turns, min_size=1, max_size=5), tool_lists, st.booleans(), st.booleans(), st.booleans()
)
def test_our_jinja_and_our_code_agree(
    messages: list[Any], tools: list[Any], thinking: bool, cut: bool, prompt: bool
) -> None:
    options = {
        "enable_thinking": thinking,
        "truncate_history_thinking": cut,
        "add_generation_prompt": prompt,
    }
    text = render_row(row(messages, tools, **options))
    messages, tools = filled_out(messages, tools)
    assert text == TEMPLATE.render(messages=messages, tools=tools, **options)


def test_our_jinja_agrees_on_parts_and_text_arguments() -> None:
    broken = {"function": {"name": "f", "arguments": '{"a": '}}
    messages = [
        says("system", [{"type": "text", "text": "S"}]),
        says("user", [{"text": "a"}, {"text": "b"}]),
        says("assistant", "", tool_calls=[broken]),
    ]
    text = render_row(row(messages, (), add_generation_prompt=False))
    assert text == TEMPLATE.render(messages=messages, add_generation_prompt=False)
    assert text.endswith('<function=f>\n{"a": \n</function>\n</tool_call>\n<|im_end|>\n')


# ---------------------------------------------------------------- spans and continuations

plain = st.text(st.characters(codec="utf-8", exclude_characters="<"), max_size=12)
answers = plain.map(str.rstrip)
thoughts = plain.filter(str.strip)
names = st.from_regex(r"[a-z_][a-z_.0-9]{0,8}", fullmatch=True)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    max_leaves=6,
)
TYPES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.lists(
        st.sampled_from(
            [
                "True",
                "5",
                "\n",
                "</tool_call>",
                "<function=f>",
                "</parameter>",
                "é",
                '{"a": 1}',
                "<tool_call>",
            ]
        )
    ).map("".join),
    "integer": st.integers(-(10**20), 10**20),
    "number": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-5, 5),
    "boolean": st.booleans(),
    "null": st.none(),
    "array": st.lists(json_values, max_size=3),
    "object": st.dictionaries(plain, json_values, max_size=3),
}
typed = st.sampled_from(sorted(TYPES)).flatmap(
    lambda kind: TYPES[kind].map(lambda value: (kind, value))
)


@st.composite
def assistant_turns(draw: st.DrawFn) -> tuple[Message, list[dict[str, Any]]]:
    tools = []
    calls = []
    for name in draw(st.lists(names, max_size=3, unique=True)):
        arguments = draw(st.dictionaries(names, typed, max_size=3))
        properties = {key: {"type": kind} for key, (kind, _) in arguments.items()}
        tools.append(
            {
                "type": "function",
                "function": {
                    "name": name,
                    "parameters": {"type": "object", "properties": properties},
                },
            }
        )
        calls.append(ToolCall(name, {key: value for key, (_, value) in arguments.items()}))
    return Message("assistant", draw(answers), draw(st.none() | thoughts), tuple(calls)), tools


conversations = st.lists(
    assistant_turns().map(lambda turn: turn[0])
    | plain.map(lambda t: Message("user", t))
    | plain.map(lambda t: Message("tool", t)),
    max_size=6,
)


@pytest.mark.slow
@given(assistant_turns())
def test_parse_undoes_render(turn: tuple[Message, list[dict[str, Any]]]) -> None:
    message, tools = turn
    thinking = message.reasoning is not None
    (before, _), (sampled, trained), (after, _) = chat.spans([Message("user", "?"), message], tools)
    assert before == chat.render([Message("user", "?")], tools, thinking)
    assert trained
    assert after == "\n"
    assert chat.parse(sampled, thinking, tools) == message
    assert chat.parse(sampled.removesuffix(chat.END), thinking, tools) == message
    assert chat.parse(before.rpartition("assistant\n")[2] + sampled, thinking, tools) == message


@pytest.mark.slow
@given(conversations, st.booleans(), st.booleans())
def test_spans_are_the_rendering_in_pieces(
    messages: list[Message], thinking: bool, keep: bool
) -> None:
    found = chat.spans(messages, [FLAT], keep_thinking=keep)
    assert "".join(text for text, _ in found) == chat.render(
        messages, [FLAT], thinking, keep, generation_prompt=False
    )
    assert all(text for text, _ in found)
    assert [trained for _, trained in found] == [i % 2 == 1 for i in range(len(found))]
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    kept = [m for i, m in enumerate(messages) if m.role == "assistant" and (keep or i > last)]
    told = [chat.parse(text, text.count(chat.THINK_END) > 0) for text, trained in found if trained]
    assert [m for m in told if m.reasoning] == [
        Message("assistant", m.content, m.reasoning, told_calls(m)) for m in kept if m.reasoning
    ]


def told_calls(message: Message) -> tuple[ToolCall, ...]:
    """The calls as they are read without schemas: every value is text."""
    return chat.parse(chat.spans([message])[1][0], message.reasoning is not None).tool_calls


@pytest.mark.slow
@given(
    conversations,
    assistant_turns(),
    st.lists(
        plain.map(lambda t: Message("tool", t)) | plain.map(lambda t: Message("user", t)),
        max_size=3,
    ),
    st.booleans(),
)
def test_a_continued_prompt_is_the_next_prompt(
    history: list[Message],
    turn: tuple[Message, list[dict[str, Any]]],
    answer: list[Message],
    thinking: bool,
) -> None:
    message, tools = turn
    first = chat.render(history, tools, message.reasoning is not None, keep_thinking=True)
    sampled = chat.spans([*history, message], tools, keep_thinking=True)[-2][0]
    following = chat.continuation(answer, thinking)
    assert first + sampled + following == chat.render(
        [*history, message, *answer], tools, thinking, keep_thinking=True
    )


def test_a_turn_whose_thought_was_cut_is_not_trained() -> None:
    messages = [
        Message("user", "1"),
        Message("assistant", "A", "T"),
        Message("user", "2"),
        Message("assistant", "B", "U"),
    ]
    assert [text for text, trained in chat.spans(messages) if trained] == [
        "U\n</think>\nB<|im_end|>"
    ]
    assert [text for text, trained in chat.spans(messages, keep_thinking=True) if trained] == [
        "T\n</think>\nA<|im_end|>",
        "U\n</think>\nB<|im_end|>",
    ]
    plain_turns = [
        Message("user", "1"),
        Message("assistant", "A"),
        Message("user", "2"),
        Message("assistant", "B"),
    ]
    assert [text for text, trained in chat.spans(plain_turns) if trained] == [
        "A<|im_end|>",
        "B<|im_end|>",
    ]


# ---------------------------------------------------------------- parsing what models write

SAMPLED: list[tuple[str, bool, Message]] = [
    ("why\n</think>\nyes<|im_end|>", True, Message("assistant", "yes", "why")),
    ("why</think>yes", True, Message("assistant", "yes", "why")),
    ("<think>\nwhy\n</think>\nyes", True, Message("assistant", "yes", "why")),
    ("a</think>b</think>c", True, Message("assistant", "c", "a</think>b")),
    ("</think>c", True, Message("assistant", "c")),
    ("never ends", True, Message("assistant", "", "never ends")),
    ("", True, Message("assistant", "")),
    ("", False, Message("assistant", "")),
    ("yes<|im_end|>junk", False, Message("assistant", "yes")),
    ("<think></think>yes", False, Message("assistant", "yes")),
    ("<think>never ends", False, Message("assistant", "", "never ends")),
    ("a <think> b", False, Message("assistant", "a <think> b")),
    (
        "<tool_call>\n<function=f>\n</function>\n</tool_call>",
        True,
        Message("assistant", "", "<tool_call>\n<function=f>\n</function>\n</tool_call>"),
    ),
    (
        "<tool_call>\n<function=f>\n</function>\n</tool_call>\n",
        False,
        Message("assistant", "", None, (ToolCall("f", {}),)),
    ),
    (
        "x\n<tool_call><function=f><parameter=a>1</parameter></function></tool_call> y",
        False,
        Message("assistant", "x\ny", None, (ToolCall("f", {"a": "1"}),)),
    ),
    (
        "<tool_call>\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>",
        False,
        Message("assistant", "", None, (ToolCall("f", {"a": "1"}),)),
    ),
    (
        '<tool_call>{"name": "f", "arguments": {"a": [1]}}</tool_call>',
        False,
        Message("assistant", "", None, (ToolCall("f", {"a": [1]}),)),
    ),
    (
        '<tool_call>{"name": "f", "arguments": "{\\"a\\": 1}"}</tool_call>',
        False,
        Message("assistant", "", None, (ToolCall("f", {"a": 1}),)),
    ),
    (
        '<tool_call>{"name": "f", "arguments": "{a"}</tool_call>',
        False,
        Message("assistant", "", None, (ToolCall("f", "{a"),)),
    ),
    (
        '<tool_call>{"name": "f"}\n<tool_call>{"name": "g"}</tool_call>',
        False,
        Message("assistant", '<tool_call>{"name": "f"}\n<tool_call>{"name": "g"}</tool_call>'),
    ),
    ("<tool_call>[1]</tool_call>", False, Message("assistant", "<tool_call>[1]</tool_call>")),
    (
        '<tool_call>{"name": 5}</tool_call>',
        False,
        Message("assistant", '<tool_call>{"name": 5}</tool_call>'),
    ),
    (
        "<tool_call>\n<function=f>\n<parameter=a>\n1\n</tool_call>",
        False,
        Message("assistant", "", None, (ToolCall("f", "<parameter=a>\n1"),)),
    ),
    (
        "<tool_call>\n<function=f\n</tool_call>",
        False,
        Message("assistant", "<tool_call>\n<function=f\n</tool_call>"),
    ),
    ("<tool_call>", False, Message("assistant", "<tool_call>")),
    (
        "<tool_call>\n<function=>\n</function>\n</tool_call>",
        False,
        Message("assistant", "<tool_call>\n<function=>\n</function>\n</tool_call>"),
    ),
]


@pytest.mark.parametrize(("text", "thinking", "message"), SAMPLED)
def test_what_a_sampled_text_says(text: str, thinking: bool, message: Message) -> None:
    assert chat.parse(text, thinking) == message


def test_a_broken_call_is_written_as_it_was_read() -> None:
    text = "<tool_call>\n<function=f>\n{broken\n</function>\n</tool_call>\n<|im_end|>"
    message = chat.parse(text, thinking=False)
    assert message == Message("assistant", "", None, (ToolCall("f", "{broken"),))
    assert chat.spans([message])[1][0] == "\n" + text


def test_values_take_the_declared_types_where_they_fit() -> None:
    declared = {
        "s": {"type": "string"},
        "i": {"type": "integer"},
        "n": {"type": "number"},
        "b": {"type": "boolean"},
        "o": {"type": "object"},
        "sn": {"type": ["string", "null"]},
        "u": {},
        "any": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    }
    tools = [{"type": "function", "name": "f", "parameters": {"properties": declared}}]

    def value(key: str, text: str) -> Any:
        turn = Message("assistant", "", None, (ToolCall("f", {key: text}),))
        (one,) = chat.parse(chat.spans([turn])[1][0], False, tools).tool_calls
        assert isinstance(one.arguments, Mapping)
        return one.arguments[key]

    def same(found: Any, expected: Any) -> bool:
        return type(found) is type(expected) and found == expected

    assert same(value("s", "5"), "5")
    assert same(value("s", "null"), "null")
    assert same(value("i", "5"), 5)
    assert same(value("i", "5.0"), 5)
    assert same(value("i", "5.5"), "5.5")
    assert same(value("i", "true"), "true")
    assert same(value("n", "5"), 5)
    assert same(value("n", "NaN"), "NaN")
    assert same(value("n", "9" * 5000), "9" * 5000)
    assert same(value("b", "True"), True)
    assert same(value("b", "false"), False)
    assert same(value("b", "yes"), "yes")
    assert same(value("o", '{"a": 1}'), {"a": 1})
    assert same(value("o", "[1]"), "[1]")
    assert same(value("o", "{" * 100_000), "{" * 100_000)
    assert same(value("sn", "None"), None)
    assert same(value("sn", "5"), "5")
    assert same(value("u", "5"), "5")
    assert same(value("any", "7"), 7)
    assert same(value("any", "null"), None)


HOSTILE = [
    "<tool_call>" * 90_000,
    "<tool_call>\n<function=f>\n<parameter=a>\n" * 25_000,
    "<tool_call><function=f><parameter=a></parameter>x" * 20_000,
    "<tool_call><function=f><parameter=" * 30_000 + "</tool_call>" * 1000,
    '<tool_call>{"name": "f", "arguments": ' + "[" * 900_000,
    "<tool_call>" + " " * 1_000_000 + "</tool_call>",
    "<think>" * 140_000,
    "</think>" * 120_000,
    "<tool_call>" + '{"a":' * 200_000 + "</tool_call>",
    "<tool_call><function=f></tool_call>" * 30_000,
    "<tool_call><function=f><parameter=a></parameter>x</tool_call>" * 16_000,
    "\x00\ud800" * 500_000,
]
HANG = 20
"""CPU-seconds. A linear reader takes a second or two; a quadratic one takes minutes on a
megabyte."""


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_a_megabyte_of_hostile_text_neither_raises_nor_lasts(case: int) -> None:
    start = time.process_time()
    for thinking in (True, False):
        message = chat.parse(HOSTILE[case], thinking, [WEATHER])
        chat.render([message])
    assert time.process_time() - start < HANG


@given(
    st.lists(
        st.sampled_from(
            [
                *"<>\n a{",
                "<tool_call>",
                "</tool_call>",
                "<function=",
                "<function=f>",
                "</function>",
                "<parameter=a>",
                "</parameter>",
                "</think>",
                '{"name": "f"}',
            ]
        )
    )
)
def test_no_text_is_too_broken(parts: list[str]) -> None:
    message = chat.parse("".join(parts), thinking=False, tools=[WEATHER])
    again = chat.parse(chat.spans([message])[1][0], thinking=message.reasoning is not None)
    assert chat.CALL in message.content or [one.name for one in again.tool_calls] == [
        one.name for one in message.tool_calls
    ]


# ---------------------------------------------------------------- Codec


def test_a_folder_without_a_usable_tokenizer_is_named(tmp_path: Any) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: no such file; .*save_pretrained"):
        Codec.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UserError, match="not a tokenizer this version"):
        Codec.load(tmp_path)
    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        UserError, match=r"tokenizer\.json: the tokenizer has no token <\|im_end\|>"
    ):
        Codec.load(tmp_path)
