"""A conversation on a terminal: the thought dimmed and folded when it ends, calls step by step.

What models say goes through `linn.terminal` alone: nothing of theirs moves the cursor. Without a
terminal nothing is dimmed, folded or drawn over.
"""

from __future__ import annotations

import json
import shutil
import sys
import unicodedata

from linn.serve.session import Step
from linn.terminal import say, take_back, visible
from linn.types import ToolCall

_LONGEST = 400
"""Characters of a result that are shown; the model reads all of it."""


class Screen:
    """Shows one answer after the other."""

    def __init__(self, live: bool | None = None, fold: bool = True) -> None:
        """`live`: whether somebody looks; None: whether standard output is a terminal.

        `fold`: whether a thought is taken away when it has ended.
        """
        self.live = sys.stdout.isatty() if live is None else live
        self.fold = fold and self.live
        self.thought = ""
        """The last thought, which `/thought` shows again."""
        self._shown = ""
        """What stands on the screen of the thought that is open."""
        self._in_thought = False
        self._at_start = True
        """Whether the cursor is at the beginning of a line."""
        self._tokens = 0

    def show(self, step: Step) -> None:
        """The next step of an answer."""
        self._tokens += step.tokens
        if step.kind == "thought":
            self._think(step.text)
            return
        if step.kind == "content" and not step.text:
            return
        self._end_thought()
        match step.kind:
            case "content":
                self._write(step.text)
            case "call" if step.call is not None:
                self._line(f"→ {_call_text(step.call)}", "bold")
            case "result" if step.call is not None:
                self._line(f"← {_cut(step.text)}", "dim")
            case "end" if step.text == "length":
                self._line("[cut off: the limit of tokens]", "dim")
            case "cut":
                self._line(f"[stopped: {step.text}]", "dim")

    def end(self, note: str = "") -> None:
        """The end of an answer, or of what came of it."""
        self._end_thought()
        if note:
            self._line(f"[{note}]", "dim")
        self._new_line()
        self._tokens = 0

    # ------------------------------------------------------------ thoughts

    def _think(self, text: str) -> None:
        if not self._in_thought:
            self._new_line()
            self._in_thought = True
            self.thought = self._shown = ""
            if not self.live:
                self._write("[thought] ")
        self.thought += text
        self._shown += visible(text)
        self._write(text, "dim")

    def _end_thought(self) -> None:
        if not self._in_thought:
            return
        self._in_thought = False
        if not self.fold:
            self._new_line()
            return
        # What has left the upper edge of the screen cannot be taken back: it stays above.
        size = shutil.get_terminal_size()
        rows = min(_rows(self._shown, size.columns), size.lines) - 1
        take_back(rows)
        self._at_start = True
        words = len(self.thought.split())
        self._line(f"▸ thought, {words:,} words (/thought shows it)", "dim")

    # ------------------------------------------------------------ writing

    def _line(self, text: str, style: str) -> None:
        self._new_line()
        self._write(text, style)
        self._new_line()

    def _write(self, text: str, style: str = "") -> None:
        if text:
            say(text, style if self.live else "")
            self._at_start = text.endswith("\n")

    def _new_line(self) -> None:
        if not self._at_start:
            self._write("\n")


def _rows(text: str, columns: int) -> int:
    """Rows of a screen that a text takes."""
    rows = 0
    for line in text.split("\n"):
        rows += max(1, -(-_width(line) // columns))
    return rows


def _width(text: str) -> int:
    """Columns that a line takes: wide letters take two, marks upon letters none."""
    width = 0
    for letter in text:
        if unicodedata.combining(letter):
            continue
        if letter == "\t":
            width += 8 - width % 8
        else:
            width += 2 if unicodedata.east_asian_width(letter) in "WF" else 1
    return width


def _call_text(call: ToolCall) -> str:
    if isinstance(call.arguments, str):
        return f"{call.name}({_cut(call.arguments)})"
    values = [f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in call.arguments.items()]
    return f"{call.name}({_cut(', '.join(values))})"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"
