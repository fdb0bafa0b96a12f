"""Processes that Ray places; no Ray here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from linn.recipe.schema import ScaleConfig
from linn.scale.open import _ranks, _samplers
from linn.scale.places import Role
from linn.scale.ray_places import RayProcess, bundles_of, dealt


def test_names_of_files_hold_wherever_ray_runs_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Any] = []

    def remote(message: str, arguments: tuple[Any, ...]) -> str:
        sent.extend([message, *arguments])
        return "reference"

    actor = SimpleNamespace(answer=SimpleNamespace(remote=remote))
    process = RayProcess("trainer rank 0", actor, None)
    monkeypatch.chdir(tmp_path)
    process.send("save", (Path("runs/t"), Path("/shared/x"), 3, None))
    assert sent == ["save", tmp_path / "runs/t", Path("/shared/x"), 3, None]
    assert process.answer == "reference"


def roles_of(device: str, ranks: int, replicas: int, tensor: int, colocated: bool) -> list[Role]:
    samplers = {"engine": "vllm", "replicas": replicas, "tensor": tensor, "colocated": colocated}
    tree = {"engine": "cluster", "places": "ray", "trainers": {"ranks": ranks}}
    scale = ScaleConfig.model_validate(tree | {"samplers": samplers})
    return [*_ranks(scale, device), *_samplers(scale, device)]


def names(roles: list[Role]) -> list[list[str]]:
    return [[role.name for role in bundle] for bundle in bundles_of(roles)]


def test_a_replica_and_the_ranks_that_it_is_beside_share_a_bundle() -> None:
    assert names(roles_of("cuda", ranks=5, replicas=2, tensor=2, colocated=True)) == [
        ["trainer rank 0", "trainer rank 1", "sampler 0"],
        ["trainer rank 2", "trainer rank 3", "sampler 1"],
        ["trainer rank 4"],
    ]
    alone = [["trainer rank 0"], ["trainer rank 1"], ["sampler 0"]]
    assert names(roles_of("cuda", ranks=2, replicas=1, tensor=2, colocated=False)) == alone
    assert names(roles_of("cpu", ranks=2, replicas=1, tensor=2, colocated=True)) == alone


def test_roles_in_any_order_see_the_gpus_of_those_beside_them() -> None:
    a, b, c = Role("a", "none", None, 1), Role("b", "none", None, 1), Role("c", "none", None, 2)
    both, last = (
        Role("both", "none", None, beside=("c", "a")),
        Role("last", "none", None, beside=("c",)),
    )
    for roles in ([both, last, a, b, c], [b, c, last, a, both]):
        alone, shared = sorted(bundles_of(roles), key=len)
        assert bundles_of(roles)[0][0] is roles[0]
        assert alone == [b] and shared == [role for role in roles if role is not b]
        seen = dealt(shared, ["4", "5", "6"])
        assert sorted(seen["a"] + seen["c"]) == ["4", "5", "6"] and len(seen["c"]) == 2
        assert seen["both"] == seen["c"] + seen["a"] and seen["last"] == seen["c"]
