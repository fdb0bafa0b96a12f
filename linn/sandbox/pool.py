"""The pool of fork servers: started on demand, one request each, replaced when they break, and what they have done so far counted."""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from linn.errors import InfrastructureError
from linn.sandbox import isolation
from linn.sandbox.process import Died, Server

Answer = tuple[dict[str, Any], list[bytes]]

_LONGEST, _SLACK = 10.0, 30.0
"""A server answers within so many times the wall-clock limit (waiting for a processor does not count there), and so many seconds."""
_PROBE = b'{"program": "def f():\\n    return 1", "calls": [["f", "[]"]]}'


class Pool:
    """At most `servers` fork servers. Thread-safe; a request waits for a free one."""

    def __init__(self, servers: int, kind: str | None, scratch: int) -> None:
        self.servers, self.kind, self.scratch = servers, kind, scratch
        self.free: list[Server] = []
        self.running = self.started = 0
        self._totals = {
            "executions": 0.0,
            "seconds": 0.0,
            "waited": 0.0,
            "timeouts": 0.0,
            "restarts": 0.0,
        }
        self._owner = os.getpid()
        self._change = threading.Condition()
        _open.add(self)

    def ask(self, header: Mapping[str, Any], bodies: Sequence[bytes]) -> Answer:
        """One request to its answer; raises InfrastructureError where the machine is at fault.

        A server that breaks is replaced, and a program that something else killed (a machine out of memory) is run again, both once.
        """
        cause = ""
        for attempt in range(2):
            server = self._take(fresh=attempt > 0)
            began = time.monotonic()
            try:
                answer, said = server.ask(
                    header,
                    bodies,
                    _LONGEST * float(header["wall"]) * int(header["answers"]) + _SLACK,
                )
            except (Died, ValueError, KeyError):
                self._give(server, broken=True)
                continue
            except BaseException:
                self._give(server, broken=True)
                raise
            cause = answer.get("failed", "")
            self._count(time.monotonic() - began, answer["ending"] == "timeout")
            self._give(server, broken=bool(answer["last"] or cause))
            if answer["ending"] == "killed" and attempt == 0:
                continue
            if not cause:
                return answer, said
        if cause:
            raise InfrastructureError(f"the sandbox could not run a program: {cause}")
        # Twice, and the second time with a fresh server: the program's own doing, if another program still runs.
        self._probe(header)
        return {"ending": "crash", "code": 0}, [b"", b"", b""]

    def totals(self) -> dict[str, float]:
        """Sums so far: `executions`, `seconds` a server worked on them, `waited` for a free server, `timeouts`, `restarts` of servers."""
        with self._change:
            return dict(self._totals)

    def close(self) -> None:
        """Stop every idle server; those at work are stopped by who uses them."""
        with self._change:
            free, self.free = self.free, []
            self.running -= len(free)
            self._change.notify_all()
        if self._owner == os.getpid():
            for server in free:
                server.stop()

    def _probe(self, header: Mapping[str, Any]) -> None:
        server = self._take(fresh=True)
        limits = {"cpu": 5.0, "wall": 20.0, "answers": 1, "memory": 1 << 28}
        try:
            answer, _ = server.ask(
                {**header, **limits, "kind": "call", "sizes": [len(_PROBE)]},
                [_PROBE],
                20.0 + _SLACK,
            )
        except (Died, ValueError, KeyError) as error:
            self._give(server, broken=True)
            raise InfrastructureError(
                f"the sandbox no longer answers ({error}); check memory and process limits"
            ) from None
        self._give(server, broken=bool(answer["last"] or "failed" in answer))
        if "failed" in answer:
            raise InfrastructureError(f"the sandbox could not run a program: {answer['failed']}")

    def _count(self, seconds: float, timeout: bool) -> None:
        with self._change:
            self._totals["executions"] += 1
            self._totals["seconds"] += seconds
            self._totals["timeouts"] += timeout

    def _take(self, fresh: bool = False) -> Server:
        """A free server, or a new one. `fresh`: a new one in any case, since a free one may have died unseen."""
        if fresh:
            self.close()
        began = time.monotonic()
        with self._change:
            if (
                self._owner != os.getpid()
            ):  # a fork of this process must not talk to its parent's servers
                self.free, self.running, self._owner = [], 0, os.getpid()
            while not self.free and self.running >= self.servers:
                self._change.wait()
            self._totals["waited"] += time.monotonic() - began
            if self.free:
                return self.free.pop()
            self.running += 1
            self.started += 1
            self._totals["restarts"] += self.started > self.servers
        try:
            return isolation.starter.submit(self._start).result()
        except BaseException:
            with self._change:
                self.running -= 1
                self._change.notify()
            raise

    def _give(self, server: Server, broken: bool) -> None:
        if broken:
            server.stop()
        with self._change:
            if broken:
                self.running -= 1
            else:
                self.free.append(server)
            self._change.notify()

    def _start(self) -> Server:
        causes = []
        for kind in [self.kind] if self.kind else isolation.kinds():
            try:
                server = Server(kind, self.scratch)
            except Died as error:
                causes.append(f"{kind}: {error}")
                continue
            if self.kind is None and kind == "plain":
                isolation.warn_plain(causes)
            self.kind = kind
            return server
        why = "; ".join(causes)
        raise InfrastructureError(
            f"no sandbox could be started ({why}); install bubblewrap, or check memory and process limits"
        )


_open: weakref.WeakSet[Pool] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    for pool in list(_open):
        pool.close()
