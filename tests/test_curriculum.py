"""Curriculum over pass rates: drawn rates follow the target, nothing in its reach is left out.

A resumed pool draws what an unbroken one does.
"""

import itertools
import json
import random
import statistics
from collections import Counter

import pytest
from support.codec import END, Letters
from support.fake_engine import FakeEngine
from support.scripted import Scripted

from linn.domains.load import load
from linn.errors import UserError
from linn.progress import Progress
from linn.recipe import load as recipes
from linn.recipe.stages import CurriculumConfig
from linn.stages.curriculum import Pool, check_rates
from linn.stages.rl import rl
from linn.stages.stage_run import StageRun
from linn.types import Message, Prompt


def prompts(rates):
    return [
        Prompt("d", f"p{i}", (Message("user", str(i)),), pass_rate=rate)
        for i, rate in enumerate(rates)
    ]


def endless(made):
    def epochs():
        for epoch in itertools.count():
            order = list(made)
            random.Random(epoch).shuffle(order)
            yield from order

    stream = epochs()
    return lambda: next(stream)


def drawn(pool: Pool, draws: int, steps: int) -> list[list[float]]:
    return [
        [pool.take(step / (steps - 1)).pass_rate for _ in range(draws)] for step in range(steps)
    ]  # type: ignore[misc]


@pytest.mark.parametrize("size", [64, 512])
def test_drawn_rates_follow_the_moving_gaussian(size):
    rng = random.Random(0)
    keys = CurriculumConfig(start=0.8, end=0.2, width=0.1, pool=size)
    for step, rates in enumerate(
        drawn(Pool(keys, endless(prompts(rng.random() for _ in range(5000))), 1), 64, 11)
    ):
        assert statistics.mean(rates) == pytest.approx(0.8 - 0.06 * step, abs=0.04)
        assert statistics.stdev(rates) == pytest.approx(0.1, abs=0.04)


@pytest.mark.slow
def test_skewed_rows_do_not_clog_the_pool():
    """Nine of ten rows were never solved: they fill a bounded pool at once.

    Still the easy phase finds easy rows.
    """
    rng = random.Random(1)
    rates = [0.0 if rng.random() < 0.9 else rng.random() for _ in range(4000)]
    steps = drawn(Pool(CurriculumConfig(pool=256), endless(prompts(rates)), 1), 32, 10)
    assert statistics.mean(steps[0]) > 0.65 and statistics.mean(steps[-1]) < 0.3


def test_nothing_within_reach_starves_and_nothing_comes_twice_before_the_rest():
    made = prompts([i / 99 for i in range(100)])
    pool = Pool(CurriculumConfig(start=0.9, end=0.1, width=0.2, pool=1024), endless(made), 3)
    counts = Counter(pool.take(step / 39).id for step in range(40) for _ in range(20))
    assert len(counts) == 100, "rows whose rate the mean passes are all drawn"
    assert max(counts.values()) <= 8 * statistics.mean(counts.values())
    few = Pool(CurriculumConfig(pool=1024), endless(prompts([0.5] * 8)), 3)
    first = [few.take(0.5).id for _ in range(8)]
    assert len(set(first)) >= 7, "equal rates go round"


def test_rates_all_alike_or_a_pool_of_one_still_draw():
    for rates in ([0.0] * 50, [1.0] * 50, [0.5]):
        for size in (1, 7, 1024):
            pool = Pool(CurriculumConfig(pool=size), endless(prompts(rates)), 0)
            assert [pool.take(0.5).pass_rate for _ in range(60)] == [rates[0]] * 60


@pytest.mark.parametrize(("size", "rows"), [(16, 500), (64, 40), (1, 9)])
def test_a_restored_pool_goes_on_alike(size, rows):
    rng = random.Random(2)
    made = prompts(rng.random() for _ in range(rows))
    keys = CurriculumConfig(pool=size)
    unbroken = Pool(keys, endless(made), 5)
    want = [unbroken.take(i / 200).id for i in range(200)]
    first = Pool(keys, endless(made), 5)
    got = [first.take(i / 200).id for i in range(77)]
    second = Pool(keys, endless(made), 5)
    second.restore(json.loads(json.dumps(first.state())))
    assert got + [second.take(i / 200).id for i in range(77, 200)] == want
    assert second.state() == unbroken.state()


@pytest.mark.parametrize("rate", [None, "0.5", True, 1.5, -0.1])
def test_a_row_without_a_rate_is_named(tmp_path, rate):
    path = tmp_path / "rows.jsonl"
    good = {"expected_answer": "A", "pass_rate": 0.5}
    other = {
        "agent_ref": {"name": "workplace_assistant_simple_agent"}
    }  # another domain's: none of our business
    bad = {"expected_answer": "A"} | ({} if rate is None else {"pass_rate": rate})
    path.write_text("".join(json.dumps(row) + "\n" for row in (good, other, bad)))
    with pytest.raises(
        UserError, match=r"rows.jsonl line 3: the row has .*pass_rate.*linn filter mcqa"
    ):
        check_rates("rl", [load("mcqa", {"rows": path})])


def test_a_generator_has_no_rates():
    tree = {
        "name": "t",
        "domains": {"mcqa": {}},
        "stages": [{"name": "s", "kind": "rl", "curriculum": {}}],
    }
    with pytest.raises(
        UserError, match="curriculum needs rows with pass_rate; give domains.mcqa.rows"
    ):
        recipes.parse(tree, "t")
    tree["stages"][0]["curriculum"] = {"strat": 1}  # type: ignore[index]
    with pytest.raises(UserError, match="did you mean 'start'"):
        recipes.parse(tree, "t")


def test_a_stage_that_was_stopped_draws_what_an_unbroken_one_does(tmp_path):
    rows, rates = tmp_path / "rows.jsonl", [i % 11 / 10 for i in range(150)]
    rows.write_text(
        "".join(
            json.dumps({"question": f"{i} + 1", "expected_answer": f"{i + 1}", "pass_rate": rate})
            + "\n"
            for i, rate in enumerate(rates)
        )
    )
    config = {
        "name": "rl",
        "kind": "rl",
        "steps": 9,
        "prompts": 6,
        "rollouts": 2,
        "max_tokens": 4,
        "save_every": 2,
        "curriculum": {"pool": 16},
        "kl": 0.1,
    }
    tree = {"name": "t", "domains": {"math": {"rows": str(rows)}}, "stages": [config]}
    recipe = recipes.parse(tree, "t")

    def made(name: str, fails_at: int | None = None) -> StageRun:
        engine = FakeEngine(Scripted(Letters(), lambda text, seed: END))
        engine.trainer.fails_at, engine.trainer.error = fails_at, KeyboardInterrupt()
        return StageRun(
            config=recipe.stages[0],
            folder=tmp_path / name,
            start=tmp_path,
            seed=7,
            weights={"math": 1.0},
            domains={"math": load("math", {"rows": rows})},
            codec=Letters(),  # type: ignore[arg-type]
            engine=engine,  # type: ignore[arg-type]
            progress=Progress(),
        )

    def drawn(name: str) -> list[list[str]]:
        steps = [
            path.read_text().splitlines()
            for path in sorted((tmp_path / name / "rollouts").iterdir())
        ]
        return [[json.loads(line)["prompt_id"] for line in step] for step in steps]

    rl(made("whole"))
    with pytest.raises(KeyboardInterrupt):
        rl(made("broken", fails_at=5))
    rl(made("broken"))
    whole = drawn("whole")
    assert drawn("broken") == whole and len(whole) == 9
    means = [statistics.mean(rates[int(i)] for i in step) for step in whole]
    assert means[0] > 0.6 and means[-1] < 0.4
