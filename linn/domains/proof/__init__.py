"""Proofs: a prover writes and rates one, a verifier rates another's with 0, 0.5 or 1; a judge model, a program or Lean decides."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from linn.chat.request import Request, request_of
from linn.domains.base import Domain, content_key
from linn.domains.proof import derivations
from linn.domains.proof.lean import Lean, check_statement
from linn.errors import UserError
from linn.judges.text import FENCES, Question, fenced
from linn.types import Message, Prompt, Reply, Verdict

_ROLES = ("prover", "verifier")
_SCORES = (0.0, 0.5, 1.0)
_LONGEST_PROOF = 40_000
_LONGEST_ANALYSIS = 20_000
_AFTER = 40
"""Characters that may follow the boxed score: it ends what is said, so a score quoted in passing is none."""

_BOX = re.compile(r"\\boxed\s*\{([^{}]{0,20})\}")
_SOLUTION = re.compile(r"^[ \t]*## Solution[ \t]*$", re.MULTILINE)
_SELF = re.compile(r"^[ \t]*## Self Evaluation[ \t]*$", re.MULTILINE)

_SCALE = """\
1: complete, every step justified, nothing wrong.
0.5: the whole argument is right, but small steps are missing or carry small slips.
0: it does not prove what was asked: a wrong step that matters, a gap in substance, a circle, or an answer without a proof."""
_PROVE = """\
Solve the problem below with a full and rigorous proof. If it asks for an answer, prove that the answer is right.

Write the proof under the heading `## Solution`. Then, under the heading `## Self Evaluation`, check your own proof without mercy and end \
with its score in \\boxed{{}}, on this scale:
{scale}

<problem>
{problem}
</problem>"""
_VERIFY = """\
Judge whether the proof solves the problem. Go through it step by step, say where it is wrong or incomplete, and end with its score in \
\\boxed{{}}, on this scale:
{scale}
{known}{fences}

{texts}"""
_META = """\
Below are a problem, a proof, and someone's analysis of the proof. Judge the analysis, not the proof: are the faults that it names really \
there, and does its score follow from them? End with the analysis's score in \\boxed{{}}: 1 if it is sound, 0.5 if it is partly so, 0 if not.
{known}{fences}

{texts}"""
_KNOWN = {
    "reference": "reference is one right solution; others may be as good.",
    "guidelines": "guidelines tell what to look for; they go before the scale.",
    "expert": "expert is an analysis by an expert.",
}
"""What a judge is told of the texts that it alone sees."""


class Proof(Domain):
    """`given x = y + 3, y = 2 * z, z = 4. prove x = 11` (checked by a program), rows in natural language (a judge), or Lean.

    Prover: the mean of `verifications` scores of the proof, 0 for a reply without its parts. Verifier: 1 - |its score - the true one|.
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
        """`judged`: a judge model rates proofs (prover) or the analyses besides (verifier), `verifications` times.

        `any_zero`: one verification of 0 makes the proof's score 0 (ProofBench). `self_weight`: share of the reward that is how well the
        prover rated itself. `exact`: a verifier earns only by the very score. `formal`: `lean4` for formal statements.
        """
        super().__init__(level, rows)
        allowed = (
            ("role", role, role in _ROLES, "prover, verifier"),
            (
                "verifications",
                verifications,
                _whole(verifications) and 1 <= verifications <= 64,
                "1 to 64",
            ),
            (
                "self_weight",
                self_weight,
                isinstance(self_weight, (int, float)) and 0 <= self_weight < 1,
                "0 to below 1",
            ),
            ("formal", formal, formal in (None, "lean4"), "lean4"),
            (
                "formal",
                formal,
                formal is None or (role == "prover" and not judged),
                "role prover without a judge",
            ),
        )
        for key, value, holds, words in allowed:
            if not holds:
                raise UserError(f"domain proof: {key} is {value!r}; allowed: {words}")
        self.role, self.judged, self.verifications = role, judged, verifications
        self.questions_per_reply = verifications
        self.any_zero, self.self_weight, self.exact = any_zero, float(self_weight), exact
        self.lean = Lean() if formal else None

    # -------------------------------------------------- prompts

    def make(self, rng: random.Random) -> Prompt:
        task = derivations.make(rng)
        goal = f"{task.goal[0]} = {task.goal[1]}"
        problem = f"given {task.text()}. prove {goal}."
        hidden: dict[str, Any] = {
            "problem": problem,
            "given": dict(task.given),
            "goal": task.goal,
            "proof": " = ".join(task.chain),
        }
        if self.role == "verifier":
            score = rng.choice(_SCORES)
            hidden |= {"proof": " = ".join(derivations.spoiled(task, rng, score)), "score": score}
            text = f"{problem} proof: {hidden['proof']}. rate it: box 0, 0.5 or 1."
        else:
            hidden["rated"] = True
            text = f"{problem} ## Solution: one replacement a step. ## Self Evaluation: box 0, 0.5 or 1."
        return Prompt(self.name, "", (Message("user", text),), hidden=hidden)

    def from_row(self, row: Mapping[str, Any], index: int) -> Prompt:
        """Natural language: `problem`, for verifiers `proof` and `score`, for judges `reference_solution`, `rubric`. Lean: `formal_statement`.

        A program checks rows that hold `given` and `goal`. `responses_create_params`, where given, is what the model reads.
        """
        where = f"proof row {index}"
        if self.lean is not None:
            return self._formal_row(row, index, where)
        if _text(row, ("given",), where) and _text(row, ("goal",), where):
            return self._derivation_row(row, index, where)
        problem = _text(row, ("problem",), where)
        if not problem:
            formal = (
                "; a formal_statement needs domains.proof.formal: lean4"
                if "formal_statement" in row
                else ""
            )
            raise UserError(f"{where}: problem is missing; allowed: text{formal}")
        proof = _text(row, ("proof",), where)
        hidden: dict[str, Any] = {
            "problem": problem,
            "reference": _text(row, ("reference_solution", "solution"), where),
            "guidelines": _text(row, ("rubric", "grading_guidelines"), where),
        }
        if self.role == "verifier":
            name = "score" if row.get("score") is not None else "ground_truth_verify_score"
            score = row.get(name)
            if not proof or isinstance(score, bool) or score not in _SCORES:
                raise UserError(
                    f"{where}: a verifier needs proof (text) and score (0, 0.5 or 1); {name} is {score!r}"
                )
            hidden |= {
                "proof": proof,
                "score": float(score),
                "judgement": _text(row, ("ground_truth_judgement",), where),
            }
            text = _asked_of(_VERIFY, problem=problem, proof=proof)
        else:
            if not self.judged:
                raise UserError(
                    f"{where}: a proof in words is judged by a model; name it as the domain's judge"
                )
            text = _PROVE.format(scale=_SCALE, problem=problem)
        request = self._asked(row, index, text)
        hidden["rated"] = any("## Self Evaluation" in m.content for m in request.messages)
        return self._prompt(request, hidden, index)

    def _derivation_row(self, row: Mapping[str, Any], index: int, where: str) -> Prompt:
        try:
            given, goal = derivations.read(str(row["given"]), str(row["goal"]))
        except derivations.NotATerm as error:
            raise UserError(f"{where}: given and goal: {error}") from None
        problem = f"given {row['given']}. prove {row['goal']}."
        hidden: dict[str, Any] = {
            "problem": problem,
            "given": given,
            "goal": goal,
            "proof": _text(row, ("proof",), where),
            "rated": True,
        }
        text = (
            f"{problem} ## Solution: one replacement a step. ## Self Evaluation: box 0, 0.5 or 1."
        )
        if self.role == "verifier":
            if not hidden["proof"]:
                raise UserError(f"{where}: proof is missing; allowed: text")
            hidden["score"] = derivations.judge(hidden["proof"], given, goal)[0]
            text = f"{problem} proof: {hidden['proof']}. rate it: box 0, 0.5 or 1."
        return self._prompt(self._asked(row, index, text), hidden, index)

    def _formal_row(self, row: Mapping[str, Any], index: int, where: str) -> Prompt:
        statement = _text(row, ("formal_statement", "statement"), where)
        header = _text(row, ("header",), where)
        check_statement(statement, f"{where}: formal_statement")
        text = (
            f"Complete this Lean 4 code:\n\n```lean4\n{header}{statement.rstrip()}\n```\n\nPlan the proof first. Then give it in one last "
            "```lean4 block: the statement word for word, then its proof. No lemmas, options or commands besides."
        )
        hidden = {
            "header": header,
            "statement": statement,
            "proof": _text(row, ("formal_proof", "proof"), where),
        }
        return self._prompt(self._asked(row, index, text), hidden, index)

    def _asked(self, row: Mapping[str, Any], index: int, text: str) -> Request:
        if row.get("responses_create_params") is not None:
            return request_of(row, index)
        return request_of({**row, "messages": text}, index)

    def _prompt(self, request: Request, hidden: Mapping[str, Any], index: int) -> Prompt:
        prompt = Prompt(self.name, "", request.messages, request.thinking, request.tools, hidden)
        return replace(prompt, id=f"{content_key(prompt)}.{index}")

    # -------------------------------------------------- grading

    def verify(self, prompt: Prompt, reply: Reply) -> Verdict:
        """The verdict that needs no judge; where one decides, what a reply's form alone earns: 0, marked unreliable unless the form is bad."""
        hidden = prompt.hidden
        if "score" in hidden:
            return self._agreement(prompt, reply)
        if self.lean is not None:
            return self.lean.prove(hidden["header"], hidden["statement"], reply.text)
        proof, rated, why = parts_of(reply.text, hidden["rated"])
        if why:
            return Verdict(0.0, why)
        if "goal" not in hidden:
            return Verdict(0.0, "a judge decides", {"unreliable": 1.0})
        score, why = derivations.judge(proof, hidden["given"], hidden["goal"])
        return self._proved(score, rated, why)

    def _agreement(self, prompt: Prompt, reply: Reply) -> Verdict:
        said, true = score_of(reply.text), prompt.hidden["score"]
        if said is None or len(reply.text) > _LONGEST_ANALYSIS:
            return Verdict(
                0.0,
                "the analysis does not end in a boxed 0, 0.5 or 1"
                if said is None
                else "the analysis is too long",
            )
        reward = float(said == true) if self.exact else 1.0 - abs(said - true)
        return Verdict(reward, "" if said == true else f"scored {said:g}, it is {true:g}")

    def _proved(self, score: float, rated: float | None, why: str = "") -> Verdict:
        """A proof's verdict from its score and its writer's own."""
        metrics = {"proof_score": score}
        if rated is None:
            return Verdict(score, why, metrics)
        honest = 1.0 - abs(rated - score)
        reward = (1 - self.self_weight) * score + self.self_weight * honest
        return Verdict(reward, why, {**metrics, "self_agreement": honest})

    def questions(self, prompt: Prompt, replies: Sequence[Reply]) -> Sequence[Question]:
        """Every well-formed reply is put to the judge `verifications` times; badly formed ones earn 0 unasked."""
        return [
            self._question(prompt, index, reply)
            for index, reply in enumerate(replies)
            if self._asks(prompt, reply)
            for _ in range(self.verifications)
        ]

    def judge(
        self,
        prompt: Prompt,
        replies: Sequence[Reply],
        answers: Sequence[tuple[Question, str]] = (),
    ) -> list[Verdict] | None:
        """Prover: the mean readable score. Verifier: agreement times the mean score of its analysis. Unreadable answers are left out."""
        if not self.judged or not answers:
            return None
        by_reply: dict[int, list[str]] = {}
        for question, answer in answers:
            by_reply.setdefault(question.replies[0], []).append(answer)
        return [
            self._judged(prompt, reply, by_reply[index])
            if index in by_reply
            else self.verify(prompt, reply)
            for index, reply in enumerate(replies)
        ]

    def _judged(self, prompt: Prompt, reply: Reply, answers: Sequence[str]) -> Verdict:
        scores = [score for answer in answers if (score := score_of(answer)) is not None]
        if not scores:
            return Verdict(0.0, "none of the judge's answers is readable", {"unreliable": 1.0})
        mean = 0.0 if self.any_zero and 0.0 in scores else sum(scores) / len(scores)
        told = f"judged {mean:.2f} by {len(scores)} of {len(answers)} readable answers"
        alone = (
            self._agreement(prompt, reply)
            if self.role == "verifier"
            else self._proved(mean, parts_of(reply.text, prompt.hidden["rated"])[1])
        )
        reward = alone.reward * mean if self.role == "verifier" else alone.reward
        return Verdict(
            reward,
            told,
            {**alone.metrics, "unreliable": 0.0, "readable": len(scores) / len(answers)},
        )

    def _asks(self, prompt: Prompt, reply: Reply) -> bool:
        """Whether a judge is asked about this reply."""
        if not self.judged:
            return False
        if self.role == "verifier":
            return self._agreement(prompt, reply).reward > 0
        return not parts_of(reply.text, prompt.hidden["rated"])[2]

    def _question(self, prompt: Prompt, index: int, reply: Reply) -> Question:
        hidden = prompt.hidden
        if self.role == "verifier":
            known = {"expert": hidden.get("judgement", "")}
            text = _asked_of(
                _META,
                problem=hidden["problem"],
                proof=hidden["proof"],
                **known,
                analysis=reply.text,
            )
        else:
            known = {name: hidden.get(name, "") for name in ("reference", "guidelines")}
            text = _asked_of(
                _VERIFY,
                problem=hidden["problem"],
                **known,
                proof=parts_of(reply.text, hidden["rated"])[0],
            )
        return Question(
            (Message("user", text),), lambda answer: score_of(answer) is not None, (index,)
        )

    # -------------------------------------------------- gold and demonstrations

    def gold(self, prompt: Prompt) -> Reply:
        """The known proof rated 1, or the true score; UserError where a row holds none."""
        hidden = prompt.hidden
        if "score" in hidden:
            return Reply(f"\\boxed{{{hidden['score']:g}}}")
        proof = hidden.get("proof") or hidden.get("reference")
        if not proof:
            raise UserError(f"prompt {prompt.id}: the row holds no proof to show as gold")
        return Reply(proof if self.lean is not None else _reply_of(proof, 1.0))

    def demonstrate(self, prompt: Prompt, rng: random.Random, faulty: bool) -> tuple[Message, ...]:
        """The fault: a prover leaves a step out and rates itself 1, a verifier is wrong about the proof."""
        hidden = prompt.hidden
        if self.role == "verifier":
            score = (
                rng.choice([score for score in _SCORES if score != hidden["score"]])
                if faulty
                else hidden["score"]
            )
            return (Message("assistant", f"\\boxed{{{score:g}}}", reasoning=hidden["proof"]),)
        chain = hidden["proof"].split(" = ")
        if faulty:
            del chain[rng.randrange(1, len(chain) - 1)]
        return (Message("assistant", _reply_of(" = ".join(chain), 1.0), reasoning=hidden["proof"]),)


def score_of(text: str) -> float | None:
    """The boxed 0, 0.5 or 1 that ends a text; None where it ends otherwise."""
    boxes = list(_BOX.finditer(text[-_LONGEST_ANALYSIS:].rstrip()))
    if not boxes or len(text[-_LONGEST_ANALYSIS:].rstrip()) - boxes[-1].end() > _AFTER:
        return None
    said = boxes[-1][1].strip()
    return float(said) if re.fullmatch(r"0|1|0?\.5|0\.50?|[01]\.0", said) else None


def parts_of(text: str, rated: bool) -> tuple[str, float | None, str]:
    """(proof, own score, why it is badly formed) of a prover's answer; `rated`: a self-evaluation was asked for."""
    parts = _SELF.split(text, maxsplit=1)
    own = score_of(parts[1]) if len(parts) == 2 else None
    heading = _SOLUTION.search(parts[0])
    proof = (parts[0][heading.end() :] if heading else parts[0]).strip()
    if rated and own is None:
        return proof, None, "no `## Self Evaluation` that ends in a boxed 0, 0.5 or 1"
    if not proof or len(proof) > _LONGEST_PROOF:
        return (
            proof,
            own,
            f"the proof is longer than {_LONGEST_PROOF} characters"
            if proof
            else "there is no proof",
        )
    return proof, own if rated else None, ""


def _reply_of(proof: str, score: float) -> str:
    return f"## Solution\n{proof}\n## Self Evaluation\n\\boxed{{{score:g}}}"


def _asked_of(template: str, **texts: str) -> str:
    """A verifier's question with the texts that are there, none of which can close the marks it stands in."""
    there = {name: text for name, text in texts.items() if text}
    known = "".join(f"{_KNOWN[name]}\n" for name in there if name in _KNOWN)
    return template.format(
        scale=_SCALE, known=known, fences=FENCES, texts=fenced(list(there.items()))
    )


def _text(row: Mapping[str, Any], names: Sequence[str], where: str) -> str:
    """The first of these fields that is there, empty where none is; UserError where it is no text."""
    for name in names:
        value = row.get(name)
        if value is not None:
            if not isinstance(value, str):
                raise UserError(f"{where}: {name} is {type(value).__name__}; allowed: text")
            if value.strip():
                return value
    return ""


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
