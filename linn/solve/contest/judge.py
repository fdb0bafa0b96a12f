"""The contest judge: submissions run on the tests, under limits, subtask by subtask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from linn.sandbox import Limits, Outcome, Sandbox, Workspace, WorkspaceLimits, scrub
from linn.solve.contest.checking import Checking
from linn.solve.contest.interaction import Interaction
from linn.solve.contest.problem import Problem, Source, Subtask, Test
from linn.solve.contest.programs import prepare
from linn.solve.contest.submission import Submission
from linn.solve.contest.verdicts import (
    Judged,
    TestVerdict,
    together,
    verdict_of_status,
)

_OUTPUT = 16 << 20
_PROGRAM_BYTES = 16 << 20
"""Room for a program and its headers, beside what it reads and writes."""
_LAST_WORDS = 200
"""Characters of what a program that crashed said."""
_HOME_SECONDS = 60.0
"""CPU seconds in which a program may make one output of an output-only problem."""


class Judge:
    """Judges submissions of any problem. Thread-safe: as many run at once as the sandbox allows.

    Contestants' programs, and problems' (checkers, interactors), run in the sandbox alone.
    """

    def __init__(self, python_times: float = 1.0, servers: int | None = None) -> None:
        """`python_times`: Python gets so many times a problem's seconds, which are made for C++."""
        self.python_times = python_times
        self.sandbox = Sandbox(servers=servers)
        self.checking = Checking(self.sandbox)
        self.interaction = Interaction()

    def judge(
        self, problem: Problem, submission: Submission, subtasks: Sequence[str] | None = None
    ) -> Judged:
        """The verdict on these subtasks, default: all. InfrastructureError where a machine fails.

        A subtask's tests run until its share is 0. A test that several subtasks share runs once.
        """
        wanted = list(problem.subtasks)
        if subtasks is not None:
            wanted = [problem.subtask(name) for name in subtasks]

        # Compiled once for all tests.
        code, fault = self._compiled(problem, submission)
        if fault is not None:
            return Judged({s.name: 0.0 for s in wanted}, {s.name: fault for s in wanted})

        ran: dict[str, TestVerdict] = {}
        shares = {}
        words = {}
        for subtask in wanted:
            own = self._subtask(problem, subtask, submission, code, ran)
            found = [verdict.share for verdict in own]
            shares[subtask.name] = together(subtask.rule, found, subtask.weights)
            words[subtask.name] = min(own, key=lambda verdict: verdict.share)
        return Judged(shares, words, ran)

    def passes(self, problem: Problem, submission: Submission, tests: Sequence[Test]) -> bool:
        """Whether a submission is right on these tests, such as a statement's samples."""
        code, fault = self._compiled(problem, submission)
        if fault is not None:
            return False
        return all(self._test(problem, test, submission, code).share == 1 for test in tests)

    def _subtask(
        self,
        problem: Problem,
        subtask: Subtask,
        submission: Submission,
        code: bytes,
        ran: dict[str, TestVerdict],
    ) -> list[TestVerdict]:
        """The verdicts of a subtask's tests, up to the one that decides it."""
        own = []
        for name in subtask.tests:
            if name not in ran:
                ran[name] = self._test(problem, problem.tests[name], submission, code)
            own.append(ran[name])
            if subtask.rule != "sum" and own[-1].share == 0:
                break
        return own

    def _compiled(
        self, problem: Problem, submission: Submission
    ) -> tuple[bytes, TestVerdict | None]:
        """(machine code of a C++ program, why it cannot be judged)."""
        program = submission.program
        if program is None and not submission.outputs:
            return b"", TestVerdict(0.0, "no program", "the reply holds no program")
        if program is None or program.language == "python":
            return b"", None
        if problem.kind == "interactive":
            return b"", None  # compiled where it runs
        code, error = self.checking.programs.code(program, problem.stubs)
        if error:
            return b"", TestVerdict(0.0, "compilation error", error)
        return code, None

    def _test(
        self, problem: Problem, test: Test, submission: Submission, code: bytes
    ) -> TestVerdict:
        program = submission.program
        if problem.kind == "interactive":
            assert problem.interactor is not None, problem.name
            if program is None:
                return TestVerdict(0.0, "no program", "the reply holds no program")
            limits = self._limits(problem, program)
            return self.interaction.play(problem, problem.interactor, test, program, limits)

        # Outputs of an output-only problem go before what a program would print.
        if test.name in submission.outputs:
            return self.checking.check(problem.checker, test, submission.outputs[test.name])
        if program is None:
            return TestVerdict(0.0, "wrong answer", "there is no output for it")
        limits = self._limits(problem, program)
        if problem.input_file or problem.output_file:
            return self._test_with_files(problem, test, program, limits)
        outcome = self.run(program, code, test.input, limits)
        if outcome.status != "ok":
            return verdict_of_status(outcome.status, outcome.error)
        return self.checking.check(problem.checker, test, outcome.stdout)

    def _test_with_files(
        self, problem: Problem, test: Test, program: Source, limits: Limits
    ) -> TestVerdict:
        """The verdict where a program reads or writes files: it runs in a folder of its own."""
        bounds = WorkspaceLimits(
            cpu=limits.cpu,
            wall=limits.wall,
            memory=limits.memory,
            processes=limits.threads,
            file=max(_OUTPUT, len(test.input)),
            output=_OUTPUT,
            disk=_OUTPUT + 2 * len(test.input) + _PROGRAM_BYTES,
        )
        with Workspace(bounds) as workspace:
            files = self.checking.programs
            command = prepare(files, workspace, program, problem.stubs, "program")
            if problem.input_file:
                workspace.write(problem.input_file, test.input)
            ran = workspace.run(command, "" if problem.input_file else test.input)
            if ran.status != "ok":
                return verdict_of_status(ran.status, scrub(ran.stderr[-_LAST_WORDS:]))
            output = ran.stdout
            if problem.output_file:
                try:
                    output = workspace.read(problem.output_file)
                except ValueError:
                    note = f"it wrote no file {problem.output_file}"
                    return TestVerdict(0.0, "wrong answer", note)
        return self.checking.check(problem.checker, test, output)

    def run(self, program: Source, code: bytes, text: str, limits: Limits) -> Outcome:
        """What a program prints on an input."""
        if program.language == "cpp":
            return self.sandbox.run(code, text, limits)
        return self.sandbox.script(program.text, text, limits, prelude=True)

    def _limits(self, problem: Problem, program: Source) -> Limits:
        cpu = problem.seconds
        # At a contest such outputs are made at home, in hours.
        if problem.kind == "output_only":
            cpu = max(cpu, _HOME_SECONDS)
        if program.language == "python":
            cpu *= self.python_times
        return Limits(
            cpu=cpu, wall=2 * cpu + 8, memory=max(64, problem.memory) << 20, output=_OUTPUT
        )

    def totals(self) -> Mapping[str, float]:
        """What the sandbox did so far."""
        return self.sandbox.totals()

    def close(self) -> None:
        """End the sandbox."""
        self.sandbox.close()
