"""How long the sequences of an SFT stage are, and which length would hold most of them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

_STEP = math.log(1.02)
"""Lengths are counted in bins of 2 %, so that a record has hundreds of entries at most."""


class Lengths:
    """Counts of token lengths."""

    def __init__(self) -> None:
        self.long = 0
        """Sequences over the stage's `max_length`."""
        self._bins: Counter[int] = Counter()

    @property
    def count(self) -> int:
        """Sequences counted."""
        return self._bins.total()

    def add(self, tokens: int, is_long: bool) -> None:
        """Count a sequence."""
        self.long += is_long
        self._bins[math.ceil(math.log(max(1, tokens)) / _STEP)] += 1

    def holding(self, share: float) -> int:
        """The length, to 2 %, that at least this share of the sequences does not pass."""
        within = 0
        for place, count in sorted(self._bins.items()):
            within += count
            if within >= share * self.count:
                return math.ceil(math.exp(place * _STEP))
        return 0

    def record(self) -> dict[str, int]:
        """The counts as JSON."""
        bins = {str(place): count for place, count in sorted(self._bins.items())}
        return {"long": self.long, **bins}

    def restore(self, record: Mapping[str, int]) -> None:
        """Take the counts that `record` gave."""
        bins = dict(record)
        self.long = bins.pop("long", 0)
        self._bins = Counter({int(place): count for place, count in bins.items()})
