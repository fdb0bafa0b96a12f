"""Which prompts a domain is measured on: shares of its rows, or files of their own.

A file that is named as test or validation is measured whole, in its own order. No row that stands
in it is trained on.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from linn.data.overlap import Evaluated, words_of
from linn.types import Prompt, Split

SHARE = 0.1
"""Of the rows, unless the recipe says otherwise."""
SURVEYED = 2**28
"""Bytes of a file of rows among which test and validation prompts are drawn; half a minute."""
NEAR = 13
"""Words in a row that a training prompt may not share with a test file without being counted."""


@dataclass(frozen=True)
class Splits:
    """What the recipe says of a domain's test and validation prompts."""

    test: str | float | None = None
    """A file of rows, or a share of the domain's own; None: a tenth."""
    validation: str | float | None = None
    """The same for validation."""

    def file(self, split: Split) -> str | None:
        """The file that a split is, where it is one."""
        value = {"test": self.test, "validation": self.validation}.get(split)
        return value if isinstance(value, str) else None

    @property
    def files(self) -> dict[Split, str]:
        """The splits that are files."""
        names: tuple[Split, ...] = ("test", "validation")
        return {split: file for split in names if (file := self.file(split)) is not None}

    def of(self, key: str) -> Split:
        """The split of a prompt of the domain's own, by its content key."""
        if self.test is None and self.validation is None:
            return split_of(key)
        place = int(key[:8], 16) / 2**32
        for split, value in (("test", self.test), ("validation", self.validation)):
            share = 0.0 if isinstance(value, str) else value
            place -= SHARE if share is None else share
            if place < 0:
                return "test" if split == "test" else "validation"
        return "train"


def split_of(key: str) -> Split:
    """Which split a content key belongs to: a tenth test, a tenth validation, the rest train."""
    bucket = int(key[:8], 16) % 10
    if bucket == 0:
        return "test"
    if bucket == 1:
        return "validation"
    return "train"


class Draw:
    """The prompts with the smallest content keys of one split: a sample of the whole file.

    A larger draw of the same file begins with those of a smaller one.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._heap: list[tuple[int, str, Prompt]] = []
        self._keys: set[str] = set()

    def add(self, key: str, prompt: Prompt) -> None:
        """Offer a prompt; one that was offered before is passed over."""
        if key in self._keys:
            return
        # The first digits decide the split, so the others draw within it.
        entry = (-int(key[8:], 16), key, prompt)
        if len(self._heap) < self.count:
            heapq.heappush(self._heap, entry)
        elif entry[:2] > self._heap[0][:2]:
            _, dropped, _ = heapq.heappushpop(self._heap, entry)
            self._keys.discard(dropped)
        else:
            return
        self._keys.add(key)

    def prompts(self) -> list[Prompt]:
        """What was drawn, the smallest key first."""
        return [
            prompt for _, _, prompt in sorted(self._heap, key=lambda entry: (-entry[0], entry[1]))
        ]


class Measured:
    """What the test and validation files of a domain hold, to keep training off them."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        """Content keys of the prompts."""
        self._texts: list[list[str]] = []
        self._evaluated: Evaluated | None = None

    def add(self, key: str, texts: list[str]) -> None:
        """Take a prompt; `texts`: its user turns, as its row has them."""
        self.keys.add(key)
        self._texts.append(texts)

    def is_near(self, texts: list[str]) -> bool:
        """Whether a training prompt shares NEAR words in a row with a measured one."""
        if not self.keys:
            return False
        if self._evaluated is None:
            self._evaluated = Evaluated("test and validation", self._texts, NEAR)
        return self._evaluated.hit([words_of(text) for text in texts]) is not None
