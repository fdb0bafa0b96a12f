"""Proofs: a prover writes and rates one, a verifier rates one; judge, program or Lean decides."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, cast, get_args

from linn.chat.request import request_of
from linn.domains.base import Domain, content_key
from linn.domains.common.options import check_option, is_whole
from linn.domains.proof import derivations
from linn.domains.proof.derivations import Derivation
from linn.domains.proof.lean import Lean
from linn.domains.proof.problems import (
    EquationProblem,
    FormalProblem,
    Problem,
    ProofToRate,
    Role,
    WordedProblem,
    read_equation,
    read_formal,
    read_worded,
    text_of,
)
from linn.domains.proof.wording import (
    LONGEST_ANALYSIS,
    SCORES,
    analysis_question,
    derivation_text,
    parts_of,
    proof_question,
    rating_text,
    reply_of,
    score_of,
)
from linn.errors import UserError
from linn.judges.text import Question
from linn.types import Message, Prompt, Reply, Verdict


class Proof(Domain):
    """`given x = y + 3, y = 2 * z, z = 4. prove x = 11`, problems in natural language, or Lean.

    A program checks the first, a judge model the second. Prover: the mean of `verifications` scores
    of the proof, 0 for a reply without its parts. Verifier: 1 - |its score - the true one|.
    """

    name: ClassVar[str] = "proof"

    def __init__(
        self,
        level: str = "tiny",
        rows: str | Path | None = None,
        role: str = "prover",
        judged: bool = False,
        verifications: int = 16,
        any_zero: bool = False,
        self_weight: float = 0.0,
        exact: bool = False,
        formal: str | None = None,
    ) -> None:
        """`judged`: a judge model rates proofs or, besides, a verifier's analyses.

        It does so `verifications` times per reply. `any_zero`: one verification of 0 makes the
        proof's score 0 (ProofBench). `self_weight`: share of the reward that is how well the prover
        rated itself. `exact`: a verifier earns only by the very score. `formal`: `lean4` for
        statements in Lean 4.
        """
        super().__init__(level, rows)
        count_fits = is_whole(verifications) and 1 <= verifications <= 64
        weight_fits = isinstance(self_weight, (int, float)) and 0 <= self_weight < 1
        role_fits = formal is None or (role == "prover" and not judged)
        options = (
            ("role", role, role in get_args(Role), "prover, verifier"),
            ("verifications", verifications, count_fits, "1 to 64"),
            ("self_weight", self_weight, weight_fits, "0 to below 1"),
            ("formal", formal, formal in (None, "lean4"), "lean4"),
            ("formal", formal, role_fits, "role prover without a judge"),
        )
        for option, value, fits, allowed in options:
            check_option(self.name, option, value, fits, allowed)

        self.role = cast(Role, role)
        self.judged = judged
        self.verifications = verifications
        self.questions_per_reply = verifications
        self.any_zero = any_zero
        self.self_weight = float(self_weight)
        self.exact = exact
        self.lean = Lean() if formal else None

    # -------------------------------------------------- prompts

    def make(self, rng: random.Random) -> Prompt:
        """An equation to prove, or its derivation, perhaps spoiled, to rate."""
        derivation = derivations.make(rng)
        left, right = derivation.goal
        problem = f"given {derivation.text()}. prove {left} = {right}."
        if self.role == "verifier":
            return self._rating(derivation, problem, rng)

        text = derivation_text(problem)
        hidden = EquationProblem(
            problem=problem,
            given=dict(derivation.definitions),
            goal=derivation.goal,
            proof=" = ".join(derivation.chain),
        )
        return Prompt(self.name, "", (Message("user", text),), hidden=hidden)

    def _rating(self, derivation: Derivation, problem: str, rng: random.Random) -> Prompt:
        """A verifier's prompt; each score is as likely as the others."""
        score = rng.choice(SCORES)
        proof = " = ".join(derivations.spoiled(derivation, rng, score))
        text = rating_text(problem, proof)
        hidden = ProofToRate(problem, proof, score)
        return Prompt(self.name, "", (Message("user", text),), hidden=hidden)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """Rows of three kinds; `responses_create_params`, where given, is what the model reads.

        Natural language: `problem`; for verifiers `proof` and `score`; for judges
        `reference_solution` and `rubric`. Lean: `formal_statement`. A program checks rows that hold
        `given` and `goal`.
        """
        where = f"proof row {index}"
        hidden, text = self._problem_of(row, where)
        # Tools and mode are the row's own, also where the question is ours.
        asked = row if row.get("responses_create_params") is not None else {**row, "messages": text}
        request = request_of(asked, index)

        # A row's own prompt may leave the self-evaluation out: then the answer needs none.
        if isinstance(hidden, WordedProblem):
            rated = any("## Self Evaluation" in message.content for message in request.messages)
            hidden = replace(hidden, rated=rated)

        prompt = request.prompt(self.name, "", hidden)
        return replace(prompt, id=f"{content_key(prompt)}.{index}")

    def _problem_of(self, row: Mapping[str, Any], where: str) -> tuple[Problem, str]:
        """A row's problem, and the text for the model where the row has none."""
        if self.lean is not None:
            return read_formal(row, where)
        if text_of(row, ("given",), where) and text_of(row, ("goal",), where):
            return read_equation(row, self.role, where)
        return read_worded(row, self.role, self.judged, where)

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """The verdict that needs no judge.

        Where a judge decides, it is what a reply's form alone earns: 0, marked unreliable unless
        the form is bad.
        """
        problem = _problem(prompt)
        match problem:
            case ProofToRate():
                return self._agreement(prompt, reply)
            case FormalProblem():
                assert self.lean is not None, prompt.id
                return self.lean.prove(problem.header, problem.statement, reply.text)
            case EquationProblem() | WordedProblem():
                return self._proof_verdict(problem, reply)

    def _proof_verdict(self, problem: EquationProblem | WordedProblem, reply: Reply) -> Verdict:
        proof, own_score, fault = parts_of(reply.text, _is_rated(problem))
        if fault:
            return Verdict(0.0, fault)
        if isinstance(problem, WordedProblem):
            return Verdict(0.0, "a judge decides", {"unreliable": 1.0}, undecided=True)
        score, why = derivations.grade(proof, problem.given, problem.goal)
        return self._proved(score, own_score, why)

    def _agreement(self, prompt: Prompt, reply: Reply) -> Verdict:
        """A verifier's verdict from its score and the true one."""
        problem = _problem(prompt)
        assert isinstance(problem, ProofToRate), type(problem)
        score, expected = score_of(reply.text), problem.score
        if score is None:
            return Verdict(0.0, "the analysis does not end in a boxed 0, 0.5 or 1")
        if len(reply.text) > LONGEST_ANALYSIS:
            return Verdict(0.0, "the analysis is too long")
        if score == expected:
            return Verdict(1.0)

        note = f"scored {score:g}, it is {expected:g}"
        if self.exact:
            return Verdict(0.0, note)
        return Verdict(1.0 - abs(score - expected), note)

    def _proved(self, score: float, rated: float | None, why: str = "") -> Verdict:
        """A proof's verdict from its score and its writer's own."""
        metrics = {"proof_score": score}
        if rated is None:
            return Verdict(score, why, metrics)
        honest = 1.0 - abs(rated - score)
        reward = (1 - self.self_weight) * score + self.self_weight * honest
        return Verdict(reward, why, {**metrics, "self_agreement": honest})

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """Every well-formed reply is put to the judge `verifications` times.

        Badly formed ones earn 0 without a judge.
        """
        questions = []
        for index, reply in enumerate(replies):
            if self._asks(prompt, reply):
                question = _question(_problem(prompt), index, reply)
                questions += [question] * self.verifications
        return questions

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Prover: the mean score. Verifier: agreement times the mean score of its analysis.

        Unreadable answers are left out of the mean.
        """
        if not self.judged or not answers:
            return None
        by_reply: dict[int, list[float | None]] = {}
        for question, answer in answers:
            by_reply.setdefault(question.replies[0], []).append(question.read(answer))

        verdicts = []
        for index, reply in enumerate(replies):
            if index in by_reply:
                verdicts.append(self._judged(prompt, reply, by_reply[index]))
            else:
                verdicts.append(self.verify(prompt, reply))
        return verdicts

    def _judged(self, prompt: Prompt, reply: Reply, read: Sequence[float | None]) -> Verdict:
        """The verdict of a judge's scores of one reply; None: one that could not be read."""
        scores = [score for score in read if score is not None]
        if not scores:
            note = "none of the judge's answers is readable"
            return Verdict(0.0, note, {"unreliable": 1.0}, undecided=True)
        mean = sum(scores) / len(scores)
        if self.any_zero and 0.0 in scores:
            mean = 0.0

        # A verifier earns by a right score for which its analysis gives the reasons.
        if self.role == "verifier":
            alone = self._agreement(prompt, reply)
            reward = alone.reward * mean
        else:
            parts = parts_of(reply.text, _is_rated(_problem(prompt)))
            alone = self._proved(mean, parts.own_score)
            reward = alone.reward

        note = f"judged {mean:.2f} by {len(scores)} of {len(read)} readable answers"
        metrics = {
            **alone.metrics,
            "unreliable": 0.0,
            "readable": len(scores) / len(read),
        }
        return Verdict(reward, note, metrics)

    def _asks(self, prompt: Prompt, reply: Reply) -> bool:
        """Whether a judge is asked about this reply."""
        if not self.judged:
            return False
        if self.role == "verifier":
            return self._agreement(prompt, reply).reward > 0
        return not parts_of(reply.text, _is_rated(_problem(prompt))).fault

    # -------------------------------------------------- gold and demonstrations

    def gold(self, prompt: Prompt) -> Reply:
        """The known proof rated 1, or the true score; UserError where a row holds none."""
        problem = _problem(prompt)
        match problem:
            case ProofToRate():
                return Reply(f"\\boxed{{{problem.score:g}}}")
            case WordedProblem():
                proof = problem.reference
            case EquationProblem() | FormalProblem():
                proof = problem.proof
        if not proof:
            raise UserError(f"prompt {prompt.id}: the row holds no proof to show as gold")
        if isinstance(problem, FormalProblem):
            return Reply(proof)
        return Reply(reply_of(proof, 1.0))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: a prover leaves a step out and rates itself 1, a verifier's score is wrong."""
        problem = _problem(prompt)
        if isinstance(problem, ProofToRate):
            score = problem.score
            if faulty:
                score = rng.choice([other for other in SCORES if other != score])
            text = f"\\boxed{{{score:g}}}"
            return (Message("assistant", text, reasoning=problem.proof),)

        # Others have no generator. The thought is the whole chain even where the proof is not.
        assert isinstance(problem, EquationProblem), type(problem)
        steps = problem.proof.split(" = ")
        if faulty:
            del steps[rng.randrange(1, len(steps) - 1)]
        text = reply_of(" = ".join(steps), 1.0)
        return (Message("assistant", text, reasoning=problem.proof),)


def _problem(prompt: Prompt) -> Problem:
    assert isinstance(prompt.hidden, Problem), type(prompt.hidden)
    return prompt.hidden


def _is_rated(problem: Problem) -> bool:
    """Whether the prompt asks for a self-evaluation, as those of equations always do."""
    return problem.rated if isinstance(problem, WordedProblem) else True


def _question(problem: Problem, index: int, reply: Reply) -> Question:
    """What a judge is asked about a reply."""
    match problem:
        case ProofToRate():
            return analysis_question(
                index,
                problem=problem.problem,
                proof=problem.proof,
                expert=problem.judgement,
                analysis=reply.text,
            )
        case WordedProblem():
            return proof_question(
                index,
                problem=problem.problem,
                reference=problem.reference,
                guidelines=problem.guidelines,
                proof=parts_of(reply.text, problem.rated).proof,
            )
        case EquationProblem():
            return proof_question(
                index,
                problem=problem.problem,
                proof=parts_of(reply.text, rated=True).proof,
            )
        case FormalProblem():
            raise AssertionError("Lean decides formal proofs, not a judge")
