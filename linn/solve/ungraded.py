"""Prompts whose replies no domain grades: a strategy reads them itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from linn.domains.base import Domain
from linn.types import Message, Prompt, Reply, Verdict


class Ungraded(Domain):
    """Every reply earns 0 and is read by whoever asked."""

    name: ClassVar[str] = "ungraded"

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Nothing is decided here."""
        return Verdict(0.0, "read by the strategy")


def ungraded(messages: Sequence[Message], thinking: bool = True) -> Prompt:
    """A prompt of this domain."""
    return Prompt(Ungraded.name, "", tuple(messages), thinking=thinking)
