"""Siblings that share their prompt are computed as if each had its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import toy_lm
from support.shared import GROUPS, Group, hybrid, in_double, siblings, trained, worst
from support.toy_lm import ToyLM
from test_families import gemma2, granite_hybrid, mamba2, qwen3

from linn.engine.local.dealing import deal_samples, score_shares
from linn.engine.local.processes import WorkerOptions
from linn.engine.local.worker import Worker
from linn.engine.models.transformers_lm import TransformersLM
from linn.engine.training.pack import micro_batches
from linn.engine.training.trainer import Trainer
from linn.engine.training.trees import first_trained, shared_trees
from linn.types import Loss, Optim, Sample

LOSSES = {
    "sft": Loss("sft", temperature=0.8),
    "grpo": Loss("grpo"),
    "kl": Loss("grpo", kl=0.05),
    "mopd": Loss("mopd", band=(0.0, 1e9)),
}
EDGES: list[Group] = [(1, [1, 1, 40]), (70, [1] * 16), (3, [5]), (33, [2, 33, 7])]
"""Prompts of one token and of three chunks, a reply alone, replies of one token."""


def make(name: str) -> Any:
    families = {"qwen3": qwen3, "gemma2": gemma2}
    if name in families:
        torch.manual_seed(0)
        return TransformersLM(families[name]())
    return hybrid(name)


@pytest.fixture(scope="module", params=["dense", "moe", "qwen3"])
def model(request: pytest.FixtureRequest) -> Any:
    return make(request.param)


@pytest.mark.long
@given(groups=GROUPS)
@example(groups=EDGES)
@settings(max_examples=3)
def test_in_64_bits_a_shared_prompt_changes_nothing(model: Any, groups: list[Group]) -> None:
    samples = siblings(groups, tools=True)
    with in_double():
        wide = model.double()
        metrics, gradients, tokens = trained(wide, samples, LOSSES["kl"], share=False)
        shared = trained(wide, samples, LOSSES["kl"], share=True)
    assert shared[0].dtype == torch.float64
    assert (shared[0] - metrics).abs().max() < 1e-9
    assert worst(shared[1], gradients) < 1e-9
    assert shared[2] <= tokens


@pytest.mark.parametrize(
    ("name", "kind"),
    [("dense", "sft"), ("dense", "kl"), ("moe", "mopd"), ("qwen3", "grpo"), ("gemma2", "kl")],
)
@pytest.mark.slow
def test_in_32_bits_it_is_rounding(name: str, kind: str) -> None:
    """Gemma 2 looks at a window of six tokens, shorter than the prompts."""
    model, samples = make(name), siblings(EDGES)
    metrics, gradients, tokens = trained(model, samples, LOSSES[kind], share=False)
    shared = trained(model, samples, LOSSES[kind], share=True)
    # Log-probs are among the metrics; k3 grows as the ratio that it is made of.
    torch.testing.assert_close(shared[0], metrics, atol=1e-5, rtol=1e-5)
    assert worst(shared[1], gradients) < 1e-5
    assert shared[2] < tokens / 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dense", "qwen3"])
def test_layers_that_are_computed_again_give_the_same_gradients(name: str) -> None:
    model, samples = make(name), siblings(EDGES)
    kept = trained(model, samples, LOSSES["kl"], share=True)
    model.recompute = True
    again = trained(model, samples, LOSSES["kl"], share=True)
    assert torch.equal(kept[0], again[0])
    assert all(torch.equal(grad, again[1][parameter]) for parameter, grad in kept[1].items())


def test_a_family_with_another_memory_computes_every_prompt_anew() -> None:
    """Recurrent states are changed in place, so nothing flows back through them."""
    for make_inner in (granite_hybrid, mamba2):
        torch.manual_seed(0)
        trainer = Trainer(TransformersLM(make_inner()), Optim(), share=True)
        assert not trainer.share
        samples = siblings([(5, [3, 2])])
        assert trainer.step(samples, LOSSES["grpo"], 0.0)["tokens"] == 5.0


# ---------------------------------------------------------------- layout


@given(groups=GROUPS, most=st.integers(1, 200), shares=st.integers(1, 3))
def test_every_trained_sample_is_in_one_tree_of_its_own_prompt(
    groups: list[Group], most: int, shares: int
) -> None:
    samples = siblings(groups)
    idle = Sample(tokens=[1, 2], mask=[False, False], advantage=[0.0, 0.0])
    samples.insert(1, idle)
    trees = shared_trees(samples, most)
    assert sorted(i for tree in trees for i in tree.samples) == [
        i for i, sample in enumerate(samples) if sample is not idle
    ]
    for tree in trees:
        members = [samples[i] for i in tree.samples]
        if len(members) == 1:
            assert tree.prompt == 0 and tree.size == len(members[0].tokens)
            continue
        prompt = members[0].tokens[: tree.prompt]
        assert all(sample.tokens[: tree.prompt] == prompt for sample in members)
        assert all(first_trained(sample) == tree.prompt for sample in members)
        whole = sum(len(sample.tokens) for sample in members)
        assert tree.size == whole - (len(members) - 1) * tree.prompt <= most

    # A prompt that saves a quarter of its group's tokens or more is shared, no other.
    by_group: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        if sample is not idle:
            by_group.setdefault(sample.group, []).append(i)
    for number, members_of in by_group.items():
        prompt_length, replies = groups[number]
        saved = prompt_length * (len(replies) - 1)
        pays = saved >= (prompt_length * len(replies) + sum(replies)) / 4
        own = [tree for tree in trees if set(tree.samples) <= set(members_of)]
        if not pays:
            assert all(tree.prompt == 0 for tree in own)
        elif most >= prompt_length + sum(replies):
            assert [tree.prompt for tree in own] == [prompt_length]

    # Whole trees are dealt, and nobody is forgotten.
    dealt = deal_samples(samples, [True] * len(samples), shares, most)
    assert sorted(i for share in dealt for i in share) == list(range(len(samples)))
    for tree in trees:
        assert any(set(tree.samples) <= set(share) for share in dealt)


def test_all_siblings_begin_at_the_last_place_of_their_prompt() -> None:
    samples = []
    for reply in ([7, 8], [9]):
        trains = [False] * 3 + [True] * len(reply)
        samples.append(Sample([1, 2, 3, *reply], trains, [1.0] * (3 + len(reply))))
    alone = Sample([1, 2, 5], [False, True, True], [1.0] * 3)
    (packed,) = micro_batches([*samples, alone], [0.5, 0.25, 1.0], width=16, share=True)
    assert packed.ids.tolist() == [[1, 2, 3, 7, 8, 9, 1, 2, 5]]
    assert packed.segments.tolist() == [[0, 0, 0, 1, 1, 2, 3, 3, 3]]
    assert packed.continues is not None
    assert packed.continues.tolist() == [[-1, -1, -1, 0, 0, 0, -1, -1, -1]]
    assert packed.place.tolist() == [2, 3, 2, 6, 7]
    assert packed.targets.tolist() == [7, 8, 9, 2, 5]
    assert packed.sample.tolist() == [0, 0, 1, 2, 2]
    assert packed.token.tolist() == [3, 4, 3, 1, 2]
    assert packed.weight.tolist() == [0.5, 0.5, 0.25, 1.0, 1.0]


def test_only_who_asks_for_no_prompt_and_shares_gets_other_messages() -> None:
    sequences = [[1, 2, 3], [1, 2, 4, 5], [6]]
    plain = score_shares(sequences, None, 2, None)
    assert score_shares(sequences, [2, 2, 1], 2, None) == plain
    assert score_shares(sequences, None, 2, 64) == plain
    shares, told = score_shares(sequences, [2, 2, 1], 2, 64)
    # Siblings together; of the last sequence nothing is asked for, so it costs nothing.
    assert shares == [[0, 1], [2]]
    assert told == [([(1, 2, 3), (1, 2, 4, 5)], [2, 2]), ([(6,)], [1])]


# ---------------------------------------------------------------- the trainer


def toy(share: bool) -> Trainer:
    return Trainer(ToyLM(vocab=48), Optim(), width=64, tokens=96, load=toy_lm.load, share=share)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_a_step_is_that_of_samples_by_themselves(kind: str) -> None:
    samples = siblings(EDGES, tools=True)
    plain, shared = toy(share=False), toy(share=True)
    for _ in range(2):
        metrics = plain.step(samples, LOSSES[kind], 1e-2)
        assert shared.step(samples, LOSSES[kind], 1e-2) == pytest.approx(metrics, rel=1e-4)
    for one, other in zip(plain.model.parameters(), shared.model.parameters(), strict=True):  # type: ignore[attr-defined]
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.slow
def test_scores_are_those_of_whole_sequences_and_of_the_trainer_itself() -> None:
    samples = siblings(EDGES)
    sequences = [*(sample.tokens for sample in samples), [], [4]]
    prompts = [*(first_trained(sample) for sample in samples), 0, 1]
    plain, shared = toy(share=False), toy(share=True)
    expected = plain.score(sequences, 0.7)
    assert plain.score(sequences, 0.7, prompts) == expected
    scores = shared.score(sequences, 0.7, prompts)
    for row, right, prompt in zip(scores, expected, prompts, strict=True):
        assert len(row) == len(right) and not any(row[:prompt])
        assert row[prompt:] == pytest.approx(right[prompt:], abs=1e-5)
    # Without prompts every token is asked for.
    assert shared.score(sequences, 0.7) == expected

    rows = shared.score(sequences, 1.0, prompts)
    itself = [replace(s, teacher=row) for s, row in zip(samples, rows, strict=False)]
    metrics = shared.step(itself, LOSSES["mopd"], 1e-2)
    assert metrics["teacher_gap"] == 0.0 and metrics["grad_norm"] == 0.0


def test_a_restored_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    trainer, samples = toy(share=True), siblings(EDGES)
    trainer.step(samples, LOSSES["grpo"], 1e-2)
    trainer.save(tmp_path / "state")
    metrics = trainer.step(samples, LOSSES["grpo"], 1e-2)
    again = toy(share=True)
    again.restore(tmp_path / "state")
    assert again.step(samples, LOSSES["grpo"], 1e-2) == metrics
    for one, other in zip(trainer.model.parameters(), again.model.parameters(), strict=True):  # type: ignore[attr-defined]
        assert torch.equal(one, other)


def test_a_worker_shares_where_its_options_say_so(tmp_path: Path) -> None:
    hybrid("moe").save(tmp_path)
    samples = siblings([(40, [5, 3, 9]), (4, [2, 2])])
    sequences = [sample.tokens for sample in samples]
    prompts = [first_trained(sample) for sample in samples]
    metrics, scores = [], []
    for share in (False, True):
        options = WorkerOptions(width=64, capacity=4, cache_bytes=1 << 20, share_prompts=share)
        worker = Worker(options)
        worker.load(tmp_path, Optim())
        assert worker.trainer is not None and worker.trainer.share is share
        scores.append(worker.score(tmp_path, sequences, 1.0, prompts if share else None))
        metrics.append(worker.step(samples, [0.1] * len(samples), LOSSES["kl"], 1e-3))
    assert metrics[1] == pytest.approx(metrics[0], rel=1e-4)
    for row, right, prompt in zip(scores[1], scores[0], prompts, strict=True):
        assert row[prompt:] == pytest.approx(right[prompt:], abs=1e-5)
