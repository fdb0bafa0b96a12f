"""Rows of mathematics: NeMo-Gym's, and those of published data sets and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from linn.chat.request import Request, request_of
from linn.domains.common.boxes import outer_boxes
from linn.domains.common.options import is_number
from linn.errors import UserError

_ASK = "\n\nReason step by step and put the final answer, and nothing else, in \\boxed{}."
_ANSWERS = ("expected_answer", "answer", "Answer")
_QUESTIONS = ("question", "problem", "Question", "Problem")
_GSM = "####"
"""What stands before the answer in GSM8K's solutions."""
_INTERPRETERS = ("stateful_python_code_exec", "python")
"""Tools that only an interpreter answers."""


def answer_of(row: Mapping[str, Any], index: int) -> str:
    """The answer that a row expects; UserError names the field that is wrong."""
    name, expected = _answer_in(row)
    if is_number(expected):
        expected = str(expected)
    if isinstance(expected, str) and _GSM in expected:
        expected = expected.rpartition(_GSM)[2].strip()
    if not isinstance(expected, str) or not expected.strip():
        raise UserError(f"row {index}: {name} is {expected!r}; allowed: text")
    return expected


def _answer_in(row: Mapping[str, Any]) -> tuple[str, Any]:
    """(the answer's field, what it holds)."""
    for name in _ANSWERS:
        if row.get(name) is not None:
            return name, row[name]

    reward_model = row.get("reward_model")
    if isinstance(reward_model, Mapping):
        return "reward_model.ground_truth", reward_model.get("ground_truth")
    solution = row.get("solution")
    if isinstance(solution, str) and (boxes := outer_boxes(solution)):
        return "solution", boxes[-1].inner
    if solution is not None:
        return "the last \\boxed{} of solution", None
    return next((name for name in _ANSWERS if name in row), _ANSWERS[0]), None


def request_of_problem(row: Mapping[str, Any], index: int) -> Request:
    """What a row shows the model."""
    name = next((key for key in _QUESTIONS if row.get(key) is not None), None)
    has_turns = any(row.get(key) for key in ("responses_create_params", "messages", "prompt"))
    if has_turns or (name is None and "context" in row):
        return request_of(row, index)
    if name is None:
        raise UserError(
            f"row {index}: question is missing, and so is problem; allowed: text, "
            "or turns in responses_create_params.input"
        )

    text = row[name]
    if not isinstance(text, str) or not text.strip():
        raise UserError(f"row {index}: {name} is {text!r}; allowed: text")
    if "\\boxed" not in text:
        text += _ASK
    # Tools and mode are the row's own, whoever wrote the question.
    return request_of({**row, "messages": text}, index)


def without_interpreter(request: Request) -> Request:
    """The request without definitions of an interpreter, which nobody answers here.

    Other tools stay as the row shows them. `linn data` counts such rows.
    """
    tools = tuple(tool for tool in request.tools if not is_interpreter(tool))
    return replace(request, tools=tools)


def is_interpreter(tool: Mapping[str, Any]) -> bool:
    """Whether a definition is of a tool that runs code."""
    function = tool.get("function", tool)
    return isinstance(function, Mapping) and function.get("name") in _INTERPRETERS
