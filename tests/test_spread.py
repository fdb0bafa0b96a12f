"""Rows cut over ranks and experts spread over them, beside linn's trainer in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from linn.errors import UserError
from linn.recipe import load as recipes
from linn.recipe.scale import ScaleConfig, TrainersConfig
from linn.scale.context import Piece, pieces_of

BOTH = "experts 2, context 2 of 4"
OBJECTIVES = [("experts 2", "sft"), ("experts 2", "grpo"), ("experts 2", "mopd")]
OBJECTIVES += [("context 2", "sft"), ("context 2", "grpo"), ("context 2", "mopd"), (BOTH, "grpo")]


@pytest.fixture(scope="module", params=["plain", ""], ids=["plain", "own products"])
def kernels(request: pytest.FixtureRequest) -> str:
    """`LINN_KERNELS`: the reference's products, and those that this machine takes."""
    chosen: str = request.param
    return chosen


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, kernels: str) -> dict[str, Any]:
    """What up to four ranks found: one start for all comparisons, see support/spread.py."""
    folder = tmp_path_factory.mktemp("ranks")
    here = Path(__file__).parent
    paths = os.pathsep.join([str(here.parent), str(here), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-m", "support.spread", str(folder)],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "LINN_KERNELS": kernels},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    comparisons: dict[str, Any] = json.loads((folder / "found.json").read_text())
    return comparisons


@pytest.mark.long
@pytest.mark.parametrize(("layout", "loss"), OBJECTIVES)
def test_ranks_that_share_out_rows_and_experts_train_as_one_process(
    found: dict[str, Any], kernels: str, layout: str, loss: str
) -> None:
    kind = f"parity {loss}" if layout != BOTH else "grpo grpo"
    # oneDNN's longest sums, over rows of other lengths here, round up to twice as much as MKL's.
    assert found[f"{layout}: {kind} loss"] < (3e-7 if kernels == "plain" else 6e-7)
    assert found[f"{layout}: {kind} norm"] < 3e-6
    assert found[f"{layout}: {kind} counts"] is True
    # AdamW moves every number by the rate (1e-3), whatever the size of its gradient: a gradient
    # that is wrong anywhere would show at once.
    assert found[f"{layout}: {kind} weights"] < 1e-4
    assert found[f"{layout}: {kind} later loss"] < 5e-5


@pytest.mark.long
@pytest.mark.parametrize("layout", ["context 2", "context 3", BOTH])
@pytest.mark.parametrize(
    "where",
    ["in one segment", "on borders", "beside borders", "through three ranks", "few tokens"],
)
def test_log_probs_are_the_same_wherever_a_row_is_cut(
    found: dict[str, Any], layout: str, where: str
) -> None:
    # In nats at a temperature of 0.7, with a head that is eight times as sharp as a new one's.
    assert found[f"{layout}: cuts {where}"] < 1e-5


@pytest.mark.long
@pytest.mark.parametrize("layout", ["context 2", "experts 2 of 4"])
def test_ranks_without_work_take_part(found: dict[str, Any], layout: str) -> None:
    assert found[f"{layout}: unequal loss"] < 3e-7
    assert found[f"{layout}: unequal grad_norm"] < 3e-6


@pytest.mark.long
@pytest.mark.parametrize("model", ["six", "odd"])
def test_experts_that_do_not_divide_evenly(found: dict[str, Any], model: str) -> None:
    assert found[f"experts 2 of 4: uneven {model} loss"] < 3e-7
    assert found[f"experts 2 of 4: uneven {model} weights"] < 2e-4
    assert found[f"experts 2 of 4: uneven {model} restored"] == 0.0


@pytest.mark.long
def test_saving_memory_changes_nothing(found: dict[str, Any]) -> None:
    assert found[f"{BOTH}: cheaper recompute, host"] == 0.0
    assert found[f"{BOTH}: cheaper summed once a step"] < 1e-4
    assert 0 < found[f"{BOTH}: cheaper bfloat16 loss"] < 0.05


@pytest.mark.long
@pytest.mark.parametrize("layout", ["experts 2", BOTH])
def test_a_state_goes_on_and_an_export_is_whole(found: dict[str, Any], layout: str) -> None:
    assert found[f"{layout}: on_disk restored metrics"] is True
    assert found[f"{layout}: on_disk restored"] == 0.0
    assert found[f"{layout} by one rank"] < 1e-4
    assert found[f"{layout}: on_disk export"] == 0.0
    assert found[f"{layout}: on_disk files"] is True
    assert all(found[f"{layout}: on_disk sent"].values()), found[f"{layout}: on_disk sent"]
    assert found[f"{layout}: on_disk size"] is True


@pytest.mark.long
def test_models_that_cannot_be_shared_out_are_refused(found: dict[str, Any]) -> None:
    for key in ("experts", "context"):
        said = found[f"{key} 2: refused qwen3"]
        assert f"trainers.{key} above 1 is for Nemotron-H alone; set it to 1" in said
    said = found["experts 2: refused dense"]
    assert said == "trainers.experts: 2 does not fit a model with no routed experts; take 1"


def test_pieces_of_rows() -> None:
    assert pieces_of([10], 2) == [Piece((5,), 0, True), Piece((5,), 5, False)]
    assert pieces_of([5, 5], 2) == [Piece((5,), 0, False), Piece((5,), 0, False)]
    assert pieces_of([1, 9], 3) == [
        Piece((1, 2), 0, True),
        Piece((3,), 2, True),
        Piece((4,), 5, False),
    ]
    assert [piece.passes_on for piece in pieces_of([1, 9], 3)] == [False, True, False]
    assert not pieces_of([10], 2)[1].passes_on


@pytest.mark.parametrize(
    ("trainers", "error"),
    [
        ({"ranks": 6, "context": 4}, "context: 4 does not divide ranks: 6; take one of 1, 2"),
        ({"ranks": 6, "experts": 4}, "experts: 4 does not divide ranks: 6; take one of 1, 2"),
    ],
)
def test_what_does_not_go_together_is_refused_by_the_recipe(
    trainers: dict[str, int], error: str
) -> None:
    scale = {"engine": "cluster", "trainers": trainers}
    stage = {"name": "s", "kind": "sft", "data": "rows.jsonl", "steps": 1}
    with pytest.raises(UserError, match=error):
        recipes.parse({"name": "t", "scale": scale, "stages": [stage]}, "t")


def test_siblings_do_not_share_a_prompt_where_rows_are_cut() -> None:
    cut = ScaleConfig(engine="cluster", trainers=TrainersConfig(ranks=2, context=2))
    assert cut.share_prompts and not cut.shares_prompts
    assert ScaleConfig(engine="cluster").shares_prompts
