"""The trainer over shards against linn's own, on two CPU ranks: the claims of docs/cluster.md."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODELS = ("moe", "dense", "qwen3")
LOSSES = ("sft", "grpo", "mopd")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two ranks found: one start for all comparisons, see support/sharded.py."""
    folder = tmp_path_factory.mktemp("ranks")
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "support.sharded", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    comparisons: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return comparisons


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("loss", LOSSES)
def test_shards_train_as_whole_copies_do(found: dict[str, Any], model: str, loss: str) -> None:
    """With the clip active; to the bit where gradients are summed once a step."""
    assert found[f"parity: {model} {loss} step weights"] == 0.0
    assert found[f"parity: {model} {loss} step metrics"] is True


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_gradients_summed_after_every_micro_batch_differ_by_their_order(
    found: dict[str, Any], model: str
) -> None:
    assert 0 < found[f"parity: {model} mopd micro_batch weights"] < 5e-5
    assert found[f"parity: {model} mopd micro_batch loss"] < 1e-4


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_siblings_share_prompts_over_shards_too(found: dict[str, Any], model: str) -> None:
    assert found[f"shared: {model} scores"] is True
    assert found[f"shared: {model} metrics"] is True
    assert found[f"shared: {model} weights"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize("model", ["moe", "qwen3"])
def test_a_rank_without_work_makes_the_same_passes(found: dict[str, Any], model: str) -> None:
    assert found[f"unequal: {model} weights"] == 0.0
    assert found[f"unequal: {model} loss"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize("model", ["moe", "qwen3"])
def test_what_one_rank_refuses_all_refuse_before_they_compute(
    found: dict[str, Any], model: str
) -> None:
    assert found[f"unequal: {model} refusal 1"] == "UserError"
    assert found[f"unequal: {model} refusal 0"] == "StepFailed"
    assert found[f"unequal: {model} changed by it"] == 0.0


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_scores_over_shards_are_those_of_a_whole_copy(found: dict[str, Any], model: str) -> None:
    assert found[f"scores: {model} equal"] is True
    assert found[f"scores: {model} equal after steps"] is True


@pytest.mark.long
@pytest.mark.parametrize("model", ["moe", "qwen3"])
def test_saving_memory_changes_nothing_in_float32_and_little_in_bfloat16(
    found: dict[str, Any], model: str
) -> None:
    assert found[f"cheaper: {model} recompute, host"] == 0.0
    assert 0 < found[f"cheaper: {model} bfloat16 loss"] < 0.05
    # AdamW moves by about the rate in each of the two steps, whatever the gradient's size.
    assert found[f"cheaper: {model} bfloat16 weights"] < 5e-3
    assert found[f"cheaper: {model} bfloat16 kept in"] == ["torch.float32"]


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_a_state_goes_on_bit_for_bit_and_by_another_number_of_ranks(
    found: dict[str, Any], model: str
) -> None:
    assert found[f"on_disk: {model} restored metrics"] is True
    assert found[f"on_disk: {model} restored"] == 0.0
    # One rank adds up in another order.
    assert found[f"alone: {model} by one rank"] < 5e-5
    assert "it has no trainer.json" in found[f"on_disk: {model} no state"]


@pytest.mark.long
def test_a_state_of_another_model_is_refused(found: dict[str, Any]) -> None:
    assert "its state belongs to another model" in found["on_disk: another model"]


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("size", [10**9, 60_000])
def test_an_export_from_shards_has_the_bytes_of_a_whole_copys(
    found: dict[str, Any], model: str, size: int
) -> None:
    assert found[f"on_disk: {model} export of {size}"] is True


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_samplers_are_sent_what_an_export_has(found: dict[str, Any], model: str) -> None:
    assert all(found[f"on_disk: {model} sent"].values()), found[f"on_disk: {model} sent"]
