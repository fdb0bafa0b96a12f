"""Formal proofs in Lean 4: the statement is ours, the reply gives the body, Lean decides."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from linn.domains.proof.lean_text import code_of, core, name_of, proof_of
from linn.errors import InfrastructureError, UserError
from linn.sandbox import Ran, Workspace, WorkspaceLimits
from linn.types import Verdict

_LONGEST = 60_000
_LIMITS = WorkspaceLimits(
    cpu=240.0,
    wall=600.0,
    memory=6 << 30,
    address=1 << 38,
    processes=64,
    output=1 << 20,
)
"""Mathlib's files are mapped into the address space, so that is wide; memory counts what is really
held."""
_AXIOMS = {"propext", "Classical.choice", "Quot.sound"}
"""Lean's own axioms, on which a proof may rest."""
_RESTS_ON = re.compile(r"' depends on axioms: \[([^\]]*)\]\Z")
_REMEDY = (
    "install Lean 4 (with elan, see lean-lang.org), so that `lean` is on PATH, "
    "and name Mathlib's folders in LEAN_PATH"
)


@dataclass(frozen=True)
class LeanMessage:
    """One message of Lean about a file."""

    line: int
    """The line it is about, from 1."""
    severity: str
    """`error`, `warning`, `information`."""
    text: str
    """What it says."""


class Lean:
    """The installed Lean 4.

    Folders of `LEAN_PATH` (Mathlib's, say: `lake env printenv LEAN_PATH`) are readable in the
    sandbox.
    """

    def __init__(self) -> None:
        """UserError where no Lean is found."""
        tool = shutil.which("lean")
        if tool is None:
            raise UserError(
                "domain proof: formal: lean4 needs Lean, and no `lean` is on PATH; " + _REMEDY
            )
        # What is on PATH may be elan's launcher; the sandbox needs the real program's folder.
        try:
            ran = subprocess.run(
                [tool, "--print-prefix"], capture_output=True, text=True, timeout=120, check=True
            )
            self.prefix = Path(ran.stdout.strip()).resolve(strict=True)
            self.tool = (self.prefix / "bin" / "lean").resolve(strict=True)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise UserError(
                f"domain proof: {tool} --print-prefix does not name a working Lean 4 ({error}); "
                + _REMEDY
            ) from None

        self.path = []
        for part in os.environ.get("LEAN_PATH", "").split(os.pathsep):
            if part and Path(part).is_dir():
                self.path.append(Path(part).resolve())
        self._sound: set[str] = set()

    def prove(self, header: str, statement: str, answer: str) -> Verdict:
        """Reward 1 iff the answer's body proves the statement from Lean's own three axioms."""
        if len(answer) > _LONGEST:
            return Verdict(0.0, f"the answer is longer than {_LONGEST} characters")
        proof, fault = proof_of(code_of(answer), header, statement)
        if fault:
            return Verdict(0.0, fault)

        name = name_of(statement)
        top = f"{header.rstrip()}\n\n{core(statement)} :="
        self._check_compiles(top, name)

        # The report on the axioms is known by its line, whatever the proof prints itself.
        source = f"{top}{proof}\n\n"
        line = source.count("\n") + 1
        ran = self._run(f"{source}#print axioms {name}\n")
        return _verdict(ran, name, line)

    def _check_compiles(self, top: str, name: str) -> None:
        """UserError where a statement without its proof does not compile; tried once.

        A header that does not load would look like a wrong proof each time.
        """
        if top in self._sound:
            return
        ran = self._run(f"{top} sorry\n")
        errors = [message for message in messages(ran.stdout) if message.severity == "error"]
        if errors:
            raise UserError(
                f"the statement of {name} does not compile: {errors[0].text[:200]!r}; "
                "is LEAN_PATH set for its imports?"
            )
        if ran.status != "ok":
            raise UserError(
                f"the statement of {name} alone ends with {ran.status}, exit code {ran.code}: "
                f"{_one_line(ran.stderr)[:200]}"
            )
        self._sound.add(top)

    def _run(self, source: str) -> Ran:
        """Compile a file in the sandbox."""
        words = [
            "env",
            f"LEAN_PATH={os.pathsep.join(map(str, self.path))}",
            str(self.tool),
            "--json",
            "Proof.lean",
        ]
        with Workspace(_LIMITS, {"Proof.lean": source}, [self.prefix, *self.path]) as workspace:
            ran = workspace.run(words)
        # The shell's codes for a program that cannot be run or is not found.
        if ran.code in (126, 127):
            raise InfrastructureError(
                f"Lean cannot be run in the sandbox: {_one_line(ran.stderr)[:200]}"
            )
        return ran


def messages(output: str) -> list[LeanMessage]:
    """Lean's messages, a JSON object per line; other lines are passed over."""
    read = []
    for line in output.splitlines():
        try:
            fields = json.loads(line)
            message = LeanMessage(
                line=int(fields["pos"]["line"]),
                severity=str(fields["severity"]),
                text=str(fields["data"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        read.append(message)
    return read


def _verdict(ran: Ran, name: str, line: int) -> Verdict:
    """The verdict of Lean's messages.

    A proof counts only by the axioms reported on `line`, the one that we added: an earlier report
    could be the proof's own.
    """
    if ran.status in ("timeout", "memory", "output"):
        return Verdict(0.0, f"Lean passed its limit: {ran.status}")

    every = messages(ran.stdout)
    for message in every:
        if message.severity == "error":
            note = f"line {message.line}: {_one_line(message.text)}"
            return Verdict(0.0, note[:300])
    if ran.status != "ok":
        return Verdict(0.0, f"Lean ended with exit code {ran.code}")

    # A proof that opens a comment or a string could swallow our line.
    reports = [message.text.strip() for message in every if message.line == line]
    if len(reports) != 1 or not _is_about(reports[0], name):
        return Verdict(0.0, "the proof did not end where its text ends")
    return _verdict_of_axioms(reports[0])


def _is_about(report: str, name: str) -> bool:
    """Whether a report on axioms is about this theorem."""
    return report.startswith("'") and name in report


def _verdict_of_axioms(report: str) -> Verdict:
    """The verdict of Lean's report on the axioms of a theorem."""
    if report.endswith("' does not depend on any axioms"):
        return Verdict(1.0, "proved")
    match = _RESTS_ON.search(report)
    if match is None:
        return Verdict(0.0, "the proof rests on what Lean does not name")

    # `sorry` is an axiom too, as is each trust in compiled code.
    axioms = {part.strip() for part in match[1].split(",")}
    others = sorted(axioms - _AXIOMS)
    if others:
        return Verdict(0.0, f"the proof rests on {', '.join(others)}")
    return Verdict(1.0, "proved")


def _one_line(text: str) -> str:
    return " ".join(text.split())
