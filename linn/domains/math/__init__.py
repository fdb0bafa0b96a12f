"""Problems with a boxed answer, graded by `math-verify`; with a stateful Python, if wanted."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from linn.domains.base import Domain
from linn.domains.common.boxes import outer_boxes
from linn.domains.common.options import check_option, is_number, is_whole
from linn.domains.math import python_tool
from linn.domains.math.equality import Comparer
from linn.domains.math.forms import readable
from linn.domains.math.rows import answer_of, request_of_problem, without_interpreter
from linn.errors import UserError
from linn.sandbox import Session
from linn.types import Message, Prompt, Reply, Verdict

Mode = Literal["any", "boxed"]
_MODES: tuple[Mode, ...] = get_args(Mode)

_NAMES = "tom ann ben eva sam mia leo zoe max ida jim amy".split()
_ITEMS = "apples pens books coins cards cups eggs keys nuts shells stones stamps".split()
_READ = 200_000
"""Boxes are looked for in this many last characters of an answer."""
_TAIL = 4_000
"""An answer without a box, with several, or with a sentence on the final answer is read from this
many last characters on."""
_LONGEST_BOX = 400
"""Characters; a longer box is no answer, unless the right answer is half as long."""
_CPU_SECONDS: Mapping[Mode, float] = {"boxed": 0.6, "any": 10.0}
"""Processor time of one comparison; a reply that overruns it is wrong. Rows get as much as the
reference has to read and to compare."""
_USE_TOOL = (
    f"You may run Python with the tool {python_tool.NAME}. "
    "Give the final answer in \\boxed{} in a turn that calls no tool."
)

_PLAIN = re.compile(r"[+-]?[0-9]+(?:\.[0-9]+)?")
_WORD = re.compile(r"(?:\\(?:text|textbf|mathrm)\{)?\s*([A-Za-z][A-Za-z' -]*[A-Za-z])\s*\}?")
_DIGITS = re.compile(r"\d+(?:[.,]\d+)*")
_CHAIN = re.compile(
    r"=|\\\\|[≡≅∼∣→⇒⟶↦＝∨∧]|\\(?:hspace|overset|underset|stackrel)\{[^{}]*\}|\\[A-Za-z]*[aA]rrow"
    r"|\\(?:to|mapsto|longmapsto|implies|iff|gets|triangleq|equiv|mid|simeq|sim|cong|lor|vee|land"
    r"|wedge)(?![A-Za-z])"
)
"""What links the numbers of a chain."""
_DENIAL = re.compile(
    r"\\(?:ne|neq|not|lnot|neg)(?![A-Za-z])|[≠¬]"
    r"|\\text\w*\s*\{[^{}]*\b(?:not|never|wrong|incorrect|false|neither|nor|except|but)\b"
    r"|^\s*(?:\\(?:le|leq|leqslant|ge|geq|geqslant|lt|gt)(?![A-Za-z])|[<>≤≥])"
)
"""What denies a number, or gives a bound in its place."""
_COMMAND = re.compile(r"\\(?:text|textbf|mathrm)\{[^{}]*\}|\\[A-Za-z]+")
_QUOTES = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"))
"""What rows put around an answer, tried in this order."""


@dataclass(frozen=True)
class KnownAnswer:
    """What the grader knows of a problem: `Prompt.hidden` of this domain."""

    expected: str
    """The right answer, without a box."""
    mode: Mode
    """How an answer is read; see `Math`."""
    steps: tuple[str, ...] = ()
    """The working of a generated problem, a line per step; empty for rows."""
    first: str = ""
    """The result of the first step of a generated problem."""


class Math(Domain):
    """`tom has 4 apples, gets 7, gives 5. how many?` -> `\\boxed{6}`.

    Reward 1 iff the answer equals the expected one. Grading modes: `boxed` (the generator's): the
    last box, which must hold one finished answer; `any` (default of released rows): the boxes, in
    any form that `math-verify` reads; several are a list. An answer without a box earns nothing,
    as in nemo-gym 0.7.0. `reference`: `any` is as in nemo-gym 0.4.0, a sentence
    such as `the final answer is $6$`, else the boxes, else what `math-verify` finds in the text.

    With `tools: python` the model may call a stateful Python (paper §5.4). What calls give back is
    text; only the last turn's answer earns.
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
        reference: bool = False,
    ) -> None:
        """`tools`: `python` for tool-integrated reasoning.

        It allows `calls` per conversation and `seconds` per call; `readable` are folders of
        packages that the code may import from. `reference`: see the class.
        """
        super().__init__(level, rows)
        calls_fit = is_whole(calls) and 1 <= calls <= 100
        seconds_fit = is_number(seconds) and 0 < seconds <= 3600
        readable_fit = not isinstance(readable, str) and all(
            Path(folder).is_dir() for folder in readable
        )
        options = (
            ("tools", tools, tools in (None, "python"), "python"),
            ("calls", calls, calls_fit, "1 to 100"),
            ("seconds", seconds, seconds_fit, "a number above 0, at most 3600"),
            ("readable", readable, readable_fit, "a list of folders that exist"),
        )
        for option, value, fits, allowed in options:
            check_option(self.name, option, value, fits, allowed)

        self._calls = calls if tools else 0
        self._seconds = float(seconds)
        self._readable = tuple(Path(folder) for folder in readable)
        if tools:
            self.max_turns = calls + 1  # the option's, not the class's
        self.reference = reference
        self._worker = Comparer()

    # -------------------------------------------------- prompts

    def make(self, rng: random.Random) -> Prompt:
        """Two steps on small numbers; the first result always differs from the second."""
        name = rng.choice(_NAMES)
        item = rng.choice(_ITEMS)
        a = rng.randint(2, 9)
        b = rng.randint(2, 9)

        # A product is kept small, as a sum is.
        if rng.random() < 0.5:
            text, answer = _gets_and_gives(rng, name, item, a, b)
        else:
            text, answer = _has_boxes(rng, name, item, min(a, 5), min(b, 5))

        question = Message("user", f"{text} how many? box the answer.")
        prompt = Prompt(self.name, "", (question,), hidden=answer)
        return self._with_tools(prompt)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """The answer, and what the model reads; optionally `grading_mode`.

        The answer is `expected_answer`, `answer` (of GSM8K, what follows its `####`), the box of
        `solution` (MATH) or `reward_model.ground_truth` (verl). The model reads
        `responses_create_params`, `messages` or `prompt`, or `question` or `problem`; of these two
        linn asks for a box, where the text does not.
        """
        expected = answer_of(row, index)

        mode: Any = row.get("grading_mode") or "any"
        if mode not in _MODES:
            raise UserError(f"row {index}: grading_mode is {mode!r}; allowed: {', '.join(_MODES)}")

        request = request_of_problem(row, index)
        if not self._calls:
            request = without_interpreter(request)
        hidden = KnownAnswer(unwrapped(expected), mode)
        prompt = request.prompt(self.name, str(row.get("uuid", index)), hidden)
        return self._with_tools(prompt)

    def env(self, prompt: Prompt) -> python_tool.PythonEnv:
        """An interpreter of its own for one conversation; it starts with the first call."""
        return python_tool.PythonEnv(Session(self._seconds, readable=self._readable), self._calls)

    def _with_tools(self, prompt: Prompt) -> Prompt:
        """The prompt with the tool, and the words on it at the end of the system turn.

        The interpreter is the only tool that answers here: it replaces a row's own definitions.
        """
        if not self._calls:
            return prompt
        first, *rest = prompt.messages
        system = ""
        if first.role == "system":
            system = first.content
        else:
            rest = [first, *rest]

        text = f"{system}\n\n{_USE_TOOL}" if system else _USE_TOOL
        return replace(
            prompt,
            messages=(Message("system", text), *rest),
            tools=(python_tool.definition(self._seconds),),
        )

    def gold(self, prompt: Prompt) -> Reply:
        """The steps and the boxed answer."""
        answer = _answer(prompt)
        return Reply(f"\\boxed{{{unwrapped(answer.expected)}}}", ", ".join(answer.steps))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: stopping after the first step and boxing its result."""
        answer = _answer(prompt)
        if faulty:
            result, steps = answer.first, answer.steps[:1]
        else:
            result, steps = answer.expected, answer.steps
        return (Message("assistant", f"\\boxed{{{result}}}", reasoning=", ".join(steps)),)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """A plain number is compared exactly; everything else goes to `math-verify`."""
        answer = _answer(prompt)
        text = reply.text.strip()[-_READ:]
        if not text:
            return Verdict(0.0, "the answer is empty")

        boxes = [box.inner.strip() for box in outer_boxes(text)]
        if answer.mode == "boxed":
            if not boxes:
                return Verdict(0.0, "the answer is not boxed")
            return self._verify_box(boxes[-1], answer)

        if not self.reference:
            if not boxes or not boxes[-1]:
                return Verdict(0.0, "the answer is not boxed")
            return self._verify_boxes(boxes, answer)

        # The reference takes a sentence on the final answer before any box, and several boxes as
        # one answer: then the text is read as a whole.
        has_sentence = "final answer" in text.lower()
        if len(boxes) == 1 and not has_sentence:
            return self._verify_box(boxes[0], answer)

        equal = self._equal(answer, text[-_TAIL:])
        return _verdict(equal, text[-40:], answer)

    def _verify_boxes(self, boxes: Sequence[str], answer: KnownAnswer) -> Verdict:
        """The verdict on an answer's boxes: several different ones are one answer, a list."""
        parts = list(dict.fromkeys(boxes))
        if len(parts) == 1:
            return self._verify_box(boxes[0], answer)
        return _verdict(self._is_answer(answer, parts), " and ".join(parts)[-40:], answer)

    def _verify_box(self, box: str, answer: KnownAnswer) -> Verdict:
        """The verdict on what a box holds."""
        # Some rows' own answers are as long.
        expected = answer.expected
        if len(box) > max(_LONGEST_BOX, 2 * len(expected)):
            return Verdict(0.0, "the box holds too much to be an answer")

        # Exact: math-verify would round.
        is_plain = _PLAIN.fullmatch(expected) is not None
        if is_plain and _PLAIN.fullmatch(box):
            return _verdict(Fraction(box) == Fraction(expected), box, answer)

        if answer.mode == "boxed":
            # math-verify would work out `7 + 7`, add up `7 7` and take the end of `x = 15 = 14`.
            if is_plain and ("%" in box or len(_DIGITS.findall(box)) != 1):
                return Verdict(0.0, f"{box[:40]!r} is not one number")

            # math-verify would read a word as a product of letters: west = stew.
            word = _word_in(expected)
            if word is not None:
                return _verdict(_word_in(box) == word, box, answer)

        # Of a chain of numbers, math-verify takes the end: `4 = 6` would be 6, `x = 4 = 6` too.
        sides = [box]
        if is_plain and not self.reference:
            if _DENIAL.search(box):
                return _verdict(False, box, answer)
            numbers = [side for side in _CHAIN.split(box) if _is_number(side)]
            sides = [box, *numbers] if len(numbers) > 1 else sides
        equal = all(self._is_answer(answer, [side]) for side in sides)
        return _verdict(equal, box, answer)

    def _equal(self, answer: KnownAnswer, text: str) -> bool:
        return self._worker.equal(answer.expected, text, _CPU_SECONDS[answer.mode])

    def _is_answer(self, answer: KnownAnswer, formulas: Sequence[str]) -> bool:
        """Whether formulas are the answer, as they stand or in forms that `math-verify` reads."""
        text = " and ".join(f"\\boxed{{{formula}}}" for formula in formulas)[-_TAIL:]
        if self._equal(answer, text):
            return True
        if answer.mode == "boxed" or self.reference:
            return False
        expected = readable(answer.expected)
        other = " and ".join(f"\\boxed{{{readable(formula)}}}" for formula in formulas)[-_TAIL:]
        return self._worker.equal(expected, other, _CPU_SECONDS[answer.mode], any_relation=True)

    def close(self) -> None:
        """End the worker process."""
        self._worker.stop()


def _gets_and_gives(
    rng: random.Random, name: str, item: str, a: int, b: int
) -> tuple[str, KnownAnswer]:
    """A sum, then a difference that is at least 1."""
    total = a + b
    c = rng.randint(1, min(9, total - 1))
    steps = (f"{a} + {b} = {total}", f"{total} - {c} = {total - c}")
    text = f"{name} has {a} {item}, gets {b}, gives {c}."
    return text, KnownAnswer(str(total - c), "boxed", steps, first=str(total))


def _has_boxes(rng: random.Random, name: str, item: str, a: int, b: int) -> tuple[str, KnownAnswer]:
    """A product, then a sum."""
    product = a * b
    c = rng.randint(1, 9)
    steps = (f"{a} * {b} = {product}", f"{product} + {c} = {product + c}")
    text = f"{name} has {a} boxes of {b} {item}, gets {c}."
    return text, KnownAnswer(str(product + c), "boxed", steps, first=str(product))


def _answer(prompt: Prompt) -> KnownAnswer:
    assert isinstance(prompt.hidden, KnownAnswer), type(prompt.hidden)
    return prompt.hidden


def _is_number(side: str) -> bool:
    """Whether a side of a chain is made of numbers: it holds digits, and no letter."""
    bare = _COMMAND.sub("", side)
    return any(map(str.isdigit, bare)) and not any(map(str.isalpha, bare))


def _word_in(text: str) -> str | None:
    """The word or words that a text is, in lower case; None where it is something else."""
    match = _WORD.fullmatch(text)
    return None if match is None else match[1].casefold()


def _verdict(right: bool, text: str, answer: KnownAnswer) -> Verdict:
    if right:
        return Verdict(1.0)
    return Verdict(0.0, f"{text[:40]!r} is not {answer.expected[:40]!r}")


def unwrapped(answer: str) -> str:
    """Without the dollar signs, brackets or box a row may have put around its answer."""
    answer = answer.strip()
    for left, right in _QUOTES:
        # Longer than both together: something must be left.
        is_quoted = answer.startswith(left) and answer.endswith(right)
        if is_quoted and len(answer) > len(left) + len(right):
            answer = answer.removeprefix(left).removesuffix(right).strip()

    boxes = outer_boxes(answer)
    if len(boxes) != 1:
        return answer
    if not answer.startswith("\\boxed") or not answer.endswith("}"):
        return answer
    return boxes[0].inner.strip()
