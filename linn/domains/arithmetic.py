"""Sums of two numbers: the smallest domain, the one to copy."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import ClassVar

from linn.domains.base import Domain
from linn.types import Message, Prompt, Reply, Verdict

# A number with all that clings to it, so that "95/2", "3.95" and "95²" are not read as 95.
# `\d` also matches look-alike digits, which then differ from the result. A sign or a digit begins
# it: one set, not an optional sign, lets `re` pass over a megabyte without numbers quickly.
_NUMBER = re.compile(r"[-−–\d](?:(?<=\d)|\d)[\w.,:/^*]*")


@dataclass(frozen=True)
class Sum:
    """What the grader knows of a prompt."""

    a: int
    """The first operand."""
    sign: str
    """+ or -."""
    b: int
    """The second operand."""

    @property
    def result(self) -> int:
        """What the answer must end with."""
        return self.a + self.b if self.sign == "+" else self.a - self.b


class Arithmetic(Domain):
    """`what is 37 + 58?`: two-digit operands, + and -.

    Reward 1 if the last number of the answer is the result, else 0.
    """

    name: ClassVar[str] = "arithmetic"

    def make(self, rng: random.Random) -> Prompt:
        """Operands and result have two digits or more: every sum is worked in the same columns."""
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        sign = rng.choice("+-")

        if sign == "-":
            a, b = max(a, b), min(a, b)
            # A difference of one digit would need another working: it becomes a sum.
            sign = "-" if a - b >= 10 else "+"

        return Prompt(
            domain=self.name,
            id="",
            messages=(Message("user", f"what is {a} {sign} {b}?"),),
            hidden=Sum(a, sign, b),
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Strict: look-alike digits, fractions and numbers with other signs attached are wrong."""
        numbers = _NUMBER.findall(reply.text)
        if not numbers:
            return Verdict(0.0, "the answer holds no number")
        last = numbers[-1].rstrip(".,:*")
        result = _sum_of(prompt).result
        if last == str(result):
            return Verdict(1.0)
        return Verdict(0.0, f"the last number is {last[:20]}, not {result}")

    def gold(self, prompt: Prompt) -> Reply:
        """The working and the bare number."""
        return Reply(str(_sum_of(prompt).result), _working(_sum_of(prompt)))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: a needless remark after the result, which makes another number the last."""
        task = _sum_of(prompt)
        answer = f"{task.result}, not {task.a}" if faulty else str(task.result)
        return (Message("assistant", answer, reasoning=_working(task)),)


def _sum_of(prompt: Prompt) -> Sum:
    assert isinstance(prompt.hidden, Sum), prompt.hidden
    return prompt.hidden


def _working(task: Sum) -> str:
    """Column by column, as on paper: ones, then tens with what was carried or borrowed."""
    a_tens, a_ones = divmod(task.a, 10)
    b_tens, b_ones = divmod(task.b, 10)

    if task.sign == "+":
        ones = a_ones + b_ones
        carry = ones // 10
        tens = a_tens + b_tens + carry
        return f"{a_ones} + {b_ones} = {ones}, {a_tens} + {b_tens} + {carry} = {tens}"

    borrow = int(a_ones < b_ones)
    a_ones += 10 * borrow
    ones = a_ones - b_ones
    tens = a_tens - b_tens - borrow

    return f"{a_ones} - {b_ones} = {ones}, {a_tens} - {b_tens} - {borrow} = {tens}"
