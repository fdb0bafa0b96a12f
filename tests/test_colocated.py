"""Trainers and samplers on the same GPUs: never at once, whoever dies. No GPU is needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from support.fake_cluster import REQUESTS, Cluster, dies, messages
from support.fake_places import FakeProcess, drawn
from support.sampling import sample_all, samples_of

from linn.bases.make import new_model
from linn.errors import EngineLost, UserError
from linn.recipe.schema import ScaleConfig
from linn.scale.cluster import AT_REST
from linn.scale.open import _ranks, _samplers
from linn.scale.options import ReplicaOptions
from linn.scale.places import Died, Local, Role
from linn.scale.replica import Replica
from linn.types import Completion, Loss, Optim

MOPD = Loss("mopd", "sequence")


class Card:
    """Who holds the memory of the GPUs; refuses a message that would have both sides hold it."""

    def __init__(self, cluster: Cluster) -> None:
        self.holders: list[FakeProcess] = []
        self.asked: list[str] = []
        """Messages in order, those of one side at a time: `sampler generate`."""
        cluster.faults.append(self.watch)

    def watch(self, process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> None:
        side = process.name.rsplit(" ", 1)[0]
        if self.asked[-1:] != [f"{side} {message}"]:
            self.asked.append(f"{side} {message}")
        if message in AT_REST:
            return
        self.holders = [one for one in self.holders if one is not process and not one.ended]
        if message not in ("rest", "sleep"):
            others = [one.name for one in self.holders if not one.name.startswith(side)]
            assert not others, f"{process.name} gets {message} while {others} hold the GPUs"
            self.holders.append(process)


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path, colocated=True)


@pytest.fixture
def card(cluster: Cluster) -> Card:
    return Card(cluster)


def trained(cluster: Cluster, steps: int = 2) -> None:
    """As a stage does: sample, score, step, and once more from the new weights."""
    cluster.engine.load(Path("base"), Optim())
    for step in range(steps):
        done = cluster.sample()
        assert done == [drawn(*request, step) for request in REQUESTS]
        cluster.engine.score(Path("teacher"), [(1, 2, 3)])
        cluster.engine.trainer.step(samples_of(REQUESTS, done), MOPD, 0.1)
        cluster.engine.cpu_seconds()
    assert cluster.sample() == [drawn(*request, steps) for request in REQUESTS]


def test_each_side_leaves_the_gpus_before_the_other_computes(cluster: Cluster, card: Card) -> None:
    trained(cluster, steps=1)
    ranks, samplers = "trainer rank", "sampler"
    assert card.asked == [
        # The ranks are there, and rest, before the samplers open.
        *[f"{ranks} load", f"{ranks} rest", f"{samplers} load", f"{ranks} vocab"],
        # The weights are compared.
        *[f"{samplers} generate", f"{samplers} cpu_seconds", f"{samplers} sleep"],
        *[f"{ranks} score", f"{ranks} rest", f"{samplers} wake", f"{samplers} generate"],
        # Who sleeps stays asleep from the teacher's scores to the export.
        *[f"{samplers} cpu_seconds", f"{samplers} sleep", f"{ranks} score", f"{ranks} step"],
        *[f"{ranks} cpu_seconds", f"{ranks} export", f"{ranks} rest"],
        *[f"{samplers} wake", f"{samplers} take", f"{ranks} vocab"],
        *[f"{samplers} generate", f"{samplers} cpu_seconds", f"{samplers} sleep"],
        *[f"{ranks} score", f"{ranks} rest", f"{samplers} wake", f"{samplers} generate"],
    ]


def test_nobody_is_woken_or_put_to_rest_without_need(
    cluster: Cluster, card: Card, tmp_path: Path
) -> None:
    trained(cluster)
    del card.asked[:]
    cluster.sample()
    cluster.sample()
    cluster.engine.cpu_seconds()
    assert card.asked == ["sampler generate", "trainer rank cpu_seconds", "sampler cpu_seconds"]
    cluster.engine.score(Path("teacher"), [(1, 2)])
    cluster.engine.export(tmp_path)
    assert card.asked[-3:] == ["sampler sleep", "trainer rank score", "trainer rank export"]


def test_apart_nobody_sleeps(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    trained(cluster)
    asked = [message for process in cluster.places.processes for message in messages(process)]
    assert not {"sleep", "wake", "rest"} & set(asked)


@pytest.mark.parametrize("message", ["sleep", "wake", "generate", "take", "cpu_seconds", "load"])
@pytest.mark.parametrize("does", [dies, lambda process, arguments: "hangs"])
def test_a_sampler_that_is_lost_at_any_message_is_replaced_while_the_ranks_rest(
    cluster: Cluster, card: Card, message: str, does: Callable[..., Any]
) -> None:
    cluster.once("sampler 1", message, does)
    trained(cluster)
    lost, new = cluster.places.of("sampler 1")
    assert lost.ended == "killed" and messages(new)[0] == "load"
    assert len(cluster.places.of("sampler 0")) == 1


def test_a_sampler_that_died_asleep_is_replaced_when_it_is_woken(
    cluster: Cluster, card: Card
) -> None:
    trained(cluster)
    cluster.engine.score(Path("teacher"), [(1, 2)])
    asleep = cluster.places.of("sampler 0")[0]

    def fault(process: FakeProcess, message: str, arguments: tuple[Any, ...]) -> None:
        if process is asleep:
            raise Died(f"{process.name} ended with exit code -9")

    cluster.faults.append(fault)
    cluster.engine.cpu_seconds()
    assert len(cluster.places.of("sampler 0")) == 1
    assert cluster.sample() == [drawn(*request, 2) for request in REQUESTS]
    _, new = cluster.places.of("sampler 0")
    # It repeats the last batch, which conversations may go on from.
    assert messages(new) == ["load", "take", "generate", "wake", "generate"]


@pytest.mark.parametrize("message", ["sleep", "wake"])
def test_where_one_sampler_cannot_go_along_all_are_told_again(
    cluster: Cluster, message: str
) -> None:
    trained(cluster)
    asleep: set[str] = set()
    refused: list[str] = []

    def fault(process: FakeProcess, asked: str, arguments: tuple[Any, ...]) -> Any:
        side, _, number = process.name.rpartition(" ")
        if side != "sampler":
            assert asked in AT_REST or asked == "rest" or len(asleep) == 2, f"{asked}: {asleep}"
        elif asked == message and number == "1" and not refused:
            refused.append(asked)
            return False, UserError("no room")
        elif asked == "sleep":
            asleep.add(number)
        elif asked == "wake":
            asleep.discard(number)
        else:
            assert number not in asleep, f"{process.name} gets {asked} asleep"
        return None

    cluster.faults.append(fault)
    with pytest.raises(UserError, match="no room"):
        cluster.engine.score(Path("teacher"), [(1, 2)])
        cluster.engine.sampler.run(REQUESTS)
    assert cluster.sample() == [drawn(*request, 2) for request in REQUESTS]
    cluster.engine.score(Path("teacher"), [(1, 2)])
    assert refused


@pytest.mark.parametrize("message", ["load", "rest", "score", "step", "export"])
def test_a_rank_that_is_lost_ends_the_ranks_and_the_engine_can_be_loaded_again(
    cluster: Cluster, card: Card, message: str
) -> None:
    cluster.once("trainer rank 1", message, dies)
    with pytest.raises(EngineLost, match="trainer rank 1 ended with exit code -9"):
        trained(cluster)
    trained(cluster)


def test_the_samplers_turn_may_come_before_any_rank_is_there(cluster: Cluster, card: Card) -> None:
    judge = cluster.engine.sampler_of(Path("judge"))
    assert sample_all(judge, REQUESTS) == [drawn(*request, 100) for request in REQUESTS]
    assert card.asked == ["sampler generate"]
    trained(cluster)


@pytest.mark.slow
def test_linns_own_sampler_goes_on_with_conversations_whose_states_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new_model(tmp_path, 64, seed=1)
    (tmp_path / "tokenizer.json").write_text("{}")
    # A process of its own may flush these; this one goes on to other tests.
    monkeypatch.setattr(torch, "set_flush_denormal", lambda on: True)
    replica = Replica(ReplicaOptions(device="cpu", capacity=16, cache_bytes=1 << 24))
    replica.load(tmp_path, 1)

    def turns(between: Callable[[], None]) -> list[Completion]:
        _, first = replica.generate(None, REQUESTS, [0] * len(REQUESTS))
        between()
        more, known = [], []
        for (ids, how, seed), done in zip(REQUESTS, first, strict=True):
            more.append(((*ids, *done.ids, 9), how, seed))
            known.append(len(ids) + len(done.ids))
        return replica.generate(None, more, known)[1]

    def as_on_a_gpu() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(replica, "_device", torch.device("cuda"))
            replica.sleep()
        with pytest.raises(AssertionError, match="`wake` after `sleep`"):
            replica.generate(None, REQUESTS, [0] * len(REQUESTS))
        replica.wake()
        replica.wake()

    expected = turns(lambda: None)
    assert turns(replica.sleep) == expected, "a CPU keeps its states"
    anew = turns(as_on_a_gpu)
    assert [one.ids for one in anew] == [one.ids for one in expected]
    for one, other in zip(anew, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)


def test_a_sampler_has_the_gpus_of_its_ranks_whoever_starts_first_and_again() -> None:
    tree = {"replicas": 2, "tensor": 2, "engine": "vllm", "colocated": True}
    scale = ScaleConfig.model_validate(
        {"engine": "cluster", "trainers": {"ranks": 4}, "samplers": tree}
    )
    assert scale.devices == 4 and scale.samplers.memory_share == 0.5
    places = Local(gpus=["a", "b", "c", "d"])
    ranks, samplers = _ranks(scale, "cuda"), _samplers(scale, "cuda")
    assert [places._gpus_of(role) for role in samplers] == [["a", "b"], ["c", "d"]]
    for _ in range(2):
        assert [places._gpus_of(role) for role in ranks] == [["a"], ["b"], ["c"], ["d"]]
    assert [role.beside for role in _samplers(scale, "cpu")] == [(), ()]


def test_apart_each_role_keeps_gpus_of_its_own() -> None:
    places = Local(gpus=["a", "b", "c"])
    roles = [Role("trainer rank 0", "none", None, 1), Role("sampler 0", "none", None, 2)]
    for _ in range(2):
        assert [places._gpus_of(role) for role in roles] == [["a"], ["b", "c"]]


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (
            {"samplers": {"colocated": True, "replicas": 2, "tensor": 2, "engine": "vllm"}},
            "2 replicas of 2 take 4 GPUs, and trainers.ranks: 1 has 1; lower replicas",
        ),
        ({"engine": "local"}, "samplers: only a cluster has it"),
    ],
)
def test_what_cannot_be_colocated_is_refused(scale: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ScaleConfig.model_validate({"engine": "cluster", "samplers": {"colocated": True}} | scale)
