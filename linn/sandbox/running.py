"""One command that runs in a workspace, seen from outside: started, read, ended."""

from __future__ import annotations

import contextlib
import io
import marshal
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Any

from linn.errors import InfrastructureError
from linn.sandbox import isolation
from linn.sandbox.groups import new_group
from linn.sandbox.isolation import Place
from linn.sandbox.outcome import Ran, text_of
from linn.sandbox.waiting import ready

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""What every command and its supervisor start with."""
_SLACK_SECONDS = 30.0
"""How much later than the limit a supervisor may report."""
_ENDING_SECONDS = 10.0
_TMP_BYTES = 64 << 20
_SUPERVISOR_BYTES = 12 << 20
"""Memory that a supervisor itself may hold: it is in its command's control group."""
_STOPPED = -9
"""Exit code of a command that a limit ended."""
_NOT_EXECUTED = 127

Job = Mapping[str, Any]
"""The command and its limits, as `inside/supervisor.py` reads them."""
Message = Mapping[str, Any]
"""One part of a supervisor's report."""


class Running:
    """A command in a workspace."""

    def __init__(self, place: Place, job: Job, stdin: int, stderr: int) -> None:
        """`job`: what `inside/supervisor.py` reads. `stdin`, `stderr`: as for `subprocess`.

        Raises InfrastructureError where no process starts.
        """
        self._kind, self._output = place.kind, int(job["output"])
        self._deadline = time.monotonic() + float(job["wall"]) + _SLACK_SECONDS

        # The job goes in by one pipe, which stays open as long as the command is wanted; the
        # report comes back by another. Neither is among the command's own streams.
        job_out, job_in = os.pipe()
        report_out, report_in = os.pipe()
        self._group = new_group()
        try:
            with contextlib.ExitStack() as stack:
                job = {**job, "doors": [], "counters": []}
                if self._group:
                    self._group.limit(
                        int(job["memory"]) + _SUPERVISOR_BYTES, int(job["processes"]) + 2
                    )
                    counters = stack.enter_context(self._group.counters())
                    job["counters"] = [counters.cpu, counters.kills]
                    job["doors"] = stack.enter_context(self._group.doors())

                self._process = subprocess.Popen(
                    isolation.supervised(place, _TMP_BYTES, job=job_out, report=report_in),
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    pass_fds=(job_out, report_in, *job["doors"], *job["counters"]),
                    env=ENVIRONMENT,
                    bufsize=0,
                    start_new_session=True,
                )
        except OSError as error:
            for fd in (job_out, job_in, report_out, report_in):
                os.close(fd)
            if self._group:
                self._group.remove()
            raise InfrastructureError(
                f"no process could be started in the sandbox: {error}"
            ) from None

        os.close(job_out)
        os.close(report_in)
        self._report = report_out
        self._orders: int | None = job_in
        self._is_over = False

        data = marshal.dumps(dict(job))
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(job_in, data) :]

        assert self._process.stdout is not None
        self.stdin: IO[bytes] | None = self._process.stdin
        """Where to write to the command (of `Workspace.start`); unbuffered."""
        self.stdout: IO[bytes] = self._process.stdout
        """Where to read what it says; unbuffered, for `select` too.

        Bounding what is read is the reader's part."""

    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    def is_over(self) -> bool:
        """Whether it was ended and nothing of it is held any more."""
        return self._is_over

    def kill(self) -> None:
        """End it with all that it started; returns when it is gone. Twice is no fault."""
        if self._orders is not None:
            # Told by this, its supervisor ends everything, and itself last.
            os.close(self._orders)
            self._orders = None
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ENDING_SECONDS)

        # What is left, if the supervisor did not end in time.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, 9)
        self._process.kill()
        self._process.wait()

        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

        if not self._is_over:
            self._is_over = True
            os.close(self._report)
            if self._group:
                self._group.remove()

    def finish(self) -> Ran:
        """Read all it says until it ends."""
        stdout, stderr, report = bytearray(), bytearray(), bytearray()
        streams = {self.stdout.fileno(): stdout, self._report: report}
        if self._process.stderr is not None:
            streams[self._process.stderr.fileno()] = stderr

        is_flooded = False
        try:
            # Until the report is complete, since its end is the supervisor's.
            while self._report in streams and not is_flooded:
                left = max(0.0, self._deadline - time.monotonic())
                told = ready(list(streams), [], left)[0]
                if not told:
                    break
                is_flooded = _gather(told, streams, self._output)

            # What is still in the pipes.
            while not is_flooded and (told := ready(list(streams), [], 0)[0]):
                is_flooded = _gather(told, streams, self._output)
        finally:
            self.kill()

        stdout_text = text_of(bytes(stdout[: self._output]))
        stderr_text = text_of(bytes(stderr[: self._output]))
        return self._ran(_messages(bytes(report)), stdout_text, stderr_text, is_flooded)

    def _ran(self, messages: Sequence[Message], stdout: str, stderr: str, is_flooded: bool) -> Ran:
        """How the command ended, by its supervisor's report."""
        last: Message = {"ending": "machine", "why": ""}
        if messages:
            last = messages[-1]
        ending: Any = last.get("ending")
        if ending == "machine":
            # Without a report, the isolation's own tool may have said why.
            why = last["why"] or " ".join(stderr.split())[-300:] or "it ended at once"
            raise InfrastructureError(
                f"no command could be run in the sandbox ({self._kind}): {why}"
            )

        if is_flooded:
            return Ran("output", _STOPPED, stdout, stderr)
        if ending is None:
            # Only a machine out of memory ends a supervisor, and a program's doing made it so.
            return Ran("memory", _STOPPED, stdout, stderr)
        if ending == "missing":
            return Ran("error", _NOT_EXECUTED, stdout, stderr + last["why"])

        if ending == "disk":
            ending = "output"
        if ending:
            return Ran(ending, _STOPPED, stdout, stderr)

        code = int(last["code"])
        return Ran("ok" if code == 0 else "error", code, stdout, stderr)


def _messages(report: bytes) -> list[Message]:
    """The mappings of a report, one after the other."""
    source = io.BytesIO(report)
    messages = []
    while source.tell() < len(report):
        messages.append(marshal.load(source))
    return messages


def _gather(ready: Sequence[int], streams: dict[int, bytearray], most: int) -> bool:
    """Read what is there; True when a stream said more than allowed."""
    for fd in ready:
        part = os.read(fd, 1 << 16)
        if not part:
            del streams[fd]
            continue
        streams[fd] += part
        if len(streams[fd]) > most:
            return True
    return False
