"""Formal statements: what a reply may hold, how Lean's messages decide, and a missing Lean."""

import json
import os
from pathlib import Path

import pytest

from linn.domains.proof import Proof, lean
from linn.errors import UserError
from linn.types import Reply

HEADER = "import Mathlib\nopen Real\n\n"
STATEMENT = "/-- Three. -/\ntheorem three (x : ℕ) (h : x = 2) :\n    x + 1 = 3 := by\n  sorry"
GOOD = (
    "```lean4\ntheorem three (x : ℕ) (h : x = 2) : x + 1 = 3 := by\n  -- sorry "
    "is no word here\n  omega\n```"
)

# Stands for Lean: it reads the file, takes `omega` for a proof and `nonsense` for an error, and
# reports axioms as Lean does.
FAKE = """#!/bin/sh
here=$(cd "$(dirname "$0")/.." && pwd)
[ "$1" = "--print-prefix" ] && { echo "$here"; exit 0; }
file=$2
last=$(wc -l < "$file")
FORM='{"severity":"%s","pos":{"line":%s,"column":0},"fileName":"P","data":"%s"}\\n'
say() { printf "$FORM" "$1" "$2" "$3"; }
axioms() { say information "$last" "'three' depends on axioms: [$1]"; exit 0; }
grep -q 'import Missing' "$file" && { say error 1 "unknown module prefix 'Missing'"; exit 1; }
grep -q nonsense "$file" && { say error 5 "unknown identifier"; exit 1; }
grep -q forever "$file" && while :; do :; done
grep -q forged "$file" && say information 6 "'three' depends on axioms: [propext]"
grep -q sorry "$file" && { say warning 4 "declaration uses 'sorry'"; exit 0; }
grep -q silent "$file" && exit 0
grep -q clean "$file" && {
    say information "$last" "'three' does not depend on any axioms"; exit 0;
}
grep -q native "$file" && axioms "propext, Lean.ofReduceBool"
grep -q forged "$file" && axioms sorryAx
axioms "propext, Classical.choice, Quot.sound"
"""


@pytest.fixture
def domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proof:
    tool = tmp_path / "bin" / "lean"
    tool.parent.mkdir()
    tool.write_text(FAKE)
    tool.chmod(0o755)
    tmp_path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("LEAN_PATH", raising=False)
    return Proof(formal="lean4")


def row(**changes: str) -> dict[str, str]:
    return {"header": HEADER, "formal_statement": STATEMENT} | changes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (GOOD, 1.0),
        ("The plan: arithmetic.\n```lean4\nomega\n```", 1.0),
        ("by clean", 1.0),
        (f"```lean4\n{HEADER}{STATEMENT.replace('sorry', 'omega')}\n```", 1.0),
        ("nonsense", 0.0),
        ("omega\nnative", 0.0),
        ("trace \"'three' depends on axioms: [propext]\"; forged", 0.0),
        ("silent", 0.0),
    ],
)
def test_lean_decides_and_only_by_the_axioms_on_our_own_line(
    domain: Proof, text: str, reward: float
) -> None:
    verdict = domain.verify(domain.from_row(row(), 0), Reply(text))
    assert verdict.reward == reward, verdict.note


def test_what_does_not_compile_without_the_reply_is_the_users_mistake(domain: Proof) -> None:
    prompt = domain.from_row(row(header="import Missing\n"), 0)
    with pytest.raises(UserError, match="LEAN_PATH"):
        domain.verify(prompt, Reply("omega"))


@pytest.mark.slow
def test_a_proof_that_runs_forever_is_ended(domain: Proof, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean, "_LIMITS", lean.WorkspaceLimits(cpu=1.0, wall=20.0))
    verdict = domain.verify(domain.from_row(row(), 0), Reply("forever"))
    assert verdict.reward == 0.0 and "timeout" in verdict.note


HOSTILE = {
    "empty": "",
    "only by": "by",
    "only a comment": "-- omega\n/- omega -/",
    "sorry": "sorry",
    "sorry after a comment": "by /- /- -/ -/ sorry",
    "admit": "admit",
    "axiom": "exact foo\naxiom foo : 1 = 2",
    "native_decide": "native_decide",
    "unsafe": "exact unsafe foo",
    "sorryAx": "exact @sorryAx _ true",
    "quoted sorryAx": "exact «sorryAx» _",
    "rooted sorryAx": "exact _root_.sorryAx _ true",
    "ofReduceBool": "exact Lean.ofReduceBool _ _ rfl",
    "macro": 'omega\nmacro "omega" : tactic => `(tactic| sorry)',
    "macro_rules": "omega\nmacro_rules | `(tactic| omega) => `(tactic| trivial)",
    "notation": 'omega\nnotation "ℕ" => Bool',
    "syntax": 'omega\nsyntax "x" : term',
    "elab": 'omega\nelab "x" : tactic => pure ()',
    "run_tac": 'run_tac do Lean.logInfo "x"',
    "eval": 'omega\n#eval IO.FS.readFile "/etc/passwd"',
    "print axioms": "omega\n#print axioms Nat.add_comm",
    "another theorem": "```lean4\ntheorem three : True := trivial\n```",
    "another statement": "```lean4\ntheorem three (x : ℕ) (h : x = 3) : x + 1 = 3 := by omega\n```",
    "a weaker statement twice": (
        "```lean4\ntheorem three (x : ℕ) (h : x = 2) : x + 1 = 3 := by omega\n"
        "theorem three (x : ℕ) (h : x = 2) : x + 1 = 3 := by omega\n```"
    ),
    "a lemma before": (
        "```lean4\nlemma a : 1 = 2 := by omega\ntheorem three (x : ℕ) (h : "
        "x = 2) : x + 1 = 3 := by omega\n```"
    ),
    "a namespace": (
        "```lean4\nnamespace A\ntheorem three (x : ℕ) (h : x = 2) : x + 1 = 3 := by omega\n```"
    ),
    "a statement in a comment": (
        "```lean4\n/- theorem three (x : ℕ) (h : x = 2) : x + 1 = 3 := -/\n"
        "theorem three : True := by trivial\n```"
    ),
    "set_option": "set_option debug.skipKernelTC true in omega",
    "attribute": "omega\nattribute [simp] foo",
    "implemented_by": "omega\n@[implemented_by x] def y := 1",
    "import": "omega\nimport Evil",
    "initialize": "omega\ninitialize pure ()",
    "instance": "omega\ninstance : OfNat Nat 3 := ⟨4⟩",
    "an open comment": "/- omega",
    "a megabyte": "omega\n" * 200_000,
    "deep comments": "/-" * 20_000,
    "sorry in a string": 'exact s!"{(sorry : String)}"',
    "claim": "Lean says: no errors, 'three' does not depend on any axioms.\n```lean4\n```",
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_proofs_are_refused_before_lean_runs(
    domain: Proof, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("Lean was run")

    monkeypatch.setattr(lean.Lean, "_run", never)
    assert (
        domain.verify(domain.from_row(row(), 0), Reply(HOSTILE[what], reasoning=GOOD)).reward == 0.0
    )


def test_the_prompt_shows_header_and_statement(domain: Proof) -> None:
    text = domain.from_row(row(), 0).messages[0].content
    assert HEADER in text and STATEMENT in text


def test_without_lean_it_is_said_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no `lean` is on PATH; install Lean 4"):
        Proof(formal="lean4")


def test_a_lean_that_does_not_work_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tool = tmp_path / "lean"
    tool.write_text("#!/bin/sh\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="print-prefix"):
        Proof(formal="lean4")


def test_rows_without_a_theorem_are_refused(domain: Proof) -> None:
    for statement in ("", "example : 1 = 1 := by", "-- theorem three : True"):
        with pytest.raises(UserError, match="row 3: formal_statement"):
            domain.from_row(row(formal_statement=statement), 3)


def test_messages_that_are_none_are_passed_over() -> None:
    line = json.dumps({"severity": "error", "pos": {"line": 1, "column": 0}, "data": "x"})
    read = lean.messages(f"junk\n{line}\n[]\n{{}}\n" + "[" * 10_000)
    assert read == [lean.LeanMessage(line=1, severity="error", text="x")]
