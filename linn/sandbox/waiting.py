"""Waiting for pipes, however many files this process holds open."""

from __future__ import annotations

import math
import select
from collections.abc import Sequence


def ready(
    readers: Sequence[int], writers: Sequence[int], seconds: float
) -> tuple[list[int], list[int]]:
    """The descriptors that can be read, and those that can be written, within `seconds`.

    A pipe whose other end is closed counts as both: reading and writing tell that. `select.select`
    refuses descriptors above 1,023, which a batch of some hundred conversations with an interpreter
    each comes to.
    """
    poll = select.poll()
    for descriptor in readers:
        poll.register(descriptor, select.POLLIN)
    for descriptor in writers:
        poll.register(descriptor, select.POLLOUT)

    # Rounded up, so that a short wait is no busy loop.
    found = {descriptor for descriptor, _ in poll.poll(math.ceil(max(0.0, seconds) * 1000))}
    return [one for one in readers if one in found], [one for one in writers if one in found]
