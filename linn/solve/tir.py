"""`tir`: reasoning with a stateful Python (paper §5.4), for any domain; then a vote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from linn.domains.base import Domain, Env
from linn.domains.math.python_tool import NAME, PythonEnv, definition
from linn.sandbox import Session
from linn.solve.account import Account
from linn.solve.budget import Attempt
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.solve.vote import VoteRules, vote
from linn.types import Message, Prompt, Reply, Split, Verdict

_MOST_CALLS = 100
_USE = (
    f"You may run Python with the tool {NAME}; it keeps its state between calls. "
    "Give the final answer in a turn that calls no tool."
)
"""Stands at the end of the system turn."""


@dataclass(frozen=True)
class TirRules:
    """How much a reply may compute, and how many replies vote."""

    samples: int = 16
    """Replies sampled; the answer of most of them is given."""
    calls: int = 100
    """Calls of Python in a reply, at most 100."""
    seconds: float = 120.0
    """Time limit of a call."""
    max_sequence: int = 131_072
    """Tokens of a whole conversation at most: prompt, turns and what Python printed."""
    readable: tuple[str, ...] = ()
    """Folders of packages that the code may import from."""

    def __post_init__(self) -> None:
        check_at_least(1, samples=self.samples, calls=self.calls, max_sequence=self.max_sequence)
        if self.calls > _MOST_CALLS:
            raise ValueError(f"calls must be at most {_MOST_CALLS}, found {self.calls}")
        if not 0 < self.seconds <= 3600:
            raise ValueError(f"seconds must be above 0 and at most 3600, found {self.seconds:g}")
        for folder in self.readable:
            if not Path(folder).is_dir():
                raise ValueError(f"readable: {folder} is no folder")


class WithPython(Domain):
    """A domain whose model may call Python while it reasons; its grader stays what it is.

    A domain of one's own may be a subclass with a `demonstrate`, so that a model learns to call
    Python in the very prompts that `tir` asks (recipes/tir/ has two).
    """

    def __init__(self, inner: Domain, rules: TirRules, name: str | None = None) -> None:
        """`name`: the domain's own; default: that of `inner`, whose prompts it then plays."""
        super().__init__()
        self.inner, self.rules = inner, rules
        # Conversations find their domain by the name that their prompt has.
        self.name = name or inner.name  # type: ignore[misc]
        self.max_turns = rules.calls + 1
        self.workers = inner.workers

    def prompts(self, split: Split, seed: int = 0) -> Iterator[Prompt]:
        """Those of `inner`, with the tool: what is held out there is held out here."""
        for prompt in self.inner.prompts(split, seed):
            yield self.equipped(prompt)

    def equipped(self, prompt: Prompt) -> Prompt:
        """The prompt with the tool, and the words on it at the end of the system turn."""
        # An interpreter is the only tool that answers here: it replaces a row's own definitions.
        first, *rest = prompt.messages
        if first.role == "system":
            system = replace(first, content=f"{first.content.rstrip()}\n\n{_USE}".lstrip())
        else:
            system, rest = Message("system", _USE), [first, *rest]
        tools = (definition(self.rules.seconds),)
        return replace(prompt, domain=self.name, messages=(system, *rest), tools=tools)

    def env(self, prompt: Prompt) -> Env:
        """An interpreter of its own for one conversation; it starts with the first call."""
        readable = tuple(Path(folder) for folder in self.rules.readable)
        session = Session(self.rules.seconds, readable=readable)
        return PythonEnv(session, self.rules.calls)

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """By the domain's own grader: what Python printed earns nothing."""
        return self.inner.verify(prompt, reply)

    def gold(self, prompt: Prompt) -> Reply:
        """The domain's own."""
        return self.inner.gold(prompt)

    def totals(self) -> Mapping[str, float]:
        """The domain's own."""
        return self.inner.totals()

    def close(self) -> None:
        """Close the domain."""
        self.inner.close()


async def tir(prompt: Prompt, account: Account, rules: TirRules) -> Result:
    """Sample conversations with Python, and give the answer that most of them end with."""
    account.max_sequence = rules.max_sequence
    result = await vote(prompt, account, VoteRules(rules.samples))
    calls = sum(map(_calls_of, account.kept))
    return replace(result, counts={**result.counts, "python_calls": calls})


def _calls_of(attempt: Attempt) -> int:
    """Calls of Python that a conversation made."""
    return sum(message.role == "tool" for message in attempt.reply.messages)
