"""The domain of `bench.endurance`: linn's sums, answered at once.

Without the working a reply has three tokens, so that a step costs little.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import ClassVar

from linn.domains.arithmetic import Arithmetic
from linn.types import Message, Prompt


class ShortSums(Arithmetic):
    """`what is 37 + 58?`, in the mode without a thought."""

    name: ClassVar[str] = "short_sums"

    def make(self, rng: random.Random) -> Prompt:
        """A sum of the inner domain in the other mode."""
        return replace(super().make(rng), thinking=False)

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The bare result."""
        return tuple(
            replace(one, reasoning=None) for one in super().demonstrate(prompt, rng, faulty)
        )
