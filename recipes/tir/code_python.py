"""The laptop's functions with a Python at hand: the model tries an expression first."""

from __future__ import annotations

import random
import re
from typing import Any, ClassVar

from linn.domains.code import Code
from linn.domains.code.unit_tests import CallTests
from linn.domains.math.python_tool import NAME
from linn.solve.tir import TirRules, WithPython
from linn.types import Message, Prompt, ToolCall

_HEAD = re.compile(r"def \w+\((\w+)\):")
_TRIED: dict[type, Any] = {int: 3, list: [1, 2, 3], str: "abc"}
"""What an expression is tried on, by the type of its argument; none of a prompt's tests."""


class CodePython(WithPython):
    """`code` as `linn solve code --strategy tir` asks it, with demonstrations that call Python."""

    name: ClassVar[str] = "code_python"
    max_turns = 3

    def __init__(self) -> None:
        super().__init__(Code(), TirRules(calls=2), self.name)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The expression on one value, what that gives, then the function.

        The faults are the plain domain's. What a wrong expression gives does not tell that it is
        wrong: the model would have to compare it with the words.
        """
        tests = prompt.hidden
        assert isinstance(tests, CallTests), tests
        (plain,) = self.inner.demonstrate(prompt, rng, faulty)
        head = _HEAD.match(plain.content)
        assert head is not None and plain.reasoning is not None, plain
        tried = _TRIED[type(tests.inputs[0][0])]

        # The expression is the generator's own, so it needs no sandbox to be worked out.
        value = eval(plain.reasoning, {head[1]: tried})
        call = ToolCall(NAME, {"code": f"{head[1]} = {tried!r}\n{plain.reasoning}"})
        # Every turn opens with a thought, as it does when the prompt is asked.
        return (
            Message("assistant", "", reasoning=plain.reasoning, tool_calls=(call,)),
            Message("tool", repr(value)),
            Message("assistant", plain.content, reasoning=plain.reasoning),
        )
