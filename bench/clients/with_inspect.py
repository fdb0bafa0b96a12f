"""inspect-ai's path to OpenAI-compatible servers, with a tool."""

from __future__ import annotations

import os
import tempfile
from typing import Any

import inspect_ai
from inspect_ai import Task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import tool


@tool
def add() -> Any:
    """A tool as inspect-ai has it."""

    async def execute(a: int, b: int) -> int:
        """Add two numbers.

        Args:
            a: the first
            b: the second
        """
        return a + b

    return execute


def talk(url: str, model: str) -> None:
    """Two sums, scored by what the answer includes."""
    os.environ |= {"LINN_BASE_URL": url, "LINN_API_KEY": "none"}
    sums = [Sample(input="What is 3 + 4?", target="7"), Sample(input="What is 4 + 4?", target="8")]
    task = Task(dataset=sums, solver=[use_tools(add()), generate()], scorer=includes())
    with tempfile.TemporaryDirectory() as folder:
        log = inspect_ai.eval(
            task,
            model=f"openai-api/linn/{model}",
            display="none",
            max_tokens=48,
            seed=1,
            log_dir=folder,
        )[0]
        # Samples are read from the log's file when they are asked for.
        print(
            "inspect-ai", inspect_ai.__version__, log.status, log.error.message if log.error else ""
        )
        for sample in log.samples or []:
            content = sample.output.choices[0].message.content
            parts = content if isinstance(content, list) else []
            kinds = [type(part).__name__ for part in parts]
            print(repr(sample.output.completion[:60]), sample.output.stop_reason, kinds)
