"""Weights that go from the first trainer rank to all samplers at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from support import model_families
from support.fake_cluster import REQUESTS, Cluster, dies, messages
from support.fake_places import FakeProcess, drawn
from support.sampling import sample_all, samples_of
from torch import Tensor, nn

from linn.engine.models.load import load
from linn.engine.models.transformers_lm import TransformersLM
from linn.errors import EngineLost, UserError
from linn.recipe.schema import ScaleConfig
from linn.scale import broadcast, rank, weights, writing
from linn.scale.broadcast import WeightGroup
from linn.scale.options import Passing, RankOptions
from linn.scale.weights import NotReached
from linn.scale.writing import in_files
from linn.types import Loss, Optim

MOPD = Loss("mopd", "sequence")
TENSORS = {
    "whole.weight": torch.arange(12.0).reshape(3, 4),
    "turned.weight": torch.arange(12.0).reshape(3, 4).T,
    "half": torch.linspace(0, 1, 5).bfloat16(),
    "count": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 3),
    "größe": torch.ones(1, dtype=torch.float64),
}


def test_every_member_of_a_group_receives_what_was_sent(tmp_path: Path) -> None:
    meeting, members = f"file://{tmp_path}/meeting", 4

    def member(place: int) -> list[tuple[str, Tensor]]:
        with closing(WeightGroup(meeting, place, members, torch.device("cpu"))) as group:
            if place > 0:
                return list(group.received())
            for name, tensor in TENSORS.items():
                group.send(name, tensor)
            group.end()
            return []

    with ThreadPoolExecutor(members) as pool:
        _, *received = pool.map(member, range(members))
    for came in received:
        assert [name for name, _ in came] == list(TENSORS)
        for name, tensor in came:
            assert tensor.dtype == TENSORS[name].dtype
            assert tensor.shape == TENSORS[name].shape
            assert torch.equal(tensor, TENSORS[name])


def test_a_sender_hears_that_a_member_has_left(tmp_path: Path) -> None:
    def member(place: int) -> bool:
        meeting = f"file://{tmp_path}/meeting"
        with closing(WeightGroup(meeting, place, 2, torch.device("cpu"))) as group:
            if place == 0:
                with pytest.raises(NotReached):
                    for _ in range(1000):
                        group.send("weight", torch.zeros(100_000))
            else:
                next(group.received())
        return True

    with ThreadPoolExecutor(2) as pool:
        assert all(pool.map(member, range(2)))


def test_a_member_that_does_not_come_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast, "_MEETS", timedelta(seconds=0.2))
    with pytest.raises(NotReached, match="not all of 2 processes met within 0.2 s"):
        WeightGroup(f"file://{tmp_path}/meeting", 0, 2, torch.device("cpu"))


@pytest.mark.parametrize("family", ["qwen3", "gpt-oss", "granite-hybrid", "gpt2"])
def test_a_family_sends_the_names_that_it_saves(family: str, tmp_path: Path) -> None:
    folder = model_families.write(family, tmp_path / "base")
    model = load(folder)
    assert isinstance(model, TransformersLM)
    model.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")

    inner: nn.Module = model.inner
    state = dict(inner.named_parameters(remove_duplicate=False))
    state |= {name: value for name, value in inner.named_buffers() if name in inner.state_dict()}
    sent = in_files(inner, state)
    assert sent.keys() == saved.keys()
    for name, tensor in sent.items():
        assert torch.equal(tensor, saved[name]), name


# ---------------------------------------------------------------- who is lost


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path, broadcast=True)
    made.engine.load(tmp_path / "base", Optim())
    return made


def trained(cluster: Cluster) -> None:
    """One step, so that the weights are in no folder."""
    done = cluster.sample()
    cluster.engine.trainer.step(samples_of(REQUESTS, done), MOPD, 0.1)


def test_a_step_s_weights_go_to_all_samplers_once_and_no_file_is_written(
    cluster: Cluster,
) -> None:
    trained(cluster)
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    cluster.sample()
    for process in cluster.places.processes:
        name = "broadcast" if process.name.startswith("trainer") else "take_broadcast"
        assert messages(process).count(name) == 1
        assert not {"take", "export"} & set(messages(process))


def test_a_sampler_that_is_lost_later_reads_the_weights_from_files(cluster: Cluster) -> None:
    trained(cluster)
    cluster.once("sampler 1", "generate", dies)
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    _, new = cluster.places.of("sampler 1")
    assert messages(new)[:2] == ["load", "take"]
    # Lost again, it reads the same files.
    cluster.once("sampler 1", "generate", dies)
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    assert messages(cluster.places.of("trainer rank 0")[0]).count("export") == 1


def test_a_sampler_that_died_between_two_batches_is_replaced_before_weights_are_sent(
    cluster: Cluster,
) -> None:
    trained(cluster)
    cluster.once("sampler 0", "pid", dies)
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    _, new = cluster.places.of("sampler 0")
    assert messages(new)[:3] == ["load", "pid", "take_broadcast"]


def test_a_sampler_lost_after_a_step_samples_another_model_without_the_weights_that_are_gone(
    cluster: Cluster,
) -> None:
    trained(cluster)
    cluster.sample()
    cluster.engine.trainer.step(samples_of(REQUESTS, cluster.sample()), MOPD, 0.1)
    cluster.once("sampler 0", "generate", dies)
    judge = cluster.engine.sampler_of(Path("judge"))
    sample_all(judge, REQUESTS)
    _, new = cluster.places.of("sampler 0")
    assert messages(new) == ["load", "generate"]
    assert cluster.sample() == [drawn(*request, 2) for request in REQUESTS]


def test_a_sampler_lost_while_weights_are_sent_is_no_end_of_the_trainers(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(cluster)
    cluster.once("sampler 1", "take_broadcast", dies)
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    for sampler in ("sampler 0", "sampler 1"):
        _, new = cluster.places.of(sampler)
        assert messages(new)[:2] == ["load", "take"]
    assert len(cluster.places.of("trainer rank 0")) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "sampler 1 ended with exit code -9" in said and "new samplers read the weights" in said


def test_a_sender_that_does_not_reach_all_has_new_samplers_read_files(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(cluster)
    cluster.once("trainer rank 0", "broadcast", lambda process, arguments: (True, "no route"))
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    assert [messages(two[1])[:2] for two in map(cluster.places.of, ("sampler 0", "sampler 1"))] == [
        ["load", "take"]
    ] * 2
    assert "engine: no route; new samplers read" in capsys.readouterr().err


def test_a_sampler_that_breaks_off_says_why_and_new_ones_read_files(
    cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(cluster)
    missed, refuses = NotReached("connection reset"), RuntimeError("no such tensor: x")
    cluster.once("trainer rank 0", "broadcast", lambda *_: (True, "connection reset"))
    cluster.once("sampler 0", "take_broadcast", lambda *_: (False, missed))
    cluster.once("sampler 1", "take_broadcast", lambda *_: (False, refuses))
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    said = " ".join(capsys.readouterr().err.split())
    assert "sampler 1 has not taken the weights: no such tensor: x; new samplers" in said


def test_a_tensor_that_cannot_be_made_whole_is_an_error_of_the_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other ranks wait for this one: to go on would have them wait for ever."""

    def tensors(*_: Any) -> Iterator[tuple[str, Tensor]]:
        yield "fine", torch.zeros(1)
        raise RuntimeError("can't allocate memory")

    class Group(WeightGroup):
        def __init__(self, *_: Any) -> None:
            self._device = torch.device("cpu")

        def send(self, *_: Any) -> None:
            """Nobody receives."""

        def close(self) -> None:
            """Nothing to leave."""

    monkeypatch.setattr(writing, "held_tensors", tensors)
    monkeypatch.setattr(rank, "WeightGroup", Group)
    first = rank.Rank.__new__(rank.Rank)
    first.options = RankOptions(0, 2, "", "cpu", Passing(64, 64, False), False, False, False)
    first.how = first._trainer = Mock()
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        first.broadcast("", 2, file_names=False)


def test_a_sampler_that_goes_silent_with_the_weights_is_not_waited_for(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(weights, "_LAST_LOOKS", 3)
    trained(cluster)
    cluster.once("sampler 1", "take_broadcast", lambda process, arguments: "hangs")
    assert cluster.sample() == [drawn(*request, 1) for request in REQUESTS]
    said = " ".join(capsys.readouterr().err.split())
    assert "sampler 1 has not put the weights in place for 15 s; new samplers read" in said


def test_a_rank_lost_while_weights_are_sent_ends_all(cluster: Cluster) -> None:
    trained(cluster)
    cluster.once("trainer rank 0", "broadcast", dies)
    with pytest.raises(EngineLost, match="trainer rank 0 ended .*all ranks ended"):
        cluster.sample()
    assert all(process.ended == "killed" for process in cluster.places.processes)
    cluster.engine.load(Path("base"), Optim())
    assert cluster.sample() == [drawn(*request, 0) for request in REQUESTS]


def test_a_refusal_that_no_new_start_cures_is_raised_as_itself(cluster: Cluster) -> None:
    trained(cluster)

    def refuses(process: FakeProcess, arguments: tuple[Any, ...]) -> Any:
        return False, UserError("vLLM has no room for one conversation")

    cluster.once("sampler 1", "take_broadcast", refuses)
    with pytest.raises(UserError, match="^vLLM has no room for one conversation$"):
        cluster.sample()


def test_who_fails_while_weights_are_sent_says_why(cluster: Cluster) -> None:
    trained(cluster)

    def fails(process: FakeProcess, arguments: tuple[Any, ...]) -> Any:
        return False, RuntimeError("weights that did not come from the trainers: x")

    cluster.once("sampler 1", "take_broadcast", fails)
    with pytest.raises(
        EngineLost, match="sampler 1 has not taken the weights: .* did not come from the"
    ):
        cluster.sample()


def test_samplers_on_the_trainers_gpus_take_files() -> None:
    tree = {"engine": "cluster", "carrier": "broadcast", "samplers": {"colocated": True}}
    with pytest.raises(ValidationError, match="broadcast needs .* GPUs of their own.*/dev/shm"):
        ScaleConfig.model_validate(tree)
    with pytest.raises(ValidationError, match="carrier: only a cluster has it"):
        ScaleConfig.model_validate({"carrier": "broadcast"})
