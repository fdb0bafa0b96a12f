"""Formal proofs in Lean 4: the statement is ours, the reply gives the proof's body, and Lean in a sandbox decides."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import textwrap
from pathlib import Path

from linn.errors import InfrastructureError, UserError
from linn.sandbox import Ran, Workspace, WorkspaceLimits
from linn.types import Verdict

_LONGEST = 60_000
_LIMITS = WorkspaceLimits(
    cpu=240.0, wall=600.0, memory=6 << 30, address=1 << 38, processes=64, output=1 << 20
)
"""Mathlib's files are mapped into the address space, so that is wide; memory counts what is really held."""
_AXIOMS = {"propext", "Classical.choice", "Quot.sound"}
_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_NAME = re.compile(r"\b(?:theorem|lemma)\s+([^\s:({\[⦃]+)")
_HOLE = re.compile(r"\s*(?::=\s*(?:by\b\s*)?(?:sorry\b\s*)?)?\Z")
_TACTICS = re.compile(r"\bby\s*(?:sorry\s*)?\Z")
_WORD = re.compile(r"[^\W\d][\w.!?']*")
_REFUSED = frozenset(
    (
        "sorry admit axiom native_decide unsafe macro macro_rules syntax notation infix infixl infixr prefix postfix elab elab_rules "
        "declare_syntax_cat binder_predicate simproc run_tac run_cmd run_elab run_meta by_elab dbg_trace set_option import namespace section "
        "end export theorem lemma example def abbrev instance class structure inductive opaque attribute local scoped private protected "
        "noncomputable partial mutual variable universe deriving initialize builtin_initialize extern implemented_by csimp"
    ).split()
)
_REFUSED_PARTS = frozenset(
    "Lean IO System sorryAx ofReduceBool reduceBool ofReduceNat reduceNat trustCompiler lcProof unsafeIO unsafeCast".split()
)
_REFUSED_SIGNS = ("#", "@[", "«", "eval%")


class Lean:
    """The installed Lean 4. Folders of `LEAN_PATH` (Mathlib's, say: `lake env printenv LEAN_PATH`) are readable in the sandbox."""

    def __init__(self) -> None:
        """UserError where no Lean is found."""
        tool = shutil.which("lean")
        remedy = "install Lean 4 (with elan, see lean-lang.org), so that `lean` is on PATH, and name Mathlib's folders in LEAN_PATH"
        if tool is None:
            raise UserError(
                f"domain proof: formal: lean4 needs Lean, and no `lean` is on PATH; {remedy}"
            )
        try:
            told = subprocess.run(
                [tool, "--print-prefix"], capture_output=True, text=True, timeout=120, check=True
            )
            self.prefix = Path(told.stdout.strip()).resolve(strict=True)
            self.tool = (self.prefix / "bin" / "lean").resolve(strict=True)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise UserError(
                f"domain proof: {tool} --print-prefix does not name a working Lean 4 ({error}); {remedy}"
            ) from None
        self.path = [
            Path(part).resolve()
            for part in os.environ.get("LEAN_PATH", "").split(os.pathsep)
            if part and Path(part).is_dir()
        ]
        self._sound: set[str] = set()

    def prove(self, header: str, statement: str, answer: str) -> Verdict:
        """Reward 1 iff the answer's body proves the statement from Lean's own three axioms."""
        if len(answer) > _LONGEST:
            return Verdict(0.0, f"the answer is longer than {_LONGEST} characters")
        proof, why = proof_of(code_of(answer), header, statement)
        if why:
            return Verdict(0.0, why)
        name = name_of(statement)
        top = f"{header.rstrip()}\n\n{core(statement)} :="
        if (
            top not in self._sound
        ):  # a header that does not load would look like a wrong proof each time
            ran = self._run(f"{top} sorry\n")
            if errors := [
                data for _, severity, data in messages(ran.stdout) if severity == "error"
            ]:
                raise UserError(
                    f"the statement of {name} does not compile: {errors[0][:200]!r}; is LEAN_PATH set for its imports?"
                )
            if ran.status != "ok":
                raise UserError(
                    f"the statement of {name} alone ends with {ran.status}, exit code {ran.code}: {' '.join(ran.stderr.split())[:200]}"
                )
            self._sound.add(top)
        source = f"{top}{proof}\n\n"
        line = source.count("\n") + 1
        return _verdict(self._run(f"{source}#print axioms {name}\n"), name, line)

    def _run(self, source: str) -> Ran:
        with Workspace(_LIMITS, {"Proof.lean": source}, [self.prefix, *self.path]) as workspace:
            words = [
                "env",
                f"LEAN_PATH={os.pathsep.join(map(str, self.path))}",
                str(self.tool),
                "--json",
                "Proof.lean",
            ]
            ran = workspace.run(words)
        if ran.code in (126, 127):
            raise InfrastructureError(
                f"Lean cannot be run in the sandbox: {' '.join(ran.stderr.split())[:200]}"
            )
        return ran


def check_statement(statement: str, where: str) -> None:
    """UserError where a row's statement names no theorem."""
    if _NAME.search(bare(statement)) is None:
        raise UserError(
            f"{where} holds no `theorem NAME`; allowed: Lean text that ends in one theorem, its proof left out"
        )


def name_of(statement: str) -> str:
    """The name of the theorem that is to be proved: the last one stated."""
    return str(_NAME.findall(bare(statement))[-1])


def code_of(answer: str) -> str:
    """The last fenced block of an answer, or all of it."""
    blocks = _FENCE.findall(answer)
    return str(blocks[-1]) if blocks else answer


def proof_of(code: str, header: str, statement: str) -> tuple[str, str]:
    """(what follows the statement's `:=`, "") of a reply's code, or ("", why it is refused).

    The code is a body (with or without `by`), or repeats our header and our statement word for word before its body. What comes back is
    exactly what was looked through: no comments are left in which something could hide.
    """
    plain = bare(code)
    stated = list(re.finditer(r"\s+".join(map(re.escape, bare(core(statement)).split())), plain))
    if stated:
        before, rest = plain[: stated[0].start()], plain[stated[-1].end() :].lstrip()
        known = {" ".join(line.split()) for line in bare(header).splitlines()} | {""}
        if (
            len(stated) > 1
            or not {" ".join(line.split()) for line in before.splitlines()} <= known
            or not rest.startswith(":=")
        ):
            return "", "only the proof's body may be given, after the statement word for word"
        proof = rest[2:]
    elif re.search(r"^\s*(?:theorem|lemma|example)\b", plain, re.MULTILINE):
        return "", "the statement was changed, or another was proved"
    elif re.match(r"\s*by\b", plain) or not _TACTICS.search(bare(statement)):
        proof = " " + plain.lstrip()
    else:
        proof = f" by\n{textwrap.indent(textwrap.dedent(plain), '  ')}"
    return (proof.rstrip(), "") if not (why := _refused(proof)) else ("", why)


def _refused(proof: str) -> str:
    """Why a proof may not be tried: it could change what Lean proves or reports, or run programs; empty where it may."""
    if not re.sub(r"\bby\b", "", proof).strip():
        return "the proof is empty"
    if sign := next((sign for sign in _REFUSED_SIGNS if sign in proof), ""):
        return f"{sign} is not allowed in a proof"
    words = (
        word
        for word in _WORD.findall(proof)
        if word in _REFUSED or not _REFUSED_PARTS.isdisjoint(word.split("."))
    )
    return f"{word} is not allowed in a proof" if (word := next(words, "")) else ""


def bare(code: str) -> str:
    """Lean text without its comments (blocks nest); one left open takes all that follows."""
    kept: list[str] = []
    depth = place = 0
    while place < len(code):
        two = code[place : place + 2]
        if two == "/-":
            kept.append(" " if not depth else "")  # a comment parts words
            depth, place = depth + 1, place + 2
        elif depth and two == "-/":
            depth, place = depth - 1, place + 2
        elif depth:
            place += 1
        elif two == "--":
            end = code.find("\n", place)
            place = len(code) if end < 0 else end
        elif code[place] == '"':
            literal = _STRING.match(code, place)
            assert literal is not None
            kept.append(literal[0])
            place = literal.end()
        else:
            kept.append(code[place])
            place += 1
    return "".join(kept)


def messages(said: str) -> list[tuple[int, str, str]]:
    """(line, severity, text) of Lean's messages, a JSON object a line."""
    found = []
    for line in said.splitlines():
        try:
            told = json.loads(line)
            found.append((int(told["pos"]["line"]), str(told["severity"]), str(told["data"])))
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
    return found


def _verdict(ran: Ran, name: str, line: int) -> Verdict:
    """What Lean's messages say; a proof counts only by the axioms reported on the line that we added."""
    if ran.status in ("timeout", "memory", "output"):
        return Verdict(0.0, f"Lean passed its limit: {ran.status}")
    told = messages(ran.stdout)
    errors = [
        f"line {place}: {' '.join(data.split())}"
        for place, severity, data in told
        if severity == "error"
    ]
    if errors or ran.status != "ok":
        return Verdict(0.0, (errors or [f"Lean ended with exit code {ran.code}"])[0][:300])
    axioms = [data.strip() for place, _, data in told if place == line]
    if len(axioms) != 1 or not axioms[0].startswith("'") or name not in axioms[0]:
        return Verdict(0.0, "the proof did not end where its text ends")
    if axioms[0].endswith("' does not depend on any axioms"):
        return Verdict(1.0, "proved")
    used = re.search(r"' depends on axioms: \[([^\]]*)\]\Z", axioms[0])
    names = {part.strip() for part in used[1].split(",")} if used else {"what Lean does not name"}
    return (
        Verdict(0.0, f"the proof rests on {', '.join(sorted(names - _AXIOMS))}")
        if names - _AXIOMS
        else Verdict(1.0, "proved")
    )


def core(statement: str) -> str:
    """The statement up to its `:=`."""
    return _HOLE.sub("", statement.rstrip())
