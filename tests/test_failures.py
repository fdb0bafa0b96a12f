"""Rollouts that nobody could judge: out of every number, counted, and too many of them a stop."""

import asyncio
import json
from pathlib import Path

import pytest
from support.codec import END, Letters
from support.scripted import Scripted
from support.stages import Coin, stage

from linn.errors import RunFailed
from linn.evals.evaluate import Evaluation, Probe
from linn.ledger import RewardFiles
from linn.play.failures import check_failures
from linn.recipe.schema import EvaluateConfig
from linn.stages.rl import batch_of_groups, rollout_metrics
from linn.types import Message, Prompt, Reply, Rollout, Sampling, Verdict


def rollout(domain: str, error: str = "", prompt: str = "p") -> Rollout:
    status = "failed" if error else "ok"
    asked = Prompt(domain, prompt, ())
    return Rollout(asked, 0, (), Reply(""), Verdict(0.0), status, error)  # type: ignore[arg-type]


def test_a_share_is_of_a_domain_and_the_line_names_the_first_errors() -> None:
    whole = [rollout("math")] * 95
    broken = [rollout("code", "grader: ValueError: a\n\x1b[31m", f"c{i}") for i in range(3)]
    broken += [rollout("code", "environment: KeyError: 'x'", "c9"), rollout("code")]
    with pytest.raises(RunFailed) as caught:
        check_failures([*whole, *broken], 0.1, "stage s step 3")
    line = str(caught.value)
    assert line.startswith(
        "stage s step 3: 4 of 5 rollouts of code failed (max_failed 0.1): 3 x gr"
    )
    assert "(first at prompt c0); 1 x environment: KeyError: 'x' (first at prompt c9)" in line
    assert "\n" not in line and "\x1b" not in line
    check_failures([*whole, *broken], 0.8, "here")
    check_failures([rollout("code", "x"), rollout("code")], 0.0, "here")  # one is no pattern
    with pytest.raises(RunFailed, match="1 of 1"):
        check_failures([rollout("code", "x")], 0.5, "here")
    check_failures([], 0.0, "here")


class Fragile(Coin):
    """Its grader breaks at prompts whose number is below `broken`."""

    broken = 0

    def prompts(self, split, seed=0):
        for number in range(100):
            yield Prompt("coin", f"{split}-{number}", (Message("user", "heads?"),), thinking=False)

    def verify(self, prompt, reply):
        if int(prompt.id.rpartition("-")[2]) < self.broken:
            raise ValueError("the tests are not there")
        return Verdict(float(reply.text == "1"))


def measured(tmp_path: Path, broken: int, most: float, probes=None):
    domain = Fragile()
    domain.broken = broken
    config = EvaluateConfig(test=20, validation=20, max_tokens=4, max_failed=most)
    evaluation = Evaluation({"coin": domain}, config)
    sampler = Scripted(Letters(), lambda text, seed: f"{seed % 2}{END}")
    measure = evaluation.measure(
        "s",
        4,
        sampler,  # type: ignore[arg-type]
        Letters(),  # type: ignore[arg-type]
        0,
        probes or evaluation.whole,
        folder=tmp_path / "evals",
        rewards_in=tmp_path,
    )
    return asyncio.run(measure)


def test_a_half_broken_grader_is_no_score_of_a_half(tmp_path: Path) -> None:
    right = measured(tmp_path / "whole", 0, 0.1)
    half = measured(tmp_path / "half", 10, 0.5)
    assert [(score.n, score.failed) for score in right] == [(20, 0)] * 3
    assert [(score.n, score.failed) for score in half] == [(10, 10)] * 3

    # The scores are those of the same prompts under a grader that holds.
    whole_of = RewardFiles({"s": tmp_path / "whole"})
    half_of = RewardFiles({"s": tmp_path / "half"})
    for one, other in zip(right, half, strict=True):
        expected = {k: v for k, v in whole_of(one).items() if int(k.split("-")[1]) >= 10}
        assert half_of(other) == expected
        assert other.value == sum(expected.values()) / 10


def test_too_many_failures_stop_the_evaluation_and_leave_their_notes(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"evaluation of s:4, test .*10 of 20 .*tests are not the"):
        measured(tmp_path, 10, 0.1)
    rows = (tmp_path / "evals/test-accuracy.jsonl").read_text().splitlines()
    assert "the tests are not there" in json.loads(rows[0])["error"]
    assert not (tmp_path / "rewards").exists()
    assert measured(tmp_path, 100, 1.0) == [], "no score where nobody judged anything"


def test_pass_at_k_needs_all_k(tmp_path: Path) -> None:
    probe = Probe(split="validation", metric="pass@4", sampling=Sampling(4), siblings=4)
    (score,) = measured(tmp_path, 5, 1.0, [probe])
    assert (score.n, score.failed) == (15, 5)
    rewards = RewardFiles({"s": tmp_path})(score)
    assert len(rewards) == 15 and set(rewards.values()) <= {0.0, 1.0}


def broken_stage(broken: int, **keys):
    run = stage({"coin": 1}, prompts=10, rollouts=4, **keys)
    run.domains["coin"] = Fragile()  # type: ignore[index]
    run.domains["coin"].broken = broken  # type: ignore[attr-defined]
    return run


def test_rl_stops_above_the_share_and_below_it_learns_from_the_others() -> None:
    run = broken_stage(3)
    with pytest.raises(RunFailed, match=r"stage s step 1: 12 of 40 rollouts of coin .*3 x|12 x"):
        asyncio.run(batch_of_groups(run, run.config, 0))
    run = broken_stage(3, max_failed=0.3)
    groups, metrics = asyncio.run(batch_of_groups(run, run.config, 0))
    judged = [group.rewards for group in groups[3:]]
    assert metrics["reward"] == pytest.approx(sum(map(sum, judged)) / 28)
    watched = rollout_metrics(groups)
    assert watched["failed"] == 0.3 and watched["reward/coin"] == pytest.approx(metrics["reward"])
    assert metrics["kept_groups"] <= 7


def test_a_step_that_nobody_judged_has_no_reward() -> None:
    run = broken_stage(100, max_failed=1.0)
    groups, metrics = asyncio.run(batch_of_groups(run, run.config, 0))
    assert "reward" not in metrics and metrics["kept_groups"] == 0
    assert "reward/coin" not in rollout_metrics(groups)
