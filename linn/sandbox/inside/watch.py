"""Watching one request's children: what they say is collected, their limits are held.

This file runs inside the sandbox, in the fork server.
"""

from __future__ import annotations

import mmap
import os
import select
import time
from collections.abc import Mapping, Sequence
from typing import Any

_SHORTEST_WAIT = 0.005
_LONGEST_WAIT = 0.05
"""Seconds between two looks at the limits."""
_MOST_WAITING = 9.0
"""How many times the wall-clock limit may be spent waiting for a processor."""
_CPUCLOCK_SCHED = 2
"""linux/posix-timers.h: the clock of a process is its number's complement, shifted, and this."""

HEADER_BLOCK = 512
"""A header is filled up with spaces to a multiple of so many bytes, its newline included.

So a server reads it at once, and nothing of what follows."""

Header = Mapping[str, Any]
"""A request's header: `kind`, `sizes`, `answers`, `prelude`, and the limits of `Limits`."""


def _waited(pid: int) -> float:
    """Seconds that a process has waited for a processor: those of its most delayed thread.

    0 where the system does not tell.
    """
    longest = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                nanoseconds = int(file.read().split()[1])
            longest = max(longest, nanoseconds)
    except (OSError, ValueError, IndexError):
        pass  # it has ended, or a thread of it has
    return longest / 1e9


class Stream:
    """What a child says on one stream, up to one byte over a cap.

    It is not held in the heap, since the next child inherits what the heap has held.
    """

    def __init__(self, cap: int) -> None:
        self.cap, self.size = cap, 0
        self.next_line = 0
        self.room = mmap.mmap(-1, cap + 1)

    def drain(self, fd: int) -> bool:
        """Read what is there; False when the other end is closed."""
        with memoryview(self.room) as room:
            while self.size <= self.cap:
                try:
                    with room[self.size :] as free:
                        count = os.readv(fd, [free])
                except BlockingIOError:
                    return True
                if not count:
                    return False
                self.size += count
        return True

    def has_new_line(self) -> bool:
        """Whether there is a line that was not asked about before."""
        end = self.room.find(b"\n", self.next_line, self.size)
        if end < 0:
            return False
        self.next_line = end + 1
        return True

    def is_over(self) -> bool:
        """Whether the child said more than allowed."""
        return self.size > self.cap

    def text(self) -> memoryview:
        """What was said, cut at the cap."""
        return memoryview(self.room)[: min(self.size, self.cap)]


class Watch:
    """Collects what children say until the last one ends, passes a limit, or our owner is gone.

    CPU and wall-clock limits hold for each answer: they begin anew with a line, as often as
    answers were asked for. Of the wall-clock time, what the program spent waiting for a processor
    does not count (up to nine times the limit), so that a loaded machine changes no verdict.
    """

    def __init__(self, pids: Sequence[int], streams: Mapping[str, int], header: Header) -> None:
        """`streams`: descriptors to read, by name."""
        self.cpu, self.wall = float(header["cpu"]), float(header["wall"])
        self.answers_left = int(header["answers"])
        # Threads work at the same time, and so use CPU time faster than the clock goes.
        self.speed = min(int(header["threads"]) + 1, os.cpu_count() or 1)

        self.clocks = {pid: (~pid << 3) | _CPUCLOCK_SCHED for pid in pids}
        self.waited = dict.fromkeys(pids, 0.0)
        self.looked = time.monotonic()

        cap = int(header["output"])
        self.streams = {name: Stream(cap) for name in streams}
        self.open_names = {fd: name for name, fd in streams.items()}

        self.handle = os.pidfd_open(pids[-1])
        self.poll = select.poll()
        self.poll.register(self.handle, select.POLLIN)
        self.poll.register(0, select.POLLHUP)  # our owner's end of stdin
        for fd in self.open_names:
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)
        self._renew_limits()

    def _renew_limits(self) -> None:
        """The limits begin anew, for the next answer."""
        self.answers_left -= 1
        self.deadline = time.monotonic() + self.wall
        self.used_before = {pid: self._used(pid) for pid in self.clocks}
        self.waited_before = sum(self.waited.values())

    def _used(self, pid: int) -> float:
        """CPU seconds of a process."""
        try:
            return time.clock_gettime(self.clocks[pid])
        except OSError:
            return 0.0  # it has ended

    def _cpu_left(self, pid: int) -> float:
        """CPU seconds that a process may still use for this answer."""
        return self.cpu - self._used(pid) + self.used_before[pid]

    def _seconds_left(self) -> float:
        """How long to wait before the limits are looked at again; not above 0 if one is passed."""
        cpu_left = min(self._cpu_left(pid) for pid in self.clocks)

        # To ask how long a process has waited is dear. Most programs end before that can matter.
        now = time.monotonic()
        if now >= min(self.looked + _SHORTEST_WAIT, self.deadline):
            self._look_at_waiting(now)
        waited = sum(self.waited.values()) - self.waited_before
        allowance = min(waited, _MOST_WAITING * self.wall)
        wall_left = self.deadline - now + allowance

        # A process that has nearly reached its limit is not looked at all the time.
        if cpu_left > 0:
            cpu_left = max(cpu_left / self.speed, _SHORTEST_WAIT)
        return min(wall_left, cpu_left)

    def _look_at_waiting(self, now: float) -> None:
        """Note how long each process has waited for a processor.

        One that has ended tells no more, so its last number is kept.
        """
        self.looked = now
        for pid in self.waited:
            self.waited[pid] = max(self.waited[pid], _waited(pid))

    def _drain(self, fds: Sequence[int]) -> None:
        """Read what these streams hold; those that are closed are forgotten."""
        for fd in fds:
            if not self.streams[self.open_names[fd]].drain(fd):
                self.poll.unregister(fd)
                del self.open_names[fd]

    def run(self) -> str:
        """`ended`, `timeout`, `output`, or `unwanted` when our owner is gone."""
        ending = ""
        while not ending:
            seconds = self._seconds_left()
            milliseconds = max(0.0, min(seconds, _LONGEST_WAIT)) * 1000
            events = dict(self.poll.poll(milliseconds))
            if 0 in events:
                return "unwanted"

            if self.handle in events:
                ending = "ended"
            elif seconds <= 0:
                ending = "timeout"

            # Once the last child has ended, whatever is left is read.
            fds = [fd for fd in self.open_names if fd in events or ending == "ended"]
            self._drain(fds)

            while self.answers_left > 0 and self.streams["lines"].has_new_line():
                self._renew_limits()
            if any(stream.is_over() for stream in self.streams.values()):
                ending = "output"
        os.close(self.handle)
        return ending

    def text(self, name: str) -> memoryview | bytes:
        """What was said on a stream, cut at the limit."""
        return self.streams[name].text() if name in self.streams else b""
