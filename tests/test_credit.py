"""Verdicts -> signal: advantages, overlong rules, group mask, tool tokens."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from linn.domains.base import Domain
from linn.play.credit import advantages, grouped, informative, judged_rewards, samples_of
from linn.types import Group, Prompt, Reply, Rollout, Turn, Verdict

finite = st.floats(-10, 10).map(lambda x: round(x, 3))


def rollout(reward: float, status: str = "ok", metrics=None, sibling: int = 0) -> Rollout:
    turns = (
        Turn((1, 2), None, "p"),
        Turn((3, 4), (-0.5, -0.25), "a"),
        Turn((5,), None, "tool"),
        Turn((6,), (-1.0,), "b"),
    )
    return Rollout(
        Prompt("plain", "p", ()),
        sibling,
        turns,
        Reply(""),
        Verdict(reward, metrics=metrics or {}),
        status,
    )  # type: ignore[arg-type]


def groups_of(*arguments):
    return asyncio.run(grouped(*arguments))


class Plain(Domain):
    name = "plain"


class Ranked(Domain):
    name = "plain"

    def judge(self, prompt, replies, answers=()):
        return [Verdict(float(i)) for i in range(len(replies))]


@given(st.lists(finite, min_size=2, max_size=16))
def test_advantages_match_numpy(rewards):
    r = np.array(rewards)
    if r.max() - r.min() <= 1e-9:
        assert advantages(rewards) == [0.0] * len(rewards)
        return
    assert np.allclose(advantages(rewards), (r - r.mean()) / (r.std() + 1e-6))
    assert np.allclose(advantages(rewards, std="sample"), (r - r.mean()) / (r.std(ddof=1) + 1e-6))
    assert np.allclose(advantages(rewards, std="none"), r - r.mean())
    others = np.array([r[np.arange(len(r)) != i].mean() for i in range(len(r))])
    assert np.allclose(advantages(rewards, "leave_one_out", "none"), r - others)
    for std, ddof in (("population", 0), ("sample", 1)):
        # Baseline and deviation are of the same set; without any deviation nothing is divided.
        expected = []
        for i, mean in enumerate(others):
            rest = r[np.arange(len(r)) != i]
            same = rest.max() - rest.min() <= 1e-9
            expected.append((r[i] - mean) / (1 if same else rest.std(ddof=ddof) + 1e-6))
        assert np.allclose(advantages(rewards, "leave_one_out", std), expected)


@given(st.lists(st.integers(-9, 9), min_size=2, max_size=8), st.floats(0.5, 20), st.floats(-50, 50))
def test_scaling_and_shifting_rewards_changes_nothing(rewards, scale, shift):
    moved = [scale * r + shift for r in rewards]
    assert np.allclose(advantages(rewards), advantages(moved), atol=1e-4)


def test_only_the_policys_own_tokens_are_trained():
    group = Group((rollout(1), rollout(0)), (1.0, 0.0))
    first, second = samples_of([group])
    assert first.tokens == [1, 2, 3, 4, 5, 6] and first.mask == [
        False,
        False,
        True,
        True,
        False,
        True,
    ]
    assert first.behaviour == [0, 0, -0.5, -0.25, 0, -1.0]
    assert first.advantage == pytest.approx(
        [0, 0, 1, 1, 0, 1], abs=1e-5
    ) and second.advantage == pytest.approx([0, 0, -1, -1, 0, -1], abs=1e-5)


def test_overlong_penalty_zeroes_the_reward_and_stays_in_the_loss():
    (group,) = groups_of([rollout(1), rollout(1, "truncated")], 2, {"plain": Plain()}, "penalty")
    assert group.rewards == (1.0, 0.0)
    assert any(samples_of([group], overlong="penalty")[1].mask)


def test_overlong_mask_leaves_the_loss_but_not_the_statistics():
    (group,) = groups_of([rollout(1), rollout(0, "truncated")], 2, {"plain": Plain()}, "mask")
    first, second = samples_of([group], overlong="mask")
    assert not any(second.mask) and first.advantage[2] == pytest.approx(1.0, abs=1e-5)


def test_overlong_keep_grades_as_is():
    (group,) = groups_of([rollout(0), rollout(1, "truncated")], 2, {"plain": Plain()})
    assert group.rewards == (0.0, 1.0) and all(any(s.mask) for s in samples_of([group]))


@pytest.mark.parametrize(("best", "trained"), [(0.5, False), (0.51, True)])
def test_group_mask_is_strict(best, trained):
    group = Group((rollout(best), rollout(0)), (best, 0.0))
    assert any(any(s.mask) for s in samples_of([group], group_mask=0.5)) is trained


def test_unreliable_rollouts_are_masked():
    group = Group((rollout(1, metrics={"unreliable": 1.0}), rollout(0)), (1.0, 0.0))
    first, second = samples_of([group])
    assert not any(first.mask) and any(second.mask)


def test_a_judge_decides_over_the_group():
    (group,) = groups_of([rollout(1), rollout(1)], 2, {"plain": Ranked()})
    assert (
        group.rewards == (0.0, 1.0)
        and informative(group)
        and group.rollouts[1].verdict.metrics["quality"] == 1
    )


def undecided(reward: float) -> Rollout:
    return replace(rollout(reward), verdict=Verdict(reward, undecided=True))


@pytest.mark.parametrize("unjudged", [rollout(0, "failed"), undecided(3)])
def test_what_nobody_judged_leaves_the_groups_statistics(unjudged):
    rollouts = (rollout(1), rollout(1), rollout(0), unjudged)
    group = Group(rollouts, tuple(r.verdict.reward for r in rollouts))
    alone = samples_of([Group(rollouts[:3], (1.0, 1.0, 0.0))])
    samples = samples_of([group])
    assert [s.advantage for s in samples[:3]] == [s.advantage for s in alone]
    assert not any(samples[3].mask) and not any(samples[3].advantage)

    # Three equal rewards and a crash say nothing: they are no group of unequal rewards.
    equal = Group((rollout(1), rollout(1), rollout(1), unjudged), (1.0, 1.0, 1.0, 0.0))
    assert not informative(equal) and not any(any(s.advantage) for s in samples_of([equal]))


def test_a_group_that_nobody_judged_is_masked():
    group = Group((undecided(3), undecided(3.5)), (3.0, 3.5))
    assert not informative(group) and judged_rewards(group) == []
    assert not any(any(s.mask) for s in samples_of([group]))
    assert not any(any(s.mask) for s in samples_of([group], group_mask=0.5))


def test_a_crashed_sibling_is_compared_with_nobody():
    (group,) = groups_of([rollout(1), rollout(0, "failed"), rollout(1)], 3, {"plain": Ranked()})
    assert group.rewards == (0.0, 0.0, 1.0), "two were ranked, the crashed one was not shown"
    (group,) = groups_of([rollout(0, "failed")] * 2, 2, {"plain": Ranked()})
    assert group.rewards == (0.0, 0.0) and not informative(group)
