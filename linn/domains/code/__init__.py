"""Programs judged by hidden tests: functions by their values, scripts by what they print, HumanEval-like rows by their check text."""

from __future__ import annotations

import ast
import itertools
import json
import math
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal

from linn.chat.request import request_of
from linn.domains.base import Domain, content_key
from linn.domains.common import toy_functions as functions
from linn.errors import UserError
from linn.sandbox import Limits, Outcome, Sandbox
from linn.types import Message, Prompt, Reply, Verdict

Language = Literal["python", "cpp"]

_NAMES: dict[str, Language] = {
    **dict.fromkeys(("python", "py", "python3", "py3"), "python"),
    **dict.fromkeys(("cpp", "c++", "cc", "cxx", "c++11", "c++14", "c++17", "c++20", "cpp17", "cpp20"), "cpp"),
}  # fmt: skip
_LONGEST = 1 << 16
_CHUNKS = (8, 32)
"""Calls of the first requests; a wrong function is found out before it is called on every test."""


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
        tolerance: float = 0.0,
    ) -> None:
        """All but `servers` speak of rows.

        `servers`: executions at once, None: one a core. `seconds`: CPU seconds a test, where a row has no `time_limit`; Python programs get
        `python_times` as many (contest limits are made for C++). `memory`: MiB, where a row has no `memory_limit`. `tests`: at most so many
        of a row's tests, spread evenly; None: all. `language`: `python`, `cpp`, or `any`: the fence says. `tolerance`: numbers may differ by
        so much, absolutely or relatively.
        """
        super().__init__(level, rows)
        allowed = {
            "servers": servers is None or servers >= 1,
            "seconds": seconds > 0,
            "python_times": python_times > 0,
            "memory": memory >= 64,
        }
        allowed |= {
            "tests": tests is None or tests >= 1,
            "tolerance": tolerance >= 0,
            "language": language in ("python", "cpp", "any"),
        }
        for key, fine in allowed.items():
            if not fine:
                raise UserError(
                    f"domain {self.name}: {key} is {locals()[key]!r}; allowed: {_ALLOWED[key]}"
                )
        self.seconds, self.python_times, self.memory, self.tests, self.tolerance = (
            seconds,
            python_times,
            memory,
            tests,
            tolerance,
        )
        self.language = language
        self.sandbox = Sandbox(Limits(), servers)
        self.workers = self.sandbox.pool.servers
        if language != "python":
            self.sandbox.compiler.need(f"domain {self.name}: language is {language!r}")

    def make(self, rng: random.Random) -> Prompt:
        function = functions.make(rng)
        tests = functions.inputs(function, rng)
        hidden = {
            "fn_name": function.name,
            "inputs": [[x] for x in tests],
            "outputs": [function.value(x) for x in tests],
            "head": function.head,
            "body": function.body,
            "wrong": [
                wrong.body for wrong in function.wrong() if wrong.template is function.template
            ],
        }
        text = f"write {function.name}({function.argument}) that returns {function.spec}."
        return Prompt(self.name, "", (Message("user", text),), thinking=True, hidden=hidden)

    def gold(self, prompt: Prompt) -> Reply:
        if "body" not in prompt.hidden:
            raise UserError(f"prompt {prompt.id}: the row holds tests but no solution")
        return Reply(
            text=f"{prompt.hidden['head']}\n    return {prompt.hidden['body']}",
            reasoning=prompt.hidden["body"],
        )

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: the value is printed and not returned, or the constant is off by one."""
        body, word = prompt.hidden["body"], "return "
        if faulty and rng.random() < 0.5:
            word = "print("
        elif faulty:
            body = rng.choice(prompt.hidden["wrong"])
        end = ")" if word == "print(" else ""
        return (
            Message("assistant", f"{prompt.hidden['head']}\n    {word}{body}{end}", reasoning=body),
        )

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        hidden = prompt.hidden
        language, program = program_of(reply.text, hidden.get("language", self.language))
        if not program.strip():
            return Verdict(0.0, "no program")
        if len(program) > _LONGEST:
            return Verdict(0.0, f"the program is longer than {_LONGEST} characters")
        limits = self._limits(hidden, language)
        if "test" in hidden:
            outcome = self.sandbox.check(program, hidden["test"], hidden["entry_point"], limits)
            return (
                Verdict(1.0, "the check passed")
                if outcome.status == "ok"
                else Verdict(0.0, outcome.error)
            )
        if hidden.get("fn_name"):
            return functions.judge_values(
                self._values(program, hidden, limits), hidden["outputs"], self.tolerance
            )
        return self._printed(language, program, hidden, limits)

    def _limits(self, hidden: Mapping[str, Any], language: Language) -> Limits:
        if "seconds" not in hidden:
            return self.sandbox.limits
        cpu = hidden["seconds"] * (self.python_times if language == "python" else 1.0)
        longest = max(
            (len(text) for text in hidden.get("outputs", ()) if isinstance(text, str)), default=0
        )
        return Limits(
            cpu=cpu,
            wall=2.0 * cpu + 8.0,
            memory=max(64, hidden["memory"]) << 20,
            output=max(1 << 22, 8 * longest),
        )

    def _values(self, program: str, hidden: Mapping[str, Any], limits: Limits) -> Iterator[Outcome]:
        """What a function returns, test after test, called a few tests at a time."""
        inputs, name = hidden["inputs"], hidden["fn_name"]
        for begin, end in itertools.pairwise(
            sorted({0, len(inputs), *(cut for cut in _CHUNKS if cut < len(inputs))})
        ):
            yield from self.sandbox.call(
                program, name, inputs[begin:end], limits, prelude="seconds" in hidden
            )

    def _printed(
        self, language: Language, program: str, hidden: Mapping[str, Any], limits: Limits
    ) -> Verdict:
        if language == "cpp":
            compiled = self.sandbox.compile(program)
            if not compiled.code:
                return Verdict(0.0, compiled.error)
        for index, (stdin, expected) in enumerate(
            zip(hidden["inputs"], hidden["outputs"], strict=True), 1
        ):
            if language == "cpp":
                outcome = self.sandbox.run(compiled.code, stdin, limits)
            else:
                outcome = self.sandbox.script(program, stdin, limits, prelude=True)
            if outcome.status != "ok":
                return Verdict(0.0, f"test {index}: {outcome.error}")
            if not same_output(outcome.stdout, expected, self.tolerance):
                return Verdict(0.0, f"test {index}: wrong output")
        return Verdict(1.0, f"all {len(hidden['inputs'])} tests passed")

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        where = f"code row {index}"
        request = request_of(row, index)
        messages = request.messages
        meta = row.get("verifier_metadata")
        if not isinstance(meta, Mapping):
            raise UserError(
                f"{where}: verifier_metadata must be an object, found {type(meta).__name__}"
            )
        tests = meta.get("unit_tests")
        if isinstance(tests, str):
            try:
                tests = json.loads(tests)
            except (ValueError, RecursionError):
                raise UserError(f"{where}: verifier_metadata.unit_tests is not JSON") from None
        hidden: dict[str, Any]
        if isinstance(tests, Mapping):
            hidden = _unit_tests(tests, where, self.tests)
        elif isinstance(meta.get("test"), str) and isinstance(meta.get("entry_point"), str):
            asked = "\n".join(message.content for message in messages if message.role == "user")
            test, entry_point = meta["test"], meta["entry_point"]
            hidden = {
                "test": _check_text(test, entry_point, asked, where),
                "entry_point": entry_point,
            }
        else:
            raise UserError(
                f"{where}: verifier_metadata needs unit_tests {{inputs, outputs}}, or test and entry_point"
            )
        hidden["seconds"] = _number(meta, "time_limit", self.seconds, where, "seconds")
        hidden["memory"] = math.ceil(_number(meta, "memory_limit", self.memory, where, "MiB"))
        self._add_language(hidden, meta.get("language"), where)
        prompt = Prompt(self.name, "", messages, request.thinking, request.tools, hidden)
        return replace(prompt, id=f"{content_key(prompt)}.{index}")

    def _add_language(self, hidden: dict[str, Any], said: Any, where: str) -> None:
        values = "test" in hidden or "fn_name" in hidden
        if said is not None:
            language = _NAMES.get(said.lower()) if isinstance(said, str) else None
            if language is None:
                raise UserError(
                    f"{where}: verifier_metadata.language is {said!r}; allowed: python, cpp"
                )
            if language == "cpp" and values:
                raise UserError(
                    f"{where}: verifier_metadata.language is {said!r}, but tests that call a function are for Python only"
                )
            if language == "cpp":
                self.sandbox.compiler.need(f"{where}: verifier_metadata.language is {said!r}")
            hidden["language"] = language
        elif values:
            hidden["language"] = "python"

    def totals(self) -> Mapping[str, float]:
        return self.sandbox.totals()

    def close(self) -> None:
        self.sandbox.close()


_ALLOWED = {
    "servers": "1 and more, or null: one a core", "seconds": "above 0", "python_times": "above 0", "memory": "64 (MiB) and more",
    "tests": "1 and more, or null: all", "tolerance": "0 and more", "language": "python, cpp, any",
}  # fmt: skip


def program_of(text: str, language: str = "python") -> tuple[Language, str]:
    """The last fenced block marked as `language` (`any`: as either), else the last unmarked one, else the whole of an answer without fences."""
    default: Language = "cpp" if language == "cpp" else "python"
    blocks = _blocks(text)
    if not blocks:
        return default, text
    marked = [
        (_NAMES[mark], body)
        for mark, body in blocks
        if mark in _NAMES and language in (_NAMES[mark], "any")
    ]
    plain = [(default, body) for mark, body in blocks if not mark]
    return (marked or plain or [(default, "")])[-1]


def _check_text(test: str, entry_point: str, asked: str, where: str) -> str:
    """A row's test text, with its own copy of the functions that the task's text gives whole and the test calls: no program can bend those."""
    tree = _parsed(test)
    if tree is None or not any(
        isinstance(part, ast.FunctionDef) and part.name == "check" for part in tree.body
    ):
        raise UserError(
            f"{where}: verifier_metadata.test must be Python that defines a function check(candidate)"
        )
    called = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for text in [*(body for _, body in _blocks(asked)), asked]:
        parts = found.body if (found := _parsed(text)) else []
        given = [
            part
            for part in parts
            if isinstance(part, ast.FunctionDef)
            and part.name != entry_point
            and not all(map(_empty, part.body))
        ]
        if called & {part.name for part in given}:
            imports = [part for part in parts if isinstance(part, (ast.Import, ast.ImportFrom))]
            return "\n".join([test, *map(ast.unparse, [*imports, *given])])
    return test


def _parsed(text: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes in the texts
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _empty(part: ast.stmt) -> bool:
    return isinstance(part, ast.Pass) or (
        isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)
    )


def _blocks(text: str) -> list[tuple[str, str]]:
    """(first word of the mark in lower case, body) of every closed fence; one that never closes is none."""
    blocks, body = [], list[str]()
    ticks, mark = 0, ""
    for line in text.split("\n"):
        bare = line.strip()
        count = len(bare) - len(bare.lstrip("`"))
        if ticks and count >= ticks and count == len(bare):
            blocks.append((mark, "".join(body)))
            ticks = 0
        elif ticks:
            body.append(line + "\n")
        elif count >= 3 and "`" not in bare[count:]:
            ticks, mark, body = count, next(iter(bare[count:].lower().split()), ""), []
    return blocks


def same_output(found: str, expected: str, tolerance: float = 0.0) -> bool:
    """Whether two outputs agree line by line: outer spaces do not matter, lines of numbers agree by value."""
    left, right = found.strip().split("\n"), expected.strip().split("\n")
    return len(left) == len(right) and all(
        _same_line(a.strip(), b.strip(), tolerance) for a, b in zip(left, right, strict=True)
    )


def _same_line(found: str, expected: str, tolerance: float) -> bool:
    if found == expected:
        return True
    left, right = found.split(), expected.split()
    return len(left) == len(right) and all(
        _same_number(a, b, tolerance) for a, b in zip(left, right, strict=True)
    )


def _same_number(found: str, expected: str, tolerance: float) -> bool:
    try:
        left, right = Decimal(found), Decimal(expected)
        return left == right or (
            tolerance > 0 and math.isclose(left, right, rel_tol=tolerance, abs_tol=tolerance)
        )
    except (InvalidOperation, ValueError, OverflowError):
        return False


def _number(meta: Mapping[str, Any], key: str, default: float, where: str, unit: str) -> float:
    value = meta.get(key)
    if value is None:
        return default
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not 0 < value <= _MOST[unit]
    ):
        raise UserError(
            f"{where}: verifier_metadata.{key} is {value!r}; allowed: {unit} above 0, at most {_MOST[unit]}"
        )
    return float(value)


_MOST = {"seconds": 3600, "MiB": 1 << 16}


def _unit_tests(tests: Mapping[str, Any], where: str, most: int | None) -> dict[str, Any]:
    inputs, outputs = tests.get("inputs"), tests.get("outputs")
    if (
        not isinstance(inputs, list)
        or not isinstance(outputs, list)
        or len(inputs) != len(outputs)
        or not inputs
    ):
        raise UserError(
            f"{where}: unit_tests.inputs and .outputs must be lists of the same length, at least 1"
        )
    if most is not None and len(inputs) > most:
        chosen = [index * len(inputs) // most for index in range(most)]
        inputs, outputs = [inputs[index] for index in chosen], [outputs[index] for index in chosen]
    fn_name = tests.get("fn_name")
    if fn_name is not None and not isinstance(fn_name, str):
        raise UserError(f"{where}: unit_tests.fn_name is {fn_name!r}; allowed: a function's name")
    if not fn_name:
        if not all(isinstance(text, str) for text in [*inputs, *outputs]):
            raise UserError(
                f"{where}: without fn_name, unit_tests.inputs and .outputs must be texts"
            )
        return {"inputs": inputs, "outputs": outputs}
    try:
        arguments = [
            [json.loads(line) for line in text.split("\n") if line.strip()] for text in inputs
        ]
        values = [json.loads(text) for text in outputs]
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{where}: with fn_name, unit_tests.inputs need one JSON value a line, .outputs one JSON value each"
        ) from None
    return {"fn_name": fn_name, "inputs": arguments, "outputs": values}
