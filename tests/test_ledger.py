"""The ledger: intervals against known values and repetition, rows against crashes.

And the rules that read the rows.
"""

from __future__ import annotations

import math
import random
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
    bootstrap,
    changes,
    difference,
    gains,
    latest,
    mean,
    recovery,
    regressions,
    score,
    teachers,
    wilson,
)
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
        got = wilson(right, n)
        assert abs(got[0] - low) < 6e-5 and abs(got[1] - high) < 6e-5, (right, n, got)


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_within_zero_and_one(case: tuple[int, int]) -> None:
    right, n = case
    low, high = wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1 and low < high
    mirrored = wilson(n - right, n)
    assert math.isclose(mirrored[0], 1 - high, abs_tol=1e-12) and math.isclose(
        mirrored[1], 1 - low, abs_tol=1e-12
    )


@pytest.mark.slow
def test_intervals_cover_as_often_as_they_say() -> None:
    rng = random.Random(5)
    hits = sum(
        low <= 0.3 <= high
        for low, high in (
            wilson(sum(rng.random() < 0.3 for _ in range(100)), 100) for _ in range(1000)
        )
    )
    assert 925 <= hits <= 975
    hits = sum(
        low <= 0.5 <= high
        for low, high in (bootstrap([rng.random() for _ in range(40)], i) for i in range(100))
    )
    assert 86 <= hits <= 100


def test_bootstrap_is_the_same_for_the_same_seed_and_holds_the_mean() -> None:
    values = [0.1, 0.5, 0.9, 0.25, -1.5, 3.0]
    assert bootstrap(values, 7) == bootstrap(values, 7) != bootstrap(values, 8)
    low, high = bootstrap(values, 7)
    assert low <= math.fsum(values) / 6 <= high and bootstrap([0.3], 1) == (0.3, 0.3)


def test_score_chooses_the_interval_by_the_rewards() -> None:
    assert (share("a", 60).low, share("a", 60).high) == wilson(60, 200)
    graded = score("a", 1, "d", "test", "accuracy", [0.25, 0.5, 1.0] * 30)
    assert (
        graded.n == 90
        and graded.low < graded.value < graded.high
        and (graded.low, graded.high) != wilson(52.5, 90)
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


# ---------------------------------------------------------------- best and teachers


def validation(levels: dict[str, int], n: int = 200) -> list[Score]:
    return [share(stage, right, n, split="validation") for stage, right in levels.items()]


def test_best_takes_the_earliest_inside_the_interval_of_the_highest() -> None:
    stages = ["a", "b", "c", "d"]
    rows = validation({"a": 100, "b": 150, "c": 155, "d": 120})
    got = best(rows, "math", stages)
    assert got is not None and got.stage == "b"  # c is higher by 0.025, inside its own interval
    got = best(validation({"a": 100, "b": 130, "c": 155, "d": 120}), "math", stages)
    assert got is not None and got.stage == "c"  # 0.125 higher: truly better
    got = best(rows, "math", ["d", "c", "a"])
    assert got is not None and got.stage == "c"  # only the stages that were asked for
    assert (
        best(rows, "math", []) is None
        and best(rows, "code", stages) is None
        and best(rows, "math", stages, "test") is None
    )


def test_best_uses_the_boundary_itself_and_run_order_not_file_order() -> None:
    top = share("late", 150, split="validation")
    edge = Score("early", 1, "math", "validation", "accuracy", top.low, 200, 0.0, 1.0)
    below = Score(
        "first", 1, "math", "validation", "accuracy", math.nextafter(top.low, 0), 200, 0.0, 1.0
    )
    got = best([top, edge, below], "math", ["first", "early", "late"])
    assert got is not None and got.stage == "early"


def test_a_stage_is_judged_by_its_last_step() -> None:
    rows = [
        share("a", 190, split="validation", step=5),
        share("a", 50, split="validation", step=10),
        share("b", 100, split="validation"),
    ]
    got = best(rows, "math", ["a", "b"])
    assert got is not None and got.stage == "b"
    assert latest(rows, "validation", "accuracy")["a", "math"].step == 10


def test_noise_does_not_move_the_teacher_and_a_better_one_wins() -> None:
    rng = random.Random(3)

    def run(levels: list[float]) -> str:
        # Half of the noise is the prompt's own, as on a fixed validation split.
        prompts = [rng.random() for _ in range(250)]
        stages = [f"s{i}" for i in range(len(levels))]
        rows = []
        for stage, level in zip(stages, levels, strict=True):
            right = sum(
                (prompt if rng.random() < 0.7 else rng.random()) < level for prompt in prompts
            )
            rows.append(share(stage, right, 250, split="validation"))
        got = best(rows, "math", stages)
        assert got is not None
        return got.stage

    same = [run([0.3, 0.6, 0.6, 0.6, 0.6, 0.6]) for _ in range(200)]
    better = [run([0.3, 0.6, 0.6, 0.6, 0.72, 0.6]) for _ in range(200)]
    assert same.count("s1") > 160 and same.count("s0") == 0
    assert better.count("s4") > 180


def test_teachers_names_one_stage_a_domain_and_skips_the_unmeasured() -> None:
    rows = [
        *validation({"a": 100, "b": 180}),
        share("a", 150, domain="code", split="validation"),
        share("b", 20, domain="code", split="validation"),
    ]
    rows.append(share("b", 200, domain="code", split="test"))  # the test split has no say
    assert teachers(rows, ["math", "code", "proof"], ["a", "b"]) == {"math": "b", "code": "a"}


# ---------------------------------------------------------------- changes and recovery


def test_difference_matches_newcombes_example() -> None:
    # Newcombe 1998 (Statistics in Medicine 17, 873-890), 56/70 - 48/80, method 10.
    by = difference(share("b", 48, 80), share("a", 56, 70))
    assert (
        abs(by.value - 0.2) < 1e-12 and abs(by.low - 0.0524) < 6e-5 and abs(by.high - 0.3339) < 6e-5
    )


def test_regressions_and_gains_are_against_the_parent() -> None:
    parents = {"base": None, "sft": "base", "rl": "sft", "branch": "sft", "late": "rl"}
    rows = [
        share(stage, right)
        for stage, right in {"base": 20, "sft": 120, "rl": 80, "branch": 118, "late": 75}.items()
    ]
    assert [(change.stage, change.domain) for change in regressions(rows, parents)] == [
        ("rl", "math")
    ]
    assert [change.stage for change in gains(rows, parents)] == ["sft"]
    assert [change.stage for change in changes(rows, parents)] == ["sft", "rl", "branch", "late"]
    lost = regressions(rows, parents)[0]
    assert lost.before.stage == "sft" and lost.after.value == 0.4 and lost.by.high < 0
    assert (
        regressions(rows, parents, "validation") == []
        and changes(rows, {"rl": "nowhere", "sft": None}) == []
    )


def test_unchanged_domains_are_rarely_flagged() -> None:
    rng = random.Random(11)
    flags = 0
    for _ in range(400):
        rows = [share(stage, sum(rng.random() < 0.5 for _ in range(200))) for stage in "ab"]
        flags += len(regressions(rows, {"a": None, "b": "a"}))
    assert flags <= 20  # 2.5 % of 400 is 10


def test_recovery_by_hand() -> None:
    start, teacher = share("start", 60), share("teacher", 160)
    exact = recovery(start, share("mopd", 110), teacher)
    assert exact is not None and math.isclose(exact.value, 0.5) and exact.low < 0.5 < exact.high
    full = recovery(start, teacher, teacher)
    assert full is not None and full.value == 1.0
    worse = recovery(start, share("mopd", 40), teacher)
    assert worse is not None and math.isclose(worse.value, -0.2) and worse.low < -0.2 < worse.high
    beyond = recovery(start, share("mopd", 180), teacher)
    assert beyond is not None and math.isclose(beyond.value, 1.2)
    assert recovery(start, start, share("t", 65)) is None  # inside the start's interval
    assert recovery(start, start, share("t", 20)) is None  # worse than the start
    edge = Score("t", 1, "math", "test", "accuracy", start.high, 200, 0, 1)
    assert recovery(start, start, edge) is None


def test_recovery_interval_covers() -> None:
    rng = random.Random(2)
    hits = trials = 0
    for _ in range(400):
        rows = [
            share(name, sum(rng.random() < level for _ in range(250)), 250)
            for name, level in (("s", 0.3), ("m", 0.54), ("t", 0.6))
        ]
        got = recovery(*rows)
        if got is not None:
            trials += 1
            hits += got.low <= 0.8 <= got.high
    assert trials == 400 and 0.92 <= hits / trials <= 0.99


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
