"""How a batch goes through the layers of a sharded model. No torch here: options name it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Passing:
    """How a batch goes through the layers."""

    width: int
    """Tokens of a packed row."""
    tokens: int
    """Tokens of a micro-batch; a longer row goes alone."""
    whole_gradients: bool
    """Gradients are summed over ranks once per step, not once per micro-batch. Each rank then holds
    the whole gradient until it is."""
    share_prompts: bool = False
    """Siblings share their prompt, in models of linn's own."""


@dataclass(frozen=True)
class RankOptions:
    """What a trainer rank is told when it starts."""

    rank: int
    """Its number, from 0."""
    world: int
    """How many ranks there are."""
    meeting: str
    """Where they find each other."""
    device: str
    """`cpu` or `cuda`; of the GPUs it sees the first is its own."""
    passing: Passing
    """How a batch goes through the layers."""
    bfloat16: bool
    """Layers are gathered and computed in bfloat16."""
    recompute: bool
    """Only the inputs of each layer are kept for the backward pass."""
    host_moments: bool
    """AdamW's moments wait in the host's memory."""
    experts: int = 1
    """Ranks that hold the routed experts of a layer together."""
    context: int = 1
    """Ranks that compute a row together; they get the same samples."""


@dataclass(frozen=True)
class ReplicaOptions:
    """What a sampler is told when it starts."""

    device: str
    """`cpu` or `cuda`."""
    capacity: int
    """Rows decoded together."""
    cache_bytes: int | None
    """What their states may take; None: a quarter of the GPU's memory. On a GPU vLLM goes by
    `memory`."""
    tensor: int = 1
    """GPUs that hold it together; vLLM alone takes more than one."""
    memory: float = 0.9
    """Share of a GPU's memory that vLLM takes."""
    colocated: bool = False
    """Whether trainers take turns with it on its GPUs."""
    bfloat16: bool = False
    """Whether vLLM, and on a GPU linn's own sampler, take products in bfloat16."""
    arguments: dict[str, Any] = field(default_factory=dict)
    """Further ones of vLLM's engine, by its own names."""
