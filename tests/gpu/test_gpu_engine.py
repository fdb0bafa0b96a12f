"""The local engine on a GPU: what it samples, scores, trains, keeps and streams is the CPU's.

`LINN_TEST_DEVICE=cpu` runs them without one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from linn.bases.make import new_model
from linn.engine.local.controller import LocalEngine
from linn.types import Loss, Optim, Sample, Sampling

DEVICE = os.environ.get("LINN_TEST_DEVICE", "cuda")

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device is here"
    ),
]

PROMPTS = [[5, 9, 17, 3], [40, 41], [7] * 30]
SFT, GRPO = Loss("sft"), Loss("grpo")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    new_model(folder, 64, seed=1)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def engines(base: Path) -> Iterator[tuple[LocalEngine, LocalEngine]]:
    with LocalEngine(1) as cpu, LocalEngine(1, device=DEVICE) as gpu:
        yield cpu, gpu


def drawn(engine: LocalEngine, how: Sampling) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    async def all_of_them() -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
        asked = [
            asyncio.ensure_future(engine.sampler.generate(ids, how, seed))
            for seed, ids in enumerate(PROMPTS * 8)
        ]
        await asyncio.sleep(0)
        engine.sampler.flush()
        return [(one.ids, one.logprobs) for one in await asyncio.gather(*asked)]

    return asyncio.run(all_of_them())


def batch(engine: LocalEngine) -> list[Sample]:
    samples = []
    for number, (ids, logprobs) in enumerate(drawn(engine, Sampling(12, 1.0))):
        prompt = (PROMPTS * 8)[number]
        tokens = [*prompt, *ids]
        samples.append(
            Sample(
                tokens,
                [False] * len(prompt) + [True] * len(ids),
                [1.0 if number % 2 else -1.0] * len(tokens),
                [0.0] * len(prompt) + list(logprobs),
            )
        )
    return samples


def test_it_samples_scores_and_trains_as_the_cpu(
    base: Path, engines: tuple[LocalEngine, LocalEngine], tmp_path: Path
) -> None:
    for engine in engines:
        engine.load(base, Optim())
    greedy = [drawn(engine, Sampling(20, 0.0)) for engine in engines]
    assert [ids for ids, _ in greedy[0]] == [ids for ids, _ in greedy[1]]

    samples = batch(engines[1])
    scores = [engine.score(base, [sample.tokens for sample in samples]) for engine in engines]
    gap = max(
        abs(a - b) for one, two in zip(*scores, strict=True) for a, b in zip(one, two, strict=True)
    )
    metrics = [engine.trainer.step(samples, GRPO, 1e-3) for engine in engines]
    print(f"\nscores {gap:.1e}, mismatch {metrics[1]['mismatch_max']:.1e}")
    assert gap < 1e-4 and metrics[1]["mismatch_max"] < 1e-4
    for key in ("loss", "grad_norm", "entropy"):
        assert metrics[1][key] == pytest.approx(metrics[0][key], rel=1e-3, abs=1e-5), key

    # After the step the sampler has the new weights.
    again = [drawn(engine, Sampling(6, 0.0)) for engine in engines]
    same = sum(a[0] == b[0] for a, b in zip(*again, strict=True))
    assert same >= len(again[0]) - 1, same


def test_a_state_comes_back_and_an_export_is_what_was_trained(
    base: Path, engines: tuple[LocalEngine, LocalEngine], tmp_path: Path
) -> None:
    cpu, gpu = engines
    gpu.load(base, Optim())
    samples = [
        replace(sample, behaviour=None, advantage=[1.0] * len(sample.tokens))
        for sample in batch(gpu)
    ]
    gpu.trainer.step(samples, SFT, 1e-3)
    gpu.save(tmp_path / "state")
    kept = gpu.fingerprints()
    gpu.trainer.step(samples, SFT, 1e-3)
    assert gpu.fingerprints() != kept
    gpu.restore(tmp_path / "state")
    assert gpu.fingerprints() == kept

    (tmp_path / "out").mkdir()
    gpu.export(tmp_path / "out")
    cpu.load(tmp_path / "out", Optim())
    assert cpu.fingerprints() == kept
    # What a GPU saved goes on on a CPU.
    cpu.restore(tmp_path / "state")
    cpu.trainer.step(samples, SFT, 1e-3)


def test_moments_on_the_host_change_nothing(base: Path) -> None:
    found = []
    for host in (False, True):
        with LocalEngine(1, device=DEVICE, host_moments=host, recompute=host) as engine:
            engine.load(base, Optim())
            ids = [[3 + (7 * n + k) % 50 for n in range(40)] for k in range(4)]
            samples = [Sample(one, [False] + [True] * 39, [1.0] * 40) for one in ids]
            found.append([engine.trainer.step(samples, SFT, 1e-3) for _ in range(3)][-1])
    for key in ("loss", "grad_norm"):
        assert found[1][key] == pytest.approx(found[0][key], rel=1e-4), key


def test_streams_say_what_the_sampler_says(
    base: Path, engines: tuple[LocalEngine, LocalEngine]
) -> None:
    cpu, gpu = engines
    cpu.load(base, Optim())
    expected = [ids for ids, _ in drawn(cpu, Sampling(20, 0.0))[: len(PROMPTS)]]

    async def streamed() -> list[tuple[int, ...]]:
        streams = gpu.streams_of(base)
        await streams.open()

        async def one(ids: list[int]) -> tuple[int, ...]:
            pieces = [piece async for piece in streams.stream(ids, Sampling(20, 0.0), 0)]
            return tuple(token.id for piece in pieces for token in piece)

        told = list(await asyncio.gather(*(one(ids) for ids in PROMPTS)))
        await streams.close()
        return told

    assert asyncio.run(streamed()) == expected
