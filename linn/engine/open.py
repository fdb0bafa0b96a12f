"""The only constructor of engines: a recipe's `scale` decides which."""

from __future__ import annotations

from linn.engine.local.device import gpus, local_device
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
    return LocalEngine(
        # One GPU is filled by one process.
        processes=scale.processes if device == "cpu" else 1,
        width=scale.width,
        capacity=scale.capacity,
        cache_bytes=None if scale.cache is None else scale.cache_bytes(),
        autocast=scale.precision == "bfloat16",
        recompute=scale.recompute,
        share_prompts=scale.share_prompts,
        device=device,
        host_moments=scale.trainers.moments == "host",
    )
