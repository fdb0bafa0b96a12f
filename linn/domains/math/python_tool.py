"""The stateful Python tool of tool-integrated reasoning (paper §5.4) and its environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from linn.domains.common.tools import parameter, tool
from linn.sandbox import Session
from linn.types import Message, ToolCall

NAME = "stateful_python_code_exec"
"""The tool's name in the released rows."""


def definition(seconds: float) -> Mapping[str, Any]:
    """The definition shown to the model; `seconds`: the time limit of a call."""
    description = (
        "Runs Python code in an interpreter that keeps its state between calls, and gives back "
        "what the code prints, the value of its last expression and its errors. "
        f"A call may take {seconds:g} seconds."
    )
    code = parameter(description="The code to run")
    return tool(NAME, description, {"code": code}, required=["code"])


class PythonEnv:
    """Answers the calls of one conversation, at most `calls`; a turn that calls nothing ends it."""

    def __init__(self, session: Session, calls: int) -> None:
        self.session = session
        self.left = calls

    def step(self, message: Message) -> tuple[Message, ...] | None:
        """One tool turn per call; a wrong call is answered in words."""
        if not message.tool_calls:
            return None
        return tuple(
            Message("tool", self._answer(call), tool_call_id=call.id) for call in message.tool_calls
        )

    def _answer(self, call: ToolCall) -> str:
        if self.left <= 0:
            return "Error: no calls are left; give the final answer now."
        # Wrong calls count too, or a model that repeats one would never end.
        self.left -= 1
        if call.name != NAME:
            return f"Error: there is no tool {call.name[:60]!r}; the only one is {NAME}."
        code = call.arguments.get("code") if isinstance(call.arguments, Mapping) else None
        if not isinstance(code, str):
            return "Error: the argument code is missing or is no text."
        return self.session.run(code).text

    def close(self) -> None:
        """End the interpreter."""
        self.session.close()
