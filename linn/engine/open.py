"""The only constructor of engines: a recipe's `scale` decides which."""

from __future__ import annotations

from linn.engine.local.device import gpus, local_device
from linn.engine.local.host_memory import machine_bytes
from linn.engine.protocol import Engine
from linn.recipe.schema import ScaleConfig


def open_engine(scale: ScaleConfig) -> Engine:
    """An engine for this `scale`. Its processes start when it is first used."""
    if scale.engine == "cluster":
        from importlib import import_module

        # By name: nothing but this line of the engine's package knows of the larger ones.
        cluster: Engine = import_module("linn.scale.open").open_cluster(scale)
        return cluster

    from linn.engine.local.controller import LocalEngine

    device = local_device(scale, gpus())
    on_gpu = device != "cpu"
    return LocalEngine(
        # One GPU is filled by one process.
        processes=1 if on_gpu else scale.processes,
        width=scale.width,
        capacity=scale.capacity,
        cache_bytes=cache_bytes(scale, on_gpu),
        autocast=scale.precision == "bfloat16",
        recompute=scale.recompute,
        share_prompts=scale.share_prompts,
        device=device,
        host_moments=scale.trainers.moments == "host",
    )


def cache_bytes(scale: ScaleConfig, on_gpu: bool) -> int | None:
    """What a process may keep of conversations; None: its share of a GPU, which it knows itself."""
    if on_gpu and scale.cache is None:
        return None
    return scale.cache_bytes(machine_bytes(), on_gpu=False)
