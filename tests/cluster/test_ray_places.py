"""Ray on this machine."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from linn.errors import InfrastructureError, UserError
from linn.scale import ray_places
from linn.scale.options import ReplicaOptions
from linn.scale.places import Died, Process, Role
from linn.scale.ray_places import Ray


def test_an_exchange_that_is_not_there_is_refused_before_any_process_starts(tmp_path: Path) -> None:
    role = Role("trainer rank 0", "linn.scale.rank", None)
    with closing(Ray(tmp_path / "missing", [role])) as places:
        with pytest.raises(UserError, match="scale.exchange: .*missing cannot be written"):
            places.start([role])
        (tmp_path / "missing").mkdir()
        folder = places.folder()
        assert folder.parent == tmp_path / "missing" and folder.is_dir()
    assert not folder.exists()


def telling(name: str, gpus: int = 0, beside: Sequence[str] = ()) -> Role:
    return Role(name, "support.environments", None, gpus, tuple(beside))


def told(processes: Sequence[Process], variable: str = "CUDA_VISIBLE_DEVICES") -> list[Any]:
    """Its value in each."""
    for process in processes:
        process.send("tell", (variable,))
    replies = [process.receive() for process in processes]
    assert all(fine for fine, _ in replies), replies
    return [value for _, value in replies]


def test_a_process_sees_the_gpus_of_those_it_is_beside_whoever_starts_first_and_again(
    ray_with_gpus: Any,
) -> None:
    ray_with_gpus("34567")
    names = [f"trainer rank {number}" for number in range(4)]
    ranks = [telling(name, gpus=1) for name in names]
    roles = [telling("both", beside=names[:2]), telling("one", beside=names[1:2])]
    # As Ray once did by default: it hides all GPUs from a process that asks it for none.
    hidden = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1"}
    roles.append(replace(telling("third", beside=names[2:3]), environment=hidden))
    roles += [telling("apart", gpus=1), telling("cpu")]
    with closing(Ray(None, [*ranks, *roles])) as places:
        others = places.start(roles)
        both, one, third, apart, _ = told(others)
        processes = places.start(ranks)
        of_ranks = told(processes)
        assert (both, one, third) == (",".join(of_ranks[:2]), of_ranks[1], of_ranks[2])
        assert sorted([*of_ranks, apart]) == ["3", "4", "5", "6", "7"]
        assert told(others[:3], "HIP_VISIBLE_DEVICES") == [both, one, third]
        threads = told([*others, *processes], "MKL_NUM_THREADS")
        assert threads == [None] * 4 + ["1"] + [None] * 4

        os.kill(others[0].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        with pytest.raises(Died, match="both is gone"):
            told(others[:1])
        others[0].end(kill=True)
        assert told(places.start(roles[:1])) == [both]
        for process in processes:
            process.end(kill=True)
        assert told(places.start(ranks)) == of_ranks
        assert told(others[1:3]) == [one, third]


def test_a_vllm_of_two_processes_opens_where_ray_placed_it(bases: dict[str, Path]) -> None:
    options = ReplicaOptions(device="cpu", capacity=4, cache_bytes=24 << 20, tensor=2)
    role = Role("sampler 0", "linn.scale.vllm", options)
    with closing(Ray(None, [role])) as places:
        (process,) = places.start([role])
        process.send("load", (bases["qwen3"], 1))
        assert process.receive() == (True, None)


def test_gpus_that_no_machine_has_together_are_said(
    monkeypatch: pytest.MonkeyPatch, ray_with_gpus: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray_places, "SAID_S", 0.1)
    monkeypatch.setattr(ray_places, "PLACED_S", 0.1)
    ray_with_gpus("3")
    roles = [telling("a", gpus=1), telling("b", gpus=1), telling("c", beside="ab")]
    words = "no room for 3 processes with 2 GPUs, 2 of them on one machine: it has .* 1 GPUs in all"
    with closing(Ray(None, roles)) as places:
        with pytest.raises(InfrastructureError, match=words):
            places.start(roles)
        assert "waiting for up to" in capsys.readouterr().err
