"""One trainer rank and one sampler in turn on one GPU: they agree, and leave each other its memory.

`LINN_TEST_DEVICE=cpu` runs them without one, where there is no memory to leave.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from support.cluster_models import write_dense, write_experts, write_qwen3
from support.sampling import Request, sample_all, samples_of

from linn.engine.open import open_engine
from linn.recipe.schema import ScaleConfig
from linn.scale.cluster import AGREES, ClusterEngine
from linn.types import Completion, Loss, Optim, Sampling

DEVICE = os.environ.get("LINN_TEST_DEVICE", "cuda")
SHARE = 0.3
"""Of the GPU's memory, for vLLM."""
QUICK = {"compilation_config": {"mode": 0, "cudagraph_mode": "FULL_DECODE_ONLY"}}
"""vLLM without torch's compiler: it opens in a fraction of the time."""
GRPO = Loss("grpo")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device is here"
    ),
]


MODELS = {"qwen3": write_qwen3, "dense": write_dense, "experts": write_experts}
KINDS = [("linn", "experts"), ("vllm", "qwen3"), ("vllm", "dense"), ("vllm", "experts")]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ClusterEngine]:
    sampler, model = request.param
    if sampler == "vllm" and importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")
    if (sampler, model, DEVICE) == ("vllm", "experts", "cpu"):
        pytest.skip("vLLM computes no experts on a CPU")
    folder = MODELS[model](tmp_path_factory.mktemp("base") / model)
    samplers: dict[str, Any] = {"engine": sampler, "colocated": True, "memory": SHARE}
    if sampler == "vllm":
        samplers["arguments"] = QUICK
    tree = {"engine": "cluster", "device": DEVICE, "capacity": 64, "samplers": samplers}
    with open_engine(ScaleConfig.model_validate(tree | {"cache": 64})) as made:
        assert isinstance(made, ClusterEngine)
        start = time.perf_counter()
        made.load(folder, Optim())
        sample_all(made.sampler, requests())
        print(f"\n{sampler}, {model}: open in {time.perf_counter() - start:.0f} s")
        yield made


def requests(temperature: float = 1.0) -> list[Request]:
    """Groups of four siblings."""
    draw = random.Random(0)
    asked: list[Request] = []
    for group in range(6):
        prompt = tuple(draw.randrange(1000) for _ in range(draw.randint(3, 90)))
        asked += [(prompt, Sampling(24, temperature), 10 * group + n) for n in range(4)]
    return asked


def check_agreement(engine: ClusterEngine, done: Sequence[Completion]) -> None:
    """The trainer knows the log-probs; it scores them in its own turn."""
    gaps = engine._gaps([tuple(ids) for ids, _, _ in requests()], done)
    mean, most = sum(gaps) / len(gaps), max(gaps)
    print(f"log-probs off by {mean:.1e} on average, {most:.1e} at most")
    may_mean, may_most = AGREES[False]
    assert mean <= may_mean and most <= may_most


def used() -> float:
    """Bytes of the GPU that all processes hold."""
    if DEVICE == "cpu":
        return 0.0
    free, whole = torch.cuda.mem_get_info()
    return float(whole - free)


def test_two_steps_in_turn(engine: ClusterEngine) -> None:
    for _ in range(2):
        done = sample_all(engine.sampler, requests())
        awake = used()
        check_agreement(engine, done)
        metrics: dict[str, Any] = engine.trainer.step(samples_of(requests(), done), GRPO, 1e-3)
        asleep = used()
        print(
            f"mismatch {metrics['mismatch_mean']:.1e} on average, {metrics['mismatch_max']:.1e} at "
            f"most; GB while samplers compute {awake / 1e9:.2f}, while trainers do "
            f"{asleep / 1e9:.2f}"
        )
        assert metrics["mismatch_max"] <= AGREES[False][1]
        if DEVICE == "cuda" and engine._options.after_cut:  # vLLM takes its share at once
            whole = torch.cuda.mem_get_info()[1]
            assert awake - asleep > 0.8 * SHARE * whole
    check_agreement(engine, sample_all(engine.sampler, requests()))


def test_who_wakes_without_new_weights_samples_as_before(engine: ClusterEngine) -> None:
    greedy = requests(0.0)
    before = sample_all(engine.sampler, greedy)
    marks = [time.perf_counter()]
    for turn in (engine._replicas.sleep, engine._wake):
        turn()
        marks.append(time.perf_counter())
    print(f"asleep in {marks[1] - marks[0]:.2f} s, awake in {marks[2] - marks[1]:.2f} s")
    after = sample_all(engine.sampler, greedy)
    # On a GPU a near tie may go either way.
    same = sum(one.ids == two.ids for one, two in zip(before, after, strict=True))
    assert same >= len(before) - (DEVICE == "cuda")
    check_agreement(engine, sample_all(engine.sampler, requests()))


def test_a_sampler_that_dies_asleep_is_replaced(engine: ClusterEngine) -> None:
    check_agreement(engine, sample_all(engine.sampler, requests()))
    lost = engine.pids()["sampler 0"]
    os.kill(lost, signal.SIGKILL)
    check_agreement(engine, sample_all(engine.sampler, requests()))
    assert engine.pids()["sampler 0"] != lost
