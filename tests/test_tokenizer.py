"""The tiny tokenizer: lossless, deterministic, cheap on fixed text, read by transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from linn.bases.tokenizer import PAD, SENTENCES, SPECIALS, save_tokenizer, train_tokenizer
from linn.chat import render as chat
from linn.chat.codec import Codec
from linn.errors import UserError
from linn.types import Message, Prompt, ToolCall

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a town",
        "parameters": {
            "type": "object",
            "properties": {"town": {"type": "string", "description": "town"}},
            "required": ["town"],
        },
    },
}
TALK = (
    Message("user", "weather of Rome"),
    Message("assistant", "I look.", "which town", (ToolCall("weather", {"town": "Rome"}),)),
    Message("tool", "21 degrees"),
    Message("assistant", "21 degrees", "\n it said"),
)
CORPUS = [chat.render(TALK, [TOOL])] * 3 + [
    f"what is {i} plus {i + 7} times the town of Rome" for i in range(300)
]
TOKENIZER = train_tokenizer(CORPUS, 512)
CODEC = Codec(TOKENIZER)


def test_marks_and_sentences_are_one_token_each() -> None:
    assert [CODEC.encode(mark) for mark in SPECIALS] == [[i] for i in range(len(SPECIALS))]
    assert CODEC.eos == SPECIALS.index("<|im_end|>")
    for text in SENTENCES:
        assert len(CODEC.encode(text)) == 1, text
        assert CODEC.decode(CODEC.encode(text), specials=False) == text
    assert CODEC.decode(CODEC.encode("<think>a</think>b<|im_end|>"), specials=False) == "ab"


def test_every_digit_is_its_own_token() -> None:
    assert [CODEC.decode([i]) for i in CODEC.encode("1007+ 42")] == [
        "1",
        "0",
        "0",
        "7",
        "+",
        " ",
        "4",
        "2",
    ]


awkward = st.sampled_from(
    [
        *SPECIALS,
        *SENTENCES,
        "=" * 8,
        "<<",
        "``",
        "\n\n",
        "  ",
        "Ġ",
        "Ċ",
        "é",
        "e\u0301",
        "\x00",
        "\u2028",
        "🏔",
        "١",
        "1",
    ]
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.lists(st.text(max_size=20) | awkward, max_size=6).map("".join))
def test_any_text_comes_back(text: str) -> None:
    assert CODEC.decode(CODEC.encode(text)) == text


def test_half_a_surrogate_pair_does_not_stop_a_run() -> None:
    assert CODEC.decode(CODEC.encode("a\ud800b")) == "a?b"


def test_a_tool_prompt_costs_a_handful_of_boilerplate() -> None:
    without = chat.render([Message("user", "Rome")])
    with_tool = chat.render(
        [Message("user", "Rome")],
        [{"name": "weather", "description": "Rome", "parameters": {"type": "object"}}],
    )
    assert len(with_tool) - len(without) > 900
    assert len(CODEC.encode(with_tool)) - len(CODEC.encode(without)) <= 12


def test_the_same_texts_give_the_same_tokenizer_in_another_process() -> None:
    code = "import sys; from test_tokenizer import *; sys.stdout.write(TOKENIZER.to_str())"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(chat.__file__).parents[2])])
    environment = {
        **os.environ,
        "PYTHONPATH": paths,
        "PYTHONHASHSEED": "7",
        "PYTHONIOENCODING": "utf-8",
    }
    other = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert other.stdout.decode() == TOKENIZER.to_str()


def test_the_vocabulary_is_as_small_as_asked_and_no_smaller_than_it_can_be() -> None:
    smallest = 256 + len(SPECIALS) + len(SENTENCES)
    assert train_tokenizer(CORPUS, smallest).get_vocab_size() == smallest
    assert train_tokenizer(CORPUS, smallest + 20).get_vocab_size() == smallest + 20
    assert sorted(TOKENIZER.get_vocab().values()) == list(range(TOKENIZER.get_vocab_size()))
    with pytest.raises(
        UserError, match=f"{smallest - 1} is too small; .* alone are {smallest} tokens"
    ):
        train_tokenizer(CORPUS, smallest - 1)


def test_no_merge_is_spent_on_fixed_text() -> None:
    only_fixed = train_tokenizer(
        [chat.TOOLS_HEADING + chat.CALL_FORMAT + chat.CALL_REMINDER + chat.START] * 50, 1000
    )
    assert only_fixed.get_vocab_size() == 256 + len(SPECIALS) + len(SENTENCES)


def test_training_and_sampling_see_the_same_tokens_at_the_same_borders() -> None:
    prompt = Prompt("d", "1", TALK[:1], True, (TOOL,))
    pieces = chat.spans(TALK, prompt.tools)
    ids, mask = CODEC.encode_spans(pieces)
    assert CODEC.decode(ids) == chat.render(TALK, prompt.tools, generation_prompt=False)
    rolled = CODEC.prompt_ids(prompt) + CODEC.encode(pieces[1][0])
    rolled += CODEC.encode(chat.continuation(TALK[2:3])) + CODEC.encode(pieces[3][0])
    assert ids == [*rolled, *CODEC.encode("\n")]
    trained = [i for i, on in zip(ids, mask, strict=True) if on]
    assert CODEC.decode(trained) == pieces[1][0] + pieces[3][0]
    assert trained.count(CODEC.eos) == 2
    later = Prompt("d", "2", (*TALK, Message("user", "thanks")), True, (TOOL,))
    assert CODEC.prompt_ids(later, keep_thinking=True) == rolled + CODEC.encode(
        chat.continuation([Message("user", "thanks")])
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [None, '{"model_type": "qwen3"}', '{"model_type": "nemotron_h"}', '{"model_type": "llama"}'],
)
def test_transformers_reads_the_folder(tmp_path: Path, config: str | None) -> None:
    from transformers import AutoTokenizer

    save_tokenizer(TOKENIZER, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    if config is not None:
        (tmp_path / "config.json").write_text(config)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.is_fast
    assert (theirs.eos_token, theirs.pad_token, theirs.bos_token) == ("<|im_end|>", PAD, None)
    assert theirs.eos_token_id == Codec.load(tmp_path).eos == CODEC.eos
    call = {"type": "function", "function": {"name": "weather", "arguments": {"town": "Rome"}}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "weather of Rome"},
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "which town",
            "tool_calls": [call],
        },
        {"role": "tool", "content": "21 degrees"},
    ]
    for thinking in (True, False):
        text = theirs.apply_chat_template(
            messages,
            tools=[TOOL],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=thinking,
        )
        assert text == chat.render(TALK[:3], [TOOL], thinking)
        assert theirs(text)["input_ids"] == CODEC.encode(text)
        assert theirs.decode(theirs(text)["input_ids"]) == text


def test_no_more_of_a_text_is_tokenised_than_shows_that_it_is_too_long() -> None:
    short, long = "a b 12 é" * 20, "alpha  beta 123\n" * 200_000
    marks = "<|im_end|>"

    for pieces in ([(short, False), (short, True)], [("", False)], [(marks * 30, True)]):
        assert CODEC.encode_spans(pieces, 10_000) == CODEC.encode_spans(pieces)

    two = [(short, False), (short, True)]
    whole = CODEC.encode_spans(two)
    count = len(whole[0])
    assert CODEC.encode_spans(two, count) == whole
    assert len(CODEC.encode_spans(two, count - 1)[0]) > count - 1

    # Each of these would be a million tokens and more.
    for pieces in (
        [(long, True)],
        [(short, False), (long, True), (long, False)],
        [(marks * 1_000_000, True)],
    ):
        ids, mask = CODEC.encode_spans(pieces, 100)
        assert 100 < len(ids) == len(mask) < 100_000
