"""Interactive problems: a contestant's program and the problem's interactor, each in a workspace.

linn passes on what either prints, so neither sees the other's files or processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from typing import IO

from linn.errors import UserError
from linn.sandbox import Limits, Running, Workspace, WorkspaceLimits, scrub
from linn.sandbox.outcome import Ran
from linn.solve.contest.checking import share_and_note, verdict_of_testlib
from linn.solve.contest.problem import Interactor, Problem, Source, Test
from linn.solve.contest.programs import Programs, prepare
from linn.solve.contest.verdicts import TestVerdict, verdict_of_share, verdict_of_status

_LONGEST = 64 << 20
"""Bytes that either side may say."""
_VERDICT = "verdict.json"
_GRACE_S = 2.0
"""Seconds that a program may go on after the interactor has ended."""


class Interaction:
    """Plays interactive tests. Thread-safe."""

    def __init__(self) -> None:
        self.programs = Programs()

    def play(
        self,
        problem: Problem,
        interactor: Interactor,
        test: Test,
        program: Source,
        limits: Limits,
    ) -> TestVerdict:
        """One test: the interactor decides, unless the program ran into a limit."""
        # A contestant's mistake is a verdict, not a fault of the problem's.
        if program.language == "cpp":
            _, error = self.programs.code(program, problem.stubs)
            if error:
                return TestVerdict(0.0, "compilation error", error)

        # The interactor gets more of everything: its partner's limits must be the first to be met.
        theirs = WorkspaceLimits(
            cpu=limits.cpu, wall=limits.wall, memory=limits.memory, processes=limits.threads
        )
        ours = WorkspaceLimits(cpu=30 + limits.cpu, wall=limits.wall + 5)
        with Workspace(theirs) as workspace, Workspace(ours) as judges:
            command = prepare(self.programs, workspace, program, problem.stubs, "program")
            judges.write("input", test.input)
            judges.write("answer", test.answer)
            what = f"interactor, test {test.name}"
            words = ["input", _VERDICT]
            if interactor.kind == "testlib":
                words = ["input", "output", "answer"]
            begin = prepare(self.programs, judges, interactor.source, interactor.files, what)

            contestant, other = workspace.start(command), judges.start([*begin, *words])
            ran, decided, broke_off = _talk(contestant, other)
            if interactor.kind == "testlib":
                if decided.status == "timeout" and (ran is None or ran.status == "ok"):
                    return verdict_of_status("timeout", "the conversation did not end")
                verdict: TestVerdict | None = verdict_of_testlib(decided, what)
            else:
                verdict = _verdict_of(judges, decided, what)
        return _with_limits(verdict, ran, broke_off)


def _talk(contestant: Running, interactor: Running) -> tuple[Ran | None, Ran, bool]:
    """Pass on what both say until the interactor has ended, and the program a moment later.

    Gives how each ended, and whether the contestant's program was the first to fall silent. None
    for a program that went on after the interactor had decided: it is ended then.
    """
    silent: list[str] = []

    def pass_on(speaker: Running, listener: Running, name: str) -> None:
        _pass_on(speaker.stdout, listener.stdin, lambda: silent.append(name))

    threads = [
        threading.Thread(target=pass_on, args=(contestant, interactor, "contestant"), daemon=True),
        threading.Thread(target=pass_on, args=(interactor, contestant, "interactor"), daemon=True),
    ]
    for thread in threads:
        thread.start()

    # A thread ends with its speaker. The interactor's own limits end it at the latest.
    speaking, deciding = threads
    deciding.join()
    speaking.join(_GRACE_S)
    if speaking.is_alive():
        contestant.kill()
        return None, interactor.finish(), silent[0] == "contestant"
    return contestant.finish(), interactor.finish(), silent[0] == "contestant"


def _pass_on(source: IO[bytes], sink: IO[bytes] | None, on_silence: Callable[[], None]) -> None:
    """Copy until the source ends; then the sink's reader reads the end too."""
    assert sink is not None
    left = _LONGEST
    with contextlib.suppress(OSError, ValueError):
        while left > 0 and (part := os.read(source.fileno(), 1 << 16)):
            left -= len(part)
            # A listener that has ended must not stop us from reading its partner to the end.
            with contextlib.suppress(BrokenPipeError):
                while part:
                    part = part[os.write(sink.fileno(), part) :]
    on_silence()
    with contextlib.suppress(OSError):
        sink.close()


def _verdict_of(judges: Workspace, ran: Ran, what: str) -> TestVerdict | None:
    """What the interactor wrote; None where it was ended before it could."""
    try:
        value = json.loads(judges.read(_VERDICT))
    except ValueError:
        if ran.status == "timeout":
            return None
        raise UserError(f"{what}: wrote no verdict (exit code {ran.code}, {ran.status})") from None
    return verdict_of_share(*share_and_note(value, what))


def _with_limits(verdict: TestVerdict | None, ran: Ran | None, broke_off: bool) -> TestVerdict:
    """The verdict, once it is known how the contestant's program ended.

    A crash is one only where it came before the interactor had decided.
    """
    if ran is not None and ran.status in ("timeout", "memory", "output"):
        return verdict_of_status(ran.status, f"its own {ran.status} limit")
    if verdict is None:
        return verdict_of_status("timeout", "the conversation did not end")
    if ran is None:
        return verdict
    if ran.status == "error" and broke_off and verdict.share < 1:
        note = scrub(f"exit code {ran.code}; {verdict.note}")
        return verdict_of_status("error", note)
    return verdict
