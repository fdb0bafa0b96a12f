"""Weights from the first trainer rank to the samplers over NCCL, where there are GPUs."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import torch
from support.sampling import Request, sample_all, samples_of

from linn.bases.make import new_model
from linn.engine.open import open_engine
from linn.recipe.schema import ScaleConfig
from linn.scale.broadcast import WeightGroup
from linn.types import Loss, Optim, Sampling

VOCAB = 64
REQUESTS: list[Request] = [(tuple(range(1, 4 + i // 4)), Sampling(9), i) for i in range(24)]

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]


def test_a_group_of_one_sends_by_nccl(tmp_path: Path) -> None:
    meeting = f"file://{tmp_path}/meeting"
    with closing(WeightGroup(meeting, 0, 1, torch.device("cuda:0"))) as group:
        sent = torch.arange(12.0, device="cuda").reshape(3, 4).T
        group.send("weight", sent)
        group.send("on the host", torch.ones(3, dtype=torch.bfloat16))
        group.end()
    assert sent.tolist() == torch.arange(12.0).reshape(3, 4).T.tolist(), "sending changes nothing"


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="a rank and a sampler need two GPUs")
@pytest.mark.parametrize("sampler", ["linn", "vllm"])
def test_a_rank_and_a_sampler_agree_about_weights_that_were_broadcast(
    sampler: str, tmp_path: Path
) -> None:
    """The engine itself compares log-probs after the first two hand-overs."""
    if sampler == "vllm":
        pytest.importorskip("vllm")
    base = tmp_path / "base"
    new_model(base, VOCAB, seed=1)
    (base / "tokenizer.json").write_text("{}")
    tree = {
        "engine": "cluster",
        "device": "cuda",
        "carrier": "broadcast",
        "samplers": {"engine": sampler},
    }
    with open_engine(ScaleConfig.model_validate(tree)) as engine:
        engine.load(base, Optim())
        for _ in range(3):
            done = sample_all(engine.sampler, REQUESTS)
            batch = samples_of(REQUESTS, done)
            mismatch = engine.trainer.step(batch, Loss("mopd", "sequence"), 1e-2)["mismatch_max"]
            assert mismatch < 1e-3
