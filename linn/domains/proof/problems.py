"""What the grader of a proof knows, by kind of prompt, and how rows of each kind are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from linn.domains.proof import derivations
from linn.domains.proof.lean_text import check_statement
from linn.domains.proof.terms import NotATerm
from linn.domains.proof.wording import (
    PROVE,
    SCORES,
    derivation_text,
    formal_text,
    rating_text,
    verifiers_text,
)
from linn.errors import UserError

Role = Literal["prover", "verifier"]


@dataclass(frozen=True)
class EquationProblem:
    """Prover: an equation that follows from definitions of letters; a program checks the proof."""

    problem: str
    """The problem in words."""
    given: Mapping[str, str]
    """Each letter's definition."""
    goal: tuple[str, str]
    """Left and right side of the equation."""
    proof: str
    """A derivation; empty where a row holds none."""


@dataclass(frozen=True)
class WordedProblem:
    """Prover: a problem in natural language; a judge model scores the proof."""

    problem: str
    """The problem."""
    reference: str
    """A right solution; empty where the row holds none."""
    guidelines: str
    """What a judge is to look for; empty where the row holds none."""
    rated: bool = True
    """Whether the prompt asks for a self-evaluation."""


@dataclass(frozen=True)
class FormalProblem:
    """Prover: a statement in Lean 4; Lean checks the proof."""

    header: str
    """Imports and options before the statement."""
    statement: str
    """The theorem, its proof left out."""
    proof: str
    """A proof; empty where the row holds none."""


@dataclass(frozen=True)
class ProofToRate:
    """Verifier: a proof with its true score."""

    problem: str
    """What is proved."""
    proof: str
    """The proof."""
    score: float
    """How good it is: 0, 0.5 or 1."""
    judgement: str = ""
    """An expert's analysis, for a judge of the verifier's; empty where the row holds none."""


Problem = EquationProblem | WordedProblem | FormalProblem | ProofToRate


# ---------------------------------------------------------------- rows


def read_equation(row: Mapping[str, Any], role: Role, where: str) -> tuple[Problem, str]:
    """The problem of a row with `given` and `goal`, and the text for the model."""
    given_text, goal_text = str(row["given"]), str(row["goal"])
    try:
        given, goal = derivations.read(given_text, goal_text)
    except NotATerm as error:
        raise UserError(f"{where}: given and goal: {error}") from None

    problem = f"given {given_text}. prove {goal_text}."
    proof = text_of(row, ("proof",), where)
    if role == "prover":
        hidden = EquationProblem(problem, given, goal, proof)
        return hidden, derivation_text(problem)

    # The program is the expert: a verifier's row needs no score.
    if not proof:
        raise UserError(f"{where}: proof is missing; allowed: text")
    score, _ = derivations.grade(proof, given, goal)
    return ProofToRate(problem, proof, score), rating_text(problem, proof)


def read_worded(
    row: Mapping[str, Any], role: Role, judged: bool, where: str
) -> tuple[Problem, str]:
    """The problem of a row in natural language, and the text for the model."""
    problem = text_of(row, ("problem",), where)
    if not problem:
        remedy = ""
        if "formal_statement" in row:
            remedy = "; a formal_statement needs domains.proof.formal: lean4"
        raise UserError(f"{where}: problem is missing; allowed: text{remedy}")

    # Checked for both roles, so that a file's faults do not depend on the recipe.
    proof = text_of(row, ("proof",), where)
    reference = text_of(row, ("reference_solution", "solution"), where)
    guidelines = text_of(row, ("rubric", "grading_guidelines"), where)

    if role == "verifier":
        score = _score(row, proof, where)
        judgement = text_of(row, ("ground_truth_judgement",), where)
        text = verifiers_text(problem, proof)
        return ProofToRate(problem, proof, score, judgement), text

    if not judged:
        raise UserError(
            f"{where}: a proof in words is judged by a model; name it as the domain's judge"
        )
    hidden = WordedProblem(problem, reference, guidelines)
    return hidden, PROVE.format(problem=problem)


def _score(row: Mapping[str, Any], proof: str, where: str) -> float:
    """The true score of a row's proof, which must be there."""
    name = "score" if row.get("score") is not None else "ground_truth_verify_score"
    score = row.get(name)
    if not proof or isinstance(score, bool) or score not in SCORES:
        raise UserError(
            f"{where}: a verifier needs proof (text) and score (0, 0.5 or 1); {name} is {score!r}"
        )
    return float(score)


def read_formal(row: Mapping[str, Any], where: str) -> tuple[Problem, str]:
    """The problem of a row in Lean 4, and the text for the model."""
    statement = text_of(row, ("formal_statement", "statement"), where)
    header = text_of(row, ("header",), where)
    check_statement(statement, f"{where}: formal_statement")
    proof = text_of(row, ("formal_proof", "proof"), where)
    return FormalProblem(header, statement, proof), formal_text(header, statement)


def text_of(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The first of these fields that holds something; empty where none does.

    UserError where it is not text.
    """
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            raise UserError(f"{where}: {name} is {type(value).__name__}; allowed: text")
        if value.strip():
            return value
    return ""
