"""Problems with a boxed answer, graded by `math-verify`; optionally with a stateful Python as a tool."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import Request, request_of
from linn.domains.base import Domain
from linn.domains.math import python_tool
from linn.domains.math.equality import Comparer
from linn.errors import UserError
from linn.sandbox import Session
from linn.types import Message, Prompt, Reply, Verdict

_NAMES = "tom ann ben eva sam mia leo zoe max ida jim amy".split()
_ITEMS = "apples pens books coins cards cups eggs keys nuts shells stones stamps".split()
_MODES = ("any", "boxed")
_READ = 200_000
"""Boxes are looked for in this many last characters of an answer."""
_TAIL = 4_000
"""An answer without a box, with several, or with a sentence on the final answer is read from this many last characters on."""
_LONGEST_BOX = 400
"""Characters; a longer box, or one of more than `_LONGEST_NUMBER` digits, is no answer."""
_LONGEST_NUMBER = 100
_CPU_SECONDS = {"boxed": 0.6, "any": 10.0}
"""Processor time of one comparison, of rows as much as the reference has to read and to compare; a reply that drives it over the limit is not the answer."""
_ASK = "\n\nReason step by step and put the final answer, and nothing else, in \\boxed{}."
_USE_TOOL = f"You may run Python with the tool {python_tool.NAME}. Give the final answer in \\boxed{{}} in a turn that calls no tool."

_BOX = re.compile(r"\\boxed\{")
_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_WORD = re.compile(r"(?:\\(?:text|textbf|mathrm)\{)?\s*([A-Za-z][A-Za-z' -]*[A-Za-z])\s*\}?")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")


class Math(Domain):
    """`tom has 4 apples, gets 7, gives 5. how many?` -> `\\boxed{6}`. Reward 1 iff the answer equals the expected one.

    Grading modes: `boxed` (the generator's): the last box, which must hold one finished answer; `any` (default of released rows, as in
    the reference): a sentence such as `the final answer is $6$`, else the boxes, else what `math-verify` finds in the text.

    With `tools: python` the model may call a stateful Python (paper §5.4); what calls give back is text, and only the last turn's answer
    earns.
    """

    name: ClassVar[str] = "math"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        tools: str | None = None,
        calls: int = 100,
        seconds: float = 120.0,
        readable: Sequence[str] = (),
    ) -> None:
        """`tools`: `python` for tool-integrated reasoning, with `calls` in a conversation, `seconds` a call, `readable` package folders."""
        super().__init__(level, rows)
        if tools not in (None, "python"):
            raise UserError(f"domain math: tools is {tools!r}; allowed: python")
        if not isinstance(calls, int) or isinstance(calls, bool) or not 1 <= calls <= 100:
            raise UserError(f"domain math: calls is {calls!r}; allowed: 1 to 100")
        if (
            not isinstance(seconds, (int, float))
            or isinstance(seconds, bool)
            or not 0 < seconds <= 3600
        ):
            raise UserError(
                f"domain math: seconds is {seconds!r}; allowed: a number above 0, at most 3600"
            )
        if isinstance(readable, str) or not all(Path(folder).is_dir() for folder in readable):
            raise UserError(
                f"domain math: readable is {readable!r}; allowed: a list of folders that exist"
            )
        self._calls, self._seconds, self._readable = (
            calls if tools else 0,
            float(seconds),
            tuple(Path(folder) for folder in readable),
        )
        if tools:
            self.max_turns = calls + 1  # the option's, not the class's
        self._worker = Comparer()

    def make(self, rng: random.Random) -> Prompt:
        """Two steps on small numbers; the first result always differs from the second."""
        name, item = rng.choice(_NAMES), rng.choice(_ITEMS)
        a, b = rng.randint(2, 9), rng.randint(2, 9)
        if rng.random() < 0.5:
            first, c = a + b, rng.randint(1, min(9, a + b - 1))
            text, steps = (
                f"{name} has {a} {item}, gets {b}, gives {c}.",
                (f"{a} + {b} = {first}", f"{first} - {c} = {first - c}"),
            )
            result = first - c
        else:
            a, b, c = min(a, 5), min(b, 5), rng.randint(1, 9)
            first = a * b
            text, steps = (
                f"{name} has {a} boxes of {b} {item}, gets {c}.",
                (f"{a} * {b} = {first}", f"{first} + {c} = {first + c}"),
            )
            result = first + c
        question = Message("user", f"{text} how many? box the answer.")
        hidden = {"expected": str(result), "mode": "boxed", "steps": steps, "first": str(first)}
        return self._with_tools(Prompt(self.name, "", (question,), hidden=hidden))

    def env(self, prompt: Prompt) -> python_tool.PythonEnv:
        """An interpreter of its own for one conversation; it starts with the first call."""
        return python_tool.PythonEnv(Session(self._seconds, readable=self._readable), self._calls)

    def _with_tools(self, prompt: Prompt) -> Prompt:
        """The prompt with the tool, and the words on it at the end of the system turn.

        The interpreter is the only tool that answers here: it replaces a row's own definitions.
        """
        if not self._calls:
            return prompt
        system, rest = (
            (prompt.messages[:1], prompt.messages[1:])
            if prompt.messages[0].role == "system"
            else ((), prompt.messages)
        )
        told = f"{system[0].content}\n\n{_USE_TOOL}" if system and system[0].content else _USE_TOOL
        return replace(
            prompt,
            messages=(Message("system", told), *rest),
            tools=(python_tool.tool(self._seconds),),
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """A plain number is compared exactly; everything else goes to `math-verify`."""
        expected, mode = prompt.hidden["expected"], prompt.hidden["mode"]
        text = reply.text.strip()[-_READ:]
        boxes = _boxes(text)
        if not boxes and (mode == "boxed" or not text):
            return Verdict(0.0, "the answer is not boxed" if text else "the answer is empty")
        if boxes and (mode == "boxed" or (len(boxes) == 1 and "final answer" not in text.lower())):
            return self._verify_box(boxes[-1], expected, mode)
        return _verdict(
            self._worker.equal(expected, text[-_TAIL:], _CPU_SECONDS[mode]), text[-40:], expected
        )

    def _verify_box(self, box: str, expected: str, mode: str) -> Verdict:
        if len(box) > _LONGEST_BOX or any(
            len(digits) > _LONGEST_NUMBER for digits in _DIGITS.findall(box)
        ):
            return Verdict(0.0, "the box holds too much to be an answer")
        if _PLAIN.fullmatch(box) and _PLAIN.fullmatch(expected):
            return _verdict(Fraction(box) == Fraction(expected), box, expected)
        if (
            mode == "boxed"
            and _PLAIN.fullmatch(expected)
            and (len(_DIGITS.findall(box)) != 1 or "%" in box)
        ):
            # math-verify would work out `7 + 7`, add up `7 7` and take the end of `x = 15 = 14`
            return Verdict(0.0, f"{box[:40]!r} is not one number")
        if mode == "boxed" and (word := _WORD.fullmatch(expected)):
            # math-verify would read a word as a product of letters: west = stew
            found = _WORD.fullmatch(box)
            return _verdict(
                found is not None and found[1].casefold() == word[1].casefold(), box, expected
            )
        return _verdict(
            self._worker.equal(expected, f"\\boxed{{{box}}}", _CPU_SECONDS[mode]), box, expected
        )

    def gold(self, prompt: Prompt) -> Reply:
        """The steps and the boxed answer."""
        return Reply(
            f"\\boxed{{{_bare(prompt.hidden['expected'])}}}", ", ".join(prompt.hidden["steps"])
        )

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: stopping after the first step and boxing its result."""
        steps, first = prompt.hidden["steps"], prompt.hidden["first"]
        if faulty:
            return (Message("assistant", f"\\boxed{{{first}}}", reasoning=steps[0]),)
        return (
            Message(
                "assistant", f"\\boxed{{{prompt.hidden['expected']}}}", reasoning=", ".join(steps)
            ),
        )

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`expected_answer` or `answer`; `responses_create_params`, or `question`, or `problem` (then boxing is asked for); `grading_mode`."""
        name = (
            "expected_answer"
            if row.get("expected_answer") is not None or "answer" not in row
            else "answer"
        )
        expected, mode = row.get(name), row.get("grading_mode") or "any"
        expected = (
            str(expected)
            if isinstance(expected, (int, float)) and not isinstance(expected, bool)
            else expected
        )
        if not isinstance(expected, str) or not expected.strip():
            raise UserError(f"row {index}: {name} is {expected!r}; allowed: text")
        if mode not in _MODES:
            raise UserError(f"row {index}: grading_mode is {mode!r}; allowed: {', '.join(_MODES)}")
        hidden = {"expected": _bare(expected), "mode": mode, "steps": (), "first": ""}
        request = _asked(row, index)
        prompt = Prompt(
            self.name,
            str(row.get("uuid", index)),
            request.messages,
            request.thinking,
            request.tools,
            hidden,
        )
        return self._with_tools(prompt)

    def close(self) -> None:
        """End the worker process."""
        self._worker.stop()


def _asked(row: Mapping[str, Any], index: int) -> Request:
    """What a row shows the model."""
    if row.get("responses_create_params") is not None:
        return request_of(row, index)
    name = "question" if row.get("question") is not None or "problem" not in row else "problem"
    text = row.get(name)
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"row {index}: {name} is {text!r}; allowed: text")
    if name == "problem":
        text += _ASK
    return request_of({**row, "messages": text}, index)


def _verdict(right: bool, found: str, expected: str) -> Verdict:
    return Verdict(float(right), "" if right else f"{found[:40]!r} is not {expected[:40]!r}")


def _bare(answer: str) -> str:
    """Without the dollar signs, brackets or box a row may have put around its answer."""
    answer = answer.strip()
    for left, right in (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")):
        if (
            len(answer) > len(left) + len(right)
            and answer.startswith(left)
            and answer.endswith(right)
        ):
            answer = answer[len(left) : -len(right)].strip()
    boxes = _boxes(answer)
    return (
        boxes[0]
        if len(boxes) == 1 and answer.startswith("\\boxed") and answer.endswith("}")
        else answer
    )


def _boxes(text: str) -> list[str]:
    """What each closed box holds, in order; boxes inside a box are part of it."""
    found: list[str] = []
    after = 0
    for start in _BOX.finditer(text):
        if start.start() < after:
            continue
        depth = 1
        for place in range(start.end(), len(text)):
            depth += (text[place] == "{") - (text[place] == "}")
            if depth == 0:
                found.append(text[start.end() : place].strip())
                after = place
                break
        else:
            break  # this box never closes, so what follows is inside it
    return found
