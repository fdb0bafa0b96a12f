"""The laptop's mathematics with a Python at hand: the model writes the sum, Python works it out."""

from __future__ import annotations

import random
from typing import ClassVar

from linn.domains.math import KnownAnswer, Math
from linn.domains.math.python_tool import NAME
from linn.solve.tir import TirRules, WithPython
from linn.types import Message, Prompt, ToolCall


class MathPython(WithPython):
    """`math` as `linn solve math --strategy tir` asks it, with demonstrations that call Python."""

    name: ClassVar[str] = "math_python"
    max_turns = 3

    def __init__(self) -> None:
        super().__init__(Math(), TirRules(calls=2), self.name)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """One call with the whole sum, then its value in a box.

        The fault is the plain domain's: the second step is left out.
        """
        answer = prompt.hidden
        assert isinstance(answer, KnownAnswer), answer

        # `4 + 7 = 11` and `11 - 5 = 6` are `4 + 7 - 5`.
        first, second = answer.steps
        code, value = first.partition(" = ")[0], answer.first
        if not faulty:
            code += second.partition(" = ")[0].removeprefix(answer.first)
            value = answer.expected
        call = ToolCall(NAME, {"code": code})
        # Every turn opens with a thought, as it does when the prompt is asked.
        return (
            Message("assistant", "", reasoning=code, tool_calls=(call,)),
            Message("tool", value),
            Message("assistant", f"\\boxed{{{value}}}", reasoning=value),
        )
