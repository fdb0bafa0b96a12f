"""The local engine with real worker processes on the tiny model: one process, two processes, and a dead one."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from linn.engine.local.controller import LocalEngine as Engine
from linn.engine.local.controller import deal
from linn.engine.training.token_weights import StepFailed
from linn.errors import InfrastructureError, UserError
from linn.types import Completion, Loss, Optim, Sample, Sampling

VOCAB = 64
Request = tuple[tuple[int, ...], Sampling, int]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from linn.bases import make as tiny

    folder = tmp_path_factory.mktemp("base")
    tiny.new_model(folder, VOCAB, seed=1)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def one() -> Iterator[Engine]:
    with Engine(processes=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def pair() -> Iterator[Engine]:
    with Engine(processes=2) as engine:
        yield engine


def requests() -> list[Request]:
    return [(tuple(range(1, 4 + i // 4)), Sampling(5 + i % 7), i) for i in range(24)]


def samples(done: list[Completion]) -> list[Sample]:
    out = []
    for (ids, _, seed), c in zip(requests(), done, strict=True):
        mask = [False] * len(ids) + [True] * len(c.ids)
        logprobs = [0.0] * len(ids) + list(c.logprobs)
        out.append(
            Sample(
                (*ids, *c.ids),
                mask,
                [float(seed % 3 - 1)] * len(mask),
                logprobs,
                [x - 0.2 for x in logprobs],
                "d",
                f"p/{seed}",
                seed // 4,
            )
        )
    return out


def test_the_whole_engine_with_one_and_with_two_processes(
    base: Path, one: Engine, pair: Engine, tmp_path: Path
) -> None:
    loss, results = Loss("mopd", "sequence"), []
    for engine in (one, pair):
        engine.load(base, Optim())
        done = engine.sampler.run(requests())
        assert done == engine.sampler.run(requests())  # same requests, same bits
        batch = samples(done)
        metrics = [engine.trainer.step(batch, loss, 1e-3)]
        assert engine.trainer.version == engine.sampler.version == 1
        assert metrics[0]["mismatch_max"] <= 1e-4 and metrics[0]["mismatch_mean"] <= 1e-5
        engine.save(tmp_path / "ck")
        metrics.append(engine.trainer.step(batch, loss, 1e-3))
        prints = engine.fingerprints()
        assert len(set(prints)) == 1
        engine.load(base, Optim())
        assert engine.trainer.version == 0 and engine.fingerprints() != prints
        engine.restore(tmp_path / "ck")
        assert engine.trainer.version == 1
        assert engine.trainer.step(batch, loss, 1e-3) == metrics[1]
        assert engine.fingerprints() == prints  # resumed equals uninterrupted, bit for bit
        scored = engine.score(tmp_path / "ck", [s.tokens for s in batch])
        results.append((done, metrics, scored))
        assert engine.cpu_seconds() > 0
    (done_1, metrics_1, scored_1), (done_2, metrics_2, scored_2) = results
    assert [c.ids for c in done_1] == [c.ids for c in done_2]
    for a, b in zip(metrics_1, metrics_2, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    for a_row, b_row in zip(scored_1, scored_2, strict=True):
        assert a_row == pytest.approx(
            b_row, abs=1e-4
        )  # after two steps whose sums ran in another order
    assert (tmp_path / "ck" / "tokenizer.json").exists()


def test_flush_runs_what_waits_and_the_order_of_arrival_is_the_batch(
    base: Path, pair: Engine
) -> None:
    pair.load(base, Optim())

    async def converse() -> list[Completion]:
        waiting = [asyncio.ensure_future(pair.sampler.generate(*request)) for request in requests()]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[3].cancel()
        await asyncio.sleep(0)
        pair.sampler.flush()
        return await asyncio.gather(*waiting, return_exceptions=True)

    done = asyncio.run(converse())
    wanted = pair.sampler.run(requests())
    assert isinstance(done[3], asyncio.CancelledError)
    assert done[:3] + done[4:] == wanted[:3] + wanted[4:]
    row = pair.score(base, [[5, 6, 7]])[0]
    assert row[0] == 0.0 and all(x < 0 for x in row[1:])
    assert pair.sampler_of(base).run(requests()) == wanted  # the same weights in the other place


def test_a_step_of_fewer_samples_than_processes(base: Path, pair: Engine) -> None:
    pair.load(base, Optim())
    batch = samples(pair.sampler.run(requests()))[:1]
    metrics = pair.trainer.step(batch, Loss("grpo"), 1e-3)
    assert metrics["sequences"] == 1 and len(set(pair.fingerprints())) == 1


def test_refusals_keep_their_type_and_change_nothing(
    base: Path, pair: Engine, tmp_path: Path
) -> None:
    pair.load(base, Optim())
    batch, before = samples(pair.sampler.run(requests())), pair.fingerprints()
    bad = [replace(s, advantage=[1e38] * len(s.tokens)) for s in batch]
    with pytest.raises(StepFailed, match="unchanged") as caught:
        pair.trainer.step(bad, Loss("grpo", kl=1e38), 1e-3)
    assert caught.value.samples == bad
    with pytest.raises(StepFailed, match="behaviour") as caught:
        pair.trainer.step(
            [replace(batch[0], behaviour=[math.nan] * len(batch[0].tokens)), *batch[1:]],
            Loss("grpo"),
            1e-3,
        )
    assert len(caught.value.samples) == len(batch)
    with pytest.raises(
        RuntimeError, match="(?i)index out of range"
    ):  # a fault in one process only does not hang the other
        pair.trainer.step(
            [replace(batch[0], tokens=[VOCAB + 5] * len(batch[0].tokens)), *batch[1:]],
            Loss("grpo"),
            1e-3,
        )
    with pytest.raises(ValueError, match="teacher"):
        pair.trainer.step([replace(s, teacher=None) for s in batch], Loss("mopd"), 1e-3)
    with pytest.raises(UserError, match="nowhere"):
        pair.score(tmp_path / "nowhere", [[1, 2]])
    with pytest.raises(UserError, match="trainer.json"):
        pair.restore(base)
    assert pair.trainer.version == 0 and pair.fingerprints() == before


def test_a_killed_worker_is_an_infrastructure_error_and_the_engine_can_start_again(
    base: Path, one: Engine
) -> None:
    engine = one
    engine.load(base, Optim())
    os.kill(engine._pool[0].handle.pid, signal.SIGKILL)
    with pytest.raises(InfrastructureError, match=r"process 0 ended with exit code -9"):
        engine.sampler.run(requests())
    engine.load(base, Optim())
    assert len(engine.sampler.run(requests()[:2])) == 2


def test_workers_end_with_a_parent_killed_in_the_middle_of_their_work(base: Path) -> None:
    code = (
        "import sys, threading; from pathlib import Path; from linn.engine.local.controller import LocalEngine as Engine; from linn.types import Optim, Sampling\n"
        f"e = Engine(1); e.load(Path({str(base)!r}), Optim()); print(e._pool[0].handle.pid, flush=True)\n"
        "e.sampler.run([((1, 2), Sampling(10**6), 0)])\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(600):
        time.sleep(0.05)
        try:
            state = Path(f"/proc/{worker}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
    pytest.fail("the worker outlived its parent")


def test_dealing_balances_tokens_and_the_pool_needs_no_torch() -> None:
    shares = deal([5, 1, 9, 4, 4, 1], 2)
    assert shares == [[2, 4], [0, 3, 1, 5]]  # 13 and 11 tokens
    code = "import sys, linn.engine.local.controller; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
