"""What each of vLLM's own processes can do besides: take weights as the trainers send them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from linn.scale.broadcast import WeightGroup


class WeightReceiver:
    """vLLM makes its workers inherit from it (`worker_extension_cls`)."""

    device: Any
    """The worker's."""
    rank: int
    """Its number among those that hold one model together."""
    reload_weights: Any
    """vLLM's own, which knows the names in a file."""

    def receive_weights(self, meeting: str, place: int, members: int) -> None:
        """All weights from a broadcast, in place of the model's; see `WeightGroup`."""
        with closing(WeightGroup(meeting, place + self.rank, members, self.device)) as group:
            stream = group.received()
            self.reload_weights(weights_iterator=stream)
            # Whoever sends waits until all is received.
            for _ in stream:
                pass
