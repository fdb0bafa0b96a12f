"""Programs judged by hidden tests: by returned values, by printed output, or by a check text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from linn.chat.request import Request, request_of
from linn.domains.base import Domain, content_key
from linn.domains.code.outputs import NEAR, same_output
from linn.domains.code.programs import Language, program_of
from linn.domains.code.unit_tests import (
    Budget,
    CallTests,
    CheckTest,
    PrintedTests,
    Solution,
    Tests,
    read_budget,
    read_language,
    read_tests,
)
from linn.domains.common import toy_functions
from linn.domains.common.options import check_option
from linn.domains.common.values import grade_values
from linn.errors import UserError
from linn.sandbox import Limits, Outcome, Sandbox
from linn.types import Message, Prompt, Reply, Verdict

_LONGEST = 1 << 16
"""Characters of a program."""
_COMPLETE = "Complete this function. Answer with the whole function in a ```python block.\n\n"
_CHUNKS = (8, 32)
"""A function is called on the tests up to here first: most wrong ones fail before the rest."""


class Code(Domain):
    """`write add(x) that returns x plus 3.`; strict: reward 1 only when every test passes."""

    name = "code"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        servers: int | None = None,
        seconds: float = 4.0,
        python_times: float = 1.0,
        memory: int = 1024,
        tests: int | None = None,
        language: str = "python",
        tolerance: float = NEAR,
        reference: bool = False,
    ) -> None:
        """All options but `servers` are about rows.

        `servers`: executions at once, None: one per core. `seconds`: CPU seconds per test, where a
        row has no `time_limit`; Python programs get `python_times` as many (contest limits are made
        for C++). `memory`: MiB, where a row has no `memory_limit`. `tests`: at most so many of a
        row's tests, spread evenly; None: all. `language`: `python`, `cpp`, or `any`: the fence
        decides. `tolerance`: how much decimals may differ, absolutely or relatively. `reference`:
        printed decimals and verdicts (`Yes`) must be equal, as in nemo-gym 0.4.0.
        """
        super().__init__(level, rows)
        options = (
            ("servers", servers, servers is None or servers >= 1, _SERVERS),
            ("seconds", seconds, seconds > 0, "above 0"),
            ("python_times", python_times, python_times > 0, "above 0"),
            ("memory", memory, memory >= 64, "64 (MiB) and more"),
            ("tests", tests, tests is None or tests >= 1, "1 and more, or null: all"),
            ("tolerance", tolerance, tolerance >= 0, "0 and more"),
            ("language", language, language in ("python", "cpp", "any"), "python, cpp, any"),
        )
        for option, value, fits, allowed in options:
            check_option(self.name, option, value, fits, allowed)

        self.budget = Budget(seconds=seconds, memory=memory)
        self.python_times = python_times
        self.tests = tests
        self.tolerance = tolerance
        self.reference = reference
        self.language = language

        self.sandbox = Sandbox(Limits(), servers)
        self.workers = self.sandbox.pool.servers
        if language != "python":
            self.sandbox.compiler.need(f"domain {self.name}: language is {language!r}")

    # -------------------------------------------------- prompts

    def make(self, rng: random.Random) -> Prompt:
        """A function to be written from one line of words."""
        function = toy_functions.make(rng)
        arguments = toy_functions.inputs(function, rng)

        # A demonstration's fault does what is asked with the wrong constant.
        wrong = []
        for version in function.wrong():
            if version.template is function.template:
                wrong.append(version.body)

        hidden = CallTests(
            function=function.name,
            inputs=[[x] for x in arguments],
            outputs=[function.value(x) for x in arguments],
            solution=Solution(function.head, function.body, tuple(wrong)),
        )
        text = f"write {function.name}({function.argument}) that returns {function.spec}."
        return Prompt(self.name, "", (Message("user", text),), thinking=True, hidden=hidden)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """`verifier_metadata`: `unit_tests`, or `test` and `entry_point`; limits and a language.

        HumanEval's own rows hold `prompt`, `test` and `entry_point` at the top; the model is then
        asked for the whole function.

        UserError names the field that is wrong.
        """
        where = f"code row {index}"
        request = _request_of(row, index)
        meta = row.get("verifier_metadata")
        # HumanEval keeps its test in the row itself.
        if meta is None and "test" in row and "entry_point" in row:
            meta = {key: row[key] for key in ("test", "entry_point")}
        if not isinstance(meta, Mapping):
            raise UserError(
                f"{where}: verifier_metadata must be an object, found {type(meta).__name__}"
            )

        tests = read_tests(meta, request.messages, where, self.tests)
        budget = read_budget(meta, self.budget, where)
        language = read_language(meta, tests, where)
        # A machine without a compiler says so before the first program, not at it.
        if language == "cpp":
            name = meta["language"]
            self.sandbox.compiler.need(f"{where}: verifier_metadata.language is {name!r}")

        # A chat model writes the function and takes the prompt's imports for granted.
        if isinstance(tests, CheckTest) and _is_human_eval(row):
            tests = replace(tests, before=row["prompt"])
        hidden = replace(tests, budget=budget, language=language)
        prompt = request.prompt(self.name, "", hidden)
        return replace(prompt, id=f"{content_key(prompt)}.{index}")

    def gold(self, prompt: Prompt) -> Reply:
        """The known solution; UserError for a row, which holds none."""
        solution = _solution(prompt)
        if solution is None:
            raise UserError(f"prompt {prompt.id}: the row holds tests but no solution")
        return Reply(
            text=f"{solution.head}\n    return {solution.body}",
            reasoning=solution.body,
        )

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the value is printed instead of returned, or the constant is off by one."""
        solution = _solution(prompt)
        assert solution is not None, prompt.id
        body = solution.body
        statement = f"return {body}"

        if faulty and rng.random() < 0.5:
            statement = f"print({body})"
        elif faulty:
            body = rng.choice(solution.wrong)
            statement = f"return {body}"

        text = f"{solution.head}\n    {statement}"
        return (Message("assistant", text, reasoning=body),)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """Run the reply's program on the prompt's tests, up to the first that fails."""
        tests = _tests(prompt)
        language, program = program_of(reply.text, tests.language or self.language)
        if not program.strip():
            return Verdict(0.0, "no program")
        if len(program) > _LONGEST:
            return Verdict(0.0, f"the program is longer than {_LONGEST} characters")

        limits = self._limits(tests, language)
        match tests:
            case CheckTest():
                return self._checked(program, tests, limits)
            case CallTests():
                # The outcomes are drawn one by one: the first wrong one ends the calls.
                outcomes = self._calls(program, tests, limits)
                return grade_values(outcomes, tests.outputs, self.tolerance)
            case PrintedTests():
                return self._printed(language, program, tests, limits)

    def _limits(self, tests: Tests, language: Language) -> Limits:
        """The limits of one execution."""
        budget = tests.budget
        if budget is None:
            return self.sandbox.limits
        cpu = budget.seconds
        if language == "python":
            cpu *= self.python_times

        # Room for a right output, and for a wrong one of eight times its length.
        longest = 0
        if not isinstance(tests, CheckTest):
            texts = (text for text in tests.outputs if isinstance(text, str))
            longest = max(map(len, texts), default=0)

        return Limits(
            cpu=cpu,
            wall=2.0 * cpu + 8.0,
            memory=max(64, budget.memory) << 20,
            output=max(1 << 22, 8 * longest),
        )

    def _checked(self, program: str, tests: CheckTest, limits: Limits) -> Verdict:
        if tests.before:
            program = f"{tests.before}\n\n{program}"
        outcome = self.sandbox.check(program, tests.text, tests.entry_point, limits)
        if outcome.status == "ok":
            return Verdict(1.0, "the check passed")
        return Verdict(0.0, outcome.error)

    def _calls(self, program: str, tests: CallTests, limits: Limits) -> Iterator[Outcome]:
        """What the function returns, test after test; it is called on a few tests at a time."""
        count = len(tests.inputs)
        cuts = [0, *(cut for cut in _CHUNKS if cut < count), count]
        # Rows' programs may count on the usual imports, as on contest sites.
        prelude = tests.budget is not None

        for begin, end in itertools.pairwise(cuts):
            yield from self.sandbox.call(
                program,
                tests.function,
                tests.inputs[begin:end],
                limits,
                prelude=prelude,
            )

    def _printed(
        self, language: Language, program: str, tests: PrintedTests, limits: Limits
    ) -> Verdict:
        """Run a script or a compiled program on every input."""
        code = None
        if language == "cpp":
            # Compiled once for all tests.
            compiled = self.sandbox.compile(program)
            code = compiled.code
            if not code:
                return Verdict(0.0, compiled.error)

        pairs = zip(tests.inputs, tests.outputs, strict=True)
        for index, (stdin, expected) in enumerate(pairs, 1):
            if code is not None:
                outcome = self.sandbox.run(code, stdin, limits)
            else:
                outcome = self.sandbox.script(program, stdin, limits, prelude=True)

            if outcome.status != "ok":
                return Verdict(0.0, f"test {index}: {outcome.error}")
            if not same_output(outcome.stdout, expected, self.tolerance, exact=self.reference):
                return Verdict(0.0, f"test {index}: wrong output")

        count = len(tests.inputs)
        return Verdict(1.0, f"all {count} tests passed")

    def totals(self) -> Mapping[str, float]:
        """What the sandbox did so far."""
        return self.sandbox.totals()

    def close(self) -> None:
        """End the sandbox."""
        self.sandbox.close()


_SERVERS = "1 and more, or null: one a core"


def _tests(prompt: Prompt) -> Tests:
    assert isinstance(prompt.hidden, Tests), type(prompt.hidden)
    return prompt.hidden


def _request_of(row: Mapping[str, Any], index: int) -> Request:
    """What a row shows the model; of HumanEval's function, linn asks for the whole."""
    if not _is_human_eval(row):
        return request_of(row, index)
    prompt = row["prompt"].rstrip()
    return request_of({**row, "messages": f"{_COMPLETE}```python\n{prompt}\n```"}, index)


def _is_human_eval(row: Mapping[str, Any]) -> bool:
    """Whether a row is in HumanEval's own layout, its prompt the beginning of a program."""
    is_text = isinstance(row.get("prompt"), str)
    return "entry_point" in row and "responses_create_params" not in row and is_text


def _solution(prompt: Prompt) -> Solution | None:
    """The known solution of a generated prompt; None for a row."""
    tests = _tests(prompt)
    return tests.solution if isinstance(tests, CallTests) else None
