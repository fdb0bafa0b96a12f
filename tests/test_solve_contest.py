"""The contest loops, rule by rule: ioi and icpc over a scripted model and the real judge."""

import itertools
import json
import re
from dataclasses import replace

import pytest
from support.codec import END
from support.contest import BROKEN, FLOATS, POSITIVE, RIGHT, SUM_PROBLEM, WRONG, fenced
from support.solving import assert_kills_change_nothing, one, solving

from linn.solve.contest.judge import Judge
from linn.solve.icpc import IcpcRules, contest_table, icpc
from linn.solve.ioi import IoiRules, ioi

OWN = re.compile(r"# Your subtask \((\d+) points\)\n\n(.*?)\n\n")


@pytest.fixture(scope="module")
def judge():
    judge = Judge(servers=1)
    yield judge
    judge.close()


def played(rules, programs, tmp_path, judge, problem=SUM_PROBLEM, strategy=ioi, **how):
    """(result, what was asked) of a model that gives these programs, in order."""
    asked = []
    rest = iter(programs)

    def reply(text: str, seed: int) -> str:
        asked.append(text)
        return fenced(next(rest)) + END

    task = one(strategy, problem, rules, judge=judge)
    (solved,), _ = solving([task], reply, tmp_path, **how)
    return solved, asked


def submitted(solved):
    return [(row["subtask"], row["round"]) for row in solved.result.table["submissions"]]


# ---------------------------------------------------------------- ioi


def test_one_submission_per_subtask_and_round_and_each_subtask_keeps_its_best(tmp_path, judge):
    rules = IoiRules(rounds=2, candidates=1)
    # Round 1: subtask 1 is solved; subtask 2's own also solves 1; subtask 3's solves nothing.
    programs = [POSITIVE, FLOATS, BROKEN, RIGHT]
    solved, asked = played(rules, programs, tmp_path, judge)
    assert submitted(solved) == [("1", 1), ("2", 1), ("3", 1), ("3", 2)]
    shares = [row["shares"] for row in solved.result.table["submissions"]]
    assert shares[0] == {"1": 1.0, "2": 0.0, "3": 0.0}
    assert shares[1] == {"1": 1.0, "2": 1.0, "3": 0.0}
    assert solved.result.score == 100.0 and len(asked) == 4, "solved subtasks are not asked again"
    assert [standing.score for standing in solved.standings] == [60.0, 100.0]
    assert solved.result.answer == RIGHT


def test_a_siblings_submission_may_solve_a_subtask_before_its_turn(tmp_path, judge):
    solved, _ = played(IoiRules(1, 1), [RIGHT, WRONG, WRONG], tmp_path, judge)
    assert submitted(solved) == [("1", 1)] and solved.result.score == 100.0


def test_the_prompt_holds_history_and_siblings_code_with_their_verdicts(tmp_path, judge):
    programs = [POSITIVE, WRONG, BROKEN, "print(5)", "print(6)"]
    _, asked = played(IoiRules(2, 1), programs, tmp_path, judge)
    first, second = asked[0], asked[3]
    assert "Print a + b." in first and "Python 3" in first and "Submissions" not in first
    assert OWN.search(second).groups() == ("30", "Either may be negative.")
    siblings, history = second.split("# Your submissions so far")
    assert POSITIVE in siblings and "Both are positive and small." in siblings
    assert "30 of 30 points" in siblings and "Subtask 3" not in siblings
    assert WRONG in history and POSITIVE not in history
    assert "Verdict: wrong answer. Score: 0 of 30." in history
    assert "Verdict: runtime error. Score: 0 of 40." in asked[4]
    order = [second.index(part) for part in ("Print a + b.", "# Code of other", "# Your subm")]
    assert order == sorted(order), "the paper's order"


def test_the_submission_limit_holds_for_the_problem(tmp_path, judge):
    wrong = (f"print({k})" for k in itertools.count())
    solved, _ = played(IoiRules(50, 1, submissions=4), wrong, tmp_path, judge)
    assert submitted(solved) == [("1", 1), ("2", 1), ("3", 1), ("1", 2)]
    assert solved.result.counts == {"rounds": 2, "generated": 6, "submitted": 4}


def test_the_rounds_end(tmp_path, judge):
    wrong = (f"print({k})" for k in itertools.count())
    solved, _ = played(IoiRules(3, 2), wrong, tmp_path, judge)
    assert solved.result.counts == {"rounds": 3, "generated": 18, "submitted": 9}


def test_a_candidate_right_on_the_samples_goes_first_then_the_one_given_most(tmp_path, judge):
    problem = replace(SUM_PROBLEM, subtasks=SUM_PROBLEM.subtasks[2:])
    programs = ["print(5)", "print(5)", "print(5)", WRONG, RIGHT, RIGHT]
    solved, _ = played(IoiRules(1, 6), programs, tmp_path, judge, problem)
    assert solved.result.answer == RIGHT
    blind = replace(problem, samples=())
    solved, _ = played(IoiRules(1, 6), programs, tmp_path / "blind", judge, blind)
    assert solved.result.answer == "print(5)\n"


def test_nothing_is_submitted_twice(tmp_path, judge):
    problem = replace(SUM_PROBLEM, subtasks=SUM_PROBLEM.subtasks[2:])
    solved, _ = played(IoiRules(3, 1), [WRONG] * 3, tmp_path, judge, problem)
    assert submitted(solved) == [("3", 1)] and solved.result.counts["rounds"] == 3


def test_the_model_may_choose_what_is_submitted(tmp_path, judge):
    problem = replace(SUM_PROBLEM, subtasks=SUM_PROBLEM.subtasks[2:])
    rest = iter([fenced(WRONG), fenced(RIGHT), fenced(FLOATS), "</think>\n\\boxed{2}"])
    task = one(ioi, problem, IoiRules(1, 3, select="model"), judge=judge)
    (solved,), sampler = solving([task], lambda asked, seed: next(rest) + END, tmp_path)
    assert solved.result.answer == RIGHT and len(sampler.batches) == 2


def test_replies_without_a_program_submit_nothing(tmp_path, judge):
    task = one(ioi, SUM_PROBLEM, IoiRules(2, 1), judge=judge)
    (solved,), _ = solving([task], lambda asked, seed: "</think>\nI pass." + END, tmp_path)
    assert submitted(solved) == [] and solved.result.score == 0.0


def test_the_budget_ends_between_rounds_too(tmp_path, judge):
    wrong = (f"print({k})" for k in itertools.count())
    solved, _ = played(IoiRules(50, 2), wrong, tmp_path, judge, budget=300, at_once=3)
    per_reply = len(fenced("print(0)")) + 1
    assert solved.budget.calls == 3 * -(-300 // (3 * per_reply))
    assert solved.result.counts["submitted"] >= 1


def by_seed(asked: str, seed: int) -> str:
    if "candidate_1" in asked:
        return f"</think>\n\\boxed{{{1 + seed % 2}}}" + END
    return fenced([WRONG, POSITIVE, BROKEN, FLOATS, "print(7)"][seed % 5]) + END


@pytest.mark.parametrize("select", ["samples", "model"])
def test_ioi_killed_at_any_round_ends_the_same(tmp_path, judge, select):
    rules = IoiRules(3, 3, select=select)

    def tasks():
        return [replace(one(ioi, SUM_PROBLEM, rules, judge=judge), name=name) for name in "ab"]

    assert assert_kills_change_nothing(tasks, lambda: by_seed, tmp_path, at_once=9) >= 3


def test_a_verdict_is_the_records_after_a_kill_whatever_the_judge_would_now_say(tmp_path, judge):
    rules = IoiRules(2, 1)
    programs = [POSITIVE, FLOATS, BROKEN, WRONG]
    first, _ = played(rules, programs, tmp_path, judge)
    judged = [line for line in (tmp_path / "record.jsonl").open() if '"fact"' in line]
    assert len(judged) == 8, "four choices and four verdicts"

    class Silent(Judge):
        def judge(self, *_):
            raise AssertionError("asked again")

        passes = judge

    again, asked = played(rules, [], tmp_path, Silent(servers=1))
    assert not asked and again.result == first.result


# ---------------------------------------------------------------- icpc


def contest(rules, programs, tmp_path, judge, **how):
    return played(rules, programs, tmp_path, judge, strategy=icpc, **how)[0]


def test_icpc_submits_what_is_right_on_the_samples_until_one_is_right(tmp_path, judge):
    rules = IcpcRules(generations=6, wave=3)
    programs = ["print(5)", WRONG, BROKEN, FLOATS, RIGHT, RIGHT]
    solved = contest(rules, programs, tmp_path, judge)
    rows = solved.result.table["submissions"]
    assert [(row["code"], row["verdict"], row["generated"]) for row in rows] == [
        (WRONG, "wrong answer", 3),
        (RIGHT, "accepted", 6),  # given twice, so before FLOATS
    ]
    assert solved.result.score == 1.0 and solved.result.counts["time"] == 6
    assert [standing.score for standing in solved.standings][-1] == 1.0


def test_icpc_never_generates_or_submits_more_than_it_may(tmp_path, judge):
    wrong = [f"print(4, end='')  # {k}" for k in range(9)]
    solved = contest(IcpcRules(9, wave=4, each_wave=1), wrong, tmp_path, judge)
    # One after each wave, then those left over.
    assert [r["generated"] for r in solved.result.table["submissions"]] == [4, 8, *[9] * 7]
    few = IcpcRules(9, wave=4, each_wave=2, submissions=3)
    solved = contest(few, wrong, tmp_path / "few", judge)
    assert solved.result.counts["submitted"] == 3 and solved.result.counts["generated"] == 8


def test_icpc_stops_generating_once_it_is_solved(tmp_path, judge):
    solved = contest(IcpcRules(1000, wave=2), [RIGHT, WRONG], tmp_path, judge)
    assert solved.result.counts["generated"] == 2


def test_the_contests_table_counts_solved_problems_then_penalty(tmp_path, judge):
    def reply(asked: str, seed: int) -> str:
        return fenced(RIGHT if "Sum" in asked and count() >= 2 else f"{WRONG}# {seed}") + END

    count = itertools.count().__next__
    problems = [replace(SUM_PROBLEM, name="A", statement="Sum."), replace(SUM_PROBLEM, name="B")]
    rules = IcpcRules(4, wave=1, penalty=20)
    tasks = [replace(one(icpc, p, rules, judge=judge), name=p.name) for p in problems]
    solved, _ = solving(tasks, reply, tmp_path)
    table = contest_table(solved, 20)
    assert table["solved"] == 1 and table["of"] == 2
    a, b = table["problems"]
    assert (a["solved"], a["wrong"], a["time"], a["penalty"]) == (True, 2, 3, 43)
    assert (b["solved"], b["wrong"], b["penalty"]) == (False, 4, 0) and table["penalty"] == 43
    json.dumps(table)


def test_icpc_killed_at_any_wave_ends_the_same(tmp_path, judge):
    rules = IcpcRules(8, wave=2, each_wave=1)

    def tasks():
        return [replace(one(icpc, SUM_PROBLEM, rules, judge=judge), name=name) for name in "ab"]

    assert assert_kills_change_nothing(tasks, lambda: by_seed, tmp_path) >= 3


@pytest.mark.parametrize(
    "rules", [{"rounds": 0}, {"candidates": 0}, {"submissions": 0}, {"group": 1}]
)
def test_ioi_rules_have_their_limits(rules):
    with pytest.raises(ValueError, match=next(iter(rules))):
        IoiRules(**rules)
    assert IoiRules() == IoiRules(50, 40, 50), "the paper's"
    assert IcpcRules().generations == 1000
