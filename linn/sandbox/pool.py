"""The pool of fork servers: started on demand, one request each, replaced when they break."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from linn.errors import InfrastructureError
from linn.sandbox import isolation, sentinel
from linn.sandbox.outcome import Execution, Limits
from linn.sandbox.process import Died, Header, ServerProcess

_LONGEST, _SLACK_SECONDS = 10.0, 30.0
"""A server answers within so many times the wall-clock limit, and so many seconds.

(Waiting for a processor does not count there.)"""
_SENTINEL_SECONDS = sentinel.WALL + _SLACK_SECONDS
_MOST_UNWATCHED = 32
"""Programs that a server may run, none of them suspicious, until the sentinel looks at it."""


def header_of(
    kind: str, bodies: Sequence[bytes], limits: Limits, answers: int = 1, prelude: bool = False
) -> dict[str, Any]:
    """The header of a request to a fork server: see `inside/server.py`."""
    return {
        "kind": kind,
        "sizes": [len(body) for body in bodies],
        "answers": answers,
        "prelude": prelude,
        **asdict(limits),
    }


class ServerPool:
    """At most `servers` fork servers. Thread-safe; a request waits for a free one.

    A program that fails as programs do on a sick server gets its verdict only once a known program,
    the sentinel, has answered rightly on the same server. Else that server is sick: it is replaced,
    nothing that it said is remembered, and the program runs again. After other programs the
    sentinel looks every so often.
    """

    def __init__(self, servers: int, kind: str | None, scratch: int) -> None:
        """`kind`: of isolation, None: the strongest. `scratch`: bytes of a server's own folder."""
        self.servers, self.kind, self.scratch = servers, kind, scratch
        self.free: list[ServerProcess] = []
        self.running = self.started = 0
        self.sick: set[int] = set()
        """Numbers of servers that answered a known program wrongly."""
        counted = ("executions", "seconds", "waited", "timeouts", "restarts", "sick")
        self._totals = dict.fromkeys(counted, 0.0)
        self._owner = os.getpid()
        self._change = threading.Condition()
        _open.add(self)

    def ask(self, header: Header, bodies: Sequence[bytes]) -> Execution:
        """One request to its answer; raises InfrastructureError where the machine is at fault.

        A server that breaks or is sick is replaced, and a program that something else killed (a
        machine out of memory) is run again, both once.
        """
        longest = _LONGEST * float(header["wall"]) * int(header["answers"])
        failed = ""
        for attempt in range(2):
            # A free server may have died unseen, so the second attempt takes a new one.
            is_second = attempt > 0
            try:
                execution = self._exchange(header, bodies, longest + _SLACK_SECONDS, is_second)
            except Died:
                continue
            self._count(execution)
            failed = execution.failed
            if execution.ending == "killed" and not is_second:
                continue
            if not failed:
                return execution
        if failed:
            raise InfrastructureError(f"the sandbox could not run a program: {failed}")
        # Twice, and the second time with a fresh server: the program's own doing, if another
        # program still runs.
        self._probe(header)
        return Execution("crash")

    def totals(self) -> dict[str, float]:
        """Sums so far.

        `executions`; `seconds` that servers worked on them; `waited`: seconds for a free server;
        `timeouts`; `restarts` of servers; `sick`: servers that the sentinel found to be so.
        """
        with self._change:
            return dict(self._totals)

    def close(self) -> None:
        """Stop every idle server; those at work are stopped by who uses them."""
        with self._change:
            free, self.free = self.free, []
            self.running -= len(free)
            self._change.notify_all()
        # After a fork the servers belong to the parent.
        if self._owner == os.getpid():
            for server in free:
                server.stop()

    # ------------------------------------------------------------ how

    def _exchange(
        self, header: Header, bodies: Sequence[bytes], seconds: float, fresh: bool
    ) -> Execution:
        """One request to one server, which is given back; raises Died where it breaks."""
        server = self._take(fresh)
        is_broken = True
        try:
            execution = _asked(server, header, bodies, seconds)
            is_broken = bool(execution.last or execution.failed)
            if not is_broken and self._is_sick(server, execution, header):
                is_broken = True
                raise Died("it answered a known program wrongly")
        finally:
            self._give(server, is_broken)
        return execution

    def _is_sick(self, server: ServerProcess, execution: Execution, header: Header) -> bool:
        """Whether a server answers the sentinel wrongly, where there is reason to ask."""
        server.unwatched += 1
        if not sentinel.is_needed(execution) and server.unwatched <= _MOST_UNWATCHED:
            return False
        try:
            known = sentinel.header_like(header)
            answer = _asked(server, known, [sentinel.BODY], _SENTINEL_SECONDS)
        except Died:
            answer = Execution("failed")
        server.unwatched = 0
        if answer.ending == "ended" and sentinel.is_right(answer.lines):
            return False

        with self._change:
            self.sick.add(server.number)
            self._totals["sick"] += 1
        return True

    def _probe(self, header: Header) -> None:
        """Raise InfrastructureError unless the sentinel is answered by a new server."""
        try:
            known = sentinel.header_like(header)
            execution = self._exchange(known, [sentinel.BODY], _SENTINEL_SECONDS, fresh=True)
        except Died as error:
            raise InfrastructureError(
                f"the sandbox no longer answers ({error}); check memory and process limits"
            ) from None
        if execution.failed or not sentinel.is_right(execution.lines):
            why = execution.failed or f"a known program gave {execution.lines[:200]!r}"
            raise InfrastructureError(f"the sandbox could not run a program: {why}")

    def _count(self, execution: Execution) -> None:
        with self._change:
            self._totals["executions"] += 1
            self._totals["seconds"] += execution.seconds
            self._totals["timeouts"] += execution.ending == "timeout"

    def _take(self, fresh: bool) -> ServerProcess:
        """A free server, or a new one. `fresh`: a new one in any case."""
        if fresh:
            self.close()
        began = time.monotonic()

        with self._change:
            if self._owner != os.getpid():
                # A fork of this process must not talk to its parent's servers.
                self.free, self.running, self._owner = [], 0, os.getpid()
            while not self.free and self.running >= self.servers:
                self._change.wait()
            self._totals["waited"] += time.monotonic() - began

            if self.free:
                return self.free.pop()
            self.running += 1
            self.started += 1
            self._totals["restarts"] += self.started > self.servers

        # Outside the lock, since a start takes long.
        try:
            return isolation.starter.submit(self._start).result()
        except BaseException:
            # Who waits for a server may try in turn.
            with self._change:
                self.running -= 1
                self._change.notify()
            raise

    def _give(self, server: ServerProcess, is_broken: bool) -> None:
        if is_broken:
            server.stop()
        with self._change:
            if is_broken:
                self.running -= 1
            else:
                self.free.append(server)
            self._change.notify()

    def _start(self) -> ServerProcess:
        """A new server, of the strongest kind that works; the first decides for the others."""
        causes = []
        for kind in [self.kind] if self.kind else isolation.kinds():
            try:
                server = ServerProcess(kind, self.scratch)
            except Died as error:
                causes.append(f"{kind}: {error}")
                continue
            if self.kind is None and kind == "plain":
                isolation.warn_plain(causes)
            self.kind = kind
            return server
        why = "; ".join(causes)
        raise InfrastructureError(
            f"no sandbox could be started ({why}); "
            "install bubblewrap, or check memory and process limits"
        )


def _asked(
    server: ServerProcess, header: Header, bodies: Sequence[bytes], seconds: float
) -> Execution:
    """One request to one server; raises Died where it breaks."""
    began = time.monotonic()
    try:
        answer, parts = server.ask(header, bodies, seconds)
        # A server that failed sends a header only.
        lines, stdout, stderr = parts or (b"", b"", b"")
        return Execution(
            ending=answer["ending"],
            code=answer.get("code", 0),
            lines=lines,
            stdout=stdout,
            stderr=stderr,
            failed=answer.get("failed", ""),
            seconds=time.monotonic() - began,
            server=server.number,
            last=bool(answer["last"]),
        )
    except (ValueError, KeyError) as error:
        raise Died(str(error)) from None


_open: weakref.WeakSet[ServerPool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_open):
        pool.close()
