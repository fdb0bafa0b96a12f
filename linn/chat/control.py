"""Text that spells a control token stays text.

A row, a tool's result or a quoted reply may hold `<|im_end|>`, `<s>` or `[INST]`. As part of a
conversation's text a tokenizer reads it as the token, so that it ends a turn and forges another.
`Guard` puts a joint behind the first character of each; `Codec` cuts the text there before it is
tokenised, so that the letters are encoded as letters and the text is the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from linn.types import Message, ToolCall

JOINT = "\udbff"
"""Where the tokenizer must not read on. Half of a surrogate pair: no text holds one."""

_CONTENT = re.compile(
    r"</?(?:think|seed:think|tool_call|tool_response|function|parameter|tools)>|\[/?THINK\]"
)
"""Marks that content may hold by right: thoughts, calls and results that a row wrote out."""


class Guard:
    """Knows the control tokens of a tokenizer, and the marks of a template that are no tokens."""

    def __init__(self, tokens: Collection[str], marks: Collection[str] = ()) -> None:
        """`tokens`: texts of the special tokens. `marks`: what the template writes between turns.

        A mark that is no token (Llama-2's `[INST]`) is read as its letters in any case, so letters
        alone cannot tell it apart: it is broken by a space, and counted.
        """
        self.broken = 0
        """Marks broken by a space so far."""
        self._tokens = set(tokens)
        texts = {text for text in (*tokens, *marks) if len(text) > 2}
        texts = {text for text in texts if not _CONTENT.fullmatch(text)}
        longest_first = sorted(texts, key=lambda text: (-len(text), text))
        self._marks = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def text(self, text: str) -> str:
        """The text with a joint within every control token that it spells."""
        # Halves of surrogate pairs are no text; none of them may pass for a joint.
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode()
        return self._marks.sub(self._parted, text)

    def _parted(self, mark: re.Match[str]) -> str:
        text = mark[0]
        if text in self._tokens:
            return text[0] + JOINT + text[1:]
        self.broken += 1
        return f"{text[0]} {text[1:]}"

    def message(self, message: Message) -> Message:
        """A message with all its texts guarded."""
        calls = [self._call(call) for call in message.tool_calls]
        return replace(
            message,
            content=self.text(message.content),
            reasoning=None if message.reasoning is None else self.text(message.reasoning),
            tool_calls=tuple(calls),
        )

    def value(self, value: Any) -> Any:
        """A JSON value with all its texts guarded, keys excepted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def _call(self, call: ToolCall) -> ToolCall:
        return replace(call, arguments=self.value(call.arguments))


def plain(text: str) -> str:
    """The text without joints."""
    return text.replace(JOINT, "")
