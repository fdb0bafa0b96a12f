"""The proof loop (paper §5.2), rule by rule, with a scripted prover and verifier."""

import json
import random
from dataclasses import replace

import pytest
from support.codec import END
from support.solving import assert_kills_change_nothing, one, solving

from linn.domains.proof import Proof
from linn.domains.proof.problems import EquationProblem, FormalProblem, WordedProblem
from linn.domains.proof.wording import PROVE, reply_of
from linn.solve.proof import (
    Analysis,
    PoolProof,
    ProofRules,
    mean_score,
    proof,
    refinement,
    shown_analyses,
)
from linn.types import Message, Prompt

WORDED = Prompt(
    "proof",
    "p0",
    (Message("user", PROVE.format(problem="Prove that 1 < 2.")),),
    hidden=WordedProblem("Prove that 1 < 2.", "reference", "guidelines"),
)
SMALL = ProofRules(generations=3, verifications=2, keep=2, refine=2, rounds=3, analyses=3)


def rated(score: float, why: str = "because") -> str:
    return f"</think>\n{why} \\boxed{{{score:g}}}" + END


def written(text: str, own: float = 0.5) -> str:
    return f"</think>\n{reply_of(text, own)}" + END


def played(rules, prover, verifier, tmp_path, prompt=WORDED, **how):
    """(solved, the pool, what the prover was asked, what the verifier was asked)."""
    proofs, ratings = iter(prover), iter(verifier)
    to_prove, to_verify = [], []

    def reply(asked: str, seed: int) -> str:
        to_prove.append(asked)
        return next(proofs)

    def judge(asked: str, seed: int) -> str:
        to_verify.append(asked)
        return next(ratings)

    domain = Proof(judged=True)
    task = one(proof, prompt, rules)
    how = {"at_once": 100, **how}
    (solved,), _ = solving([task], reply, tmp_path, judge=judge, domains=[domain], **how)
    lines = (tmp_path / "pool" / "p0.jsonl").read_text().splitlines()
    return solved, [json.loads(line) for line in lines], to_prove, to_verify


def test_the_numbers_are_the_papers():
    rules = ProofRules()
    assert (rules.generations, rules.verifications, rules.keep, rules.analyses) == (128, 64, 32, 8)
    assert (rules.refine, rules.rounds, rules.stop, rules.any_zero) == (4, 8, 0.99999, False)


def test_a_round_generates_and_verifies_and_scores_are_means(tmp_path):
    rules = replace(SMALL, rounds=1)
    ratings = [rated(1), rated(0.5), rated(0), rated(0), rated(0.5), rated(0.5)]
    proofs = [written(f"proof {k}") for k in "abc"]
    solved, pool, to_prove, to_verify = played(rules, proofs, ratings, tmp_path)
    assert [each["score"] for each in pool] == [0.75, 0.0, 0.5]
    assert solved.result.score == 0.75 and "proof a" in solved.result.answer
    assert solved.result.counts == {"rounds": 1, "proofs": 3, "verifications": 6, "mean": 0.75}
    assert len(to_prove) == 3 and len(to_verify) == 6
    assert "Prove that 1 < 2." in to_verify[0] and "proof a" in to_verify[0]
    assert "reference" not in to_verify[0] and "guidelines" not in to_verify[0]


def test_it_stops_where_a_mean_reaches_the_threshold_and_not_before(tmp_path):
    proofs = [written("a"), written("b"), written("c"), *[written(f"d{k}") for k in range(4)]]
    first = [rated(1), rated(0.5)] * 3
    second = [rated(1), rated(1), *[rated(0)] * 6]
    solved, pool, *_ = played(SMALL, proofs, first + second, tmp_path)
    assert solved.result.counts["rounds"] == 2 and solved.result.score == 1.0
    assert max(each["score"] for each in pool if each["round"] == 1) == 0.75
    loose = replace(SMALL, stop=0.75)
    solved, *_ = played(loose, proofs[:3], first, tmp_path / "loose")
    assert solved.result.counts["rounds"] == 1


def test_the_best_of_the_pool_are_refined_with_their_analyses(tmp_path):
    proofs = [written("first", 0.5), written("second", 1), written("third", 0)]
    ratings = [rated(0.5, "gulf"), rated(0.5), rated(0.5, "slip"), rated(0.5), rated(0), rated(0)]
    refined = [written(f"better {k}") for k in range(4)]
    rules = replace(SMALL, rounds=2, keep=1)
    solved, pool, to_prove, _ = played(rules, proofs + refined, ratings + [rated(1)] * 9, tmp_path)
    # Equal means: the one that its writer rates higher.
    assert [each["parent"] for each in pool] == [None, None, None, 1, 1]
    assert "second" in to_prove[3] and "slip" in to_prove[3] and "gulf" not in to_prove[3]
    assert to_prove[3].startswith(WORDED.messages[0].content)
    assert solved.result.table["lineage"] == [3, 1] and solved.result.score == 1.0


def test_the_pool_spans_rounds(tmp_path):
    """A proof of round 1 that no refinement beats is refined again."""
    proofs = [written("good"), written("b"), written("c"), *[written(f"{k}") for k in range(4)]]
    ratings = [rated(1), rated(0.5), *[rated(0)] * 4, *[rated(0)] * 4, *[rated(0)] * 4]
    rules = replace(SMALL, keep=1, rounds=3)
    _, pool, *_ = played(rules, proofs, ratings, tmp_path)
    assert [each["parent"] for each in pool] == [None, None, None, 0, 0, 0, 0]


@pytest.mark.parametrize("most", [0, 1, 8])
def test_never_more_analyses_than_allowed_and_the_lowest_ratings_first(most):
    scores = [1, 0.5, 0, 1, 0.5, 0, 1, 0.5, 0, 1, 0.5, 0, 0.5, 0]
    analyses = tuple(Analysis(score, f"number {k}") for k, score in enumerate(scores))
    parent = PoolProof(0, 1, None, "", "the proof", 1.0, 0.0, 0.5, analyses)
    shown = shown_analyses(parent, most)
    assert len(shown) == most and shown == sorted(analyses, key=lambda one: one.score)[:most]
    text = refinement(WORDED, parent, most).messages[-1].content
    assert sum(f"number {k}\n" in text for k in range(len(scores))) == most


def test_unfinished_and_badly_formed_replies_do_not_count(tmp_path):
    bad = ["</think>\nno headings" + END, "still thinking" + END, written("good")]
    ratings = [rated(0.5), "</think>\nI like it" + END]
    solved, pool, *_ = played(replace(SMALL, rounds=1), bad, ratings, tmp_path)
    assert len(pool) == 1 and pool[0]["score"] == 0.5, "an unreadable analysis is no score"
    assert solved.result.counts["verifications"] == 1


def test_a_round_without_a_proof_ends_it(tmp_path):
    bad = ["</think>\nno headings" + END] * 3
    solved, pool, *_ = played(SMALL, bad, [], tmp_path)
    assert solved.result.score == 0.0 and solved.result.answer == "" and not pool


@pytest.mark.parametrize(
    ("scores", "any_zero", "mean"),
    [((1, 1, 0), False, 2 / 3), ((1, 1, 0), True, 0.0), ((1, 0.5), True, 0.75), ((), True, None)],
)
def test_any_zero_is_zero(scores, any_zero, mean):
    assert mean_score(scores, any_zero) == mean


def test_any_zero_decides_what_is_best(tmp_path):
    ratings = [rated(1), rated(0), rated(0.5), rated(0), rated(0.5), rated(0.5)]
    proofs = [written("a"), written("b"), written("c")]
    plain = replace(SMALL, rounds=1)
    _, pool, *_ = played(replace(plain, any_zero=True), proofs, ratings, tmp_path)
    assert [each["score"] for each in pool] == [0.0, 0.0, 0.5]


def test_where_a_program_grades_its_verdict_is_the_score_and_the_loop_never_sees_it(tmp_path):
    derivation = Proof().make(random.Random(1))
    assert isinstance(derivation.hidden, EquationProblem)
    gold = Proof().gold(derivation).text
    good, bad = f"</think>\n{gold}" + END, written("x = y")
    solved, *_ = played(
        replace(SMALL, rounds=1),
        [good, bad, bad],
        [rated(0), rated(0), *[rated(1)] * 4],
        tmp_path,
        replace(derivation, id="p0"),
    )
    assert solved.result.counts["mean"] == 1.0 and solved.result.score == 0.0


def test_in_lean_the_prover_of_programs_verifies_and_its_words_are_the_analysis(tmp_path):
    class Checked(Proof):
        """Lean's place is taken: whatever ends in `qed` is proved."""

        name = "proof"

        def verify(self, prompt, reply):
            from linn.types import Verdict

            if reply.text.endswith("qed"):
                return Verdict(1.0)
            return Verdict(0.0, "unsolved goals")

    prompt = Prompt(
        "proof", "p0", (Message("user", "prove it"),), hidden=FormalProblem("", "theorem t", "")
    )
    asked = []

    def reply(text: str, seed: int) -> str:
        asked.append(text)
        return ("</think>\nbetter qed" if "unsolved goals" in text else "</think>\ntry") + END

    (solved,), _ = solving(
        [one(proof, prompt, SMALL)], reply, tmp_path, domains=[Checked()], at_once=100
    )
    assert solved.result.score == 1.0 and solved.result.counts["rounds"] == 2
    assert len(asked) == 3 + 2 * 2, "nothing else is asked"


def by_seed(asked: str, seed: int) -> str:
    if "Judge whether the proof" in asked:
        return rated([0, 0.5, 1][seed % 3], f"reason {seed % 7}")
    return written(f"proof {seed % 11}", [0, 0.5, 1][seed % 3])


@pytest.mark.slow
def test_killed_at_any_round_it_ends_the_same(tmp_path):
    rules = replace(SMALL, verifications=3)
    domain = Proof(judged=True)

    def tasks():
        return [replace(one(proof, WORDED, rules), name=f"t{k}") for k in range(2)]

    batches = assert_kills_change_nothing(
        tasks, lambda: by_seed, tmp_path, domains=[domain], at_once=8
    )
    assert batches >= 6, "three rounds of proofs and of verifications"


def test_a_budget_that_ends_between_verifications_leaves_the_best_that_was_scored(tmp_path):
    proofs = [written("a"), written("b"), written("c")]
    ratings = [rated(0.5), rated(0.5), rated(1)] + [rated(0)] * 9
    wave = [*proofs, *ratings[:3]]
    budget = sum(len(text.replace(END, "_")) for text in wave)
    solved, pool, *_ = played(SMALL, proofs, ratings, tmp_path, budget=budget, at_once=3)
    assert solved.budget.calls == 6 and [each["score"] for each in pool] == [0.5, 1.0, None]
    assert "b" in solved.result.answer and solved.budget.is_spent
