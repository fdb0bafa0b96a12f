"""What a model submits: a program, or the outputs of an output-only problem."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from linn.domains.code.programs import program_of
from linn.domains.common.fences import blocks
from linn.solve.contest.problem import Problem, Source

LONGEST = 1 << 17
"""Characters of a program."""
_OUTPUT_MARK = re.compile(r"output\s+(\S+)")


@dataclass(frozen=True)
class Submission:
    """One submission."""

    program: Source | None
    """The program; None where the reply holds none."""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Output-only problems: by test. Tests that it lacks get what the program prints."""

    @property
    def text(self) -> str:
        """It as later prompts show it."""
        if self.program is not None:
            return self.program.text
        return "\n".join(f"output {name}:\n{text}" for name, text in self.outputs.items())

    @property
    def language(self) -> str:
        """The mark of its fence."""
        return self.program.language if self.program is not None else ""


def submission_of(text: str, problem: Problem, language: str = "any") -> Submission:
    """What a reply submits: its last fenced program; outputs in blocks marked `output NAME`."""
    outputs = {}
    if problem.kind == "output_only":
        for block in blocks(text):
            mark = _OUTPUT_MARK.fullmatch(block.mark.strip())
            if mark and mark[1] in problem.tests:
                outputs[mark[1]] = block.text

    # A reply of outputs alone is no program, nor is prose without a fence.
    found, program = program_of(text, language) if "```" in text else ("python", "")
    if not program.strip() or len(program) > LONGEST:
        return Submission(None, outputs)
    return Submission(Source(found, program), outputs)
