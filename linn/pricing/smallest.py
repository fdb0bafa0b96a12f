"""The smallest cluster that holds what one GPU does not. Arithmetic, no torch."""

from __future__ import annotations

from typing import Any

from linn.pricing.layout import (
    MOST_RANKS,
    Layout,
    changed,
    fits_with,
    new_keys,
    sampler_remedy,
    ways_to_share,
)
from linn.recipe.scale import SamplersConfig, ScaleConfig, TrainersConfig


def smallest_cluster(scale: ScaleConfig) -> ScaleConfig:
    """One rank and one sampler that hold as little as they can; `smallest_that_fits` adds ranks."""
    least: dict[str, Any] = {
        "engine": "cluster",
        "device": "cuda",
        "recompute": True,
        "trainers": TrainersConfig(moments="host"),
        "samplers": SamplersConfig(),
    }
    return scale.model_copy(update=least)


def smallest_that_fits(smallest: Layout) -> str:
    """The keys of the cluster with fewest ranks that fits."""
    scale, row = smallest.scale, smallest.row
    for ranks in range(1, MOST_RANKS):
        for shares in ways_to_share(smallest.shape, ranks):
            if fits_with(smallest, changed(scale, **shares, ranks=ranks), row):
                return _named(smallest, {"ranks": ranks} | new_keys(scale, shares))
    return f"no cluster of up to {MOST_RANKS} ranks holds a row of {row:,} tokens"


def _named(smallest: Layout, keys: dict[str, int]) -> str:
    trainers = ", ".join(f"{key}: {value}" for key, value in keys.items())
    samplers = "engine: linn"
    if not smallest.conversations:
        samplers = sampler_remedy(smallest).removeprefix("fits with ")
    return (
        "a cluster (docs/cluster.md) fits with engine: cluster, recompute: true, "
        f"trainers: {{{trainers}, moments: host}}; its samplers with {samplers}"
    )
