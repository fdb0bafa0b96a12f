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
from linn.sandbox import isolation
from linn.sandbox.outcome import Execution, Limits
from linn.sandbox.process import Died, Header, ServerProcess

_LONGEST, _SLACK_SECONDS = 10.0, 30.0
"""A server answers within so many times the wall-clock limit, and so many seconds.

(Waiting for a processor does not count there.)"""
_PROBE = b'{"program": "def f():\\n    return 1", "calls": [["f", "[]"]]}'
_PROBE_LIMITS = {"cpu": 5.0, "wall": 20.0, "answers": 1, "memory": 1 << 28}
_PROBE_SECONDS = 20.0 + _SLACK_SECONDS


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
    """At most `servers` fork servers. Thread-safe; a request waits for a free one."""

    def __init__(self, servers: int, kind: str | None, scratch: int) -> None:
        """`kind`: of isolation, None: the strongest. `scratch`: bytes of a server's own folder."""
        self.servers, self.kind, self.scratch = servers, kind, scratch
        self.free: list[ServerProcess] = []
        self.running = self.started = 0
        counted = ("executions", "seconds", "waited", "timeouts", "restarts")
        self._totals = dict.fromkeys(counted, 0.0)
        self._owner = os.getpid()
        self._change = threading.Condition()
        _open.add(self)

    def ask(self, header: Header, bodies: Sequence[bytes]) -> Execution:
        """One request to its answer; raises InfrastructureError where the machine is at fault.

        A server that breaks is replaced, and a program that something else killed (a machine out
        of memory) is run again, both once.
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
        `timeouts`; `restarts` of servers.
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
        began = time.monotonic()
        try:
            answer, parts = server.ask(header, bodies, seconds)
            # A server that failed sends a header only.
            lines, stdout, stderr = parts or (b"", b"", b"")
            execution = Execution(
                ending=answer["ending"],
                code=answer.get("code", 0),
                lines=lines,
                stdout=stdout,
                stderr=stderr,
                failed=answer.get("failed", ""),
                seconds=time.monotonic() - began,
            )
            is_broken = bool(answer["last"] or execution.failed)

        except (Died, ValueError, KeyError) as error:
            self._give(server, is_broken=True)
            raise Died(str(error)) from None
        except BaseException:
            self._give(server, is_broken=True)
            raise

        self._give(server, is_broken)
        return execution

    def _probe(self, header: Header) -> None:
        """Raise InfrastructureError unless a known program runs."""
        probe = {**header, **_PROBE_LIMITS, "kind": "call", "sizes": [len(_PROBE)]}
        try:
            execution = self._exchange(probe, [_PROBE], _PROBE_SECONDS, fresh=True)
        except Died as error:
            raise InfrastructureError(
                f"the sandbox no longer answers ({error}); check memory and process limits"
            ) from None
        if execution.failed:
            raise InfrastructureError(f"the sandbox could not run a program: {execution.failed}")

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


_open: weakref.WeakSet[ServerPool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_open):
        pool.close()
