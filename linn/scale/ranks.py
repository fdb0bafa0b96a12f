"""The trainer ranks of a cluster: one call at a time, to all of them. No torch in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from linn.engine.training.token_weights import StepFailed
from linn.errors import DiskFull, EngineLost, is_final
from linn.scale.places import Died, Places, Process, Reply, Role

LOOK_S = 5.0
"""Seconds between two looks at who has answered."""
GRACE_LOOKS = 12
"""Looks after a rank's error in which the others answer, or wait for it in a sum for ever."""


class Ranks:
    """Processes that start together at the first call, and end together when one is lost."""

    def __init__(self, places: Places, count: int) -> None:
        self.count = count
        self._places = places
        self._roles: list[Role] = []
        self._processes: list[Process] = []

    @property
    def started(self) -> bool:
        """Whether there are processes."""
        return bool(self._processes)

    @property
    def processes(self) -> Sequence[Process]:
        """In order of rank."""
        return self._processes

    def start(self, roles: Sequence[Role]) -> None:
        """One process per role, in order of rank."""
        assert len(roles) == self.count
        self._processes = self._places.start(roles)

    def call(self, message: str, *arguments: Any) -> list[Any]:
        """The same message to every rank; answers in order of rank."""
        return self.call_each(message, [arguments] * self.count)

    def call_each(self, message: str, arguments: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Have each rank run its method `message` once; answers in order of rank.

        Errors that ranks agree on are raised and the ranks stay. One that is gone, or that fails
        alone while the others wait for it, ends them all: EngineLost, or its own error where no
        new start cures that.
        """
        try:
            replies = self._exchange(message, arguments)
        except Died as death:
            self.close(kill=True)
            raise EngineLost(f"{death}; all ranks ended (in `{message}`)") from None
        except BaseException:
            # Replies under way would be taken for those of the next call.
            self.close(kill=True)
            raise

        errors = [value for fine, value in replies if not fine]
        if errors:
            # The rank that failed says more than those that merely learnt of it.
            causes = [error for error in errors if not isinstance(error, StepFailed)]
            raise (causes or errors)[0]
        return [value for _, value in replies]

    def _exchange(self, message: str, arguments: Sequence[tuple[Any, ...]]) -> list[Reply]:
        for process, own in zip(self._processes, arguments, strict=True):
            process.send(message, own)

        replies: dict[str, Reply] = {}
        owing = {process.name: process for process in self._processes}
        looks = 0
        while owing:
            # Whoever answers first is read first: a death is seen while others still compute.
            for process in self._places.answered(list(owing.values()), LOOK_S):
                replies[process.name] = process.receive()
                del owing[process.name]

            # A rank that failed alone takes no part in the sum that the others wait for.
            failed = [value for fine, value in replies.values() if not fine]
            if failed and owing:
                looks += 1
                for error in failed:
                    if isinstance(error, DiskFull):
                        raise error  # who writes does so alone: the others don't come to say so
            if looks > GRACE_LOOKS:
                if is_final(failed[0]):
                    raise failed[0]
                waiting = ", ".join(owing)
                raise EngineLost(f"{failed[0]}; {waiting} still waited for it, so all ranks ended")
        return [replies[process.name] for process in self._processes]

    def close(self, kill: bool = False) -> None:
        """End them; `start` makes new ones."""
        processes, self._processes = self._processes, []
        for process in processes:
            process.end(kill)
