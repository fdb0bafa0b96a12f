"""SFT, GRPO and MOPD by Ray, with two trainer ranks and two vLLM replicas, whoever dies."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cluster_models import WRITERS, Figures
from support.runs import fingerprint

from linn.engine.open import open_engine
from linn.recipe import load as recipes
from linn.recipe.schema import ScaleConfig
from linn.run import run as run_module
from linn.run.run import Run
from linn.scale import open as opening
from linn.scale.cluster import ClusterEngine
from linn.scale.places import Role

LOCAL = {"processes": 2, "width": 512}
CLUSTER = {
    "engine": "cluster",
    "device": "cpu",
    "width": 512,
    "capacity": 64,
    "cache": 64,
    "trainers": {"ranks": 2, "sum": "step"},
    "samplers": {"engine": "vllm", "replicas": 2},
    "restarts": 1,
}
STAGES = [
    {"name": "sft", "kind": "sft", "steps": 4, "batch": 8, "lr": 3e-3},
    {
        "name": "rl",
        "kind": "rl",
        "steps": 4,
        "prompts": 4,
        "rollouts": 4,
        "max_tokens": 24,
        "save_every": 1,
        "kl": 0.1,  # so that every batch trains, whatever its rewards
        "temperature": 0.8,
    },
    {
        "name": "mopd",
        "kind": "distill",
        "steps": 3,
        "prompts": 4,
        "rollouts": 4,
        "max_tokens": 24,
        "teachers": {"arithmetic": "sft", "mcqa": "rl"},
    },
]
CLOSE = 1e-5
"""Nats of `mismatch_max`; vLLM and the trainers both compute in float32."""


def go(
    folder: Path,
    base: Path,
    scale: dict[str, Any],
    does: Callable[[ClusterEngine], None],
    stages: Sequence[dict[str, Any]] = STAGES,
) -> None:
    """Run the cascade in this process, with `does` done to each engine that it opens."""
    tree = {
        "name": "small",
        "model": str(base),
        "domains": {"arithmetic": {}, "mcqa": {}},
        "evaluate": {"test": 4, "validation": 4, "max_tokens": 8},
        "scale": scale,
        "stages": stages,
    }

    def opened(config: ScaleConfig) -> Any:
        engine = open_engine(config)
        if isinstance(engine, ClusterEngine):
            does(engine)
        return engine

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "open_engine", opened)
        Run(recipes.parse(tree, "t"), folder).go()


def results(folder: Path) -> dict[str, str]:
    """All that must not depend on who died."""
    kept = fingerprint(folder)
    del kept["recipe.yaml"]
    return kept


def metrics(folder: Path, stage: str) -> list[dict[str, float]]:
    lines = (folder / "stages" / stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


class Deaths:
    """Kills a sampler while it samples and a trainer rank while it trains, once each."""

    def __init__(self, sampling: int, training: int) -> None:
        """At which batch sampled, and before which step, counted over the run."""
        self.left = {"sampler 1": sampling, "trainer rank 1": training}
        self.killed: list[str] = []

    def watch(self, engine: ClusterEngine) -> None:
        sample, step = engine.sample, engine.step

        def sampled(shares: Any) -> Any:
            self._count(engine, "sampler 1")
            return sample(shares)

        def stepped(arguments: Any) -> Any:
            self._count(engine, "trainer rank 1")
            return step(arguments)

        engine.sample = sampled  # type: ignore[method-assign]
        engine.step = stepped  # type: ignore[method-assign]

    def _count(self, engine: ClusterEngine, name: str) -> None:
        self.left[name] -= 1
        if self.left[name] or name not in (pids := engine.pids()):
            return
        self.killed.append(name)
        threading.Timer(0.1, os.kill, (pids[name], signal.SIGKILL)).start()


def have_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a cluster's processes are placed as on GPUs, and compute on the CPU."""

    def as_on_gpus(make: Callable[[ScaleConfig, str], list[Role]]) -> Any:
        def made(scale: ScaleConfig, device: str) -> list[Role]:
            roles = make(scale, "cuda")
            return [replace(role, options=replace(role.options, device=device)) for role in roles]

        return made

    for name in ("_ranks", "_samplers"):
        monkeypatch.setattr(opening, name, as_on_gpus(getattr(opening, name)))


def test_samplers_in_turn_by_ray_give_the_bytes_of_those_of_local_places_whoever_dies(
    bases: dict[str, Path],
    tmp_path: Path,
    figures: Figures,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ray_with_gpus: Callable[[Sequence[str]], None],
) -> None:
    scale = CLUSTER | {"samplers": {"engine": "linn", "replicas": 2, "colocated": True}}
    grpo = [STAGES[1] | {"steps": 3}]
    go(tmp_path / "local", bases["qwen3"], scale, lambda engine: None, grpo)

    ray_with_gpus("57")
    have_gpus(monkeypatch)
    deaths = Deaths(sampling=2, training=3)

    def watch(engine: ClusterEngine) -> None:
        samplers = engine._options.samplers
        assert [role.beside for role in samplers] == [("trainer rank 0",), ("trainer rank 1",)]
        deaths.watch(engine)

    start = time.perf_counter()
    go(tmp_path / "ray", bases["qwen3"], scale | {"places": "ray"}, watch, grpo)
    figures.took("qwen3: GRPO in turn by Ray, a sampler and a rank killed", start)
    assert sorted(deaths.killed) == ["sampler 1", "trainer rank 1"]
    said = capsys.readouterr()
    assert "a new sampler 1 does its share again" in said.err
    assert "the engine starts again from the last saved state" in said.out + said.err
    assert results(tmp_path / "ray") == results(tmp_path / "local")


@pytest.mark.parametrize("kind", list(WRITERS))
def test_a_cascade_by_ray_and_vllm_and_the_same_bytes_whoever_dies(
    kind: str,
    bases: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
    figures: Figures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = tmp_path_factory.getbasetemp()
    # Weights by files and, twice, from the first rank to all.
    broadcast = CLUSTER | {"carrier": "broadcast"}
    scales = {
        "whole": CLUSTER | {"places": "ray"},
        "local-places": broadcast | {"places": "local"},
    }
    for name, scale in scales.items():
        start = time.perf_counter()
        place = scale["places"]
        go(root / f"{kind}-{name}", bases[kind], scale, lambda engine: None)
        figures.took(f"{kind}: the run, places: {place}", start)
    whole = root / f"{kind}-whole"
    assert results(root / f"{kind}-local-places") == results(whole)

    deaths = Deaths(sampling=6, training=6)
    go(root / f"{kind}-lost", bases[kind], broadcast | {"places": "ray"}, deaths.watch)
    said = capsys.readouterr()
    assert sorted(deaths.killed) == ["sampler 1", "trainer rank 1"]
    # It dies in its share, or just before, as weights are sent to it.
    again = ("a new sampler 1 does its share again", "new samplers read the weights that were sent")
    assert any(words in said.err for words in again)
    assert "the engine starts again from the last saved state" in said.out + said.err
    assert results(root / f"{kind}-lost") == results(whole)

    start = time.perf_counter()
    go(root / f"{kind}-local", bases[kind], LOCAL, lambda engine: None)
    figures.took(f"{kind}: the run, local engine", start)
    # Nothing is sampled before the second stage.
    weights = "stages/01-sft/checkpoints/step-0004/model.safetensors"
    assert results(root / f"{kind}-local")[weights] == results(whole)[weights]
    for stage in ("02-rl", "03-mopd"):
        check_steps(kind, stage, whole, root / f"{kind}-local", figures)


def check_steps(kind: str, stage: str, whole: Path, local: Path, figures: Figures) -> None:
    """The mismatch of each step, and how long one takes beside the local engine's."""
    rows = metrics(whole, stage)
    told = [row["mismatch_max"] for row in rows]
    figures.note(f"{kind} {stage}: mismatch at most, by step", [f"{one:.1e}" for one in told])
    assert max(told) < CLOSE
    for name, folder in (("cluster", whole), ("local", local)):
        walls = sorted(row["wall_s"] for row in metrics(folder, stage))
        cpus = sorted(row["cpu_s"] for row in metrics(folder, stage))
        middle = len(walls) // 2
        seconds = {"wall": round(walls[middle], 2), "cpu": round(cpus[middle], 2)}
        figures.note(f"{kind} {stage}: median step, {name}", seconds)
