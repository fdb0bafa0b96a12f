"""A reply while it comes: token ids to text, and text to thought, content and calls.

What was told is never taken back. So a stream waits where a mark may have begun, where a character
is cut in the middle, and from the first call on: only the end of a reply says how its calls are
read. A reply that is read whole goes through here too, so that both are the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from linn.types import Message, ToolCall

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_Tools = Sequence[Mapping[str, Any]]

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
"""A token that is one byte: how SentencePiece writes what it has no token for."""
_UNKNOWN = "\ufffd"
"""What bytes that are no character, or not yet, are decoded as."""
_PATIENCE = 16
"""Tokens without a character at their end, after which the first of them are told all the same."""


class TextStream:
    """Token ids to text, piece by piece; together the pieces are the text of all ids."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        """Ids since the last cut but one: a token's text depends on the one before it."""
        self._cut = 0
        """How many of them are told."""
        self._told = ""
        """The text of those."""

    def feed(self, ids: Sequence[int]) -> str:
        """The text that these ids bring, as far as it cannot change any more."""
        # Most pieces end with a character: all of their text is told, and decoded once.
        self._ids += ids
        text = self._whole()
        if text or len(ids) < 2:
            return text or self._early()

        # This one does not: tokens before its last are told all the same.
        del self._ids[len(self._ids) - len(ids) :]
        new = ""
        for one in ids:
            self._ids.append(one)
            new += self._whole() or self._early()
        return new

    def finish(self) -> str:
        """What is left, characters that were never completed included."""
        text = self._untold()
        self._ids, self._cut, self._told = [], 0, ""
        return text

    def _whole(self) -> str:
        """The text of all ids, which is told now; empty where the last one does not end it."""
        # A run of byte tokens is decoded as a whole: one that is no character spoils all of it.
        if len(self._ids) == self._cut or self._is_byte(self._ids[-1]):
            return ""
        text = self._untold()
        if text.endswith(_UNKNOWN) or not text:
            return ""
        self._move(len(self._ids))
        return text

    def _is_byte(self, one: int) -> bool:
        return _BYTE.fullmatch(self._tokenizer.id_to_token(one) or "") is not None

    def _early(self) -> str:
        """Text of a long run of bytes that are no characters, but for its end."""
        if len(self._ids) - self._cut <= _PATIENCE or self._is_byte(self._ids[-1]):
            return ""
        # No character has more than four bytes. Where two halves give the text of both, the border
        # is none within a character.
        border = len(self._ids) - 4
        first = self._decode(self._ids[:border])
        if first + self._decode(self._ids[border:]) != self._decode(self._ids):
            return ""
        text = first[len(self._told) :]
        self._move(border)
        return text

    def _move(self, border: int) -> None:
        """What stands before this border is told now."""
        self._ids, self._cut = self._ids[self._cut :], border - self._cut
        self._told = self._decode(self._ids[: self._cut])

    def _untold(self) -> str:
        return self._decode(self._ids)[len(self._told) :]

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))


class StopStrings:
    """Ends a text at the one of some strings that is whole first, and leaves it out."""

    def __init__(self, stops: Collection[str]) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.found = False
        """Whether one came; nothing is told any more then."""

    def feed(self, text: str) -> str:
        """The text, as far as no stop can begin in it."""
        if self.found:
            return ""
        text = self._held + text
        # Of several, the one that is whole first; of those, the one that begins first. So it would
        # be letter by letter, and so it is however the text is cut.
        found = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.found, self._held = True, ""
            _, begin = min(found)
            return text[:begin]
        told = settled(text, self._stops)
        self._held = text[len(told) :]
        return told

    def finish(self) -> str:
        """What was held, now that no stop comes any more."""
        held, self._held = self._held, ""
        return held


@dataclass(frozen=True)
class Delta:
    """What a piece of a reply adds."""

    thought: str = ""
    """To its thought."""
    content: str = ""
    """To its content."""
    calls: tuple[ToolCall, ...] = ()
    """Its calls, all at once at its end."""

    def __bool__(self) -> bool:
        return bool(self.thought or self.content or self.calls)


class _Reads(Protocol):
    """The part of `linn.chat.template.Template` that a stream needs."""

    def read(self, text: str, thinking: bool = True, tools: _Tools = ()) -> Message: ...

    def certain(self, text: str, thinking: bool = True) -> tuple[str, str]: ...


class ReplyStream:
    """Reads one reply as it comes; all deltas together are `template.read` of the whole text."""

    def __init__(self, template: _Reads, thinking: bool = True, tools: _Tools = ()) -> None:
        """`thinking`: the mode in which the reply was asked for. `tools`: what it may call."""
        self._template = template
        self._thinking = thinking
        self._tools = tools
        self._text = ""
        self._thought = ""
        self._content = ""

    def feed(self, text: str) -> Delta:
        """What this piece of text makes certain."""
        if not text:
            return Delta()
        self._text += text
        return self._told(*self._template.certain(self._text, self._thinking))

    def finish(self) -> Delta:
        """What was held back, and the calls."""
        message = self._template.read(self._text, self._thinking, self._tools)
        delta = self._told(message.reasoning or "", message.content)
        return Delta(delta.thought, delta.content, message.tool_calls)

    def _told(self, thought: str, content: str) -> Delta:
        delta = Delta(thought[len(self._thought) :], content[len(self._content) :])
        self._thought += delta.thought
        self._content += delta.content
        return delta


def settled(text: str, marks: Iterable[str]) -> str:
    """A text without its end where that may be the beginning of one of `marks`."""
    # Shorter than a mark: a whole one is no beginning of itself.
    longest = 0
    for mark in marks:
        for size in range(min(len(mark) - 1, len(text)), longest, -1):
            start = len(text) - size
            if text[start] == mark[0] and mark.startswith(text[start:]):
                longest = size
                break
    return text[: len(text) - longest]


def may_become(text: str, mark: str) -> bool:
    """Whether a text is the beginning of a mark, and no more than that."""
    return len(text) < len(mark) and mark.startswith(text)
