"""The ledger: intervals against published values, rows against crashes.

And the rules that read the rows. How well they do in repetition: test_statistics.py.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linn.errors import UserError
from linn.ledger import (
    Interval,
    Ledger,
    best,
    changes,
    difference,
    discoveries,
    gap_share,
    latest,
    loss_line,
    mean,
    paired,
    regressions,
    row_at,
    score,
    taught_domain,
    wilson,
)
from linn.ledger.intervals import normal, student
from linn.ledger.rewards import RewardFiles, write_rewards
from linn.ledger.teachers import teacher_of
from linn.types import Score


def share(
    stage: str, right: int, n: int = 200, domain: str = "math", split: str = "test", step: int = 10
) -> Score:
    return score(stage, step, domain, split, "accuracy", [1.0] * right + [0.0] * (n - right))  # type: ignore[arg-type]


# ---------------------------------------------------------------- intervals


def test_wilson_matches_published_values() -> None:
    # Newcombe 1998 (Statistics in Medicine 17), Table I, method 3.
    for right, n, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        got = wilson(right / n, n)
        assert abs(got[0] - low) < 6e-5 and abs(got[1] - high) < 6e-5, (right, n, got)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_within_zero_and_one(case: tuple[int, int]) -> None:
    right, n = case
    low, high = wilson(right / n, n)
    assert 0 <= low <= right / n <= high <= 1 and low < high
    mirrored = wilson((n - right) / n, n)
    assert math.isclose(mirrored[0], 1 - high, abs_tol=1e-12) and math.isclose(
        mirrored[1], 1 - low, abs_tol=1e-12
    )


def test_score_chooses_the_interval_by_the_rewards() -> None:
    assert (share("a", 60).low, share("a", 60).high) == wilson(0.3, 200)
    graded = score("a", 1, "d", "test", "accuracy", [0.25, 0.5, 1.0] * 30)
    assert (
        graded.n == 90
        and graded.low < graded.value < graded.high
        and wilson(52.5 / 90, 90)[0] < graded.low  # graded rewards vary less than 0 and 1
    )
    constant = score("a", 1, "d", "test", "accuracy", [0.5] * 50)
    assert constant.low < 0.4 and constant.high > 0.6  # equal rewards are not certainty
    outside = score("a", 1, "d", "test", "accuracy", [1.5, -0.5])
    assert outside.value == 0.5 and outside.low <= 0.5 <= outside.high
    with pytest.raises(AssertionError):
        score("a", 1, "d", "test", "accuracy", [])
    with pytest.raises(AssertionError):
        score("a", 1, "d", "test", "accuracy", [1.0, math.nan])


def test_score_does_not_hang_on_the_order_of_binary_rewards() -> None:
    rewards = [1.0] * 30 + [0.0] * 70
    assert score("a", 1, "d", "test", "x", rewards) == score(
        "a", 1, "d", "test", "x", rewards[::-1]
    )


# ---------------------------------------------------------------- the file


def test_rows_survive_a_round_trip_and_replace_in_place(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep/ledger.jsonl")
    assert ledger.read() == []
    first = [
        share("a", 10),
        share("b", 20),
        share("a", 30, split="validation"),
        score("é\u2028\n", 0, "d", "train", "pass@4", [0.2, 0.7]),
    ]
    ledger.upsert(first)
    assert ledger.read() == first
    changed = share("a", 99)
    ledger.upsert([share("c", 5), changed])
    assert ledger.read() == [changed, *first[1:], share("c", 5)]
    ledger.drop(["b", "nobody"])
    assert [row.stage for row in ledger.read()] == ["a", "a", "é\u2028\n", "c"]
    assert not list(ledger.path.parent.glob("*.part"))


def test_same_rows_same_bytes_however_they_came(tmp_path: Path) -> None:
    rows = [
        share(stage, right, split=split)
        for stage, right in (("a", 3), ("b", 7))
        for split in ("validation", "test")
    ]
    once, piecewise = Ledger(tmp_path / "once"), Ledger(tmp_path / "piecewise")
    once.upsert(rows)
    for row in [*rows[:2], *rows]:
        piecewise.upsert([row])
    assert once.path.read_bytes() == piecewise.path.read_bytes()
    assert once.path.read_bytes().startswith(
        b'{"stage": "a", "step": 10, "domain": "math", "split": "validation", '
        b'"metric": "accuracy", "value": 0.015, "n": 200, '
    )


GOOD = (
    b'{"stage":"a","step":1,"domain":"d","split":"test","metric":"m",'
    b'"value":1,"n":2,"low":0.1,"high":1.0}\n'
)


def test_a_row_of_linn_0_1_has_no_column_of_failures(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(GOOD)
    (row,) = Ledger(path).read()
    assert row.failed == 0
    Ledger(path).upsert([row])
    assert b'"failed": 0}' in path.read_bytes()


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"{not json}\n", "not a ledger row"),
        (b'{"stage":"a"}\n', "keys must be exactly stage, step"),
        (GOOD.replace(b'"value":1', b'"value":NaN'), "value is nan"),
        (GOOD.replace(b'"value":1', b'"value":true'), "value is True"),
        (GOOD.replace(b'"step":1', b'"step":1.5'), "step is 1.5"),
        (GOOD.replace(b'"test"', b'"tset"'), "allowed: train, validation, test"),
        (b"\xff\xfe\n", "not a ledger row"),
        (b"\x00" * 40 + b"\n", "not a ledger row"),
        (b"[" * 100_000 + b"\n", "not a ledger row"),
        (GOOD[:40], "cut short"),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_lost(tmp_path: Path, bad: bytes, says: str) -> None:
    path = tmp_path / "ledger.jsonl"
    before = GOOD + b"\n" + bad
    path.write_bytes(before)
    for act in (
        lambda: Ledger(path).read(),
        lambda: Ledger(path).upsert([share("z", 1)]),
        lambda: Ledger(path).drop(["a"]),
    ):
        with pytest.raises(UserError) as caught:
            act()
        message = str(caught.value)
        assert (
            f"{path}: line 3 " in message
            and says in message
            and "repair or delete" in message
            and "\n" not in message
        )
    assert path.read_bytes() == before


def test_a_last_line_without_its_newline_but_whole_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(GOOD.rstrip(b"\n"))
    assert Ledger(path).read()[0].stage == "a"


def test_a_leftover_of_a_crashed_write_is_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.with_name("ledger.jsonl.part").write_bytes(b"{half")
    Ledger(path).upsert([share("a", 1)])
    assert Ledger(path).read() == [share("a", 1)]


# ---------------------------------------------------------------- two evaluations


def prompts(rewards: list[float], first: int = 0) -> dict[str, float]:
    return {f"p{first + i}": reward for i, reward in enumerate(rewards)}


def test_paired_difference_by_hand() -> None:
    # Agresti and Min 2005: half a pair in each cell, then Wald. Of 100 prompts 20 were lost and 8
    # gained: centre -12/102, variance (29/102 - centre²)/102.
    before = prompts([1.0] * 20 + [0.0] * 8 + [1.0] * 72)
    after = prompts([0.0] * 20 + [1.0] * 8 + [1.0] * 72)
    got = paired(before, after)
    assert got is not None and got.pairs == 100 and math.isclose(got.value, -0.12)
    centre = -12 / 102
    half = 1.984217 * math.sqrt((29 / 102 - centre**2) / 102)  # Student's quantile at 99
    assert abs(got.low - (centre - half)) < 1e-5 and abs(got.high - (centre + half)) < 1e-5
    assert got.p < 0.05 and got.high < 0
    back = paired(after, before)
    assert back is not None and math.isclose(back.low, -got.high) and math.isclose(back.p, got.p)


def test_students_quantiles_are_the_tables() -> None:
    for freedom, quantile in ((10, 2.2281), (30, 2.0423), (299, 1.9679)):
        assert abs(student(1.959964, freedom) - quantile) < 2e-3
        assert math.isclose(normal(student(1.7, freedom), freedom), 1.7)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60))
def test_an_interval_and_its_test_agree(pairs: list[tuple[int, int]]) -> None:
    before = prompts([a / 4 for a, _ in pairs])
    after = prompts([b / 4 for _, b in pairs])
    got = paired(before, after)
    assert got is not None and got.low <= got.value <= got.high and got.low < got.high
    if abs(got.p - 0.05) > 1e-9:
        assert (got.p < 0.05) == (got.low > 0 or got.high < 0)


def test_nothing_moved_is_not_certainty() -> None:
    same = prompts([1.0, 0.0] * 100)
    got = paired(same, same)
    assert got is not None and got.value == 0 and got.p == 1 and 0.005 < got.high < 0.02


def test_only_shared_prompts_are_compared_and_few_of_them_are_too_few() -> None:
    before, after = prompts([1.0] * 100), prompts([0.0] * 100, first=40)
    got = paired(before, after)
    assert got is not None and got.pairs == 60 and got.value == -1
    assert paired(before, prompts([0.0] * 100, first=60)) is None  # 40 of 100
    assert paired(before, prompts([0.0] * 500)) is not None  # the test set grew
    assert paired({}, after) is None


def test_discoveries_by_benjamini_and_hochbergs_example() -> None:
    # Benjamini and Hochberg 1995, section 3.2: 15 p-values, at 0.05 the first four.
    p_values = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p_values += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0]
    assert discoveries(p_values) == [True] * 4 + [False] * 11
    assert discoveries(p_values[::-1]) == [False] * 11 + [True] * 4
    assert (
        discoveries([]) == [] and discoveries([0.05]) == [True] and discoveries([0.06]) == [False]
    )


def test_difference_matches_newcombes_example() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 873-890), 56/70 - 48/80, method 10.
    by = difference(share("b", 48, 80), share("a", 56, 70))
    assert (
        abs(by.value - 0.2) < 1e-12 and abs(by.low - 0.0524) < 6e-5 and abs(by.high - 0.3339) < 6e-5
    )
    assert by.p < 0.05 and not by.paired
    assert difference(share("b", 48, 80), share("a", 48, 80)).p == 1


# ---------------------------------------------------------------- changes


def test_regressions_and_gains_are_against_the_parent() -> None:
    parents = {"base": None, "sft": "base", "rl": "sft", "branch": "sft", "late": "rl"}
    rows = [
        share(stage, right)
        for stage, right in {"base": 20, "sft": 120, "rl": 80, "branch": 118, "late": 75}.items()
    ]
    assert [(change.stage, change.domain) for change in regressions(rows, parents)] == [
        ("rl", "math")
    ]
    assert [change.stage for change in changes(rows, parents) if change.gained] == ["sft"]
    assert [change.stage for change in changes(rows, parents)] == ["sft", "rl", "branch", "late"]
    lost = regressions(rows, parents)[0]
    assert lost.before.stage == "sft" and lost.after.value == 0.4 and lost.by.high < 0
    assert "not prompt by prompt" in loss_line(lost)
    assert (
        regressions(rows, parents, "validation") == []
        and changes(rows, {"rl": "nowhere", "sft": None}) == []
    )


def kept(tmp_path: Path, rewards: dict[str, list[float]], split: str = "test") -> list[Score]:
    """Rows of stages, and their rewards on disk as a run leaves them."""
    rows = []
    for stage, values in rewards.items():
        row = score(stage, 10, "math", split, "accuracy", values)  # type: ignore[arg-type]
        write_rewards(tmp_path / stage, 10, {("math", split, "accuracy"): prompts(values)})
        rows.append(row)
    return rows


def test_pairs_show_a_loss_that_two_rows_alone_hide(tmp_path: Path) -> None:
    before = [1.0] * 150 + [0.0] * 150
    after = [0.0] * 20 + [1.0] * 130 + [0.0] * 148 + [1.0] * 2  # 6 points, most prompts as before
    rows = kept(tmp_path, {"a": before, "b": after})
    files = RewardFiles({"a": tmp_path / "a", "b": tmp_path / "b"})
    parents = {"a": None, "b": "a"}
    assert regressions(rows, parents) == []
    (lost,) = regressions(rows, parents, rewards=files)
    assert lost.by.pairs == 300 and math.isclose(lost.by.value, -0.06)
    assert loss_line(lost).endswith("n 300)")


def test_rewards_of_another_measurement_are_not_taken(tmp_path: Path) -> None:
    (row,) = kept(tmp_path, {"a": [1.0, 0.0, 1.0]})
    folders = {"a": tmp_path / "a"}
    assert RewardFiles(folders)(row) == {"p0": 1.0, "p1": 0.0, "p2": 1.0}
    path = tmp_path / "a/rewards/step-0010.jsonl"
    text = path.read_text()
    for other in (text.replace('"p1": 0.0', '"p1": 1.0'), text.replace('"p1": 0.0, ', ""), "{", ""):
        path.write_text(other)
        assert RewardFiles(folders)(row) == {}
    path.unlink()
    assert RewardFiles(folders)(row) == {} == RewardFiles({})(row)


def test_rewards_of_linn_0_1_are_read_from_the_replies(tmp_path: Path) -> None:
    folder = tmp_path / "a/evals"
    folder.mkdir(parents=True)
    lines = [
        f'{{"prompt_id": "p{i}", "domain": "math", "reward": {i % 2}.0, "text": "x"}}\n'
        for i in range(200)
    ]
    (folder / "test-accuracy.jsonl").write_text("".join(lines) + "{cut sh")
    rewards = RewardFiles({"a": tmp_path / "a"})(share("a", 100))
    assert len(rewards) == 200 and rewards["p1"] == 1.0


def test_measuring_another_cell_at_the_same_step_keeps_the_first(tmp_path: Path) -> None:
    write_rewards(tmp_path, 3, {("math", "test", "accuracy"): {"p": 1.0}})
    write_rewards(tmp_path, 3, {("math", "validation", "accuracy"): {"q": 0.5}})
    files = RewardFiles({"a": tmp_path})
    assert files(score("a", 3, "math", "test", "accuracy", [1.0])) == {"p": 1.0}
    assert files(score("a", 3, "math", "validation", "accuracy", [0.5])) == {"q": 0.5}


# ---------------------------------------------------------------- best and teachers


def validation(levels: dict[str, int], n: int = 200) -> list[Score]:
    return [share(stage, right, n, split="validation") for stage, right in levels.items()]


def test_best_is_the_highest_at_its_last_step_and_the_earliest_of_equals() -> None:
    rows = validation({"a": 100, "b": 155, "c": 155, "d": 120})
    rows.append(share("d", 190, split="validation", step=5))
    got = best(rows, "math", ["a", "b", "c", "d"])
    assert got is not None and got.stage == "b"
    got = best(rows, "math", ["d", "c", "a"])
    assert got is not None and got.stage == "c"
    assert best(rows, "math", []) is None and best(rows, "math", ["a"], "test") is None
    assert latest(rows, "validation", "accuracy")["d", "math"].step == 10


LINE = ("rl", "sft", "base")
"""The student starts from `rl`, which came from `sft`; `branch` came from `sft` too."""


def teacher(levels: dict[str, int], n: int = 200) -> tuple[str, str]:
    choice = teacher_of(validation(levels, n), "math", LINE, lambda row: True)
    assert choice is not None
    return choice.row.stage, choice.why


def test_the_highest_teaches_where_it_is_ahead() -> None:
    assert teacher({"base": 20, "sft": 80, "rl": 100, "branch": 160}) == ("branch", "best")
    assert teacher({"base": 20, "sft": 160, "rl": 100, "branch": 80}) == ("sft", "best")


def test_a_teacher_that_is_not_ahead_of_the_student_gives_way_to_it() -> None:
    assert teacher({"base": 20, "sft": 101, "rl": 100, "branch": 102}) == ("rl", "student")
    # Everything at 0 %: nobody is ahead of the student, least of all the base.
    assert teacher({"base": 0, "sft": 0, "rl": 0, "branch": 0}) == ("rl", "student")
    assert teacher({"base": 50, "sft": 60, "rl": 100, "branch": 60}) == ("rl", "student")


def test_a_tie_goes_to_the_students_own_line() -> None:
    assert teacher({"base": 20, "sft": 158, "rl": 100, "branch": 160}) == ("sft", "tie")
    # `sft` ties with the highest, but the student has it already.
    assert teacher({"base": 20, "sft": 108, "rl": 100, "branch": 112})[0] == "branch"


def test_checkpoints_kept_within_a_stage_compete() -> None:
    rows = [
        *validation({"base": 20, "sft": 80, "rl": 100}),
        share("sft", 170, split="validation", step=4),
    ]
    choice = teacher_of(rows, "math", LINE, lambda row: True)
    assert choice is not None and (choice.row.stage, choice.row.step) == ("sft", 4)
    # Its weights are gone, so it teaches nobody.
    choice = teacher_of(rows, "math", LINE, lambda row: row.step == 10)
    assert choice is not None and choice.row.stage == "rl"
    assert row_at(rows, "sft:4", "math", "validation", "accuracy") == rows[-1]
    assert row_at(rows, "sft", "math", "validation", "accuracy") == rows[1]
    assert row_at(rows, "sft:5", "math", "validation", "accuracy") is None


def test_the_test_split_has_no_say_and_an_unmeasured_domain_no_teacher() -> None:
    rows = [*validation({"sft": 100, "rl": 90}), share("rl", 200)]
    choice = teacher_of(rows, "math", LINE, lambda row: True)
    assert choice is not None and choice.row.split == "validation"
    assert teacher_of(rows, "code", LINE, lambda row: True) is None
    # A student that was never measured cannot be compared: the highest teaches.
    choice = teacher_of(validation({"sft": 100, "branch": 90}), "math", LINE, lambda row: True)
    assert choice is not None and (choice.row.stage, choice.why) == ("sft", "best")


# ---------------------------------------------------------------- recovery


def closed(start: int, after: int, top: int) -> Interval | None:
    """The share of the gap, of rows in 200 without their prompts."""
    rows = share("start", start), share("mopd", after), share("teacher", top)
    return gap_share([taught_domain("teacher", *rows)]).share


def test_the_share_of_the_gap_by_hand() -> None:
    exact = closed(60, 110, 160)
    assert exact is not None and math.isclose(exact.value, 0.5) and exact.low < 0.5 < exact.high
    full, worse, beyond = closed(60, 160, 160), closed(60, 40, 160), closed(60, 180, 160)
    assert full is not None and full.value == 1.0
    assert worse is not None and math.isclose(worse.value, -0.2) and worse.low < -0.2 < worse.high
    assert beyond is not None and math.isclose(beyond.value, 1.2)
    assert closed(60, 60, 65) is None  # a gap that cannot be told from 0 is not divided by
    assert closed(60, 60, 20) is None  # the teacher stands below


def test_the_share_is_pooled_over_every_domain_also_where_the_start_itself_teaches() -> None:
    start, after = share("start", 60), share("mopd", 110)
    gained = taught_domain("teacher", start, after, share("teacher", 160))
    anchor = taught_domain("start", start, share("mopd", 50), start)
    assert anchor.is_anchor and anchor.gap.value == 0 and anchor.gap_variance == 0
    pooled = gap_share([gained, anchor])
    assert pooled.share is not None and math.isclose(pooled.share.value, (50 - 10) / 100)
    assert gap_share([anchor]).share is None


def test_the_share_is_taken_prompt_by_prompt(tmp_path: Path) -> None:
    start = [1.0] * 60 + [0.0] * 140
    rewards = {
        "start": start,
        "mopd": [1.0] * 80 + [0.0] * 120,
        "teacher": [1.0] * 90 + [0.0] * 110,
    }
    rows = kept(tmp_path, rewards)
    files = RewardFiles({stage: tmp_path / stage for stage in rewards})
    near = gap_share([taught_domain("teacher", *rows, rewards=files)]).share
    far = gap_share([taught_domain("teacher", *rows)]).share
    assert near is not None and far is not None and math.isclose(near.value, far.value)
    assert near.high - near.low < (far.high - far.low) / 2


def test_mean_of_intervals() -> None:
    assert mean([]) is None
    got = mean([Interval(0.5, 0.2, 0.9), Interval(1.0, 0.6, 1.3)])
    assert (
        got is not None
        and got.value == 0.75
        and math.isclose(got.low, 0.75 - 0.25)
        and math.isclose(got.high, 0.75 + 0.25)
    )


def test_the_ledger_needs_no_heavy_import() -> None:
    import subprocess

    code = (
        "import sys, linn.ledger, linn.report\n"
        "heavy = {'torch', 'numpy', 'jinja2', 'matplotlib'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=30).returncode == 0
