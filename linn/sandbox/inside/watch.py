"""Watching one request's children: what they say is collected, their limits are held."""

from __future__ import annotations

import mmap
import os
import select
import time
from typing import Any

_LOOK, _LOOK_AT_FILES = 0.005, 0.05
_MOST_FILES = 10_000
_WAITING = 9.0


def _waited(pid: int) -> float:
    """Seconds that a process has waited for a processor: those of its most delayed thread. 0 where the system does not tell."""
    longest = 0
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/schedstat", "rb") as file:
                longest = max(longest, int(file.read().split()[1]))
    except (OSError, ValueError, IndexError):
        pass  # it has ended, or a thread of it has
    return longest / 1e9


class Heard:
    """What a child says on one stream, up to one byte over a cap; not in the heap, since the next child inherits what the heap has held."""

    def __init__(self, cap: int) -> None:
        self.cap, self.size, self.seen = cap, 0, 0
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

    def line(self) -> bool:
        """Whether there is a line that was not asked about before."""
        end = self.room.find(b"\n", self.seen, self.size)
        self.seen = end + 1 if end >= 0 else self.seen
        return end >= 0

    def text(self) -> memoryview:
        """What was said, cut at the cap."""
        return memoryview(self.room)[: min(self.size, self.cap)]


class Watch:
    """Collects what a child says until it ends, says too much, makes too many files, runs out of time, or our own parent is gone.

    CPU and wall-clock limits hold for each answer: they begin anew with a line, as often as answers were asked for. Of the wall-clock time,
    what the program spent waiting for a processor does not count (up to nine times the limit), so that a loaded machine changes no verdict.
    """

    def __init__(
        self, pids: list[int], streams: dict[str, int], header: dict[str, Any], memory: str
    ) -> None:
        """`memory`: a scratch folder in memory, whose files are counted; they cost memory that no other limit sees."""
        self.cpu, self.wall, self.cap, self.left = (
            float(header["cpu"]),
            float(header["wall"]),
            int(header["output"]),
            int(header["answers"]),
        )
        self.memory = memory
        self.clocks = {
            pid: (~pid << 3) | 2 for pid in pids
        }  # the kernel's number for "CPU time of that process"
        self.waited = dict.fromkeys(pids, 0.0)
        self.names = {fd: name for name, fd in streams.items()}
        self.said = {name: Heard(self.cap) for name in streams}
        self.handle = os.pidfd_open(pids[-1])
        self.poll = select.poll()
        self.poll.register(self.handle, select.POLLIN)
        self.poll.register(0, select.POLLHUP)
        for fd in self.names:
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)
        self._allow()

    def _allow(self) -> None:
        """The limits begin anew."""
        self.left -= 1
        self.deadline = time.monotonic() + self.wall
        self.spent = {pid: self._used(pid) for pid in self.clocks}
        self.before = sum(self.waited.values())

    def _used(self, pid: int) -> float:
        try:
            return time.clock_gettime(self.clocks[pid])
        except OSError:
            return 0.0  # it has ended

    def _seconds(self) -> float:
        """How long to wait before the limits are looked at again; not above 0 when one is passed."""
        cpu = min(self.cpu - self._used(pid) + spent for pid, spent in self.spent.items())
        self.waited = {pid: max(waited, _waited(pid)) for pid, waited in self.waited.items()}
        waited = sum(self.waited.values()) - self.before
        wall = self.deadline - time.monotonic() + min(waited, _WAITING * self.wall)
        return min(wall, max(cpu, _LOOK) if cpu > 0 else cpu)

    def _crowded(self) -> bool:
        found = os.statvfs(self.memory) if self.memory else None
        return found is not None and found.f_files - found.f_ffree > _MOST_FILES

    def run(self) -> str:
        """`ended`, `timeout`, `output`, or `unwanted` when our owner is gone."""
        ending = ""
        while not ending:
            seconds = self._seconds()
            events = dict(self.poll.poll(max(0.0, min(seconds, _LOOK_AT_FILES)) * 1000))
            if 0 in events:
                return "unwanted"
            ending = "ended" if self.handle in events else "timeout" if seconds <= 0 else ""
            for fd, name in list(self.names.items()):
                if (fd in events or ending == "ended") and not self.said[name].drain(fd):
                    self.poll.unregister(fd)
                    del self.names[fd]
            while self.left > 0 and self.said["lines"].line():
                self._allow()
            if self._crowded() or any(heard.size > self.cap for heard in self.said.values()):
                ending = "output"
        os.close(self.handle)
        return ending

    def text(self, name: str) -> memoryview | bytes:
        """What was said on a stream, cut at the limit."""
        return self.said[name].text() if name in self.said else b""
