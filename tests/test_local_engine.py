"""The local engine's own: processes that agree, that die, and that end with their parent."""

from __future__ import annotations

import asyncio
import errno
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.processes import is_alive
from support.sampling import Request, samples_of

from linn.engine.local import heartbeat
from linn.engine.local.controller import LocalEngine
from linn.engine.local.dealing import deal, undeal
from linn.engine.local.processes import WorkerOptions, Workers
from linn.engine.local.sampler import LocalSampler
from linn.engine.training.token_weights import StepFailed
from linn.errors import DiskFull, InfrastructureError, UserError
from linn.types import Completion, Loss, Optim, Sampling

VOCAB = 64


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from linn.bases.make import new_model

    folder = tmp_path_factory.mktemp("base")
    new_model(folder, VOCAB, seed=1)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def one() -> Iterator[LocalEngine]:
    with LocalEngine(processes=1) as engine:
        yield engine


@pytest.fixture(scope="module")
def pair() -> Iterator[LocalEngine]:
    with LocalEngine(processes=2) as engine:
        yield engine


def requests() -> list[Request]:
    return [(tuple(range(1, 4 + i // 4)), Sampling(5 + i % 7), i) for i in range(12)]


@pytest.mark.slow
def test_one_and_two_processes_agree(
    base: Path, one: LocalEngine, pair: LocalEngine, tmp_path: Path
) -> None:
    # AdamW's first steps are as long for a gradient that is nothing but rounding as for any other:
    # the products of this machine are compared where such a gradient moves little.
    check_agreement(base, (one, pair), tmp_path, Optim(eps=1e-6))


@pytest.mark.slow
def test_one_and_two_processes_agree_by_the_references_products(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LINN_KERNELS", "plain")
    with LocalEngine(processes=1) as one, LocalEngine(processes=2) as pair:
        check_agreement(base, (one, pair), tmp_path, Optim())


def check_agreement(
    base: Path, engines: Sequence[LocalEngine], tmp_path: Path, optim: Optim
) -> None:
    loss = Loss("mopd", "sequence")
    results = []
    for engine in engines:
        engine.load(base, optim)
        done = engine.sampler.run(requests())
        batch = samples_of(requests(), done)
        metrics = [engine.trainer.step(batch, loss, 1e-3) for _ in range(2)]
        assert len(set(engine.fingerprints())) == 1
        engine.save(tmp_path / "state")
        scores = engine.score(tmp_path / "state", [sample.tokens for sample in batch])
        results.append((done, metrics, scores))

    (done_1, metrics_1, scores_1), (done_2, metrics_2, scores_2) = results
    assert [c.ids for c in done_1] == [c.ids for c in done_2]
    for a, b in zip(metrics_1, metrics_2, strict=True):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-6)
    # After two steps whose sums ran in another order.
    for row_1, row_2 in zip(scores_1, scores_2, strict=True):
        assert row_1 == pytest.approx(row_2, abs=1e-4)


@pytest.mark.slow
def test_flush_runs_what_waits_and_the_order_of_arrival_is_the_batch(
    base: Path, pair: LocalEngine
) -> None:
    pair.load(base, Optim())

    async def converse() -> list[Completion | BaseException]:
        waiting = [asyncio.ensure_future(pair.sampler.generate(*request)) for request in requests()]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        waiting[3].cancel()
        await asyncio.sleep(0)
        pair.sampler.flush()
        return await asyncio.gather(*waiting, return_exceptions=True)

    done = asyncio.run(converse())
    cancelled = done.pop(3)
    assert isinstance(cancelled, asyncio.CancelledError)
    # It was not computed: the batch is that of the others, to the last bit.
    others = requests()
    del others[3]
    assert done == pair.sampler.run(others)


def test_a_cancelled_request_leaves_the_queue_and_is_never_computed() -> None:
    ran: list[list[Request]] = []

    class Noting(LocalSampler):
        def run(self, batch: Sequence[Request]) -> list[Completion]:
            ran.append(list(batch))
            return [Completion((1,), (0.0,), "stop") for _ in batch]

    async def converse() -> None:
        sampler = Noting(Workers(WorkerOptions(width=64, capacity=8)))
        waiting = [asyncio.ensure_future(sampler.generate(*each)) for each in requests()[:4]]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.sleep(0)
        assert len(sampler._queue) == 3, "it is gone before any batch"
        waiting[2].cancel()  # and this one hears of it only after the batch
        sampler.flush()
        await asyncio.gather(*waiting, return_exceptions=True)
        sampler.flush()

    asyncio.run(converse())
    assert ran == [[requests()[0], requests()[3]]]


@pytest.mark.slow
def test_a_conversation_goes_on_where_its_state_was_kept(base: Path, pair: LocalEngine) -> None:
    pair.load(base, Optim())
    first = [(ids, replace(how, more=True), seed) for ids, how, seed in requests()]
    done = pair.sampler.run(first)
    second: list[Request] = []
    for (ids, how, seed), completion in zip(first, done, strict=True):
        second.append(((*ids, *completion.ids, 5, 6), replace(how, more=False), seed))
    went_on = pair.sampler.run(second)

    pair.load(base, Optim())  # nothing is kept
    anew = pair.sampler.run(second)
    assert [c.ids for c in went_on] == [c.ids for c in anew]
    for a, b in zip(went_on, anew, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.slow
def test_a_step_of_fewer_samples_than_processes(base: Path, pair: LocalEngine) -> None:
    pair.load(base, Optim())
    batch = samples_of(requests(), pair.sampler.run(requests()))[:1]
    metrics = pair.trainer.step(batch, Loss("grpo"), 1e-3)
    assert metrics["sequences"] == 1 and len(set(pair.fingerprints())) == 1


@pytest.mark.slow
def test_refusals_keep_their_type_and_change_nothing(base: Path, pair: LocalEngine) -> None:
    pair.load(base, Optim())
    batch = samples_of(requests(), pair.sampler.run(requests()))
    before = pair.fingerprints()
    first, rest = batch[0], batch[1:]

    huge = [replace(sample, advantage=[1e38] * len(sample.tokens)) for sample in batch]
    with pytest.raises(StepFailed, match="unchanged") as caught:
        pair.trainer.step(huge, Loss("grpo", kl=1e38), 1e-3)
    assert caught.value.samples == huge

    unknown = replace(first, behaviour=[math.nan] * len(first.tokens))
    with pytest.raises(StepFailed, match="behaviour") as caught:
        pair.trainer.step([unknown, *rest], Loss("grpo"), 1e-3)
    assert len(caught.value.samples) == len(batch)

    # A fault in one process only does not hang the other.
    outside = replace(first, tokens=[VOCAB + 5] * len(first.tokens))
    with pytest.raises(UserError, match="the model has embeddings for"):
        pair.trainer.step([outside, *rest], Loss("grpo"), 1e-3)

    with pytest.raises(ValueError, match="teacher"):
        pair.trainer.step([replace(s, teacher=None) for s in batch], Loss("mopd"), 1e-3)
    assert pair.fingerprints() == before


@pytest.mark.slow
def test_a_killed_worker_is_an_infrastructure_error_and_the_engine_can_start_again(
    base: Path, one: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.load(base, Optim())
    os.kill(one.workers.pids[0], signal.SIGKILL)
    with pytest.raises(InfrastructureError, match=r"process 0 ended with exit code -9"):
        one.sampler.run(requests())
    one.load(base, Optim())
    assert len(one.sampler.run(requests()[:2])) == 2

    # A stopped one is noticed, too, also where what it is sent does not fit into its pipe.
    monkeypatch.setattr(heartbeat, "LOOK_S", 0.5)
    stopped = one.workers.pids[0]
    os.kill(stopped, signal.SIGSTOP)
    long = [(tuple(range(1, 60)) * 2000, Sampling(1), seed) for seed in range(4)]
    with pytest.raises(InfrastructureError, match=r"0 .pid \d+. has given no sign of life"):
        one.sampler.run(long)
    assert not is_alive(stopped)


@pytest.mark.slow
def test_workers_end_with_a_parent_killed_in_the_middle_of_their_work(base: Path) -> None:
    code = f"""
from pathlib import Path
from linn.engine.local.controller import LocalEngine
from linn.types import Optim, Sampling
engine = LocalEngine(1)
engine.load(Path({str(base)!r}), Optim())
print(engine.workers.pids[0], flush=True)
engine.sampler.run([((1, 2), Sampling(10**6), 0)])
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    for _ in range(600):
        time.sleep(0.05)
        if not is_alive(worker):
            return
    pytest.fail("the worker outlived its parent")


def test_dealing_balances_tokens_and_is_undone() -> None:
    shares = deal([5, 1, 9, 4, 4, 1], 2)
    assert shares == [[2, 4], [0, 3, 1, 5]]  # 13 and 11 tokens
    assert undeal(shares, [["c", "e"], ["a", "d", "b", "f"]]) == list("abcdef")


def test_the_controller_needs_no_torch() -> None:
    code = "import sys, linn.engine.local.controller; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_a_worker_needs_no_compiler() -> None:
    """torch's compiler is imported by what nobody expects, and doubles the start of a worker."""
    code = """
import sys
from pathlib import Path
import torch
from linn.engine.local import worker
from linn.engine.models.load import load
from linn.engine.training.trainer import Trainer
from linn.types import Optim
import linn.bases
Trainer(load(Path(linn.bases.__file__).parent / "tiny-0"), Optim())
sys.exit("torch._dynamo" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_full_disk_is_told_with_its_name_and_what_is_needed(tmp_path: Path) -> None:
    from safetensors import SafetensorError

    from linn.engine.local.disk import room_for

    words = "Error while serializing: I/O error: No space left on device (os error 28)"
    for full in (SafetensorError(words), OSError(errno.ENOSPC, "x"), OSError(errno.EDQUOT, "x")):
        said = (
            r"/a needs about 12.0 MB, its disk \(/.*\) has .* MB free; what was saved before is in"
        )
        with pytest.raises(DiskFull, match=said), room_for(tmp_path / "a", 12_000_000):
            raise full
    # torch's words of a file that was cut short by a full disk; and by something else.
    short = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598")
    with pytest.raises(DiskFull, match="No space left"), room_for(tmp_path / "a" / "b", 1 << 60):
        raise short
    with pytest.raises(RuntimeError, match="unexpected pos"), room_for(tmp_path / "a" / "b", 1):
        raise short
    with pytest.raises(OSError, match="Permission"), room_for(tmp_path / "a", 1):
        raise PermissionError(errno.EPERM, "Permission denied")
