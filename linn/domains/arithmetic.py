"""Sums of two numbers: the smallest domain, the one to copy."""

from __future__ import annotations

import random
import re
from typing import ClassVar

from linn.domains.base import Domain
from linn.types import Message, Prompt, Reply, Verdict

# A number with all that clings to it, so that "95/2", "3.95" and "95²" are not read as 95. `\d` also finds look-alike digits.
_NUMBER = re.compile(r"[-−–]?\d[\w.,:/^*]*")


class Arithmetic(Domain):
    """`what is 37 + 58?`: two-digit operands, + and -. Reward 1 iff the last number of the answer is the result."""

    name: ClassVar[str] = "arithmetic"

    def make(self, rng: random.Random) -> Prompt:
        """Operands and result have two digits or more, so that every sum is worked in the same two columns."""
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        sign = rng.choice("+-")
        if sign == "-":
            a, b = max(a, b), min(a, b)
            sign = "-" if a - b >= 10 else "+"
        result = a + b if sign == "+" else a - b
        question = Message("user", f"what is {a} {sign} {b}?")
        return Prompt(
            self.name, "", (question,), hidden={"a": a, "sign": sign, "b": b, "result": result}
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Strict: look-alike digits, fractions and numbers with other signs attached do not count as the result."""
        numbers = _NUMBER.findall(reply.text)
        if not numbers:
            return Verdict(0.0, "the answer holds no number")
        last = numbers[-1].rstrip(".,:*")
        right = last == str(prompt.hidden["result"])
        return Verdict(
            float(right),
            "" if right else f"the last number is {last[:20]}, not {prompt.hidden['result']}",
        )

    def gold(self, prompt: Prompt) -> Reply:
        """The working and the bare number."""
        return Reply(str(prompt.hidden["result"]), _working(prompt))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: a needless remark after the result, which makes another number the last one."""
        answer = (
            f"{prompt.hidden['result']}, not {prompt.hidden['a']}"
            if faulty
            else str(prompt.hidden["result"])
        )
        return (Message("assistant", answer, reasoning=_working(prompt)),)


def _working(prompt: Prompt) -> str:
    """Column by column, as on paper: ones with a borrowed ten where needed, then tens with the carry."""
    a, sign, b = prompt.hidden["a"], prompt.hidden["sign"], prompt.hidden["b"]
    if sign == "+":
        ones, carry = a % 10 + b % 10, (a % 10 + b % 10) // 10
        return f"{a % 10} + {b % 10} = {ones}, {a // 10} + {b // 10} + {carry} = {a // 10 + b // 10 + carry}"
    borrow = int(a % 10 < b % 10)
    ones = a % 10 + 10 * borrow
    return f"{ones} - {b % 10} = {ones - b % 10}, {a // 10} - {b // 10} - {borrow} = {a // 10 - b // 10 - borrow}"
