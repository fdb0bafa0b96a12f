"""vLLM's side: the replica that `samplers: {engine: vllm}` opens, on the CPU."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from bench.peers import workload
from bench.peers.turns import Turns
from linn.engine.open import cache_bytes
from linn.recipe.scale import ScaleConfig
from linn.scale.options import ReplicaOptions
from linn.scale.vllm import VllmReplica
from linn.types import Sampling


def rollout(task: dict[str, Any], turns: Turns) -> None:
    """Prompts of siblings are computed once here too; as many rows as linn has by default.

    Its setting: `cache`, MiB for keys and values; without it as many bytes as linn has by default.
    """
    groups = workload.GROUPS["rollout"]
    lengths = workload.LENGTHS[task["lengths"]]
    how = Sampling(lengths.most, stop=lengths.stops)
    prompts = [tuple(ids) for ids in workload.prompts_of(groups)]
    seeds = count()
    scale = ScaleConfig(processes=1, device="cpu", cache=task["setting"].get("cache"))
    replica = VllmReplica(ReplicaOptions("cpu", scale.capacity, cache_bytes(scale, on_gpu=False)))
    replica.load(Path(task["folder"]), 1)

    def sample() -> int:
        asked = [(ids, how, next(seeds)) for ids in prompts for _ in range(groups.siblings)]
        done = replica.generate(None, asked, [0] * len(asked))[1]
        return sum(len(one.ids) for one in done)

    turns.play(sample)
