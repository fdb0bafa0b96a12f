"""Test-time compute: every rule of vote, best and genselect, the budget, the record, the curve."""

import json
from dataclasses import replace

import pytest
from support.codec import END
from support.solving import (
    SUM,
    Killed,
    assert_kills_change_nothing,
    in_order,
    one,
    solving,
)
from support.verdicts import key_in

from linn.domains.arithmetic import Arithmetic
from linn.errors import RunFailed, UserError
from linn.report.solves import build_solve
from linn.solve.account import Standing
from linn.solve.answers import answer_key, normal_program
from linn.solve.best import BestRules, best
from linn.solve.curve import curve
from linn.solve.genselect import GenSelectRules, genselect
from linn.solve.questions import rating_of, rating_question, selection_of
from linn.solve.rules import rules_from
from linn.solve.run import write_results
from linn.solve.vote import VoteRules, vote

THOUGHT = "well</think>\n"
"""A judge thinks first."""


def verdict(asked: str, score: object) -> str:
    """A judge's answer, between the marks that its question names."""
    key = key_in(asked)
    return f'{THOUGHT}<verdict {key}>{{"score": {score}}}</verdict {key}>{END}'


def rated(scores: dict[str, int]):
    """A judge that scores by what the response holds."""

    def reply(asked: str, seed: int) -> str:
        for text, score in scores.items():
            if f"\n{text}\n</response" in asked:
                return verdict(asked, score)
        return f"{THOUGHT}I cannot tell" + END

    return reply


# ---------------------------------------------------------------- vote


@pytest.mark.parametrize(
    ("replies", "answer", "score"),
    [
        (["42", "41", "42", "40"], "42", 1.0),
        (["41", "42", "41", "42"], "41", 0.0),  # a tie goes to the first
        (["", " ", "41", "41"], "41", 0.0),  # no answer, no vote
        (["The 42", "the  42", "41", "40"], "The 42", 1.0),  # case and spacing do not matter
        (["", "", "", ""], "", 0.0),
    ],
)
def test_the_answer_of_most_replies_wins(tmp_path, replies, answer, score):
    (solved,), _ = solving([one(vote, SUM, VoteRules(4))], in_order(replies), tmp_path)
    assert (solved.result.answer, solved.result.score) == (answer, score)


def test_votes_weigh_as_the_judge_rates_them_and_unread_ratings_weigh_nothing(tmp_path):
    replies = ["41", "41", "40", "40", "42", "40"]
    judge = rated({"41": 2, "42": 5})  # 0.25 twice; unreadable; 1
    rules = VoteRules(6, weigh="judge")
    (solved,), _ = solving([one(vote, SUM, rules)], in_order(replies), tmp_path, judge=judge)
    assert solved.result.answer == "42"
    assert solved.result.counts == {"replies": 6, "answers": 3, "votes": 1.0}
    plain = VoteRules(6)
    (solved,), _ = solving([one(vote, SUM, plain)], in_order(replies), tmp_path / "equal")
    assert solved.result.answer == "40"


def test_a_votes_curve_stands_after_every_reply(tmp_path):
    replies = ["41", "42", "42"]
    (solved,), _ = solving([one(vote, SUM, VoteRules(3))], in_order(replies), tmp_path)
    # Three characters a reply, with the end of the turn.
    assert solved.standings == [Standing(3, 0.0), Standing(6, 0.0), Standing(9, 1.0)]


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (r"so \boxed{\dfrac{1}{2}}", r"\boxed{0.5}", True),
        (r"\boxed{\frac12}", r"it is \boxed{1/2}.", True),
        (r"\boxed{x = 5}", r"\boxed{5}", True),
        (r"\boxed{1,000}", r"\boxed{1000}", True),
        (r"\boxed{-\frac{4}{6}}", r"\boxed{-2/3}", True),
        (r"\boxed{\text{Yes}}", r"\boxed{yes}", True),
        (r"\boxed{30^\circ}", r"\boxed{30}", True),
        (r"\boxed{(1,2)}", r"\boxed{(1, 2)}", True),
        (r"\boxed{1} or \boxed{2}", r"\boxed{2}", True),
        (r"\boxed{12}", r"\boxed{1.2}", False),
        (r"\boxed{(1,2)}", r"\boxed{(2,1)}", False),
        (r"\boxed{1/0}", r"\boxed{1}", False),
        (r"\boxed{10^{999999999}}", r"\boxed{1}", False),
        ("```python\ndef f(x):\n    return x + 1  # one\n```", "def f(y): return y+1", True),
        ("```python\ndef f(x):\n    'adds'\n    return x + 1\n```", "def f(x): return x+1", True),
        ("def f(x): return x + 1", "def f(x): return x + 2", False),
        ("```cpp\nint main() { }\n```", "```cpp\nint  main() {\n}\n```", True),
    ],
)
def test_when_two_replies_give_the_same_answer(left, right, same):
    assert (answer_key(left) == answer_key(right)) == same


def test_a_program_that_does_not_parse_is_its_words():
    assert normal_program("def f(:\n  x") == "def f(: x"


# ---------------------------------------------------------------- best


def test_best_by_the_grader_stops_at_the_first_wave_with_a_right_reply(tmp_path):
    replies = ["40", "41", "39", "42", "42", "42"]
    rules = BestRules(6)
    (solved,), sampler = solving([one(best, SUM, rules)], in_order(replies), tmp_path, at_once=2)
    assert (solved.result.answer, solved.result.score) == ("42", 1.0)
    assert len(sampler.batches) == 2, "the third wave is not played"
    assert solved.result.counts["replies"] == 4


def test_best_by_a_judge_never_sees_the_verdict(tmp_path):
    replies = ["42", "41", "40"]
    judge = rated({"41": 5, "42": 3})
    rules = BestRules(3, by="judge")
    (solved,), _ = solving([one(best, SUM, rules)], in_order(replies), tmp_path, judge=judge)
    assert (solved.result.answer, solved.result.score) == ("41", 0.0)
    assert solved.result.counts == {"replies": 3, "rated": 2, "value": 1.0}


def test_ratings_are_averaged(tmp_path):
    replies, ratings = ["42", "41"], iter([5, 1, 4, 4])
    rules = BestRules(2, by="judge", ratings=2)
    (solved,), _ = solving(
        [one(best, SUM, rules)],
        in_order(replies),
        tmp_path,
        judge=lambda asked, seed: verdict(asked, next(ratings)),
    )
    assert solved.result.answer == "41" and solved.result.counts["value"] == 0.75


@pytest.mark.parametrize(
    ("score", "rating"), [(1, 0.0), (5, 1.0), (3, 0.5), (9, None), ('"5"', None)]
)
def test_ratings_as_they_are_read(score, rating):
    question = rating_question(SUM, "42")
    said = verdict(question.messages[-1].content, score).removeprefix(THOUGHT)
    assert rating_of(question, said.removesuffix(END)) == rating
    assert rating_of(question, f'{{"score": {score}}}') is None, "outside the marks"


# ---------------------------------------------------------------- genselect


def test_genselect_is_a_knock_out_by_groups(tmp_path):
    replies = ["39", "42", "40", "41", "38"]
    # Groups of two: (39 42) (40 41) (38), then (42 40) (38), then (42 38).
    choices = [r"\boxed{2}", r"\boxed{1}", r"\boxed{1}", r"\boxed{1}"]
    rules = GenSelectRules(5, group=2)
    (solved,), sampler = solving(
        [one(genselect, SUM, rules)], in_order(replies + choices), tmp_path, at_once=8
    )
    assert solved.result.answer == "42" and solved.result.score == 1.0
    assert solved.result.counts == {"replies": 5, "rounds": 3, "unread": 0}
    assert [len(batch) for batch in sampler.batches] == [5, 2, 1, 1]


def test_genselect_takes_the_choice_made_most_often_and_the_first_where_none_is_read(tmp_path):
    choices = [r"\boxed{3}", r"\boxed{2}", r"\boxed{3}"]
    rules = GenSelectRules(3, selections=3)
    texts = ["40", "41", "42", *choices]
    (solved,), _ = solving([one(genselect, SUM, rules)], in_order(texts), tmp_path)
    assert solved.result.answer == "42"
    unread = ["40", "41", "42", r"\boxed{7}", "the second", r"\boxed{}"]
    (solved,), _ = solving([one(genselect, SUM, rules)], in_order(unread), tmp_path / "unread")
    assert solved.result.answer == "40" and solved.result.counts["unread"] == 3


def test_the_model_reads_the_task_and_every_candidate(tmp_path):
    asked = []

    def reply(text: str, seed: int) -> str:
        asked.append(text)
        return ("41" if len(asked) == 1 else "42" if len(asked) == 2 else r"\boxed{2}") + END

    solving([one(genselect, SUM, GenSelectRules(2))], reply, tmp_path)
    assert "what is 12 + 30?" in asked[2] and "\n41\n" in asked[2] and "\n42\n" in asked[2]


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        (r"\boxed{2}", 1),
        (r"\boxed{1} no, \boxed{Candidate 3}", 2),
        (r"\boxed{candidate_1}", 0),
        (r"\boxed{4}", None),
        (r"\boxed{0}", None),
        (r"\boxed{1 and 2}", None),
        ("2", None),
    ],
)
def test_selections_as_they_are_read(text, choice):
    assert selection_of(text, 3) == choice


# ---------------------------------------------------------------- budget


@pytest.mark.parametrize("at_once", [1, 3])
@pytest.mark.parametrize("budget", [1, 9, 10, 11, 29, 30, 31])
def test_the_budget_ends_at_the_first_wave_that_reaches_it(tmp_path, budget, at_once):
    # Ten tokens a reply: nine characters and the end of the turn.
    reply = in_order(["is it 42?"] * 60)
    rules = VoteRules(60)
    (solved,), _ = solving([one(vote, SUM, rules)], reply, tmp_path, budget=budget, at_once=at_once)
    waves = -(-budget // (10 * at_once))
    assert solved.budget.spent == 10 * at_once * waves
    assert solved.budget.calls == at_once * waves
    assert budget <= solved.budget.spent < budget + 10 * at_once


def test_a_judges_tokens_are_spent_too(tmp_path):
    rating = len(THOUGHT) + len("<verdict ></verdict >") + 2 * 16 + 13
    rules = VoteRules(8, weigh="judge")
    (solved,), _ = solving(
        [one(vote, SUM, rules)],
        in_order(["42"] * 8),
        tmp_path,
        judge=rated({"42": 5}),
        budget=230,
        at_once=2,
    )
    assert solved.budget.spent == 2 * (2 * (3 + rating)) and solved.budget.calls == 8


def test_read_tokens_are_counted_apart(tmp_path):
    (solved,), _ = solving([one(vote, SUM, VoteRules(3))], in_order(["42"] * 3), tmp_path)
    assert solved.budget.read == 3 * len("what is 12 + 30?:")


# ---------------------------------------------------------------- the record


def by_seed(asked: str, seed: int) -> str:
    """A function of seed and question, as a model is."""
    if "candidate" in asked:
        return rf"\boxed{{{1 + seed % 3}}}" + END
    if "<verdict" in asked:
        return verdict(asked, 1 + seed % 5)
    return str(40 + seed % 4) + END


MANY = {
    "vote": (vote, VoteRules(10)),
    "vote by a judge": (vote, VoteRules(10, weigh="judge")),
    "best": (best, BestRules(10)),
    "best by a judge": (best, BestRules(9, by="judge", ratings=2)),
    "genselect": (genselect, GenSelectRules(9, group=3, selections=2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MANY)
def test_killed_before_any_batch_and_given_again_it_ends_the_same(tmp_path, name):
    strategy, rules = MANY[name]

    def tasks():
        return [replace(one(strategy, SUM, rules), name=f"t{k}") for k in range(3)]

    assert assert_kills_change_nothing(tasks, lambda: by_seed, tmp_path, at_once=4) >= 2


def test_at_an_endpoint_a_kill_costs_only_what_was_under_way(tmp_path):
    count = 0

    def dying(asked: str, seed: int) -> str:
        nonlocal count
        count += 1
        if count == 3:
            raise Killed
        return by_seed(asked, seed)

    tasks = [one(vote, SUM, VoteRules(6))]
    with pytest.raises(Killed):
        solving(tasks, dying, tmp_path, apart=True, at_once=1)
    again, sampler = solving(tasks, by_seed, tmp_path, apart=True, at_once=1)
    assert len(sampler.batches) == 4
    whole, _ = solving(tasks, by_seed, tmp_path / "whole", apart=True)
    assert again[0].result == whole[0].result


def test_a_line_cut_short_is_dropped_and_made_again(tmp_path):
    tasks = [one(vote, SUM, VoteRules(8))]
    whole, _ = solving(tasks, by_seed, tmp_path, at_once=4)
    path = tmp_path / "record.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    again, sampler = solving(tasks, by_seed, tmp_path, at_once=4)
    assert [len(batch) for batch in sampler.batches] == [4]
    assert again[0].result == whole[0].result
    assert len(path.read_text().splitlines()) == 3


def test_a_record_made_otherwise_is_refused_in_one_line(tmp_path):
    tasks = [one(vote, SUM, VoteRules(2))]
    solving(tasks, by_seed, tmp_path, settings={"seed": 1})
    with pytest.raises(UserError, match=r"made with seed 1, now 2; give another --out"):
        solving(tasks, by_seed, tmp_path, settings={"seed": 2})
    other = replace(SUM, messages=(replace(SUM.messages[0], content="what is 1 + 1?"),))
    with pytest.raises(UserError, match="what is asked has changed"):
        solving([one(vote, other, VoteRules(2))], by_seed, tmp_path, settings={"seed": 1})
    (tmp_path / "record.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match="not what linn solve wrote there"):
        solving(tasks, by_seed, tmp_path)


# ---------------------------------------------------------------- results and curve


def test_the_curve_is_the_mean_over_tasks_at_each_budget():
    tasks = [[Standing(10, 0.0), Standing(20, 1.0)], [Standing(15, 1.0), Standing(40, 0.0)]]
    points = {point.tokens: point for point in curve(tasks)}
    assert [(t, p.score) for t, p in points.items()] == [(10, 0), (15, 0.5), (20, 1), (40, 0.5)]
    assert points[10].spent == 5 and points[40].spent == 30
    assert all(point.low <= point.score <= point.high for point in points.values())
    assert curve([[Standing(1, 50.0)]], [100.0])[0].score == 0.5


def test_results_and_curve_are_written(tmp_path):
    solved, _ = solving([one(vote, SUM, VoteRules(3))], in_order(["42"] * 3), tmp_path)
    write_results(tmp_path, solved)
    (row,) = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert row["score"] == 1.0 and row["tokens"] == 9 and row["calls"] == 3 and row["votes"] == 3
    assert json.loads((tmp_path / "curve.json").read_text())[-1]["tokens"] == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("samples=0", "samples must be 1 or more"),
        ("sample=3", "did you mean 'samples'"),
        ("samples=x", "samples must be a valid integer"),
        ("samples", "expected KEY=VALUE"),
        ("weigh=grader", "weigh must be 'equal' or 'judge'"),
    ],
)
def test_rules_that_cannot_be_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        rules_from(VoteRules, [change], "vote")


def test_the_page_shows_the_curve_and_whatever_an_answer_says(tmp_path):
    task = one(vote, SUM, VoteRules(3))
    texts = ["<script>alert(1)</script>", "42", "42"]
    solved, _ = solving([task], in_order(texts), tmp_path, settings={"strategy": "vote"})
    write_results(tmp_path, solved)
    first = build_solve(tmp_path).read_bytes()
    assert build_solve(tmp_path).read_bytes() == first
    page = first.decode()
    assert "Score 100 %" in page and "<path" in page and "<script>" not in page
    with pytest.raises(UserError, match="made by linn solve"):
        build_solve(tmp_path / "elsewhere")


class Broken(Arithmetic):
    """Its grader breaks on what it does not like."""

    name = "arithmetic"

    def verify(self, prompt, reply):
        if "7" in reply.text:
            raise KeyError("seven")
        return super().verify(prompt, reply)


@pytest.mark.parametrize("apart", [False, True])
def test_failed_rollouts_are_counted_and_too_many_stop_the_solve_and_are_asked_again(
    tmp_path, apart
):
    tasks = [one(vote, SUM, VoteRules(40))]
    few = ["7", *["42"] * 39]
    how = {"domains": [Broken()], "at_once": 10, "apart": apart}
    (solved,), _ = solving(tasks, in_order(few), tmp_path / "few", **how)
    assert solved.budget.failed == 1 and solved.result.answer == "42"

    with pytest.raises(RunFailed, match=r"failed.*KeyError"):
        solving(tasks, in_order(["7"] * 40), tmp_path / "many", **how)
    lines = (tmp_path / "many" / "record.jsonl").read_text().splitlines()
    assert len(lines) == 1, "nothing of it is kept"
    (solved,), _ = solving(tasks, in_order(["42"] * 40), tmp_path / "many", **how)
    assert solved.result.score == 1.0 and solved.budget.failed == 0
