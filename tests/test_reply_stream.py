"""A reply that comes in pieces reads as the whole one does, wherever it is cut."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.chats import WEATHER
from support.families import FAMILIES, write

from linn.chat.codec import Codec
from linn.chat.stream import Delta, ReplyStream, StopStrings, TextStream, settled
from linn.chat.template import Nemotron, Template
from linn.types import Message, ToolCall

XML = (
    "<tool_call>\n<function=weather>\n<parameter=town>\nRome\n</parameter>\n"
    "</function>\n</tool_call>"
)
JSON = '<tool_call>\n{"name": "weather", "arguments": {"town": "Rome"}}\n</tool_call>'
HIDING = XML.replace("Rome", "</think>")
PIECES = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<function=weather>",
    "</function>",
    "<parameter=town>",
    "</parameter>",
    "{",
    "}",
    '"name"',
    "[",
    "]",
    "\n",
    " ",
    "\n\n",
    "a",
    "Hi.",
    "é",
    "<",
    "</",
    "<thin",
    "<|im_end|>",
    "<|im",
    XML,
    JSON,
    HIDING,
    "[THINK]",
    "[/THINK]",
    "[TOOL_CALLS]",
    '[{"name": "weather", "arguments": {}}]',
    "weather[ARGS]{}",
    "<|python_tag|>",
    '{"name": "weather", "parameters": {"town": "Rome"}}',
    "<｜tool▁call▁begin｜>weather",
    "<｜tool▁calls▁begin｜>",
    "<|tool_call|>",
    "<|start|>",
    "assistant",
    "<|channel|>",
    "analysis",
    "final",
    "commentary to=functions.weather",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "<|return|>",
    "<|START_THINKING|>",
    "<|END_THINKING|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
    "</s>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<seed:think>",
    "</seed:think>",
)
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
CUTS = st.lists(st.integers(1, 9), min_size=1, max_size=8)


@cache
def codec(family: str) -> Codec:
    folder = Path(mkdtemp())
    write(family, folder)
    return Codec.load(folder)


NAMES = sorted(name for name, family in FAMILIES.items() if family.template is not None)


def templates() -> list[Template]:
    return [Nemotron(), *(codec(name).template for name in NAMES)]


def pieces(text: str, cuts: list[int]) -> list[str]:
    """The text in pieces of these lengths, again and again."""
    found, place = [], 0
    while place < len(text):
        size = cuts[len(found) % len(cuts)]
        found.append(text[place : place + size])
        place += size
    return found


def streamed(template: Template, text: str, cuts: list[int], thinking: bool) -> list[Delta]:
    stream = ReplyStream(template, thinking, [WEATHER])
    return [*(stream.feed(piece) for piece in pieces(text, cuts)), stream.finish()]


def joined(deltas: list[Delta]) -> Message:
    thought = "".join(delta.thought for delta in deltas)
    content = "".join(delta.content for delta in deltas)
    calls = tuple(call for delta in deltas for call in delta.calls)
    return Message("assistant", content, thought or None, calls)


@pytest.mark.slow
@settings(max_examples=250, deadline=None)
@example(f"I could {XML} so</think>{XML}", [3], True, 0)
@example(f"hm {HIDING} so</think>\nHi.", [1], True, 0)
@example("a<tool_call> is a mark</think>Hi<tool_call>", [1], True, 0)
@example("</think>\n\nHi", [1], False, 0)
@example("</think></think>Hi", [1], True, 0)
@given(TEXTS, CUTS, st.booleans(), st.integers(0, len(NAMES)))
def test_a_stream_says_what_the_whole_says(
    text: str, cuts: list[int], thinking: bool, which: int
) -> None:
    template = templates()[which]
    whole = template.read(text, thinking, [WEATHER])
    assert joined(streamed(template, text, cuts, thinking)) == whole


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.booleans(), st.integers(0, len(NAMES)))
def test_a_stream_reads_as_graders_do(text: str, thinking: bool, which: int) -> None:
    """But for thoughts that are closed twice, or without having begun."""
    template = templates()[which]
    read = template.read(text, thinking, [WEATHER])
    if template.name == "nemotron":
        closed = text.split("<|im_end|>")[0].count("</think>")
        begun = thinking or text.lstrip().startswith("<think>")
        if closed > 1 or (closed and not begun):
            return
    assert read == template.parse(text, thinking, [WEATHER])


WELL_FORMED = ("A thought.\nOf two lines.", "An answer: `<` and\n\nmore.")


@pytest.mark.parametrize("name", ["nemotron", *NAMES])
@pytest.mark.parametrize("thought", [True, False])
def test_no_mark_and_no_part_of_one_is_told(name: str, thought: bool) -> None:
    """A reply as training writes it, letter by letter: words come before the end, marks never."""
    template = Nemotron() if name == "nemotron" else codec(name).template
    reasoning = WELL_FORMED[0] if thought and template.thought_end else None
    messages = [Message("user", "Hi"), Message("assistant", WELL_FORMED[1], reasoning)]
    spans = template.spans(messages, thinking=thought)
    reply = "".join(text for text, trained in spans if trained)
    deltas = streamed(template, reply, [1], thought)
    assert joined(deltas) == messages[1]
    told = "".join(delta.content for delta in deltas[:-1])
    assert len(told) >= len(WELL_FORMED[1]) - 10, "the answer came only at the end"


def test_a_call_is_told_at_the_end_and_nothing_of_it_before() -> None:
    deltas = streamed(Nemotron(), f"so</think>\nI look.\n{XML}", [1], True)
    assert deltas[-1].calls == (ToolCall("weather", {"town": "Rome"}),)
    assert not any(delta.calls for delta in deltas[:-1])
    assert "".join(delta.content for delta in deltas) == "I look."


# ---------------------------------------------------------------- ids to text

TEXT = st.text(alphabet=st.sampled_from("ab  \n<é😀👩‍🚀漢�ü"), max_size=20)


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(TEXT, CUTS, st.integers(0, len(NAMES) - 1), st.randoms(use_true_random=False))
def test_pieces_of_ids_are_the_text_of_all_ids(text, cuts, which, rng) -> None:
    own = codec(NAMES[which])
    ids = own.encode(text)
    # Also what no text is encoded as: tokens in any order, characters that are never completed.
    ids += [rng.randrange(own.tokenizer.get_vocab_size()) for _ in range(rng.randrange(30))]
    stream, told, place = TextStream(own.tokenizer), "", 0
    sizes = itertools.cycle(cuts)
    while place < len(ids):
        size = next(sizes)
        told += stream.feed(ids[place : place + size])
        place += size
    assert told + stream.finish() == own.decode(ids)


@pytest.mark.parametrize("name", NAMES)
def test_a_character_of_several_tokens_comes_whole(name: str) -> None:
    own = codec(name)
    stream, told = TextStream(own.tokenizer), []
    for one in own.encode("a😀b"):
        told.append(stream.feed([one]))
    told.append(stream.finish())
    assert "".join(told) == own.decode(own.encode("a😀b"))
    assert not any("�" in piece for piece in told) or "�" in "".join(told)


def test_bytes_without_an_end_are_told_before_the_end() -> None:
    own = codec(next(name for name in NAMES if "qwen" in name.lower()))
    (first, *_) = own.encode("😀")
    stream = TextStream(own.tokenizer)
    told = [stream.feed([first]) for _ in range(200)]
    assert len(stream._ids) < 60
    assert "".join(told) + stream.finish() == own.decode([first] * 200)


# ---------------------------------------------------------------- stop strings


@given(st.text("ab.", max_size=30), st.lists(st.text("ab.", min_size=1, max_size=4)), CUTS)
def test_a_stop_string_ends_the_text_wherever_it_is_cut(text, stops, cuts) -> None:
    stream = StopStrings(stops)
    told = "".join(stream.feed(piece) for piece in pieces(text, cuts)) + stream.finish()
    # Letter by letter: the first end of a stop, and the longest stop that ends there.
    ends = (end for end in range(len(text) + 1) if text[:end].endswith(tuple(stops)))
    end = next(ends, None)
    right = text
    if end is not None:
        right = text[: end - max(len(stop) for stop in stops if text[:end].endswith(stop))]
    assert told == right
    assert stream.found == (end is not None)


def test_only_an_end_that_may_become_a_mark_is_held() -> None:
    assert settled("a <tool", ("<tool_call>",)) == "a "
    assert settled("a < b", ("<tool_call>",)) == "a < b"
    assert settled("<<", ("<tool_call>",)) == "<"
