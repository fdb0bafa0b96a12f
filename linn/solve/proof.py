"""`proof` (paper §5.2): generate, verify, refine, until a proof has every verification behind it.

Round 1 writes `generations` proofs. Each is verified `verifications` times; its score is the mean.
Later rounds take the `keep` best of the pool, each with its lowest-rated analyses, and refine each
`refine` times. A problem ends when a score reaches `stop`. Statements in Lean are verified by Lean
instead: what it says of a proof is the analysis that the refinement reads.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from linn.domains.proof.problems import EquationProblem, FormalProblem, WordedProblem
from linn.domains.proof.wording import parts_of, score_of, verifiers_text
from linn.files import write_jsonl
from linn.judges.text import FENCES, fenced, inert, shown
from linn.solve.account import JUDGE, Account
from linn.solve.budget import Attempt
from linn.solve.questions import asked
from linn.solve.result import Result
from linn.solve.rules import check_at_least
from linn.types import Message, Prompt, seed_of

_REFINE = """\
{task}

Below are an earlier proof and analyses of it. Each analysis ends with its score of the proof. \
Some may be mistaken: go through them, keep what is right, mend what is wrong, and write a better \
proof in the form asked for above. {fences}

{texts}"""


@dataclass(frozen=True)
class ProofRules:
    """The paper's numbers; its reduced setting is 32, 16, 8, 2 rounds."""

    generations: int = 128
    """Proofs written in round 1."""
    verifications: int = 64
    """Of each proof."""
    keep: int = 32
    """Best proofs of the pool that are refined."""
    analyses: int = 8
    """Shown with a proof at most, lowest ratings first."""
    refine: int = 4
    """Refined proofs of each kept one."""
    rounds: int = 8
    """At most, the first one included."""
    stop: float = 0.99999
    """A problem ends when a proof's score reaches this."""
    any_zero: bool = False
    """One verification of 0 makes a proof's score 0 (ProofBench's rule)."""

    def __post_init__(self) -> None:
        check_at_least(1, generations=self.generations, verifications=self.verifications)
        check_at_least(1, keep=self.keep, refine=self.refine, rounds=self.rounds)
        check_at_least(0, analyses=self.analyses)
        if not 0 < self.stop <= 1:
            raise ValueError(f"stop must be above 0 and at most 1, found {self.stop:g}")


@dataclass(frozen=True)
class Analysis:
    """One verification."""

    score: float
    """0, 0.5 or 1."""
    text: str
    """Its reasons."""


@dataclass(frozen=True)
class PoolProof:
    """A proof in a problem's pool."""

    id: int
    """Its number in the pool, from 0."""
    round: int
    """In which it was written, from 1."""
    parent: int | None
    """The proof that it refines."""
    reply: str
    """The whole answer."""
    proof: str
    """The proof in it."""
    own_score: float
    """Its writer's own; 0 where it was not asked for."""
    truth: float
    """What the domain's grader says, where a program decides; the loop never looks at it, unless
    that program is Lean."""
    score: float | None = None
    """Mean of its verifications; None where none could be read, or came."""
    analyses: tuple[Analysis, ...] = ()
    """The readable ones, in order."""


async def proof(prompt: Prompt, account: Account, rules: ProofRules) -> Result:
    """Prove one problem; the score is the grader's where a program grades, else the mean."""
    pool: list[PoolProof] = []
    number = 0
    while number < rules.rounds and not account.budget.is_spent:
        number += 1
        parents: list[PoolProof] = []
        if number > 1:
            parents = _kept(pool, number, account, rules)
            if not parents:
                break  # nothing that could be refined
        fresh = await _written(prompt, parents, number, len(pool), account, rules)
        pool += await _verified(prompt, fresh, account, rules)
        _write_pool(pool, account)
        best = _best(pool)
        account.note(_worth(prompt, best))
        if best is not None and _score(best) >= rules.stop:
            break

    # Of all rounds: a refinement need not be better than what it refines.
    best = _best(pool)
    counts = {
        "rounds": number,
        "proofs": len(pool),
        "verifications": sum(len(each.analyses) for each in pool),
        "mean": _score(best) if best is not None else 0.0,
    }
    answer = best.reply if best is not None else ""
    lineage = _lineage(best, pool)
    return Result(answer, _worth(prompt, best), counts, {"lineage": lineage})


# ---------------------------------------------------------------- one round


async def _written(
    prompt: Prompt,
    parents: Sequence[PoolProof],
    number: int,
    first_id: int,
    account: Account,
    rules: ProofRules,
) -> list[PoolProof]:
    """The well-formed proofs of a round; of unfinished or badly formed replies none is kept."""
    asked: list[tuple[Prompt, int | None]] = []
    if number == 1:
        asked = [(prompt, None)] * rules.generations
    for parent in parents:
        asked += [(refinement(prompt, parent, rules.analyses), parent.id)] * rules.refine

    proofs: list[PoolProof] = []
    attempts = await account.play([each for each, _ in asked])
    # The budget may have ended before the last of them.
    for attempt, (_, parent_id) in zip(attempts, asked, strict=False):
        parsed = _parsed(prompt, attempt)
        if parsed is None:
            continue
        text, own_score = parsed
        proofs.append(
            PoolProof(
                id=first_id + len(proofs),
                round=number,
                parent=parent_id,
                reply=attempt.text,
                proof=text,
                own_score=own_score,
                truth=attempt.verdict.reward,
                analyses=_lean_analysis(prompt, attempt),
            )
        )
    return proofs


def _parsed(prompt: Prompt, attempt: Attempt) -> tuple[str, float] | None:
    """(proof, its writer's score) of a finished reply; None where it is not in its form."""
    if attempt.status != "ok" or not attempt.text.strip():
        return None
    if isinstance(prompt.hidden, FormalProblem):
        return attempt.text, 0.0
    rated = not isinstance(prompt.hidden, WordedProblem) or prompt.hidden.rated
    parts = parts_of(attempt.text, rated)
    return None if parts.fault else (parts.proof, parts.own_score or 0.0)


def _lean_analysis(prompt: Prompt, attempt: Attempt) -> tuple[Analysis, ...]:
    """What Lean says of a formal proof."""
    if not isinstance(prompt.hidden, FormalProblem):
        return ()
    return (Analysis(attempt.verdict.reward, attempt.verdict.note or "Lean accepts it."),)


async def _verified(
    prompt: Prompt, proofs: Sequence[PoolProof], account: Account, rules: ProofRules
) -> list[PoolProof]:
    """The proofs with their analyses and scores."""
    if isinstance(prompt.hidden, FormalProblem):
        return [replace(each, score=each.truth) for each in proofs]

    # The verifier reads what a contestant hands in: neither reference nor rubric.
    count = rules.verifications
    questions = []
    for each in proofs:
        text = verifiers_text(problem_of(prompt), each.proof)
        questions += [asked([Message("user", text)])] * count
    answers = await account.play(questions, JUDGE)

    # Where the budget ended, the last proofs have fewer verifications, or none.
    verified = []
    for place, each in enumerate(proofs):
        own = answers[place * count : (place + 1) * count]
        analyses = _readable(own)
        scores = [one.score for one in analyses]
        score = mean_score(scores, rules.any_zero)
        verified.append(replace(each, score=score, analyses=analyses))
    return verified


def _readable(answers: Sequence[Attempt]) -> tuple[Analysis, ...]:
    """The analyses that end in a score; others count for nothing."""
    analyses = []
    for answer in answers:
        score = score_of(answer.text)
        if score is not None:
            analyses.append(Analysis(score, answer.text))
    return tuple(analyses)


def mean_score(scores: Sequence[float], any_zero: bool) -> float | None:
    """A proof's score from its verifications; None where there is none."""
    if not scores:
        return None
    if any_zero and 0.0 in scores:
        return 0.0
    return sum(scores) / len(scores)


def problem_of(prompt: Prompt) -> str:
    """The problem in words, as the verifier reads it."""
    hidden = prompt.hidden
    if isinstance(hidden, EquationProblem | WordedProblem):
        return hidden.problem
    return prompt.messages[-1].content


def refinement(prompt: Prompt, parent: PoolProof, most: int) -> Prompt:
    """The prompt with an earlier proof and at most `most` of its analyses, lowest first."""
    texts = [("proof", parent.proof)]
    for place, analysis in enumerate(shown_analyses(parent, most), 1):
        texts.append((f"analysis_{place}", shown(analysis.text)))
    *before, last = prompt.messages
    text = _REFINE.format(task=last.content, fences=FENCES, texts=inert(fenced(texts)))
    return replace(prompt, messages=(*before, replace(last, content=text)))


def shown_analyses(parent: PoolProof, most: int) -> list[Analysis]:
    """The analyses of the lowest ratings, in the order in which they came among equals."""
    return sorted(parent.analyses, key=lambda one: one.score)[:most]


# ---------------------------------------------------------------- the pool


def _score(each: PoolProof) -> float:
    return -1.0 if each.score is None else each.score


def _kept(
    pool: Sequence[PoolProof], number: int, account: Account, rules: ProofRules
) -> list[PoolProof]:
    """The best by (mean score, own score); ties are drawn, since a shuffle comes first."""
    ranked = [each for each in pool if each.score is not None]

    # The sort keeps the order of equals, which is drawn here.
    random.Random(seed_of("proof", account.seed, account.task, number)).shuffle(ranked)
    ranked.sort(key=lambda each: (_score(each), each.own_score), reverse=True)
    return ranked[: rules.keep]


def _best(pool: Sequence[PoolProof]) -> PoolProof | None:
    """The first of the best by (mean score, own score)."""
    scored = [each for each in pool if each.score is not None]
    return max(scored, key=lambda each: (_score(each), each.own_score), default=None)


def _worth(prompt: Prompt, best: PoolProof | None) -> float:
    """What the best proof counts for: a program's verdict where one decides, else its mean."""
    if best is None:
        return 0.0
    return _score(best) if isinstance(prompt.hidden, WordedProblem) else best.truth


def _lineage(best: PoolProof | None, pool: Sequence[PoolProof]) -> list[int]:
    """The ids from the best proof back to the one that was written first."""
    by_id = {each.id: each for each in pool}
    ids = []
    while best is not None:
        ids.append(best.id)
        best = by_id[best.parent] if best.parent is not None else None
    return ids


def _write_pool(pool: Sequence[PoolProof], account: Account) -> None:
    """Show the pool as it stands; the record alone is what a later run goes on from."""
    name = re.sub(r"[^\w.-]", "_", account.task)
    path: Path = account.table.record.path.parent / "pool" / f"{name}.jsonl"
    write_jsonl(path, map(asdict, pool))
