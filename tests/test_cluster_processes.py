"""A real cluster on this machine: its bytes beside the local engine's, and processes that die."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.processes import is_alive
from support.sampling import Request, sample_all, samples_of

from linn.engine.local import heartbeat
from linn.engine.open import open_engine
from linn.engine.protocol import Engine
from linn.errors import EngineLost, InfrastructureError
from linn.recipe.schema import ScaleConfig
from linn.scale import replicas
from linn.scale.cluster import ClusterEngine
from linn.types import Completion, Loss, Optim, Sampling

VOCAB = 64
MOPD = Loss("mopd", "sequence")
REQUESTS: list[Request] = [
    (tuple(range(1, 4 + i // 4)), Sampling(5 + i % 7, more=True), i) for i in range(24)
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from linn.bases.make import new_model

    folder = tmp_path_factory.mktemp("base")
    new_model(folder, VOCAB, seed=1)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterEngine]:
    tree = {"engine": "cluster", "device": "cpu", "trainers": {"ranks": 2, "sum": "step"}}
    engine = open_engine(ScaleConfig.model_validate(tree | {"samplers": {"replicas": 2}}))
    assert isinstance(engine, ClusterEngine)
    yield engine
    engine.close()


def two_turns(
    engine: Engine, between: Callable[[], object] = lambda: None
) -> list[list[Completion]]:
    """Conversations, and their going on from the states that were kept."""
    first = sample_all(engine.sampler, REQUESTS)
    between()
    longer: list[Request] = []
    for (ids, _, seed), done in zip(REQUESTS, first, strict=True):
        longer.append(((*ids, *done.ids, 7), Sampling(9), seed))
    return [first, sample_all(engine.sampler, longer)]


def cascade(engine: Engine, base: Path, folder: Path) -> list[Any]:
    """Everything that an engine gives: completions, metrics, scores, weights."""
    engine.load(base, Optim(clip=0.1))
    turns = two_turns(engine)
    batch = samples_of(REQUESTS, turns[0])
    metrics = engine.trainer.step(batch, MOPD, 1e-2)
    folder.mkdir()
    engine.export(folder)
    weights = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    scores = engine.score(base, [sample.tokens for sample in batch])
    return [turns, metrics, two_turns(engine), scores, weights]


@pytest.mark.long
def test_a_cluster_has_the_bytes_of_the_local_engine_of_the_same_dealing(
    base: Path, cluster: ClusterEngine, tmp_path: Path
) -> None:
    found = cascade(cluster, base, tmp_path / "cluster")
    with closing(open_engine(ScaleConfig(processes=2, device="cpu"))) as local:
        assert cascade(local, base, tmp_path / "local") == found


@pytest.mark.long
def test_samplers_that_take_turns_with_the_trainers_give_the_bytes_of_those_apart(
    base: Path, cluster: ClusterEngine, tmp_path: Path
) -> None:
    """Also where trainers compute between two turns, and where a sampler dies asleep."""
    trainers = {"ranks": 2, "sum": "step"}
    samplers = {"replicas": 2, "colocated": True}
    tree = {"engine": "cluster", "device": "cpu", "trainers": trainers, "samplers": samplers}
    with open_engine(ScaleConfig.model_validate(tree)) as engine:
        assert isinstance(engine, ClusterEngine)
        assert cascade(engine, base, tmp_path / "turns") == cascade(
            cluster, base, tmp_path / "apart"
        )

        def score() -> None:
            engine.score(base, [[1, 2, 3], [4, 5]])

        def score_and_kill() -> None:
            score()
            os.kill(engine.pids()["sampler 1"], signal.SIGKILL)

        expected = two_turns(cluster)
        assert two_turns(engine, score) == expected
        lost = engine.pids()["sampler 1"]
        assert two_turns(engine, score_and_kill) == expected
        assert engine.pids()["sampler 1"] != lost


def stop_at(process: Any, message: str, pid: int) -> None:
    """Stop a process as it gets a message."""
    send = process.send

    def sent(asked: str, arguments: tuple[Any, ...]) -> None:
        if asked == message:
            os.kill(pid, signal.SIGSTOP)
        send(asked, arguments)

    process.send = sent


@pytest.mark.long
def test_weights_that_are_broadcast_give_the_bytes_of_those_that_go_by_files(
    base: Path, cluster: ClusterEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a sampler dies with them, or stops while they are on their way."""
    trainers = {"ranks": 2, "sum": "step"}
    tree = {"engine": "cluster", "device": "cpu", "trainers": trainers, "carrier": "broadcast"}
    scale = ScaleConfig.model_validate(tree | {"samplers": {"replicas": 2}})
    with open_engine(scale) as engine:
        assert isinstance(engine, ClusterEngine)
        found = cascade(engine, base, tmp_path / "broadcast")
        assert cascade(cluster, base, tmp_path / "files") == found

        expected = two_turns(engine)
        lost = engine.pids()["sampler 1"]
        os.kill(lost, signal.SIGKILL)
        assert two_turns(engine) == expected
        assert engine.pids()["sampler 1"] != lost

        def train(engine: Engine) -> list[list[Completion]]:
            engine.trainer.step(samples_of(REQUESTS, expected[0]), MOPD, 1e-2)
            return two_turns(engine)

        # One stops as weights are sent to it: its watch ends it, and the trainers stay.
        pids = engine.pids()
        monkeypatch.setattr(heartbeat, "LOOK_S", 0.5)
        stop_at(engine._replicas.processes[0], "take_broadcast", pids["sampler 0"])
        assert train(engine) == train(cluster)
        ranks = {name for name, pid in engine.pids().items() if pids[name] == pid}
        assert ranks == {"trainer rank 0", "trainer rank 1"}


def in_the_middle(does: Callable[[], None]) -> threading.Thread:
    """Soon, while the main thread waits for the engine."""

    def later() -> None:
        time.sleep(0.2)
        does()

    thread = threading.Thread(target=later)
    thread.start()
    return thread


@pytest.mark.long
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_sampler_that_dies_or_stops_in_the_middle_is_not_seen_in_the_bytes(
    base: Path,
    cluster: ClusterEngine,
    monkeypatch: pytest.MonkeyPatch,
    what: signal.Signals,
) -> None:
    cluster.load(base, Optim())
    long: list[Request] = [(ids, Sampling(400), seed) for ids, _, seed in REQUESTS]
    whole = sample_all(cluster.sampler, long)

    if what is signal.SIGSTOP:
        monkeypatch.setattr(heartbeat, "LOOK_S", 0.5)
        monkeypatch.setattr(replicas, "LOOK_S", 0.5)
    lost = cluster.pids()["sampler 1"]
    thread = in_the_middle(lambda: os.kill(lost, what))
    assert sample_all(cluster.sampler, long) == whole
    thread.join()
    assert not is_alive(lost) and cluster.pids()["sampler 1"] != lost


@pytest.mark.long
def test_a_rank_that_dies_is_an_engine_lost_and_its_last_state_goes_on_bit_for_bit(
    base: Path, cluster: ClusterEngine, tmp_path: Path
) -> None:
    cluster.load(base, Optim())
    batch = samples_of(REQUESTS, sample_all(cluster.sampler, REQUESTS))
    cluster.trainer.step(batch, MOPD, 1e-2)
    cluster.save(tmp_path / "state")
    trained = cluster.trainer.step(batch, MOPD, 1e-2)
    done = sample_all(cluster.sampler, REQUESTS)

    # Between two calls; the others wait for it in the next.
    both = [cluster.pids()[f"trainer rank {rank}"] for rank in range(2)]
    os.kill(both[1], signal.SIGKILL)
    with pytest.raises(EngineLost, match=r"trainer rank 1 ended with exit code -9.*all ranks end"):
        cluster.trainer.step(batch, MOPD, 1e-2)
    assert not any(map(is_alive, both))

    cluster.load(base, Optim())
    cluster.restore(tmp_path / "state")
    assert cluster.trainer.step(batch, MOPD, 1e-2) == trained
    assert sample_all(cluster.sampler, REQUESTS) == done


def test_a_state_that_lost_a_file_is_an_error_and_no_lost_engine(
    cluster: ClusterEngine, base: Path, tmp_path: Path
) -> None:
    cluster.load(base, Optim())
    cluster.save(tmp_path / "state")
    next((tmp_path / "state").glob("__1_*.distcp")).unlink()
    ranks = [cluster.pids()[f"trainer rank {rank}"] for rank in range(2)]
    with pytest.raises(InfrastructureError, match="__1_.*distcp") as failed:
        cluster.restore(tmp_path / "state")
    assert not isinstance(failed.value, EngineLost) and all(map(is_alive, ranks))


@pytest.mark.long
def test_ranks_that_share_out_rows_and_experts_restart_from_their_state(
    base: Path, tmp_path: Path
) -> None:
    """A policy that is its own teacher; a rank that dies."""
    trainers = {"ranks": 2, "experts": 2, "context": 2}
    tree = {"engine": "cluster", "device": "cpu", "trainers": trainers}
    engine = open_engine(ScaleConfig.model_validate(tree))
    assert isinstance(engine, ClusterEngine)
    with engine:
        engine.load(base, Optim(clip=0.1))
        batch = samples_of(REQUESTS, sample_all(engine.sampler, REQUESTS))
        scores = engine.score(base, [sample.tokens for sample in batch])
        own = [replace(one, teacher=row) for one, row in zip(batch, scores, strict=True)]
        assert engine.trainer.step(own, MOPD, 1e-3)["teacher_gap"] == 0.0

        engine.save(tmp_path / "state")
        trained = engine.trainer.step(batch, MOPD, 1e-2)
        done = sample_all(engine.sampler, REQUESTS)
        os.kill(engine.pids()["trainer rank 1"], signal.SIGKILL)
        with pytest.raises(EngineLost, match="trainer rank 1 ended with exit code -9"):
            engine.trainer.step(batch, MOPD, 1e-2)

        engine.load(base, Optim(clip=0.1))
        engine.restore(tmp_path / "state")
        assert engine.trainer.step(batch, MOPD, 1e-2) == trained
        assert sample_all(engine.sampler, REQUESTS) == done
